"""The command `zeta-edu lessons`: what there is, a copy of one, one put back as it was."""

import argparse
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeta_edu.lab import (
    add_folder,
    digest,
    find_lessons,
    place,
    read_manifest,
    remember,
    shipped_files,
)


def add_commands(subparsers: Any) -> None:
    """Add `lessons` to the commands of `zeta-edu`."""
    parser = subparsers.add_parser(
        "lessons",
        help="list the lessons, copy one, or put one back as it was",
        description="Without a number, list the lessons and the state of your copies. With one, "
        "copy that lesson to your folder; an edited copy is left alone.",
        epilog="zeta-edu lessons 03            copy lesson 03\n"
        "zeta-edu lessons 03 --reset    put your copy of it back as it was, after asking",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("lesson", nargs="?", help="a lesson's number or name, such as 03")
    parser.add_argument("--reset", action="store_true", help="replace your copy of it, edits too")
    parser.add_argument("--yes", action="store_true", help="reset without asking")
    add_folder(parser)
    parser.set_defaults(run=run_lessons)


def run_lessons(arguments: argparse.Namespace) -> int:
    """List, copy or reset; return the exit code."""
    shipped, folder = find_lessons(), arguments.dir.expanduser().resolve()
    if arguments.lesson is None:
        if arguments.reset:
            raise ValueError("--reset needs a lesson: zeta-edu lessons 03 --reset")
        for path in sorted(shipped.glob("*.ipynb")):
            print(f"{path.stem:22}{title(path):64}{state(path, folder)}".rstrip())
        print(f"\nyour copies: {folder}")
        return 0
    lesson = find(shipped, arguments.lesson)
    if arguments.reset:
        return reset(lesson, folder, arguments.yes)
    print(f"{lesson.name}: {bring(shipped, lesson, folder)}")
    return 0


def heading(notebook: Mapping[str, Any]) -> str:
    """The first heading of a notebook as plain text; "" where there is none."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).lstrip()
        if cell["cell_type"] == "markdown" and source.startswith("# "):
            return source.splitlines()[0].lstrip("# ").replace("`", "").replace("$", "")
    return ""


def title(path: Path) -> str:
    """A lesson's heading without its number."""
    whole = heading(json.loads(path.read_text(encoding="utf-8")))
    return whole.partition("· ")[2] or whole


def state(lesson: Path, folder: Path) -> str:
    """How the learner's copy stands to the package's lesson."""
    copy = folder / lesson.name
    if not copy.exists():
        return "not copied"
    current = digest(copy.read_bytes())
    if current == digest(lesson.read_bytes()):
        return "as it came"
    return "older" if current == read_manifest(folder).get(lesson.name) else "edited"


def find(shipped: Path, wanted: str) -> Path:
    """The one lesson whose name begins so.

    Raises:
        ValueError: none does, or more than one.
    """
    names = sorted(path.stem for path in shipped.glob("*.ipynb"))
    stem = wanted.removesuffix(".ipynb")
    number = stem.zfill(2) if stem.isdigit() else stem
    found = [name for name in names if name.startswith(number)]
    if stem in names:
        found = [stem]
    if len(found) != 1:
        raise ValueError(f"lesson must be one of {', '.join(names)}, got {wanted!r}")
    return shipped / f"{found[0]}.ipynb"


def bring(shipped: Path, lesson: Path, folder: Path) -> str:
    """Copy one lesson and the pictures; say what became of it."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(folder)
    for source in shipped_files(shipped):
        if source.suffix != ".ipynb":
            place(source, source.relative_to(shipped).as_posix(), folder, manifest)
    done = place(lesson, lesson.name, folder, manifest)
    remember(folder, manifest)
    said = {
        "copied": f"copied to {folder}",
        "refreshed": "refreshed; yours was not edited",
        "same": f"is in {folder} as it came",
    }
    again = f"zeta-edu lessons {lesson.stem[:2]} --dir {shlex.quote(str(folder))} --reset"
    return said.get(done, f"yours is edited and kept; {again}")


def reset(lesson: Path, folder: Path, agreed: bool) -> int:
    """Replace the learner's copy by the lesson as it came, when that is agreed."""
    now = state(lesson, folder)
    if now == "edited" and not agreed:
        try:
            answer = input(f"Your edits in {folder / lesson.name} will be lost. Reset it? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print(f"{lesson.name}: kept")
            return 0
    manifest = read_manifest(folder)
    (folder / lesson.name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    place(lesson, lesson.name, folder, manifest)
    remember(folder, manifest)
    print(f"{lesson.name}: as it came")
    return 0
