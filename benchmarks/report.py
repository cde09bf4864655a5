"""Writes a benchmark's figures into its part of benchmarks/README.md, with what made them."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

README = Path(__file__).resolve().parent / "README.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def circumstances(command: str, packages: Sequence[str]) -> str:
    """Say with which command, when, on what, and with which versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    day = datetime.now(UTC).date().isoformat()
    return (
        f"`{command}`, {day}, {processor()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}."
    )


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def write(section: str, text: str) -> None:
    """Replace what stands between a section's marks in the README; add it where it is new."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    body = f"{begin}\n\n{text.strip()}\n\n{end}"
    old = README.read_text(encoding="utf-8") if README.exists() else "# Benchmarks\n"
    if begin in old:
        before, _, rest = old.partition(begin)
        new = before + body + rest.partition(end)[2]
    else:
        new = f"{old.rstrip()}\n\n{body}\n"
    README.write_text(new, encoding="utf-8")
