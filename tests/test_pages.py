"""Notebooks as pages: nothing is asked of the network, formulas are drawn, views stay alive."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from tests.test_lab import write_lesson
from zeta_edu import cli
from zeta_edu.pages.export import export_notebook
from zeta_edu.pages.formulas import Formulas

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What a page may load: a script, a style, a picture, a frame, a module, a font.
ASKS = re.compile(
    r"(?:src|data|srcset)\s*=\s*[\"']?https?:|url\(\s*[\"']?https?:|<link|@import", re.I
)


def converted(markdown: str) -> str:
    formulas = Formulas()
    return formulas.put_in(formulas.take_out(markdown))


@pytest.mark.parametrize(
    ("markdown", "count"),
    [
        ("the root $\\sqrt{d}$ and $$\\frac{a}{b}$$", 2),
        ("`$x$` and ``a $y$ b``", 0),
        ("```python\nprint('$x$')\n```\n$x$", 1),
        ("it costs $5 and $6", 0),
        ("escaped \\$x$", 0),
        ("$ x$ and $x $", 0),
        ("$$\na = b\n$$", 1),
        ("a mark \ue0000\ue001 of its own", 0),
    ],
)
def test_formulas_are_what_jupyter_takes_for_formulas(markdown: str, count: int) -> None:
    assert converted(markdown).count("<math") == count


def test_display_formulas_stand_alone_and_inline_ones_do_not() -> None:
    assert 'display="block"' in converted("$$x$$")
    assert 'display="inline"' in converted("$x$")


def test_a_formula_that_cannot_be_converted_stays_as_it_was() -> None:
    broken = "$x_$"
    assert converted(broken) == broken


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_s_page_asks_for_nothing_and_shows_every_formula(path: Path) -> None:
    page = export_notebook(path)
    assert not ASKS.search(re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    prose = re.sub(r"<(script|style|pre|code)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert "$" not in prose
    assert "\ue000" not in page
    stored = str([cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells])
    views = set(re.findall(r"<zeta-view-[0-9a-f]+", stored))
    assert views == set(re.findall(r"<zeta-view-[0-9a-f]+", page))


def test_the_title_is_the_heading_and_hostile_text_stays_text(tmp_path: Path) -> None:
    write_lesson(tmp_path / "a.ipynb", "# 01 · <script>alert(1)</script>")
    assert "<title>01 · &lt;script&gt;" in export_notebook(tmp_path / "a.ipynb")


def test_the_cell_that_installs_in_colab_is_not_on_the_page(tmp_path: Path) -> None:
    cells = [v4.new_code_cell("install()"), v4.new_code_cell("teach()")]
    cells[0].metadata.tags = ["remove-cell"]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    page = export_notebook(tmp_path / "a.ipynb")
    assert "teach" in page
    assert "install" not in page


def test_a_widget_gives_way_to_its_picture(tmp_path: Path) -> None:
    cell = v4.new_code_cell("view", id="only")
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "still"}
    cell.outputs = [v4.new_output("execute_result", widget, execution_count=1)]
    nbformat.write(v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    page = export_notebook(tmp_path / "a.ipynb")
    assert "still" in page
    assert "model_id" not in page


def test_a_lesson_is_exported_by_number_and_a_notebook_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "1"]) == 0
    assert "01 · Attention" in (tmp_path / "01-attention.html").read_text()
    write_lesson(tmp_path / "mine.ipynb", "# Mine")
    assert cli.main(["export", "mine.ipynb", "-o", "pages/out.html"]) == 0
    assert "<title>Mine</title>" in (tmp_path / "pages" / "out.html").read_text()
    assert str(tmp_path / "pages" / "out.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.ipynb"], "path must be a file, got 'none.ipynb'"),
        (["99"], "lesson must be one of 00-start-here"),
        (["broken.ipynb"], "'broken.ipynb' is not a notebook"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.ipynb").write_text("{")
    assert cli.main(["export", *words]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))
