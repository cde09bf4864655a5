"""Puts the sources of the site's pages together: lessons, reference, benchmarks, first page."""

import re
import shutil
from pathlib import Path

import nbformat

from zeta_site import notebooks, reference
from zeta_site.blockmap import linked_map
from zeta_site.proofs import Lessons

HERE = Path(__file__).resolve().parents[1]


def stage(target: Path, root: Path) -> None:
    """Write the sources.

    Args:
        target: a new folder.
        root: of the project.
    """
    lessons = Lessons(root / "notebooks")
    (target / "lessons").mkdir(parents=True)
    for stem, notebook in lessons.notebooks.items():
        page = notebooks.page(notebook, lessons.proofs[stem])
        nbformat.write(page, target / "lessons" / f"{stem}.ipynb")
    gallery = nbformat.read(root / "notebooks" / "gallery.ipynb", as_version=4)
    nbformat.write(notebooks.page(gallery, {}), target / "lessons" / "gallery.ipynb")
    write_reference(target / "reference")
    first = (HERE / "index.md").read_text("utf-8")
    pages = {stem[:2]: (title, f"lessons/{stem}.html") for stem, title in lessons.titles.items()}
    first = first.replace("<!-- map -->", linked_map(pages))
    first = first.replace("<!-- lessons -->", table(lessons))
    (target / "index.md").write_text(first, "utf-8")
    benchmarks = (root / "benchmarks" / "README.md").read_text("utf-8")
    (target / "benchmarks.md").write_text(benchmarks, "utf-8")
    for picture in (root / "benchmarks").glob("*.png"):
        shutil.copy(picture, target)


def write_reference(folder: Path) -> None:
    """Write a page for each module, and the first page of the reference."""
    folder.mkdir()
    names = [*reference.modules()]
    for name in names:
        (folder / f"{name}.rst").write_text(reference.module_page(name), "utf-8")
    (folder / "index.rst").write_text(reference.index_page(names), "utf-8")


def table(lessons: Lessons) -> str:
    """The lessons in order, each with the question that it opens with."""
    rows = ["| lesson | its question |", "|---|---|"]
    for stem, title in lessons.titles.items():
        question = opening_question(lessons.notebooks[stem].cells[0].source)
        rows.append(f"| [{title}](lessons/{stem}.ipynb) | {question} |")
    return "\n".join(rows)


def opening_question(opening: str) -> str:
    """The question in bold of a lesson's first cell."""
    asked = [text for text in re.findall(r"\*\*(.+?)\*\*", opening, re.DOTALL) if "?" in text]
    return " ".join(asked[-1].split()) if asked else ""
