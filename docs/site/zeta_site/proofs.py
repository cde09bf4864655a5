"""Which lesson proves which piece of the package: read from the lessons' proofs themselves."""

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import nbformat

from zeta_edu.lessons import heading
from zeta_edu.views.block_words import PLACES
from zeta_edu.views.parts import PARTS

PACKAGE = "zeta_edu"


class Piece(NamedTuple):
    """A function or a class of the package, by the place where it is defined.

    Args:
        module: its module's whole name.
        name: its name there, with its class's in front.
        lines: the first and the last line of its source.
    """

    module: str
    name: str
    lines: tuple[int, int]

    @property
    def full_name(self) -> str:
        """The name by which Python finds it."""
        return f"{self.module}.{self.name}"


def piece(thing: Any) -> Piece | None:
    """The piece that an object is; None for what is no function or class of the package."""
    plain = inspect.unwrap(thing) if callable(thing) else None
    if not (inspect.isfunction(plain) or inspect.isclass(plain)):
        return None
    if plain.__module__.partition(".")[0] != PACKAGE:
        return None
    lines, first = inspect.getsourcelines(plain)
    return Piece(plain.__module__, plain.__qualname__, (first, first + len(lines) - 1))


def imported(tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """What a cell imports from the package: the names it gives, and what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                yield alias.asname or alias.name, getattr(module, alias.name)


def used(tree: ast.AST, known: Mapping[str, Any]) -> Iterator[Any]:
    """The objects of the package that a cell uses, in the order of their first use."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                if isinstance(module := known.get(name), ModuleType):
                    yield getattr(module, attribute, None)
            case ast.Name(id=name):
                yield known.get(name)


def proofs(notebook: nbformat.NotebookNode) -> dict[int, list[Piece]]:
    """For each cell tagged `proof`, by its index, the package's pieces that it is about.

    A later proof may use what an earlier one has imported.
    """
    known: dict[str, Any] = {}
    found = {}
    for index, cell in enumerate(notebook.cells):
        if "proof" not in cell.metadata.get("tags", []):
            continue
        tree = ast.parse(cell.source)
        known |= imported(tree)
        pieces = [piece(thing) for thing in used(tree, known)]
        found[index] = [*dict.fromkeys(one for one in pieces if one)]
    return found


def views(notebook: nbformat.NotebookNode) -> set[Piece]:
    """The views that a lesson shows."""
    known: dict[str, Any] = {}
    found = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            known |= imported(tree)
            found |= {piece(thing) for thing in used(tree, known)}
    return {one for one in found if one and one.name.endswith("_view")}


class Lessons:
    """The lessons of a folder, and what they say about the package.

    Args:
        folder: with the notebooks, built.
    """

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("[0-9]*.ipynb"))
        self.notebooks = {path.stem: nbformat.read(path, as_version=4) for path in paths}
        self.titles = {stem: heading(notebook) for stem, notebook in self.notebooks.items()}
        self.proofs = {stem: proofs(notebook) for stem, notebook in self.notebooks.items()}

    def about(self, full_name: str) -> list[str]:
        """The lessons, in order, that build, prove or show a piece; of a module, any of its.

        None for a package: it would be all of them.
        """
        if hasattr(sys.modules.get(full_name), "__path__"):
            return []
        inside = f"{full_name}."
        return sorted(
            {stem for stem, name in self._pairs() if name == full_name or name.startswith(inside)}
        )

    @cache  # noqa: B019 - one object for one build
    def _pairs(self) -> set[tuple[str, str]]:
        proved = {
            (stem, one.full_name)
            for stem, cells in self.proofs.items()
            for pieces in cells.values()
            for one in pieces
        }
        shown = {
            (stem, one.full_name) for stem, book in self.notebooks.items() for one in views(book)
        }
        return proved | shown | set(self._on_the_map())

    def _on_the_map(self) -> Iterator[tuple[str, str]]:
        """What the block view says about its parts: a lesson, and the place of the source."""
        for (part, file, name, _), _ in PLACES.values():
            for stem in self.notebooks:
                if stem.startswith(PARTS[part].lesson):
                    yield stem, f"{PACKAGE}.{Path(file).stem}.{name}"
