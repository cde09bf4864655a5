"""How long each lesson takes from a fresh kernel to its last cell.

    python -m benchmarks lessons            all of them: about ten minutes
    python -m benchmarks lessons 04 12      some

Each is built as `notebooks/build.py --check` builds it, one after the other, with one thread.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import report

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def spent() -> float:
    """Processor time of the processes that have been started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(lesson: Path) -> list[str]:
    before, start = spent(), time.perf_counter()
    command = [sys.executable, str(NOTEBOOKS / "build.py"), "--check", lesson.stem]
    subprocess.run(command, capture_output=True)  # fails where a measured picture would change
    took = time.perf_counter() - start
    cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    pictures = sum("image/png" in data for data in outputs)
    size = lesson.stat().st_size / 1e6
    return [
        *(lesson.stem, f"{spent() - before:.0f}", f"{took:.0f}"),
        *(str(pictures), f"{size:.2f}"),
    ]


def main(arguments: list[str]) -> None:
    lessons = sorted(NOTEBOOKS.glob("*.ipynb"))
    if arguments:
        lessons = [path for path in lessons if path.stem.split("-")[0] in arguments]
    rows = []
    for lesson in lessons:
        rows.append(row(lesson))
        print("  ".join(rows[-1]), flush=True)
    head = ["lesson", "processor time, s", "on the clock, s", "pictures", "MB"]
    said = report.circumstances(" ".join(["python -m benchmarks lessons", *arguments]), ["torch"])
    note = "From a fresh kernel to the last cell, and the making of the notebook; one thread."
    report.write("lessons", f"## Lessons\n\n{report.table(head, rows)}\n\n{said} {note}")
