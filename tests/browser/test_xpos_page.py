"""The xPos view on the screen: all that JavaScript computes equals the package and torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.browser.screen import ViewOnScreen
from zeta_edu.rotary import rotate_queries_keys
from zeta_edu.views import XPosView, xpos_data, xpos_view

SETTINGS: list[dict[str, Any]] = [
    {},
    {"length": 100, "scale_base": 64},
    {"length": 65_536, "base": 500_000, "gamma": 1.5, "scale_base": 16_384},
    {"length": 4000, "base": 10, "gamma": 0.05, "scale_base": 16},
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("xpos")
    return {dim: xpos_view(dim).save(folder / f"{dim}.html") for dim in (2, 64, 96)}


def set_to(view: ViewOnScreen, changes: dict[str, Any]) -> dict[str, Any]:
    view.host.evaluate("(host, changes) => host.view.set(changes)", changes)
    return view.report()


@pytest.mark.parametrize("dim", [2, 64, 96])
@pytest.mark.parametrize("changes", SETTINGS)
def test_curves_are_those_of_torch(
    screen: Any, pages: dict[int, Path], dim: int, changes: dict[str, Any]
) -> None:
    (view,) = screen(pages[dim]).wait_for_views()
    python = xpos_view(dim, **changes)
    for name in xpos_data.CURVES:
        shown = set_to(view, {**changes, "curve": name})
        distances = torch.tensor(shown["distances"], dtype=torch.float64)
        assert distances[0] == 0
        assert 100 <= len(distances) <= 1025
        assert 0 <= python.length - distances[-1] < distances[1]
        left = python.strengths(distances)
        for which, kept in (("rope", torch.ones_like(left)), ("xpos", left)):
            expected = xpos_data.curve(name, distances, kept, python.base)
            np.testing.assert_allclose(shown[which], expected, atol=1e-9)
    assert shown["title"] == python.title


def test_the_sum_is_the_product_that_the_package_computes(
    screen: Any, pages: dict[int, Path]
) -> None:
    (view,) = screen(pages[64]).wait_for_views()
    for scale_base in (512, 40):
        shown = set_to(view, {"scale_base": scale_base})
        ones = torch.ones(len(shown["distances"]), 64, dtype=torch.float64)
        places = torch.tensor(shown["distances"])
        for which in ("rope", "xpos"):
            query, keys = rotate_queries_keys(
                ones[:1], ones, places[-1:], places, which == "xpos", scale_base
            )
            products = (query @ keys.T).flatten().flip(0) / 64
            np.testing.assert_allclose(shown[which], products, atol=1e-9)


@pytest.mark.parametrize("changes", SETTINGS)
def test_pairs_and_overflow_are_those_of_torch(
    screen: Any, pages: dict[int, Path], changes: dict[str, Any]
) -> None:
    for dim in (2, 96):
        (view,) = screen(pages[dim]).wait_for_views()
        shown, python = set_to(view, changes), xpos_view(dim, **changes)
        distances = torch.tensor(shown["distances"], dtype=torch.float64)
        groups = xpos_data.bands(python.strengths(distances))
        assert shown["groups"] == [list(pairs) for pairs, _ in groups]
        for drawn, (_, height) in zip(shown["bands"], groups, strict=True):
            np.testing.assert_allclose(drawn, height, atol=1e-12)
        assert shown["overflows"] == xpos_data.overflows(python.gamma, python.scale_base)
        last = 1.12 * shown["overflows"]["float32"]
        positions = torch.linspace(0, last, len(shown["factors"]), dtype=torch.float64)
        factors = xpos_data.zetas(dim, python.gamma)[0] ** (-positions / python.scale_base)
        np.testing.assert_allclose([float(f) for f in shown["factors"]], factors, rtol=1e-9)


def of_a_model() -> tuple[XPosView, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 40, 16, dtype=torch.float64, generator=generator) + 0.3
    keys = torch.randn(1, 40, 16, dtype=torch.float64, generator=generator) + 0.3
    return xpos_view(16, length=40, queries=queries, keys=keys), queries, keys


def test_a_models_products_are_drawn_for_any_constants(screen: Any, tmp_path: Path) -> None:
    python, queries, keys = of_a_model()
    (view,) = screen(python.save(tmp_path / "page.html")).wait_for_views()
    places = torch.arange(40)
    for head, scale_base in ((0, 512), (1, 512), (1, 20)):
        own = set_to(view, {"head": head, "scale_base": scale_base})["own"]
        assert own["distances"] == places.tolist()
        length = queries[head].norm(dim=-1).mean() * keys[0].norm(dim=-1).mean()
        for which in ("rope", "xpos"):
            q, k = rotate_queries_keys(
                queries[head], keys[0], places, places, which == "xpos", scale_base
            )
            scores = q @ k.T / length
            expected = [scores.diagonal(-distance).mean().item() for distance in places]
            np.testing.assert_allclose(own[which], expected, atol=1e-6)
    own = set_to(view, {"base": 100, "gamma": 2, "scale_base": 30, "head": 0})["own"]
    assert python.own is not None
    distances, products = python.own
    left = xpos_data.strengths(distances, 16, 2, 30)
    expected = xpos_data.model_curve(distances, products[0], left, 100)
    np.testing.assert_allclose(own["xpos"], expected, atol=1e-6)
    view.control("head", "select").select_option("1")
    assert view.report()["head"] == 1


def test_the_sentence_follows_the_cursor_over_the_curves(screen: Any, tmp_path: Path) -> None:
    python, _, _ = of_a_model()
    (view,) = screen(python.save(tmp_path / "page.html")).wait_for_views()
    assert "all point one way" in view.report()["readout"]
    canvas = view.part(".plot canvas")
    canvas.hover(position={"x": 300, "y": 100})
    shown = view.report()
    at = shown["cursor"]["at"]
    assert shown["cursor"]["distance"] == shown["distances"][at]
    assert f"At distance {shown['cursor']['distance']}," in shown["readout"]
    assert f"{100 * shown['xpos'][at]:.0f}\u00a0% with xPos" in shown["readout"]
    assert "The head's own products" in shown["readout"]
    for curve, words in (("bound", "bound stands at"), ("ceiling", "some query and key keep")):
        set_to(view, {"curve": curve})
        assert words in view.report()["readout"]
    canvas.focus()
    view.press("Home", "ArrowRight", "ArrowRight")
    assert view.report()["cursor"]["distance"] == 2


def test_the_sentence_follows_the_cursor_over_pairs_and_factors(
    screen: Any, pages: dict[int, Path]
) -> None:
    (view,) = screen(pages[64]).wait_for_views()
    view.part(".plot canvas", 1).focus()
    view.press("Home", "End")
    shown = view.report()
    last = shown["distances"][-1]
    assert shown["cursor"] == {"at": len(shown["distances"]) - 1, "distance": last, "bands": True}
    slowest = 4 * shown["bands"][-1][-1]
    assert f"{100 * slowest:.0f}\u00a0% of pairs 24 to 31 (a turn in" in shown["readout"]
    factors = view.part(".plot canvas", 2)
    factors.focus()
    view.press("Home")  # the first key pressed sets the cursor down at the left
    assert "every dtype can hold" in view.report()["readout"]
    view.press("End")
    assert "infinite in float16, bfloat16, float32" in view.report()["readout"]
    factors.evaluate("(canvas) => canvas.blur()")
    assert view.report()["cursor"] is None
    assert "4,533 in float16, 36,260 in bfloat16, 36,261 in float32" in view.text(".note")


def test_sliders_stop_at_numbers_that_can_be_read(screen: Any, pages: dict[int, Path]) -> None:
    (view,) = screen(pages[64]).wait_for_views()
    view.slide("scale_base", 3.21)
    assert view.report()["scale_base"] == 1620
    view.slide("length", 2.5)
    assert view.report()["length"] == 316
    assert "at distance 316" in view.report()["title"]
    view.slide("gamma", 0)
    assert view.report()["gamma"] == 1
