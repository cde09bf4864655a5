"""A saved attention view, opened from disk with the network off, draws what torch computed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zeta_edu.views import attention_view, style
from zeta_edu.views.attention_figure import weight_top

TEXT = ["def", " add", "(", "a", ",", " b", "):", "\n    ", "return", " a", " +", " b", "\n"]
HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "${document.title='owned'}",
    "&lt;b&gt;",
    "\u2028",
    "\u202eabc",
]


def causal(layers: int, heads: int, tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(layers, heads, tokens, tokens, generator=generator)
    return scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf).softmax(-1)


@pytest.fixture
def weights() -> torch.Tensor:
    return causal(3, 4, len(TEXT))


@pytest.fixture
def page(weights: torch.Tensor, tmp_path: Path) -> Path:
    return attention_view(weights, TEXT, layer=1, head=2).save(tmp_path / "page.html")


def test_every_head_is_drawn_as_torch_computed_it(
    screen: Any, page: Path, weights: torch.Tensor
) -> None:
    (view,) = screen(page).wait_for_views()
    for layer in range(3):
        for head in range(4):
            view.pick(0, layer)
            view.pick(1, head)
            np.testing.assert_allclose(view.matrix(), weights[layer, head], atol=1e-3)
            np.testing.assert_allclose(view.report()["line"], weights[layer, head, -1], atol=1e-3)


def test_it_opens_where_it_was_told(screen: Any, page: Path) -> None:
    (view,) = screen(page).wait_for_views()
    drawn = view.report()
    assert (drawn["layer"], drawn["head"], drawn["query"]) == (1, 2, len(TEXT) - 1)
    assert view.text("h3").startswith("Layer 1, head 2: ")


@pytest.mark.parametrize("dark", [False, True])
def test_pixels_have_the_colour_of_their_weight(
    screen: Any, page: Path, weights: torch.Tensor, dark: bool
) -> None:
    (view,) = screen(page, dark=dark).wait_for_views()
    head = weights[1, 2].numpy()
    top = weight_top(head)
    assert view.report()["range"]["high"] == top
    stops = np.array([style.to_rgb(c) for c in (style.STOPS_DARK if dark else style.STOPS_LIGHT)])
    at = np.linspace(0, 1, len(stops))
    for query, key in ((3, 1), (7, 7), (10, 0), (11, 6)):
        share = min(1.0, head[query, key] / top)
        expected = [255 * np.interp(share, at, stops[:, channel]) for channel in range(3)]
        np.testing.assert_allclose(view.pixel(query, key), expected, atol=4)


def test_what_cannot_be_seen_is_blank(screen: Any, page: Path) -> None:
    (view,) = screen(page).wait_for_views()
    blank = [round(255 * channel) for channel in style.to_rgb(style.LIGHT["blank"])]
    assert view.pixel(2, 9) == blank
    view.hover_cell(2, 9)
    assert "cannot see" in view.report()["readout"]


def test_dark_and_light_follow_the_page(screen: Any, page: Path) -> None:
    shown = screen(page, dark=True)
    (view,) = shown.wait_for_views()
    view.wait_until_dark(True)
    shown.page.emulate_media(color_scheme="light")
    view.wait_until_dark(False)
    shown.page.evaluate("() => { document.body.style.background = '#101010'; }")
    view.wait_until_dark(True)
    shown.page.evaluate("() => { document.body.dataset.jpThemeLight = 'true'; }")
    view.wait_until_dark(False)


@pytest.mark.parametrize(
    ("theme", "dark"),
    [("light", False), ("dark", True), ("high-contrast", True), ("high-contrast-light", False)],
)
def test_dark_and_light_follow_vs_code(screen: Any, page: Path, theme: str, dark: bool) -> None:
    """VS Code paints nothing behind an output, and says so in the page's body."""
    shown = screen(page, dark=not dark)
    (view,) = shown.wait_for_views()
    view.wait_until_dark(not dark)
    named = "(theme) => { document.body.dataset.vscodeThemeKind = `vscode-${theme}`; }"
    shown.page.evaluate(named, theme)
    view.wait_until_dark(dark)


@pytest.mark.parametrize("width", [600, 1000, 1400])
def test_nothing_sticks_out_at_any_width(screen: Any, page: Path, width: int) -> None:
    shown = screen(page, width=width)
    (view,) = shown.wait_for_views()
    assert shown.page.evaluate("() => document.documentElement.scrollWidth") <= width
    frame = view.part("section").bounding_box()
    for selector in (".map canvas", ".strip", ".grid", ".legend", ".controls"):
        box = view.part(selector).bounding_box()
        assert box["x"] >= frame["x"]
        assert box["x"] + box["width"] <= frame["x"] + frame["width"]


