"""One notebook as one HTML file, its views alive and its formulas drawn without any network."""

import html
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import Preprocessor, TagRemovePreprocessor
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from zeta_edu.checks import existing_file
from zeta_edu.lessons import heading
from zeta_edu.pages.formulas import Formulas

STYLE = Path(__file__).with_name("page.css")


def export_notebook(path: str | Path) -> str:
    """Return the HTML page of an executed notebook.

    The page asks for nothing: styles, scripts and pictures are in it, and formulas are MathML.
    Outputs are shown as they are stored; nothing is run. Who exports a notebook vouches for what
    its outputs run in a browser.

    Args:
        path: of the `.ipynb` file.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: `path` is neither a string nor a path.
        ValueError: it is no notebook.

    Source: MathML Core (W3C), which every browser of today draws.
    """
    path = existing_file("path", path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:
        raise ValueError(f"{str(path)!r} is not a notebook: {error}") from None
    formulas = Formulas()
    body, _ = _exporter(formulas).from_notebook_node(notebook, {"metadata": {"path": path.parent}})
    head = f"<title>{html.escape(heading(notebook) or path.stem)}</title><style>{_style()}</style>"
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return (
        f'<!DOCTYPE html><html lang="en"><head>{meta}{head}</head>'
        f"<body><main>{formulas.put_in(body)}</main></body></html>\n"
    )


class Drawn(Preprocessor):
    """What a page needs that a notebook leaves to Jupyter."""

    def __init__(self, formulas: Formulas) -> None:
        super().__init__()
        self.formulas = formulas

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Draw formulas; drop widgets, which need a kernel, where a still picture says the same."""
        if cell.cell_type == "markdown":
            cell.source = self.formulas.take_out(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if len(data) > 1:
                data.pop("application/vnd.jupyter.widget-view+json", None)
        return cell, resources


def _exporter(formulas: Formulas) -> HTMLExporter:
    exporter = HTMLExporter(template_name="basic", embed_images=True)
    removed = TagRemovePreprocessor(remove_cell_tags=["remove-cell"])
    exporter.register_preprocessor(removed, enabled=True)
    exporter.register_preprocessor(Drawn(formulas), enabled=True)
    return exporter


@cache
def _style() -> str:
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    page = STYLE.read_text(encoding="utf-8")
    return f"{light}@media (prefers-color-scheme: dark) {{{dark}}}{page}"
