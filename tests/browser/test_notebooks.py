"""Views where people meet them: in JupyterLab, reopened without a kernel, on exported pages."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch

from tests.browser.lab import Lab, run_all, save

ROOT = Path(__file__).resolve().parents[2]
MAKE_WEIGHTS = """\
import torch
from zeta_edu.views import attention_view
torch.manual_seed(0)
later = torch.ones(6, 6).triu(1).bool()
weights = torch.randn(2, 3, 6, 6).masked_fill(later, -torch.inf).softmax(-1)
tokens = ["def", " f", "(", "x", ")", ":"]"""


def computed() -> torch.Tensor:
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 6, 6)
    return scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf).softmax(-1)


def notebook(path: Path, *cells: str) -> Path:
    new = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    new.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new, path)
    return path


def executed(path: Path) -> Path:
    from nbclient import NotebookClient

    content = nbformat.read(path, as_version=4)
    NotebookClient(content, timeout=120).execute()
    nbformat.write(content, path)
    return path


def exported(path: Path, folder: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "nbconvert", "--to", "html", str(path), *options]
    offline = [f"--HTMLExporter.{name}_url=" for name in ("require_js", "mathjax", "jquery")]
    subprocess.run(
        [*command, *offline, "--output-dir", str(folder)], check=True, capture_output=True
    )
    return folder / f"{path.stem}.html"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_exported_page_draws_what_torch_computed(
    screen: Any, tmp_path: Path, theme: str
) -> None:
    made = notebook(tmp_path / "made.ipynb", MAKE_WEIGHTS, "attention_view(weights, tokens)")
    page = exported(executed(made), tmp_path, f"--HTMLExporter.theme={theme}")
    (view,) = screen(page).wait_for_views()
    view.wait_until_dark(theme == "dark")
    view.pick(0, 1)
    view.pick(1, 2)
    np.testing.assert_allclose(view.matrix(), computed()[1, 2], atol=1e-3)


def test_in_jupyterlab_a_view_is_alive_twice_and_again_without_a_kernel(
    screen: Any, lab: Lab, lab_without_kernels: Lab
) -> None:
    cells = MAKE_WEIGHTS, "view = attention_view(weights, tokens, layer=0)\nview", "view"
    notebook(lab.folder / "twice.ipynb", *cells)
    shown = lab.open(screen, "twice.ipynb")
    run_all(shown)
    first, second = shown.wait_for_views(2)
    first.pick(0, 1)
    first.pick(1, 2)
    np.testing.assert_allclose(first.matrix(), computed()[1, 2], atol=1e-3)
    assert second.report()["layer"] == 0
    save(shown)

    reopened = lab_without_kernels.open(screen, "twice.ipynb")
    again, _ = reopened.wait_for_views(2)
    again.pick(0, 1)
    again.pick(1, 1)
    np.testing.assert_allclose(again.matrix(), computed()[1, 1], atol=1e-3)
    assert reopened.kernel() is None


def test_untrusted_a_view_is_its_picture_with_its_words(
    screen: Any, lab_without_kernels: Lab
) -> None:
    folder = lab_without_kernels.folder
    cells = MAKE_WEIGHTS, "attention_view(weights, tokens)"
    executed(notebook(folder / "untrusted.ipynb", *cells))
    shown = lab_without_kernels.open(screen, "untrusted.ipynb")
    picture = shown.page.locator(".jp-OutputArea-output img")
    picture.wait_for(timeout=30_000)
    assert picture.get_attribute("alt").startswith("Attention weights of 2 layers")
    assert shown.page.evaluate("() => [...document.querySelectorAll('*')].some((n) => n.view)") is (
        False
    )


def test_the_dark_theme_of_jupyterlab_is_followed(screen: Any, lab: Lab) -> None:
    notebook(lab.folder / "theme.ipynb", MAKE_WEIGHTS, "attention_view(weights, tokens)")
    shown = lab.open(screen, "theme.ipynb")
    run_all(shown)
    (view,) = shown.wait_for_views()
    for theme, dark in (("Dark", True), ("Light", False)):
        shown.page.evaluate(
            "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
            f"JupyterLab {theme}",
        )
        view.wait_until_dark(dark)


def test_a_live_view_and_the_kernel_hear_each_other(screen: Any, lab: Lab) -> None:
    notebook(
        lab.folder / "live.ipynb",
        MAKE_WEIGHTS,
        "widget = attention_view(weights, tokens, layer=0, head=0).live()\nwidget",
        "widget.layer, widget.scale = 1, 'log'",
    )
    shown = lab.open(screen, "live.ipynb")
    run_all(shown)
    (view,) = shown.wait_for_views()
    shown.page.wait_for_function("(h) => h.view.report().layer === 1", arg=view.host)
    assert view.report()["range"]["log"] is True
    np.testing.assert_allclose(view.matrix(), computed()[1, 0], atol=1e-3)
    view.pick(1, 2)
    view.click_cell(4, 1)
    assert lab.hears(shown, "widget.head, widget.query", "2 4")


LESSON = ROOT / "notebooks" / "00-start-here.ipynb"


@pytest.fixture
def lesson(lab: Lab) -> str:
    """Lesson 00 as a learner gets it, beside its figures."""
    if not LESSON.exists():
        pytest.skip("lesson 00 is not built: make lessons")
    import shutil

    shutil.copytree(LESSON.parent, lab.folder / "lessons", dirs_exist_ok=True)
    return f"lessons/{LESSON.name}"


def test_lesson_00_shows_what_the_trained_model_looks_at(
    screen: Any, lab: Lab, lab_without_kernels: Lab, lesson: str
) -> None:
    shown = lab.open(screen, lesson)
    run_all(shown)
    expected = weights_behind(shown.wait_for_views()[0])
    walk(shown.wait_for_views()[0], expected)
    save(shown)

    reopened = lab_without_kernels.open(screen, lesson)
    walk(reopened.wait_for_views()[0], expected)
    assert reopened.kernel() is None


def weights_behind(view: Any) -> torch.Tensor:
    """What the shipped model computes for the text that a view shows."""
    from zeta_edu import load_pretrained, record_attention

    labels = view.host.evaluate("(host) => host.view.keyLabels")
    text = "".join(labels).replace("·", " ").replace("⏎", "\n").replace("→", "\t")
    model, tokenizer = load_pretrained("python-small")
    ids = tokenizer.encode(text)
    assert len(ids) == len(labels)
    with torch.no_grad(), record_attention(model) as record:
        model(torch.tensor([ids]))
    return torch.cat(list(record))


def walk(view: Any, expected: torch.Tensor) -> None:
    """Move through all layers and heads, and compare each with what torch computes."""
    layers, heads = expected.shape[:2]
    for layer in range(layers):
        view.pick(0, layer)
        for head in range(heads):
            view.pick(1, head)
            np.testing.assert_allclose(view.matrix(), expected[layer, head], atol=1e-3)
    before = view.report()["readout"]
    view.hover_cell(len(view.matrix()) - 1, 0)
    assert view.report()["readout"] != before
