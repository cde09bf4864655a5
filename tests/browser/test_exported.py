"""A lesson as one page: opened from disk with every request refused, its views alive."""

from pathlib import Path
from typing import Any

import pytest

from zeta_edu.pages.export import export_notebook

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_an_exported_lesson_lives_and_fits(screen: Any, tmp_path: Path, dark: bool) -> None:
    page = tmp_path / "lesson.html"
    page.write_text(export_notebook(ROOT / "notebooks" / "05-xpos.ipynb"))
    shown = screen(page, width=600, dark=dark)
    views = shown.wait_for_views()
    assert views
    measured = shown.page.evaluate(
        """() => ({
            wide: document.documentElement.scrollWidth,
            formulas: [...document.querySelectorAll("math")].map((m) => m.clientHeight),
            paper: getComputedStyle(document.body).backgroundColor,
        })"""
    )
    assert measured["wide"] <= 600
    assert len(measured["formulas"]) > 20
    assert min(measured["formulas"]) > 5
    assert measured["paper"] == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
