"""The rotary view in the browser: what JavaScript turns and sums is what the package computes."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from tests.browser.screen import ViewOnScreen
from zeta_edu.rotary import rotary_frequencies, rotary_tables, rotate, rotate_queries_keys
from zeta_edu.views import rotary_view

DIM = 8
LENGTH = 200_000
QUERIES, KEYS = torch.randn(2, 3, DIM, generator=torch.Generator().manual_seed(0)).double()
INTERLEAVED = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])  # the order that makes half-split pairs
SETTINGS: list[dict[str, Any]] = [
    {"m": 0, "n": 0, "pairing": "half-split"},
    {"m": 7, "n": 3, "pairing": "half-split"},
    {"m": 2, "n": 60, "pairing": "interleaved"},
    {"m": 199_999, "n": 199_991, "pairing": "half-split", "query": 2},
    {"m": 131_072, "n": 5, "pairing": "interleaved", "key": 1},
]


@pytest.fixture
def view(screen: Any, tmp_path: Path) -> ViewOnScreen:
    made = rotary_view(queries=QUERIES, keys=KEYS, length=LENGTH)
    (shown,) = screen(made.save(tmp_path / "page.html")).wait_for_views()
    return shown


@pytest.fixture
def plain(screen: Any, tmp_path: Path) -> ViewOnScreen:
    (shown,) = screen(rotary_view(8).save(tmp_path / "page.html")).wait_for_views()
    return shown


def change(view: ViewOnScreen, **changes: Any) -> dict[str, Any]:
    view.host.evaluate("(host, changes) => host.view.set(changes)", changes)
    return view.report()


def vectors(shown: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The query and the key that are chosen, with their pairs half a vector apart."""
    query, key = QUERIES[shown["query"]], KEYS[shown["key"]]
    if shown["pairing"] == "interleaved":
        return query[INTERLEAVED], key[INTERLEAVED]
    return query, key


def as_pairs(vector: torch.Tensor) -> torch.Tensor:
    return vector.reshape(2, -1).T


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_hands_and_product_are_those_of_the_package(
    view: ViewOnScreen, setting: dict[str, Any]
) -> None:
    shown = change(view, **setting)
    query, key = vectors(shown)
    places = torch.tensor([shown["m"]]), torch.tensor([shown["n"]])
    turned = rotate_queries_keys(query[None], key[None], *places, use_xpos=False)
    assert_allclose(shown["queries"], as_pairs(turned[0][0]), atol=1e-6)
    assert_allclose(shown["keys"], as_pairs(turned[1][0]), atol=1e-6)
    assert_allclose(shown["parts"], as_pairs(turned[0][0] * turned[1][0]).sum(dim=1), atol=1e-6)
    assert_allclose(shown["product"], (turned[0] * turned[1]).sum(), atol=1e-6)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_angle_between_the_hands_gives_each_pairs_share(
    view: ViewOnScreen, setting: dict[str, Any]
) -> None:
    shown = change(view, **setting)
    lengths = [np.linalg.norm(shown[which], axis=1) for which in ("queries", "keys")]
    assert_allclose(lengths[0] * lengths[1] * np.cos(shown["between"]), shown["parts"], atol=1e-9)
    assert np.abs(shown["between"]).max() <= math.pi


def test_speeds_are_those_of_the_package_and_powers_of_any_other_base(view: ViewOnScreen) -> None:
    assert_allclose(view.report()["speeds"], rotary_frequencies(DIM), rtol=1e-12)
    shown = change(view, base=500.0)
    assert_allclose(shown["speeds"], 500.0 ** (-torch.arange(0, DIM, 2) / DIM), rtol=1e-6)


@pytest.mark.parametrize("around", [0, 90_000])
@pytest.mark.parametrize("pairing", ["half-split", "interleaved"])
def test_both_curves_are_the_packages_product_at_every_distance(
    view: ViewOnScreen, around: int, pairing: str
) -> None:
    shown = change(view, m=around + 7, n=0, pairing=pairing)
    distances = torch.tensor(shown["curve"]["x"])
    assert len(distances) == 257
    assert shown["m"] - shown["n"] in distances
    other = "interleaved" if pairing == "half-split" else "half-split"
    for name, way in (("y", pairing), ("others", other)):
        query, key = vectors({**shown, "pairing": way})
        turned, _ = rotate_queries_keys(
            query.expand(257, -1), key[None], distances, torch.zeros(1), use_xpos=False
        )
        assert_allclose(shown["curve"][name], turned @ key, atol=1e-6)


def test_a_short_map_holds_the_cosines_of_the_packages_tables(plain: ViewOnScreen) -> None:
    cos, _ = rotary_tables(0, 128, 8, torch.device("cpu"), torch.float64)
    assert_allclose(np.reshape(plain.report()["cosines"], (4, 128)), cos.T, atol=1e-12)


