"""A saved view of query-key normalisation computes what torch does, at every setting."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.browser.screen import ViewOnScreen
from zeta_edu.attention import attention_weights
from zeta_edu.norm import l2_normalise
from zeta_edu.views import QKNormView, qknorm_view
from zeta_edu.views.qknorm_data import SCALES, histogram, measure


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scales() -> dict[str, torch.Tensor]:
    return {"q_scale": 1 + drawn(8, seed=5) / 3, "k_scale": 1 + drawn(8, seed=6) / 3}


MADE = {
    "plain": lambda: qknorm_view(drawn(2, 16, 8), drawn(2, 16, 8, seed=1)),
    "causal, fewer keys' heads": lambda: qknorm_view(
        drawn(4, 7, 8), drawn(2, 9, 8, seed=1), causal=True, qk_scale=5, **scales()
    ),
    "zeros": lambda: qknorm_view(torch.zeros(1, 3, 8), drawn(1, 4, 8)),
}
SETTINGS = (
    {},
    {"normalise": False},
    {"activations": 0.1, "normalise": False},
    {"activations": 10, "normalise": False},
    {"activations": 100, "normalise": False},
    {"activations": 100},
    {"qk_scale": 1},
    {"qk_scale": 40, "activations": 2.5},
)


def opened(screen: Any, view: QKNormView, folder: Path, **options: Any) -> ViewOnScreen:
    (shown,) = screen(view.save(folder / "page.html"), **options).wait_for_views()
    return shown


@pytest.fixture
def view() -> QKNormView:
    return MADE["plain"]()


@pytest.mark.parametrize("name", MADE)
def test_logits_weights_and_entropies_are_torchs(screen: Any, name: str, tmp_path: Path) -> None:
    made = MADE[name]()
    shown = opened(screen, made, tmp_path)
    start = made.state()["start"]
    for setting in SETTINGS:
        now = {**start, **setting}
        shown.host.evaluate("(host, now) => host.view.set(now)", now)
        report = shown.report()
        expected = measure(made.vectors, now["activations"], now["normalise"], now["qk_scale"])
        for what in ("logits", "weights", "entropies"):
            numbers = getattr(expected, what).flatten()
            np.testing.assert_allclose(report[what], numbers, rtol=1e-9, atol=1e-9)
        assert report["largest"] == pytest.approx(expected.largest)
        assert report["bound"] == pytest.approx(now["qk_scale"] * made.vectors.gain)
        shares = histogram(expected.logits, made.state()["reach"])
        np.testing.assert_allclose(report["shares"], shares, atol=1e-9)


def test_the_weights_are_those_of_the_packages_own_functions(
    screen: Any, view: QKNormView, tmp_path: Path
) -> None:
    queries, keys = drawn(2, 16, 8).double(), drawn(2, 16, 8, seed=1).double()
    ones = torch.ones(8, dtype=torch.double)
    shown = opened(screen, view, tmp_path)
    unit = l2_normalise(queries, ones), l2_normalise(keys, ones)
    weights = attention_weights(unit[0][None], unit[1][None], scale=8.0)
    np.testing.assert_allclose(shown.report()["weights"], weights.flatten(), atol=1e-9)
    shown.control("normalise", "input").click()
    weights = attention_weights(queries[None], keys[None])
    np.testing.assert_allclose(shown.report()["weights"], weights.flatten(), atol=1e-9)


def test_the_curves_are_the_mean_entropies_at_their_activations(
    screen: Any, view: QKNormView, tmp_path: Path
) -> None:
    report = opened(screen, view, tmp_path).report()
    curve = [measure(view.vectors, scale, False, 8.0).entropy for scale in SCALES]
    np.testing.assert_allclose(report["curve"], curve, atol=1e-9)
    assert report["normalised"] == pytest.approx(measure(view.vectors, 50.0, True, 8.0).entropy)
    assert report["uniform"] == 4


def test_the_sliders_set_what_they_say(screen: Any, view: QKNormView, tmp_path: Path) -> None:
    shown = opened(screen, view, tmp_path)
    shown.slide("activations", 1)
    assert shown.report()["activations"] == pytest.approx(10)
    assert shown.control("activations", "output").inner_text() == "×10"
    shown.slide("qk_scale", 0)
    assert shown.report()["bound"] == 1
    assert "leaves ±1" in shown.report()["title"]


def test_with_normalisation_growing_activations_move_the_marker_and_nothing_else(
    screen: Any, view: QKNormView, tmp_path: Path
) -> None:
    shown = opened(screen, view, tmp_path)
    before = shown.report()
    shown.slide("activations", 2)
    after = shown.report()
    changed = {name for name in after if after[name] != before[name]} - {"firstDraw"}
    assert changed == {"activations", "marker"}
    assert after["marker"] > before["marker"]


@pytest.mark.parametrize("opening", [{}, {"normalise": False}, {"qk_scale": 1, "activations": 7}])
def test_the_title_is_pythons(screen: Any, tmp_path: Path, opening: dict[str, Any]) -> None:
    made = qknorm_view(drawn(2, 16, 8), drawn(2, 16, 8, seed=1), **opening)
    assert opened(screen, made, tmp_path).report()["title"] == made.title


def test_the_title_tells_the_collapse(screen: Any, view: QKNormView, tmp_path: Path) -> None:
    shown = opened(screen, view, tmp_path)
    assert "however large the activations" in shown.text("h3")
    shown.control("normalise", "input").click()
    assert "square of the activations" in shown.text("h3")
    shown.slide("activations", 2)
    assert shown.text("h3").endswith("×10,000: attention falls onto one key")


def test_a_click_on_the_curve_sets_the_activations_and_one_on_a_bar_the_head(
    screen: Any, view: QKNormView, tmp_path: Path
) -> None:
    shown = opened(screen, view, tmp_path)
    for index, control in ((1, "activations"), (2, "head")):
        canvas = shown.part("canvas", index)
        box = canvas.bounding_box()
        place = {"x": 0.8 * box["width"], "y": 0.5 * box["height"]}
        canvas.hover(position=place)
        assert "Click, or press Enter" in shown.report()["readout"]
        canvas.click(position=place)
        start = view.state()["start"][control]
        assert shown.report()[control] > start
    size = 16 * 16
    assert shown.report()["shown"] == shown.report()["weights"][size:]


def test_the_keyboard_does_the_same(screen: Any, view: QKNormView, tmp_path: Path) -> None:
    shown = opened(screen, view, tmp_path)
    shown.part("canvas", 1).focus()
    shown.press("ArrowRight", "ArrowRight", "Enter")
    assert shown.report()["activations"] == SCALES[1]
    shown.part("canvas", 2).focus()
    shown.press("End", "ArrowRight", "Enter")
    assert shown.report()["head"] == 1


def test_the_sentence_is_about_what_the_cursor_is_on(
    screen: Any, view: QKNormView, tmp_path: Path
) -> None:
    shown = opened(screen, view, tmp_path)
    said = [shown.report()["readout"]]
    for index, words in enumerate(
        ("beyond this picture", "without normalisation 4 bits", "Head 0: ", "query 0: key 0 has")
    ):
        shown.part("canvas", index).focus()
        shown.press("ArrowRight")
        said.append(shown.report()["readout"])
        assert words in said[-1]
    assert len(set(said)) == 5
    shown.part("canvas", 3).evaluate("(canvas) => canvas.blur()")
    assert shown.report()["readout"] == said[0]


def test_later_keys_are_said_to_be_hidden(screen: Any, tmp_path: Path) -> None:
    shown = opened(screen, MADE["causal, fewer keys' heads"](), tmp_path)
    shown.part("canvas", 3).focus()
    shown.press("ArrowRight", "End")
    assert shown.report()["readout"] == "Query 0 cannot see key 8, which comes later."


def test_the_bound_out_of_the_picture_is_told(screen: Any, tmp_path: Path) -> None:
    made = qknorm_view(drawn(2, 16, 8), drawn(2, 16, 8, seed=1))
    shown = opened(screen, made, tmp_path)
    label = "(host) => host.view.logits.x.label"
    assert shown.host.evaluate(label) == "logit (beyond ±10 in the last bars)"
    shown.slide("qk_scale", 1.5)
    assert shown.host.evaluate(label).endswith("; the bound, ±31.6, too)")


def test_one_head_leaves_nothing_to_choose(screen: Any, tmp_path: Path) -> None:
    shown = opened(screen, qknorm_view(drawn(1, 3, 4), drawn(1, 3, 4)), tmp_path)
    assert shown.control("head") is None
    assert shown.report()["head"] == 0


def test_without_keys_it_is_a_sentence(screen: Any, tmp_path: Path) -> None:
    made = qknorm_view(torch.zeros(1, 2, 4), torch.zeros(1, 0, 4))
    screen(made.save(tmp_path / "page.html")).page.get_by_text("no queries or no keys").wait_for()
