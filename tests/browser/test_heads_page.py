"""The heads view in the browser: what it counts is what a block holds, and what it says is so."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.browser.screen import ViewOnScreen
from zeta_edu import TransformerBlock
from zeta_edu.views import heads_view
from zeta_edu.views.heads import HeadsView

HEADS, DIM_HEAD, DIM = 12, 16, 96
WIDTHS = {1: torch.float8_e4m3fn, 2: torch.bfloat16, 4: torch.float32}


@pytest.fixture(scope="module")
def made() -> HeadsView:
    return heads_view(HEADS, 4, dim_head=DIM_HEAD, dim=DIM, layers=3, context=512)


@pytest.fixture(scope="module")
def page(made: HeadsView, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.save(tmp_path_factory.mktemp("heads") / "page.html")


@pytest.fixture
def view(screen: Any, page: Path) -> ViewOnScreen:
    (shown,) = screen(page).wait_for_views()
    return shown


def held(kv_heads: int, context: int, layers: int, width: int) -> dict[str, dict[str, int]]:
    """What `layers` blocks and their full caches hold, on a device without memory."""
    with torch.device("meta"):
        block = TransformerBlock(DIM, DIM_HEAD, heads=HEADS, kv_heads=kv_heads)
        new = torch.zeros(1, kv_heads, context, DIM_HEAD, dtype=WIDTHS[width])
    keys, values = block.to(WIDTHS[width]).new_cache(1, context).extend(new, new)
    learned = dict(zip(("query", "key", "value"), block.fused_dims, strict=False))
    parameters = {name: DIM * rows for name, rows in learned.items()}
    parameters["output"] = block.attn_out.weight.numel()
    return {
        "parameters": {name: layers * count for name, count in parameters.items()},
        "cache": {"key": layers * keys.nbytes, "value": layers * values.nbytes},
    }


@pytest.mark.parametrize(("context", "layers", "width"), [(1, 1, 1), (512, 3, 2), (4096, 40, 4)])
def test_every_number_is_that_of_the_block_and_its_cache(
    view: ViewOnScreen, context: int, layers: int, width: int
) -> None:
    ways = (12, 6, 4, 3, 2, 1)
    expected = [held(way, context, layers, width) for way in ways]
    for kv_heads, here in zip(ways, expected, strict=True):
        changes = {"context": context, "layers": layers, "bytes_per_number": width}
        code = "(host, changes) => host.view.set(changes)"
        view.host.evaluate(code, {"kv_heads": kv_heads, **changes})
        shown = view.report()
        assert shown["parameters"] == here["parameters"]
        of_context = {name: context * count for name, count in shown["token"].items()}
        assert of_context == here["cache"]
        for what in ("cache", "parameters"):
            assert shown["bars"][what] == [way[what] for way in expected]
        assert shown["title"] == heads_view(HEADS, kv_heads).title


def middle(view: ViewOnScreen, selector: str) -> float:
    box = view.part(selector).bounding_box()
    return box["x"] + box["width"] / 2


@pytest.mark.parametrize("kv_heads", [12, 4, 1])
def test_a_key_head_stands_in_the_middle_of_the_query_heads_that_read_it(
    view: ViewOnScreen, kv_heads: int
) -> None:
    view.choose("Key/value heads", str(kv_heads))
    group = HEADS // kv_heads
    assert view.report()["reads"] == [query // group for query in range(HEADS)]
    for kv in range(kv_heads):
        first, last = kv * group, (kv + 1) * group - 1
        ends = [middle(view, f'[data-query="{query}"] rect.query') for query in (first, last)]
        for role in ("key", "value"):
            at = middle(view, f'[data-kv="{kv}"] rect.{role}')
            assert at == pytest.approx(sum(ends) / 2, abs=0.1)
    boxes = "(host) => host.shadowRoot.querySelectorAll('[data-kv] rect.key').length"
    assert view.host.evaluate(boxes) == kv_heads


@pytest.mark.parametrize("role", ["query", "key", "value"])
def test_bars_are_as_long_as_their_numbers(view: ViewOnScreen, role: str) -> None:
    rows = view.report()["bars"]["parameters"]
    code = """(host, role) => Array.from(
        host.shadowRoot.querySelectorAll(`.bars:last-child .solid.${role}`),
        (bar) => bar.width.baseVal.value)"""
    lengths = view.host.evaluate(code, role)
    for row, length in zip(rows, lengths, strict=True):
        assert length / lengths[0] == pytest.approx(row[role] / rows[0][role], rel=1e-3)


def lit(view: ViewOnScreen, what: str) -> list[int]:
    code = """(host, what) => [...host.shadowRoot.querySelectorAll(`[data-${what}].lit`)]
        .map((node) => Number(node.dataset[what]))"""
    return view.host.evaluate(code, what)


def test_the_mouse_on_a_query_head_says_and_lights_what_it_reads(view: ViewOnScreen) -> None:
    view.part('[data-query="7"]').hover()
    said = view.report()["readout"]
    assert said.startswith("Query head 7 reads key/value head 2, as heads 6 to 8 all do.")
    assert (lit(view, "query"), lit(view, "kv"), lit(view, "wire")) == ([7], [2], [7])
    view.part("h3").hover()
    assert lit(view, "query") == lit(view, "kv") == []
    assert view.report()["readout"].startswith("In 3 layers, a token adds 768\u00a0bytes")


def test_the_mouse_on_a_key_head_says_and_lights_whom_it_serves(view: ViewOnScreen) -> None:
    view.part('[data-kv="1"]').hover()
    said = view.report()["readout"]
    assert said.startswith("Key/value head 1 serves query heads 3 to 5.")
    assert said.endswith("64\u00a0bytes of cache.")
    assert (lit(view, "query"), lit(view, "kv")) == ([3, 4, 5], [1])


def test_arrow_keys_move_among_the_heads(view: ViewOnScreen) -> None:
    view.part(".diagram svg").focus()
    view.press("ArrowRight")
    assert view.report()["cursor"] == {"query": 0}
    view.press("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown")
    assert view.report()["cursor"] == {"kv": 1}
    view.press("ArrowRight")
    assert view.report()["readout"].startswith("Key/value head 2 serves query heads 6 to 8.")
    view.press("ArrowUp", "End")
    assert view.report()["cursor"] == {"query": HEADS - 1}
    view.press("Home", "ArrowLeft")
    assert view.report()["cursor"] == {"query": 0}
    view.part("h3").evaluate("(node) => node.getRootNode().activeElement.blur()")
    assert view.report()["cursor"] is None


def test_a_bar_is_chosen_by_mouse_and_by_keyboard(view: ViewOnScreen) -> None:
    bar = view.part('.bars [data-option="5"]')
    bar.hover()
    assert view.report()["readout"].startswith("With 1 key/value head: 98.3\u00a0kB of cache")
    bar.click()
    assert view.report()["kv_heads"] == 1
    view.part(".bars svg", 1).focus()
    view.press("ArrowUp", "ArrowUp", "ArrowUp", "Enter")
    assert view.report()["kv_heads"] == 3
    view.press("Home")
    assert view.report()["readout"].endswith("the most there can be.")
    view.press("Enter")
    assert view.report()["title"].startswith("Multi-head: ")


@pytest.mark.parametrize("width", [420, 600, 760, 1000])
def test_the_bars_stay_where_they_are_while_the_sentence_changes(
    screen: Any, page: Path, width: int
) -> None:
    (view,) = screen(page, width=width).wait_for_views()
    for kv_heads in ("12", "4", "1"):
        view.choose("Key/value heads", kv_heads)
        before = view.part(".bars").bounding_box()["y"] + view.page.evaluate("() => scrollY")
        for selector in ('[data-query="11"]', '[data-kv="0"]', '[data-option="3"]'):
            view.part(selector).hover()
            scrolled = view.page.evaluate("() => scrollY")
            assert view.part(".bars").bounding_box()["y"] + scrolled == before


@pytest.mark.parametrize("wanted", [5, 7, 11])
def test_what_does_not_divide_the_heads_becomes_what_does(view: ViewOnScreen, wanted: int) -> None:
    view.host.evaluate("(host, wanted) => host.view.set({ kv_heads: wanted })", wanted)
    shown = view.report()["kv_heads"]
    assert HEADS % shown == 0
    assert shown <= wanted


def test_a_context_between_the_steps_of_the_slider_is_kept_and_shown(
    screen: Any, tmp_path: Path
) -> None:
    (view,) = screen(heads_view(4, context=5000).save(tmp_path / "page.html")).wait_for_views()
    assert view.report()["context"] == 5000
    assert view.control("context").inner_text().endswith("5,000")
    view.control("context", "input").focus()
    view.press("ArrowRight")
    assert view.report()["context"] == 8192


def test_two_hundred_and_fifty_six_heads_are_drawn(screen: Any, tmp_path: Path) -> None:
    (view,) = screen(heads_view(256, 32).save(tmp_path / "page.html")).wait_for_views()
    view.part('[data-query="255"]').hover()
    assert view.report()["cursor"] == {"query": 255}
    assert view.report()["readout"].startswith("Query head 255 reads key/value head 31")