def test_a_column_of_a_long_map_is_the_mean_of_its_positions(view: ViewOnScreen) -> None:
    cos, _ = rotary_tables(0, LENGTH, DIM, torch.device("cpu"), torch.float64)
    edges = [column * LENGTH // 256 for column in range(257)]
    means = [cos[first:last].mean(dim=0) for first, last in itertools.pairwise(edges)]
    assert_allclose(np.reshape(view.report()["cosines"], (4, 256)), torch.stack(means).T, atol=1e-9)


def test_the_package_turns_the_default_hands_as_the_clocks_do(plain: ViewOnScreen) -> None:
    cos, sin = rotary_tables(90, 91, 8, torch.device("cpu"), torch.float64)
    upright = torch.tensor([[1.0] * 4 + [0.0] * 4], dtype=torch.double)
    shown = change(plain, m=90)
    assert_allclose(shown["queries"], as_pairs(rotate(upright, cos, sin)[0]), atol=1e-12)


# Both together.


def test_moved_together_the_product_stays_and_moved_alone_it_does_not(view: ViewOnScreen) -> None:
    before = change(view, m=48, n=32, together=True)
    after = change(view, m=150_048)
    assert (after["m"], after["n"]) == (150_048, 150_032)
    assert_allclose(after["product"], before["product"], atol=1e-6)
    assert "150,048" in after["readout"]
    alone = change(view, together=False, m=150_049)
    assert alone["n"] == 150_032
    assert abs(alone["product"] - before["product"]) > 0.01


def test_moved_together_neither_leaves_the_positions(plain: ViewOnScreen) -> None:
    change(plain, m=48, n=32, together=True)
    assert {**change(plain, n=127)}["m"] == 127
    shown = change(plain, m=0)
    assert (shown["m"], shown["n"]) == (16, 0)


def test_the_sentence_says_so_with_the_numbers(plain: ViewOnScreen) -> None:
    shown = change(plain, m=48, n=32)
    product = f"{shown['product']:.5g}"
    assert shown["readout"].count(product) == 2
    assert "still 16 apart" in shown["readout"]
    assert "With the query alone moved to 49" in shown["readout"]
    assert f"{shown['product']:.4g}" in shown["title"]


def test_the_title_says_which_one_is_ahead(plain: ViewOnScreen) -> None:
    assert "the query 5 positions before the key" in change(plain, m=1, n=6)["title"]
    assert "the query 1 position after the key" in change(plain, m=7, n=6)["title"]
    assert "at one position" in change(plain, m=6, n=6)["title"]


# In the clocks.


def drag(view: ViewOnScreen, *places: tuple[float, float]) -> None:
    """Press the mouse at the first place of the page, pull it over the others, let go."""
    mouse = view.page.mouse
    mouse.move(*places[0])
    mouse.down()
    for place in places[1:]:
        mouse.move(*place)
    mouse.up()


def on_clock(view: ViewOnScreen, pair: int, bearing: float) -> tuple[float, float]:
    face = view.part(".clock svg", pair)
    face.scroll_into_view_if_needed()
    box = face.bounding_box()
    reach = 0.4 * box["width"]
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return x + reach * math.sin(bearing), y - reach * math.cos(bearing)


def dragged_hand(view: ViewOnScreen, pair: int, start: float, turn: float) -> dict[str, Any]:
    drag(view, *[on_clock(view, pair, start + turn * step / 8) for step in range(9)])
    return view.report()


def test_a_hand_is_dragged_and_takes_its_position_along(plain: ViewOnScreen) -> None:
    change(plain, m=10, n=60)
    shown = dragged_hand(plain, pair=1, start=1.0, turn=1.2)  # 0.1 rad for each position
    assert (shown["m"], shown["n"]) == (22, 60)
    shown = dragged_hand(plain, pair=2, start=0.6, turn=-0.2)  # 0.01 rad for each position
    assert (shown["m"], shown["n"]) == (22, 40)


def test_a_hand_is_dragged_more_than_once_round_and_stops_at_the_last_position(
    plain: ViewOnScreen,
) -> None:
    change(plain, m=0, n=100)
    drag(plain, *[on_clock(plain, 1, 0.34 * step) for step in range(24)])
    assert plain.report()["m"] == round(0.34 * 23 / 0.1)
    assert dragged_hand(plain, pair=3, start=0.08, turn=1.5)["m"] == 127


def test_hands_turn_by_keyboard(plain: ViewOnScreen) -> None:
    change(plain, m=48, n=32)
    plain.part(".clocks").focus()
    plain.press("ArrowUp", "ArrowUp", "Shift+ArrowDown", "PageUp")
    assert (plain.report()["m"], plain.report()["n"]) == (60, 31)
    change(plain, together=True)
    plain.press("ArrowDown")
    assert (plain.report()["m"], plain.report()["n"]) == (59, 30)


def test_a_clock_tells_about_its_pair_by_mouse_and_keyboard(plain: ViewOnScreen) -> None:
    plain.part(".clock svg", 2).hover()
    assert plain.report()["readout"].startswith("Pair 2, features 2 and 6: it turns 0.01 rad")
    plain.page.mouse.move(0, 0)
    plain.part(".clocks").focus()
    plain.press("ArrowRight", "ArrowRight")
    change(plain, pairing="interleaved")
    assert plain.report()["readout"].startswith("Pair 1, features 2 and 3: ")
    plain.press("End")
    assert plain.report()["cursor"] == {"on": "clock", "pair": 3}


# In the map.


def on_map(view: ViewOnScreen, position: float, pair: int) -> tuple[float, float]:
    box = view.part(".field").bounding_box()
    return (
        box["x"] + (position + 0.5) / 128 * box["width"],
        box["y"] + (pair + 0.5) / 4 * box["height"],
    )


def test_posts_are_dragged_alone_and_by_the_bar_between_them(plain: ViewOnScreen) -> None:
    change(plain, m=80, n=40)
    plain.part(".field").scroll_into_view_if_needed()
    drag(plain, on_map(plain, 80, 0), on_map(plain, 85, 1), on_map(plain, 90, 1))
    assert (plain.report()["m"], plain.report()["n"]) == (90, 40)
    drag(plain, on_map(plain, 40, 0), on_map(plain, 20, 1))
    assert (plain.report()["m"], plain.report()["n"]) == (90, 20)
    box = plain.part(".bar").bounding_box()
    height = box["y"] + box["height"] / 2
    drag(plain, *[(on_map(plain, at, 0)[0], height) for at in (50, 60, 55, 67)])
    assert (plain.report()["m"], plain.report()["n"]) == (107, 37)


def test_a_click_in_the_map_sends_the_query_there_and_with_shift_the_key(
    plain: ViewOnScreen,
) -> None:
    change(plain, m=80, n=40)
    plain.part(".field").scroll_into_view_if_needed()
    drag(plain, on_map(plain, 110, 2))
    assert (plain.report()["m"], plain.report()["n"]) == (110, 40)
    plain.page.keyboard.down("Shift")
    drag(plain, on_map(plain, 60, 2))
    plain.page.keyboard.up("Shift")
    assert (plain.report()["m"], plain.report()["n"]) == (110, 60)


def test_the_map_is_read_and_used_by_keyboard(plain: ViewOnScreen) -> None:
    plain.part(".field").focus()
    plain.press("ArrowRight", *["ArrowRight"] * 4, "ArrowDown")
    readout = plain.report()["readout"]
    assert readout.startswith("Pair 1 at position 4 has turned by 0.4 rad")
    assert f"cosine {math.cos(0.4):.3g}" in readout
    plain.press("Enter", "ArrowRight", "Shift+Enter")
    assert (plain.report()["m"], plain.report()["n"]) == (4, 5)


def test_a_column_of_many_positions_says_so(view: ViewOnScreen) -> None:
    view.part(".field").focus()
    view.press("ArrowRight")
    assert "Pair 0 at the positions 0 to 780: on average" in view.report()["readout"]
    assert "mean of about 781 positions" in view.text(".angles .keys")


# In the curve.


def test_the_curve_is_read_and_moves_the_query(plain: ViewOnScreen) -> None:
    change(plain, m=48, n=32)
    plain.part(".plot canvas").focus()
    plain.press("ArrowRight", "End", "ArrowLeft", "ArrowLeft")
    shown = plain.report()
    assert "the query 125 positions after the key" in shown["readout"]
    assert f"{shown['curve']['y'][-3]:.5g}".replace("-", "−") in shown["readout"]
    plain.press("Enter")
    assert (plain.report()["m"], plain.report()["n"]) == (127, 2)
    plain.press("Home", "Enter")
    assert (plain.report()["m"], plain.report()["n"]) == (0, 127)


def test_many_pairs_have_clocks_without_words_that_still_turn(screen: Any, tmp_path: Path) -> None:
    page = rotary_view(128, length=512).save(tmp_path / "page.html")
    (view,) = screen(page, width=700).wait_for_views()
    change(view, m=100, n=400)
    assert view.host.evaluate("(host) => host.shadowRoot.querySelectorAll('.clock').length") == 64
    pair = 40
    speed = float(rotary_frequencies(128)[pair])
    shown = dragged_hand(view, pair, start=100 * speed, turn=0.5)
    assert shown["m"] == round(100 + 0.5 / speed)


DRAG = """async (host, steps) => {
    const times = [];
    for (let step = 0; step < steps; step++) {
        const began = performance.now();
        host.view.set({ m: step % 128 });
        times.push(performance.now() - began);
    }
    return times.sort((one, other) => one - other)[Math.floor(steps / 2)];
}"""


def test_a_step_of_a_drag_is_quick(view: ViewOnScreen) -> None:
    milliseconds = view.host.evaluate(DRAG, 60)
    print(f"\none step of a drag: {milliseconds:.1f} ms of script (median of 60)")
    assert milliseconds < 4 * 16  # machines do other things besides
