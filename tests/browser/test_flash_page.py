"""The flash view in the browser: every step shows the numbers of online softmax."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.browser.screen import ViewOnScreen
from zeta_edu.views import flash_view
from zeta_edu.views.flash import FlashView

TOKENS = ["def", "add", "(", "a", ",", "b", ")", ":"]


@pytest.fixture(scope="module")
def made() -> FlashView:
    queries, keys, values = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0))
    return flash_view(queries, keys, values, query_tile=2, key_tile=2, tokens=TOKENS)


@pytest.fixture
def view(screen: Any, made: FlashView, tmp_path: Path) -> ViewOnScreen:
    (shown,) = screen(made.save(tmp_path / "page.html")).wait_for_views()
    return shown


def numbers(listed: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in listed], dtype=float)


def test_every_step_shows_what_torch_computed(view: ViewOnScreen, made: FlashView) -> None:
    for step in range(len(made.trace.rows)):
        view.slide("step", step)
        shown = view.report()
        for name in ("maximum", "total", "rescale"):
            expected = getattr(made.trace, name)[step]
            np.testing.assert_allclose(numbers(shown[name]), expected, atol=1e-5)
        mixed = numbers(shown["output"]).reshape(8, 4)
        np.testing.assert_allclose(mixed, made.trace.output[step], atol=1e-5)


def test_a_cell_is_shown_once_its_tile_has_come(view: ViewOnScreen, made: FlashView) -> None:
    for step in (0, 2, 5, len(made.trace.rows) - 1):
        view.slide("step", step)
        done = np.zeros((8, 8), dtype=bool)
        for (top, bottom), (left, right) in zip(
            made.trace.rows[: step + 1], made.trace.columns[: step + 1], strict=True
        ):
            done[top:bottom, left:right] = True
        shown = np.array(view.report()["shown"]).reshape(8, 8)
        np.testing.assert_array_equal(shown, done)


def test_the_title_tells_how_many_queries_are_done(view: ViewOnScreen) -> None:
    assert view.report()["title"].startswith("2 queries are done")
    view.slide("step", 1)
    assert view.report()["title"].startswith("2 queries are done")
    view.slide("step", 9)
    assert view.report()["title"].startswith("All 10 tiles done, 6 skipped")
    assert view.report()["gap"] < 1e-6


def test_buttons_step_and_play(view: ViewOnScreen) -> None:
    view.part('button[aria-label="one step on"]').click()
    assert view.report()["step"] == 1
    view.part('button[aria-label="one step back"]').click()
    assert view.report()["step"] == 0
    view.part('button[aria-label="play"]').focus()
    view.press("Enter")
    view.page.wait_for_function("(host) => host.view.now.step >= 2", arg=view.host, timeout=9_000)
    view.part('button[aria-label="pause"]').click()
    stopped = view.report()["step"]
    view.page.wait_for_timeout(900)
    assert view.report()["step"] == stopped


def test_the_sentence_follows_the_cursor(view: ViewOnScreen, made: FlashView) -> None:
    assert "Queries 0 to 1 meet keys 0 to 1" in view.report()["readout"]
    view.part(".matrix canvas").focus()
    view.press("ArrowDown")
    assert view.report()["readout"].startswith("Score of def with def: ")
    view.press("ArrowRight")
    assert "hidden, the key comes after" in view.report()["readout"]
    view.press("ArrowDown", "ArrowDown")
    assert "not computed yet" in view.report()["readout"]
    at = view.report()["at"]
    centre = {"x": at["left"] + 0.5 * at["cell"], "y": at["top"] + 1.5 * at["cell"]}
    view.part(".matrix canvas").hover(position=centre)
    score = f"{made.trace.scores[1, 0]:.3g}".replace("-", "−")
    assert view.report()["readout"] == f"Score of add with def: {score}."
    view.part(".matrix canvas", 1).focus()
    view.press("ArrowDown")
    assert view.report()["readout"].startswith("Output of def, feature 0: ")


def test_the_bytes_are_those_python_counted(view: ViewOnScreen, made: FlashView) -> None:
    view.slide("step", 3)
    notes = view.report()["notes"].replace("\u00a0", " ")
    assert f"Moved so far: {made.moved[3]} bytes" in notes
    assert "all 8 × 8 scores" in notes
    assert "at most 4 scores" in notes
