"""Remembers which exercises are done, in a small file in the learner's working folder."""

import json
import os
import tempfile
from pathlib import Path

FILE_NAME = "zeta_edu_progress.json"


def done_exercises(folder: Path | None = None) -> set[str]:
    """The names of the exercises done, from the record in a folder.

    Args:
        folder: where the record lies; the working folder by default.

    Returns:
        The names; none when there is no record or when it cannot be read.
    """
    try:
        record = json.loads(_file_in(folder).read_text(encoding="utf-8"))
        return {name for name in record["done"] if isinstance(name, str)}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return set()


def keep_done(name: str, folder: Path | None = None) -> bool:
    """Add an exercise to the record.

    The record is written beside its place and renamed, so that a reader never sees half of it.

    Args:
        name: the exercise's name.
        folder: where the record lies; the working folder by default.

    Returns:
        Whether the record could be written.
    """
    file = _file_in(folder)
    text = json.dumps({"done": sorted(done_exercises(folder) | {name})}, indent=2) + "\n"
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".progress-")
    except OSError:
        return False
    written = Path(temporary)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        written.replace(file)
    except OSError:
        written.unlink(missing_ok=True)
        return False
    return True


def _file_in(folder: Path | None) -> Path:
    return (folder or Path.cwd()) / FILE_NAME
