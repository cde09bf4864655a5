"""Every view of the gallery: what it weighs, and how soon it has drawn.

python -m benchmarks gallery
"""

import json
import re
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import report
from benchmarks.views import CHROMIUM, FLAGS

GALLERY = Path(__file__).resolve().parents[1] / "notebooks" / "gallery.ipynb"
OPENINGS = 9
DRAWN = "() => [...document.querySelectorAll('*')].find((node) => node.view?.firstDraw)"
TIME = "(node) => node.view.firstDraw"


def views() -> Iterator[tuple[str, str]]:
    """The views that the gallery's notebook stores, with the names of their functions."""
    for cell in json.loads(GALLERY.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            page = "".join(output.get("data", {}).get("text/html", ""))
            if "<zeta-view-" in page:
                last = "".join(cell["source"]).strip().splitlines()
                call = next(line for line in reversed(last) if "_view(" in line)
                yield re.findall(r"\w+_view(?=\()", call)[0], page


def first_draws(page: Path) -> list[float]:
    """Milliseconds that the view took to draw first, in so many fresh pages."""
    from playwright.sync_api import sync_playwright

    taken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for _ in range(OPENINGS):
            shown = browser.new_page(viewport={"width": 1200, "height": 900})
            shown.goto(page.as_uri())
            taken.append(float(shown.wait_for_function(DRAWN).evaluate(TIME)))
            shown.close()
        browser.close()
    return taken


def main(arguments: list[str]) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        for name, page in views():
            path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{page}", encoding="utf-8")
            taken = first_draws(path)
            times = [f"{statistics.median(taken):.0f}", f"{min(taken):.0f}", f"{max(taken):.0f}"]
            rows.append([f"`{name}`", f"{path.stat().st_size / 1e3:.0f}", *times])
            print("  ".join(rows[-1]), flush=True)
    head = ["view, as in the gallery", "kB", "first drawn, ms: median", "least", "most"]
    said = report.circumstances("python -m benchmarks gallery", ["torch"])
    note = f"{OPENINGS} openings in headless Chromium; the size is the whole of what a view needs."
    report.write("gallery", f"## Every view\n\n{report.table(head, rows)}\n\n{said} {note}")
