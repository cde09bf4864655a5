"""Runs a lesson's proofs against a package in which one line has been changed.

    python -m tests.lessons.proofs notebooks/source/02-heads.py < changes.json

`changes.json` is a list of {"file", "old", "new"}. The lesson's cells before its last proof run
once, without drawing; then, for each change, a child process forgets the package, imports it with
the change in it, and runs the proofs. For each change comes a line: "seen" when a proof fails,
"missed" when none does, "broken" when the package cannot be imported so.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jupytext

ROOT = Path(__file__).resolve().parents[2]


def module_name(file: str) -> str:
    """The name under which a file of the package is imported."""
    return ".".join(Path(file).with_suffix("").parts)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a text instead of its file."""

    def __init__(self, file: str, text: str) -> None:
        self.name = module_name(file)
        self.text = text

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.text, self.name, "exec"), module.__dict__)  # noqa: S102


def nothing(*_: Any, **__: Any) -> None:
    """Stands in for what draws, waits or asks."""


def without_drawing() -> None:
    import ipywidgets
    import matplotlib as mpl

    from zeta_edu import exercises, lessonmap
    from zeta_edu.views import style

    mpl.use("Agg")
    ipywidgets.interact = nothing
    style.show = nothing
    lessonmap.show_block_map = nothing
    exercises.check = exercises.hint = nothing


def cells(source: Path) -> Iterator[tuple[str, bool]]:
    """The code of each cell up to the last proof, and whether it is a proof."""
    code = [c for c in jupytext.read(source, fmt="py:percent").cells if c.cell_type == "code"]
    proofs = [at for at, cell in enumerate(code) if "proof" in cell.metadata.get("tags", [])]
    for cell in code[: proofs[-1] + 1]:
        yield cell.source, "proof" in cell.metadata.get("tags", [])


def prelude(source: Path) -> tuple[dict[str, Any], list[str]]:
    """The names that the lesson has made before its proofs, and the proofs."""
    names: dict[str, Any] = {"__name__": "__main__"}
    proofs = []
    for code, is_proof in cells(source):
        if is_proof:
            proofs.append(code)
        else:
            with contextlib.suppress(Exception):  # a cell that is meant to raise
                exec(compile(code, source.name, "exec"), names)  # noqa: S102
    return names, proofs


def outcome(names: dict[str, Any], proofs: list[str], change: dict[str, str] | None) -> str:
    for name in [name for name in sys.modules if name.partition(".")[0] == "zeta_edu"]:
        del sys.modules[name]
    if change:
        text = (ROOT / change["file"]).read_text(encoding="utf-8")
        if text.count(change["old"]) != 1:
            return "broken: the old text does not stand there once"
        sys.meta_path.insert(0, Changed(change["file"], text.replace(change["old"], change["new"])))
        try:
            import zeta_edu.block  # noqa: F401

            importlib.import_module(module_name(change["file"]))
        except Exception as error:
            return f"broken: {error!r}"
    try:
        for proof in proofs:
            exec(compile(proof, "proof", "exec"), names)  # noqa: S102
    except Exception:
        return "seen"
    return "missed"


def in_a_child(act: Callable[[], str]) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.write(writing, act().encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return said.read() or "broken: the child died"


def main() -> None:
    warnings.simplefilter("ignore")
    changes: list[dict[str, str]] = json.load(sys.stdin)
    without_drawing()
    with contextlib.redirect_stdout(sys.stderr):
        names, proofs = prelude(Path(sys.argv[1]))
    print(in_a_child(lambda: outcome(names, proofs, None)))
    for change in changes:
        print(in_a_child(lambda change=change: outcome(names, proofs, change)))  # type: ignore[misc]


if __name__ == "__main__":
    main()
