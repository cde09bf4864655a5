"""From a stored lesson to the source of its page."""

import base64
import copy
from typing import Any

from nbformat import NotebookNode, v4

from zeta_edu.views import style
from zeta_site.proofs import Piece

WIDGET = "application/vnd.jupyter.widget-view+json"


def anchor(heading: str) -> str:
    """The anchor that JupyterLab gives to a heading, by which lessons link to it."""
    return heading.replace(" ", "-")


def page(notebook: NotebookNode, proofs: dict[int, list[Piece]]) -> NotebookNode:
    """A copy for the site: widgets dropped, pictures with their text, proofs with their sources.

    Args:
        notebook: as it is stored; its outputs stay.
        proofs: the package's pieces that a cell proves, by the cell's index.
    """
    made = copy.deepcopy(notebook)
    cells = []
    for index, cell in enumerate(made.cells):
        for output in cell.get("outputs", []):
            if "data" in output:
                settle(output)
        cells.append(cell)
        if pieces := proofs.get(index):
            cells.append(v4.new_markdown_cell(sources(pieces), id=f"sources-{index}"))
    made.cells = cells
    return made


def settle(output: NotebookNode) -> None:
    """Leave one kind of output that a page can show, with the picture's text in it."""
    data: dict[str, Any] = output.data
    data.pop(WIDGET, None)
    if "image/png" in data and "text/html" not in data:
        about = output.metadata["image/png"]
        png = base64.b64decode(data["image/png"])
        data["text/html"] = style.image_tag(png, about["alt"], about["width"])
    if "text/html" in data:
        data.pop("image/png", None)


def sources(pieces: list[Piece]) -> str:
    """The line under a proof: each piece with its entry in the reference and its source."""
    links = [
        f'{{py:obj}}`{one.name} <{one.full_name}>` (<a href="{source_page(one)}">lines '
        f"{one.lines[0]} to {one.lines[1]} of <code>{one.module.replace('.', '/')}.py</code></a>)"
        for one in pieces
    ]
    return f'<div class="sources">\n\nThe package\'s own: {", ".join(links)}.\n\n</div>'


def source_page(one: Piece) -> str:
    """Where the source stands, seen from a lesson's page."""
    return f"../_modules/{one.module.replace('.', '/')}.html#{one.name}"
