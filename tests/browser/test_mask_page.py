"""A saved mask view masks and weighs, in JavaScript, as the package does in torch."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.browser.screen import ViewOnScreen
from zeta_edu.attention import attention_weights
from zeta_edu.masks import visible_keys
from zeta_edu.views import mask_view
from zeta_edu.views.mask import SIDES

TOKENS = ["def", " add", "(", "a", ",", " b", "):", "\n    "]
EVERY = [
    {"causal": causal, "padding": padding, "padding_side": side, "past": past}
    for causal, padding, side, past in product((True, False), range(8), SIDES, range(8))
]


@pytest.fixture
def scores() -> torch.Tensor:
    return 2 * torch.randn(8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def view(screen: Any, scores: torch.Tensor, tmp_path: Path) -> ViewOnScreen:
    page = mask_view(scores, tokens=TOKENS).save(tmp_path / "page.html")
    return screen(page).wait_for_views()[0]


def reports(view: ViewOnScreen, settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    code = """(host, settings) => settings.map((changes) => {
        host.view.set(changes);
        return host.view.report();
    })"""
    return view.host.evaluate(code, settings)


def test_masks_and_weights_are_those_of_torch_at_every_combination_of_the_controls(
    view: ViewOnScreen, scores: torch.Tensor
) -> None:
    units = torch.eye(8, dtype=torch.float64)[None, None]
    for settings, drawn in zip(EVERY, reports(view, EVERY), strict=True):
        causal, padding, side, past = settings.values()
        keep = torch.arange(8) >= padding if side == "left" else torch.arange(8) < 8 - padding
        asking = scores[past:].double()[None, None]
        weights = attention_weights(asking, units, mask=keep[None], causal=causal, scale=1.0)
        seen = visible_keys(8 - past, 8, keep.device, keep[None], causal)
        assert (drawn["rows"], drawn["columns"]) == (8 - past, 8)
        np.testing.assert_array_equal(drawn["mask"], seen.expand(8 - past, 8).flatten())
        np.testing.assert_array_equal(drawn["scores"], scores[past:].flatten())
        np.testing.assert_allclose(drawn["values"], weights.flatten(), atol=1e-12)
        np.testing.assert_allclose(drawn["sums"], weights[0, 0].sum(-1), atol=1e-12)


def test_the_title_is_pythons_at_every_combination_of_the_controls(
    view: ViewOnScreen, scores: torch.Tensor
) -> None:
    for settings, drawn in zip(EVERY, reports(view, EVERY), strict=True):
        assert drawn["title"] == mask_view(scores, **settings).title


def test_a_cache_may_be_there_from_the_start(screen: Any, tmp_path: Path) -> None:
    scores = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    (view,) = screen(mask_view(scores, padding=6).save(tmp_path / "a.html")).wait_for_views()
    drawn = view.report()
    assert (drawn["rows"], drawn["past"]) == (3, 5)
    assert drawn["sums"] == pytest.approx([0, 1, 1])
    for past, rows in ((0, 3), (6, 2), (99, 1)):
        (drawn,) = reports(view, [{"past": past}])
        assert drawn["rows"] == rows


@pytest.mark.parametrize("table", [0, 1, 2])
def test_the_three_tables_share_one_cursor(view: ViewOnScreen, table: int) -> None:
    place = list(view.report()["places"].values())[table]
    spot = {
        "x": place["left"] + 2.5 * place["cell"],
        "y": place["top"] + 4.5 * place["cell"],
    }
    view.part("canvas", table).hover(position=spot)
    drawn = view.report()
    cell = {"row": 4, "column": 2}
    assert drawn["cursor"] == cell
    assert [drawn["cursors"][name] for name in ("scores", "mask", "weights")] == [cell] * 3
    assert drawn["cursors"]["sums"] == {"row": 4, "column": 0}
    assert drawn["readout"].startswith(", (token 4) sees ( (token 2): 0 is added to its score")
    view.part("h3").hover()
    assert view.report()["cursor"] is None


def test_the_keyboard_moves_the_cursor_of_all_tables(view: ViewOnScreen) -> None:
    view.part("canvas", 1).focus()
    view.press("ArrowDown", "ArrowDown", "ArrowRight", "End")
    drawn = view.report()
    assert drawn["cursor"] == {"row": 1, "column": 7}
    assert drawn["cursors"]["weights"] == drawn["cursor"]
    view.press("ArrowLeft", "Home")
    assert view.report()["cursor"] == {"row": 1, "column": 0}


def say(view: ViewOnScreen, row: int, column: int | None) -> str:
    code = "(host, cursor) => { host.view.point(cursor); return host.view.report().readout; }"
    return view.host.evaluate(code, {"row": row, "column": column})


def test_the_sentence_gives_the_reason_and_the_weight(
    view: ViewOnScreen, scores: torch.Tensor
) -> None:
    weight = scores[3, :4].softmax(-1)[0]
    assert f"Its weight is {100 * weight:.1f}" in say(view, 3, 0)
    assert "which comes later: minus infinity is added" in say(view, 3, 5)
    reports(view, [{"padding": 3, "padding_side": "right"}])
    assert "which comes later and is padding" in say(view, 3, 6)
    assert "which is padding" in say(view, 7, 6)
    reports(view, [{"padding_side": "left"}])
    blind = say(view, 1, 0)
    assert "cannot see [pad] (token 0), which is padding" in blind
    assert "Softmax would divide 0 by 0; its weights are set to 0." in blind


def test_the_sum_of_a_row_says_among_how_many_keys_it_is_shared(view: ViewOnScreen) -> None:
    assert "shares its attention among 4 of 8 keys" in say(view, 3, None)
    assert "shares its attention among all 8 keys" in say(view, 7, None)
    reports(view, [{"padding": 2}])
    assert "[pad] (token 1) has a row sum of 0" in say(view, 1, None)
    place = view.report()["places"]["sums"]
    spot = {"x": place["left"] + 5, "y": place["top"] + 2.5 * place["cell"]}
    view.part("canvas", 3).hover(position=spot)
    assert view.report()["cursor"] == {"row": 2, "column": None}
    assert view.report()["cursors"]["scores"] is None


def test_without_a_cursor_it_says_what_the_mask_and_the_cache_do(view: ViewOnScreen) -> None:
    assert "e to the power of −∞ is 0" in view.report()["readout"]
    (drawn,) = reports(view, [{"padding": 4, "past": 2}])
    assert "A row of −∞ alone would give 0 divided by 0" in drawn["readout"]
    assert "The 2 positions in the cache are keys only" in drawn["readout"]


def test_a_cursor_below_the_rows_that_are_left_is_gone(view: ViewOnScreen) -> None:
    say(view, 7, 1)
    (drawn,) = reports(view, [{"past": 3}])
    assert drawn["cursor"] is None
    assert drawn["cursors"]["mask"] is None


def pixel(view: ViewOnScreen, table: int, row: int, column: int) -> list[int]:
    """The colour near the upper left corner of a cell, where no number is written."""
    place = list(view.report()["places"].values())[table]
    x, y = place["left"] + column * place["cell"] + 3, place["top"] + row * place["cell"] + 3
    code = """(canvas, [x, y]) => Array.from(canvas.getContext("2d").getImageData(
        x * devicePixelRatio, y * devicePixelRatio, 1, 1).data).slice(0, 3)"""
    return view.part("canvas", table).evaluate(code, [x, y])


def test_hidden_cells_are_hatched_in_the_mask_and_in_the_weights(view: ViewOnScreen) -> None:
    for table in (1, 2):
        assert pixel(view, table, 0, 5) != pixel(view, table, 5, 1)
    assert min(pixel(view, 1, 5, 1)) > 250
    reports(view, [{"causal": False}])
    assert min(pixel(view, 1, 0, 5)) > 250


@pytest.mark.parametrize("width", [600, 1000])
def test_the_cells_of_all_tables_have_one_size(
    screen: Any, scores: torch.Tensor, tmp_path: Path, width: int
) -> None:
    page = mask_view(scores, tokens=TOKENS).save(tmp_path / "page.html")
    (view,) = screen(page, width=width).wait_for_views()
    assert len({place["cell"] for place in view.report()["places"].values()}) == 1
    tops = [view.part("canvas", table).bounding_box() for table in range(3)]
    assert tops[0]["y"] == tops[1]["y"]
    assert (tops[2]["y"] == tops[0]["y"]) is (width == 1000)
