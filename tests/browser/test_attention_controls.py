"""Every control of the attention view, by mouse and by keyboard, moves what it should."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.browser.screen import ViewOnScreen
from zeta_edu.views import attention_view

TOKENS = list("abcdefghij")
FOCUSED = """(host) => {
    const node = host.shadowRoot.activeElement;
    return node && (node.name || node.className || node.role || node.tagName);
}"""
COUNT = len(TOKENS)


@pytest.fixture(scope="module")
def scores() -> torch.Tensor:
    return 3 * torch.randn(3, 4, COUNT, COUNT, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def masked(scores: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(torch.ones(COUNT, COUNT).triu(1).bool(), -torch.inf)


@pytest.fixture
def view(screen: Any, scores: torch.Tensor, masked: torch.Tensor, tmp_path: Path) -> ViewOnScreen:
    made = attention_view(
        masked.softmax(-1),
        TOKENS,
        stages={"scores": scores, "masked": masked},
        layer=0,
        head=0,
        query=5,
    )
    (shown,) = screen(made.save(tmp_path / "page.html")).wait_for_views()
    return shown


def press(view: ViewOnScreen, *keys: str) -> None:
    for key in keys:
        view.page.keyboard.press(key)


def test_layer_and_head_are_chosen_in_lists_by_keyboard(view: ViewOnScreen) -> None:
    view.part(".drop select", 0).focus()
    press(view, "ArrowDown")
    view.part(".drop select", 1).focus()
    press(view, "ArrowDown", "ArrowDown")
    assert (view.report()["layer"], view.report()["head"]) == (1, 2)


def test_a_head_is_chosen_in_the_grid_by_mouse(view: ViewOnScreen) -> None:
    view.part(".row button", 2 * 4 + 3).hover()
    assert view.report()["readout"].startswith("Layer 2, head 3: ")
    view.part(".row button", 2 * 4 + 3).click()
    assert (view.report()["layer"], view.report()["head"]) == (2, 3)
    assert view.part(".drop select", 0).input_value() == "2"


def test_a_head_is_chosen_in_the_grid_by_keyboard(view: ViewOnScreen) -> None:
    view.part('.row button[tabindex="0"]').focus()
    press(view, "ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowRight", "ArrowDown")
    assert (view.report()["layer"], view.report()["head"]) == (2, 1)
    selected = view.part('.row button[aria-selected="true"]').get_attribute("aria-label")
    assert selected.startswith("layer 2, head 1: ")


def test_the_grid_shows_every_head(view: ViewOnScreen, masked: torch.Tensor) -> None:
    """The thumbnail of a head is darkest where its weight is largest."""
    weights = masked.softmax(-1)
    code = """(canvas) => Array.from(canvas.getContext("2d").getImageData(0, 0, 10, 10).data)"""
    for layer in range(3):
        for head in range(4):
            data = view.part(".row canvas", layer * 4 + head).evaluate(code)
            picture = np.array(data).reshape(COUNT, COUNT, 4)
            assert (picture[..., 3] > 0).sum() == (weights[layer, head] > 0).sum()
            shade = np.where(picture[..., 3] > 0, picture[..., :3].sum(-1), 1000)
            assert shade.flat[int(weights[layer, head].argmax())] == shade.min()


def test_a_query_is_pinned_in_the_text(view: ViewOnScreen, masked: torch.Tensor) -> None:
    view.part(".token", 7).click()
    assert view.report()["query"] == 7
    np.testing.assert_allclose(view.report()["line"], masked[0, 0, 7].softmax(-1), atol=1e-3)
    view.part(".strip").focus()
    press(view, "ArrowLeft", "ArrowLeft", "ArrowRight", "Enter")
    assert view.report()["query"] == 6
    press(view, "Home", " ")
    assert view.report()["query"] == 0
    press(view, "End", "Enter")
    assert view.report()["query"] == COUNT - 1


def test_lines_lead_from_the_hovered_token_to_what_it_looks_at(
    view: ViewOnScreen, masked: torch.Tensor
) -> None:
    assert view.report()["lines"] == []
    view.part(".token", 8).hover()
    weights = masked[0, 0, 8].softmax(-1)
    lines = view.report()["lines"]
    assert {line["to"] for line in lines} == set(torch.where(weights >= 0.02)[0].tolist())
    for line in lines:
        assert line["from"] == 8
        assert line["weight"] == pytest.approx(float(weights[line["to"]]), abs=1e-3)
    assert len(view.host.evaluate("(h) => [...h.shadowRoot.querySelectorAll('path')]")) == len(
        lines
    )
    view.page.mouse.move(1, 1)
    assert view.report()["lines"] == []


def test_the_sentence_follows_the_cursor(view: ViewOnScreen, masked: torch.Tensor) -> None:
    weights = masked.softmax(-1)[0, 0]
    assert view.report()["readout"].startswith("f (token 5) looks most at ")
    view.hover_cell(9, 4)
    percent = f"{100 * float(weights[9, 4]):.1f}" if weights[9, 4] >= 1e-3 else "less than 0.1"
    assert view.report()["readout"] == (
        f"j (token 9) gives {percent}\u00a0% of its attention to e (token 4)."
    )
    view.part(".map canvas").focus()
    press(view, "ArrowLeft", "ArrowUp")
    assert view.report()["cursor"] == {"query": 8, "key": 3}
    assert "i (token 8)" in view.report()["readout"]
    assert view.part(".readout").get_attribute("aria-live") == "polite"


def test_a_query_is_pinned_in_the_map_by_mouse_and_by_keyboard(view: ViewOnScreen) -> None:
    view.click_cell(3, 1)
    assert view.report()["query"] == 3
    view.page.mouse.move(1, 1)
    view.part(".map canvas").focus()
    press(view, "ArrowDown", "ArrowDown", "ArrowDown", "Enter")
    assert view.report()["query"] == 5
    press(view, "Home")
    assert view.report()["cursor"]["key"] == 0
    press(view, "End", "PageUp")
    assert view.report()["cursor"] == {"query": 0, "key": COUNT - 1}


@pytest.mark.parametrize("by_keyboard", [False, True])
def test_the_other_direction_shows_who_looks_at_a_token(
    view: ViewOnScreen, masked: torch.Tensor, by_keyboard: bool
) -> None:
    if by_keyboard:
        view.part('input[value="query"]').focus()
        press(view, "ArrowRight")
    else:
        view.choose("The picked token", "key")
    view.part(".token", 2).click()
    drawn = view.report()
    assert (drawn["direction"], drawn["query"]) == ("key", 2)
    np.testing.assert_allclose(drawn["line"], masked.softmax(-1)[0, 0, :, 2], atol=1e-3)
    assert "c (token 2) is looked at" in drawn["readout"]
    view.click_cell(9, 6)
    assert view.report()["query"] == 6


@pytest.mark.parametrize("by_keyboard", [False, True])
def test_the_log_scale_shows_small_weights(view: ViewOnScreen, by_keyboard: bool) -> None:
    before = view.pixel(5, 0), view.report()["values"]
    if by_keyboard:
        view.part('input[value="linear"]').focus()
        press(view, "ArrowRight")
    else:
        view.choose("Scale", "log")
    assert view.report()["range"]["log"] is True
    assert view.report()["values"] == before[1]
    assert sum(view.pixel(5, 0)) < sum(before[0])
    assert "log" in view.text(".legend")


@pytest.mark.parametrize("by_keyboard", [False, True])
def test_the_steps_before_the_weights_can_be_seen(
    view: ViewOnScreen, scores: torch.Tensor, masked: torch.Tensor, by_keyboard: bool
) -> None:
    def step(name: str, key: str) -> None:
        if by_keyboard:
            view.part('input[name="Step"]:checked').focus()
            press(view, key)
        else:
            view.choose("Step", name)
        assert view.report()["stage"] == name

    step("masked", "ArrowLeft")
    np.testing.assert_allclose(view.matrix(), masked[0, 0], rtol=1e-5)
    view.hover_cell(2, 8)
    assert "masked" in view.report()["readout"]
    view.page.mouse.move(1, 1)
    step("scores", "ArrowLeft")
    np.testing.assert_allclose(view.matrix(), scores[0, 0], rtol=1e-5)
    assert view.report()["range"]["low"] == pytest.approx(float(scores[0, 0].min()), rel=1e-5)
    step("softmax", "ArrowLeft")


def test_zoom_by_buttons_wheel_and_keys_and_drag_to_move(screen: Any, tmp_path: Path) -> None:
    weights = torch.eye(64)[None, None]
    made = attention_view(weights).save(tmp_path / "page.html")
    (view,) = screen(made).wait_for_views()

    def size() -> int:
        window = view.report()["window"]
        return int(window["q1"] - window["q0"])

    view.part(".zoom button", 0).click()
    assert size() == 32
    view.part(".zoom button", 1).click()
    assert size() == 64
    view.part(".map canvas").focus()
    press(view, "+", "+")
    assert size() == 16
    press(view, "-")
    assert size() == 32
    press(view, "0")
    assert size() == 64
    view.hover_cell(10, 10)
    view.page.keyboard.down("Control")
    view.page.mouse.wheel(0, -100)
    view.page.keyboard.up("Control")
    assert size() < 64
    view.part(".zoom button", 0).click()
    before = view.report()["window"]
    start = view.cell_on_page(before["q0"] + 10, before["k0"] + 10)
    end = view.cell_on_page(before["q0"] + 6, before["k0"] + 4)
    view.page.mouse.move(*start)
    view.page.mouse.down()
    view.page.mouse.move(*end, steps=5)
    view.page.mouse.up()
    after = view.report()["window"]
    assert (after["q0"], after["k0"]) == (before["q0"] + 4, before["k0"] + 6)
    assert after["q1"] - after["q0"] == size()
    matrix = np.array(view.matrix())
    expected = weights[0, 0, after["q0"] : after["q1"], after["k0"] : after["k1"]]
    np.testing.assert_allclose(matrix, expected, atol=1e-3)


def test_a_head_alone_has_no_lists_to_choose_it_from(screen: Any, tmp_path: Path) -> None:
    made = attention_view(torch.eye(6)[None]).save(tmp_path / "page.html")
    (view,) = screen(made).wait_for_views()
    assert view.part(".drop select") is None
    assert view.report()["title"] == "100\u00a0% of the attention goes to the token itself"
    assert not view.part(".heads").is_visible()
    view.part(".map canvas").focus()
    press(view, "Home", "ArrowUp", "Enter")
    assert view.report()["query"] == 4
    assert view.report()["readout"].startswith("4 (token 4) ")


def test_a_plain_wheel_is_left_to_the_page(view: ViewOnScreen) -> None:
    before = view.report()["window"]
    view.hover_cell(5, 5)
    view.page.mouse.wheel(0, -100)
    view.page.wait_for_timeout(50)
    assert view.report()["window"] == before


def test_every_control_can_be_reached_with_the_tab_key(view: ViewOnScreen) -> None:
    view.page.evaluate("() => document.body.focus()")
    reached = set()
    for _ in range(16):
        press(view, "Tab")
        reached.add(view.host.evaluate(FOCUSED))
    assert {
        "SELECT",
        "The picked token",
        "Scale",
        "Step",
        "strip",
        "application",
        "gridcell",
    } <= reached
