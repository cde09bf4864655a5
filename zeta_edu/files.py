"""Files that are whole or not there: written to a temporary name, then renamed."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never a torn one.

    The bytes go to a temporary file in the same folder, are forced to the disk, and take the
    name in one step. A temporary file that a killed process left is written over. Of a link its
    target is written; a device such as /dev/stdout, or a pipe, takes the bytes as they are.

    Raises:
        OSError: the file cannot be written; the error names it, and what was there is still there.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file() and not target.is_dir():
        Path(path).write_bytes(content)
        return
    temporary = target.with_name(f".{target.name}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):  # where it could not be written, there is none
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file is not JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not valid JSON: {error}") from None