def test_hostile_tokens_are_only_text(screen: Any, tmp_path: Path) -> None:
    count = len(HOSTILE)
    weights = causal(1, 2, count)
    stages = {"<script>document.title='owned'</script>": torch.randn(1, 2, count, count)}
    view_of_them = attention_view(weights, HOSTILE, stages=stages)
    shown = screen(view_of_them.save(tmp_path / "page.html"))
    (view,) = shown.wait_for_views()
    for index in range(count):
        view.part(".token", index).hover()
        view.part(".token", index).click()
        view.hover_cell(index, 0)
    assert shown.page.title() == view_of_them.title
    assert view.text(".token", 0) == HOSTILE[0]
    # The page's own two scripts and one still picture; nothing inside the view.
    assert shown.page.evaluate("() => document.querySelectorAll('script, img').length") == 3
    inside = "(host) => host.shadowRoot.querySelectorAll('script, img, iframe, b b').length"
    assert view.host.evaluate(inside) == 0


def test_white_space_in_tokens_is_seen(screen: Any, page: Path) -> None:
    (view,) = screen(page).wait_for_views()
    assert view.text(".token", 1) == "·add"
    assert view.text(".token", 7) == "⏎\n····"
    lines = [view.part(".token", index).bounding_box()["y"] for index in (6, 8)]
    assert lines[0] < lines[1]


def test_not_a_number_has_a_colour_and_a_name_of_its_own(screen: Any, tmp_path: Path) -> None:
    weights = causal(1, 1, 5)
    weights[0, 0, 3, 1] = torch.nan
    (view,) = screen(attention_view(weights).save(tmp_path / "page.html")).wait_for_views()
    red = [round(255 * channel) for channel in style.to_rgb(style.NOT_A_NUMBER)]
    assert view.pixel(3, 1) == red
    assert "not a number" in view.text(".legend")
    view.hover_cell(3, 1)
    assert "not a number" in view.report()["readout"]


def test_a_text_without_tokens_says_so(screen: Any, tmp_path: Path) -> None:
    shown = screen(attention_view(torch.zeros(2, 2, 0, 0), []).save(tmp_path / "page.html"))
    shown.page.get_by_text("Nothing to look at yet").wait_for()


def test_queries_and_keys_may_be_different_texts(screen: Any, tmp_path: Path) -> None:
    weights = torch.rand(2, 2, 3, 7).softmax(-1)
    view = attention_view(weights, list("abcdefg"), query_tokens=list("xyz"), layer=0, head=0)
    (view_shown,) = screen(view.save(tmp_path / "page.html")).wait_for_views()
    np.testing.assert_allclose(view_shown.matrix(), weights[0, 0], atol=1e-3)
    np.testing.assert_allclose(view_shown.report()["line"], weights[0, 0, 2], atol=1e-3)
    view_shown.choose("The picked token", "key")
    view_shown.part(".strip", 1).query_selector_all(".token")[6].click()
    np.testing.assert_allclose(view_shown.report()["line"], weights[0, 0, :, 6], atol=1e-3)


def test_without_scripts_the_still_picture_and_its_words_show(
    screen: Any, page: Path, tmp_path: Path
) -> None:
    shown = screen(page, java_script_enabled=False)
    picture = shown.page.locator("img")
    assert picture.is_visible()
    assert picture.get_attribute("alt").startswith("Attention weights of 3 layers")


def test_two_views_and_one_of_them_twice_do_not_disturb_each_other(
    screen: Any, page: Path, tmp_path: Path, weights: torch.Tensor
) -> None:
    first = page.read_text("utf-8").split("<body>")[1].split("</body>")[0]
    other = attention_view(causal(1, 2, 4), list("wxyz")).html()
    second = other.split("<body>")[1].split("</body>")[0]
    both = tmp_path / "both.html"
    both.write_text(f"<!DOCTYPE html><meta charset=utf-8>{first}{second}{first}", "utf-8")
    one, two, three = screen(both).wait_for_views(3)
    before = two.report(), three.report()
    one.pick(0, 2)
    one.choose("Scale", "log")
    one.click_cell(4, 2)
    np.testing.assert_allclose(one.matrix(), weights[2, 2], atol=1e-3)
    assert (two.report(), three.report()) == before
    three.pick(1, 0)
    assert one.report()["head"] == 2


def test_more_tokens_than_dots_are_pooled_by_their_largest(screen: Any, tmp_path: Path) -> None:
    weights = torch.zeros(1, 1, 700, 700)
    weights[0, 0, :, 0] = 0.25
    weights[0, 0, 401, 533] = 1.0
    (view,) = screen(attention_view(weights).save(tmp_path / "page.html")).wait_for_views()
    drawn = np.array(view.matrix())
    rows, columns = drawn.shape
    assert max(rows, columns) <= 512
    assert drawn.max() == pytest.approx(1.0, abs=0.01)
    row, column = np.argwhere(drawn == drawn.max())[0]
    assert abs(row - 401 * rows / 700) <= 1
    assert abs(column - 533 * columns / 700) <= 1
    assert "largest of" in view.text(".map .note")
    view.hover_cell(401, 533)
    for _ in range(6):
        view.part(".map canvas").focus()
        view.page.keyboard.press("+")
    window = view.report()["window"]
    assert window["q1"] - window["q0"] < 30
    close = np.array(view.matrix())
    assert close[401 - window["q0"], 533 - window["k0"]] == pytest.approx(1.0, abs=0.01)
