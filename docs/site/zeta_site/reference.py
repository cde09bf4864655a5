"""The reference: one page per module, and in each entry the lessons that are about it."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import zeta_edu
from zeta_site.proofs import PACKAGE, Lessons, piece

ROOT = Path(__file__).resolve().parents[3]
PAPER = re.compile(r"\barXiv:(\d{4}\.\d{5})\b")
# What a reader may look for, in this order.
GROUPS = {
    "The block and its parts": "",
    "Whole models": "lm",
    "Views": "views",
    "Exercises": "exercises",
    "Pages": "pages",
}


def setup(app: Sphinx) -> None:
    """Register what happens while docstrings are read."""
    lessons = Lessons(ROOT / "notebooks")

    plain: dict[str, list[str]] = {}

    def keep(_: Sphinx, what: str, name: str, __: Any, ___: Any, lines: list[str]) -> None:
        if what in ("property", "attribute", "data") and lines and ": " in lines[0]:
            plain[name] = list(lines)

    def add(_: Sphinx, what: str, name: str, __: Any, ___: Any, lines: list[str]) -> None:
        # Napoleon takes what stands before a colon in a property's docstring for its type.
        lines[:] = plain.pop(name, lines)
        lines[:] = [PAPER.sub(r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", line) for line in lines]
        if found := lessons.about(name):
            lines += ["", *lesson_links(name, found, lessons.titles), ""]

    app.connect("autodoc-process-docstring", keep, priority=100)
    app.connect("autodoc-process-docstring", add, priority=900)  # after napoleon
    app.connect("missing-reference", by_short_name)


def lesson_links(name: str, stems: list[str], titles: dict[str, str]) -> list[str]:
    """The line that leads from an entry to its lessons, as reStructuredText."""
    how = "Shown" if name.startswith(f"{PACKAGE}.views.") else "Built or proved"
    links = [f":doc:`{titles[stem]} </lessons/{stem}>`" for stem in stems]
    return [".. rst-class:: lessons", "", f"{how} in {'; '.join(links)}."]


def by_short_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Link a name in a docstring to the entry that ends with it: on its page, or a public one."""
    target = node["reftarget"].removesuffix("()")
    if node.get("reftype") != "obj" or re.fullmatch("[a-z]+", target):
        return None  # a plain word is more often an argument than the one thing so called
    found = [
        entry
        for name, entry in env.domains.python_domain.objects.items()
        if name.endswith(f".{target}") and (entry.docname == node["refdoc"] or is_public(name))
    ]
    if len(found) != 1:
        return None
    address = app.builder.get_relative_uri(node["refdoc"], found[0].docname)
    return nodes.reference("", "", content, internal=True, refuri=f"{address}#{found[0].node_id}")


def is_public(full_name: str) -> bool:
    """Whether the package or its views offer the thing, or the class that has it."""
    return any(full_name == name or full_name.startswith(f"{name}.") for name in public_names())


@cache
def public_names() -> set[str]:
    """Where that which the package and its views offer is defined."""
    offered = [
        piece(getattr(home, name)) for home in (zeta_edu, zeta_edu.views) for name in home.__all__
    ]
    return {one.full_name for one in offered if one}


def modules() -> Iterator[str]:
    """The names of all modules of the package but `__main__`, which acts when it is imported."""
    yield PACKAGE
    for found in pkgutil.walk_packages(zeta_edu.__path__, f"{PACKAGE}."):
        if not found.name.endswith("__main__"):
            yield found.name


def module_page(name: str) -> str:
    """The source of a module's page."""
    module = importlib.import_module(name)
    lines = [title(f"``{name}``"), f".. automodule:: {name}", ""]
    if hasattr(module, "__path__"):
        lines += ["", *names_table(module, getattr(module, "__all__", []))]
    return "\n".join(lines) + "\n"


def names_table(module: Any, names: list[str]) -> list[str]:
    """What a package offers, each name with its first line and the entry it leads to."""
    lines = [".. list-table::", "   :class: names", "   :widths: 1 3", ""]
    for name in sorted(names, key=str.casefold):
        thing = getattr(module, name)
        home = piece(thing)
        target = home.full_name if home else getattr(thing, "__name__", name)
        says = inspect.getdoc(thing) if home or inspect.ismodule(thing) else None
        lines += [
            f"   * - :py:obj:`{name} <{target}>`",
            f"     - {(says or '').partition(chr(10))[0]}",
        ]
    return lines if names else []


def index_page(names: list[str]) -> str:
    """The source of the reference's first page: the public names, then the modules by folder."""
    lines = [title("Reference"), "Every module has its page, made from its docstrings.", ""]
    lines += ["The names that ``zeta_edu`` offers:", "", *names_table(zeta_edu, zeta_edu.__all__)]
    for heading, folder in GROUPS.items():
        lines += ["", ".. toctree::", f"   :caption: {heading}", "   :maxdepth: 1", ""]
        lines += [f"   {name}" for name in names if folder_of(name) == folder]
    return "\n".join(lines) + "\n"


def folder_of(name: str) -> str:
    """The folder of the package that a module lies in; "" for the uppermost."""
    inner = name.split(".")[1:]
    package = hasattr(importlib.import_module(name), "__path__")
    return inner[0] if len(inner) > 1 or (inner and package) else ""


def title(text: str) -> str:
    """A heading in reStructuredText."""
    return f"{text}\n{'=' * len(text)}\n"
