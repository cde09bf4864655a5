"""Each guard complains about what it guards against, and about nothing else."""

from pathlib import Path

import pytest
from nbformat import NotebookNode, v4

from tests.lessons import guards

ALT = "a heat map of four rows, brightest on the diagonal"


def notebook(*cells: NotebookNode) -> NotebookNode:
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "3"},
        "language_info": {"name": "python"},
    }
    return v4.new_notebook(cells=list(cells), metadata=metadata)


def code(
    source: str = "1", *outputs: NotebookNode, count: int = 1, tags: tuple = ()
) -> NotebookNode:
    metadata = {"tags": list(tags)} if tags else {}
    return v4.new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


def display(kind: str, content: str, alt: str = "") -> NotebookNode:
    metadata = {kind: {"alt": alt}} if alt else {}
    return v4.new_output("display_data", data={kind: content}, metadata=metadata)


ERROR = v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
STDERR = v4.new_output("stream", name="stderr", text="careful")


def test_a_cell_run_twice_or_never_is_miscounted() -> None:
    assert not list(guards.miscounted(notebook(code(count=1), code(count=2))))
    assert list(guards.miscounted(notebook(code(count=1), code(count=3))))
    assert list(guards.miscounted(notebook(code(count=1), code(count=None))))


def test_an_error_must_be_announced_and_come() -> None:
    assert not list(guards.failing(notebook(code("x", ERROR, tags=("raises-exception",)))))
    assert list(guards.failing(notebook(code("x", ERROR))))
    assert list(guards.failing(notebook(code("x", tags=("raises-exception",)))))
    assert list(guards.failing(notebook(code("x", STDERR))))


@pytest.mark.parametrize(
    "text",
    ["<function f at 0x7f3a2b1c>", "/tmp/ipykernel_12/3.py:1", "/home/ada/lessons", "/root/x"],
)
def test_addresses_and_paths_of_the_machine_are_found(text: str) -> None:
    assert list(guards.changeable(notebook(code("x", display("text/plain", text)))))


def test_packed_numbers_are_not_taken_for_addresses() -> None:
    page = display("text/html", f"<script>const state = '{'A0x12345678' * 9}'</script>")
    assert not list(guards.changeable(notebook(code("x", page))))


def test_stored_widgets_are_found() -> None:
    view = display("application/vnd.jupyter.widget-view+json", "{}")
    assert list(guards.changeable(notebook(code("x", view))))
    stateful = notebook(code())
    stateful.metadata.widgets = {}
    assert list(guards.changeable(stateful))


def test_an_output_that_is_not_compared_needs_a_reason() -> None:
    tag = ("nbval-ignore-output",)
    assert not list(guards.uncompared(notebook(code("# Times differ.\nrun()", tags=tag))))
    assert list(guards.uncompared(notebook(code("run()", tags=tag))))
    assert list(guards.uncompared(notebook(code("# NBVAL_SKIP\nrun()"))))


@pytest.mark.parametrize(
    "cell",
    [
        code("x", display("image/png", "AAAA", ALT)),
        code("x", display("text/html", f'<img src="data:" alt="{ALT}">')),
        code("x", display("text/html", f'<svg role="img" aria-label="{ALT}"></svg>')),
        code("x", display("image/svg+xml", f"<svg><title>{ALT}</title><path/></svg>")),
        code("x", display("text/html", '<svg aria-hidden="true"></svg>')),
        v4.new_markdown_cell(f"![{ALT}](figures/map.svg)"),
    ],
)
def test_a_described_picture_passes(cell: NotebookNode) -> None:
    assert not list(guards.undescribed(notebook(cell)))


@pytest.mark.parametrize(
    "cell",
    [
        code("x", display("image/png", "AAAA")),
        code("x", display("image/png", "AAAA", "figure")),
        code("x", display("text/html", '<img src="data:">')),
        code("x", display("text/html", "<svg><path/></svg>")),
        code("x", display("text/html", "<canvas></canvas>")),
        code("x", display("image/svg+xml", "<svg></svg>")),
        v4.new_markdown_cell("![](figures/map.svg)"),
        v4.new_markdown_cell('<img src="figures/map.svg">'),
    ],
)
def test_a_picture_without_a_description_is_found(cell: NotebookNode) -> None:
    assert list(guards.undescribed(notebook(cell)))


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("[there](other.ipynb)", 0),
        ("[there](other.ipynb#Its-heading)", 0),
        ("[here](#This-heading)", 0),
        ("[away](https://arxiv.org/abs/1706.03762)", 0),
        ("[nowhere](missing.ipynb)", 1),
        ("[no such part](other.ipynb#Gone)", 1),
        ("[no such part](#Gone)", 1),
        (f"![{ALT}](figures/missing.svg)", 1),
    ],
)
def test_links_are_followed(text: str, complaints: int, tmp_path: Path) -> None:
    (tmp_path / "other.ipynb").touch()
    other = notebook(v4.new_markdown_cell("## Its heading"))
    page = notebook(v4.new_markdown_cell(f"# This `heading`\n\n{text}"))
    assert len(list(guards.dangling(page, tmp_path, {"other.ipynb": other}))) == complaints


def test_long_cells_are_found() -> None:
    short, long, endless = ("x\n" * n for n in (6, 7, 31))
    assert not list(guards.long_winded(notebook(code(short), code(short), code(long))))
    assert list(guards.long_winded(notebook(code(long))))
    assert list(guards.long_winded(notebook(code(short), code(short), code(endless))))


def test_a_lesson_without_proof_is_found() -> None:
    proof = code("torch.testing.assert_close(mine, theirs)", tags=("proof",))
    assert not list(guards.unproved(notebook(proof), "01-attention"))
    assert list(guards.unproved(notebook(code()), "01-attention"))
    assert not list(guards.unproved(notebook(code()), "00-start-here"))


def test_a_notebook_that_is_not_its_source_is_found() -> None:
    cell = code("x", tags=("proof",))
    other, untagged = cell.copy(), cell.copy()
    other.source, untagged.metadata = "y", NotebookNode()
    assert not list(guards.unfaithful(notebook(cell), notebook(cell)))
    assert list(guards.unfaithful(notebook(other), notebook(cell)))
    assert list(guards.unfaithful(notebook(untagged), notebook(cell)))
