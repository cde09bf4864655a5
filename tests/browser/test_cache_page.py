"""The cache view in the browser: what each step computes, reads and holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.browser.screen import ViewOnScreen
from zeta_edu import TransformerBlock
from zeta_edu.views import cache_view
from zeta_edu.views.cache import CacheView

TOKENS = ["def", "add", "(", "a", ",", "b", ")", ":"]


@pytest.fixture(scope="module")
def made() -> CacheView:
    torch.manual_seed(0)
    block = TransformerBlock(dim=32, dim_head=8, heads=4, kv_heads=2)
    return cache_view(block, torch.randn(1, 8, 32), prompt=3, tokens=TOKENS)


@pytest.fixture
def view(screen: Any, made: CacheView, tmp_path: Path) -> ViewOnScreen:
    (shown,) = screen(made.save(tmp_path / "page.html")).wait_for_views()
    return shown


def test_every_heads_weights_are_torchs(view: ViewOnScreen, made: CacheView) -> None:
    for head in range(4):
        view.control("head", "select").select_option(str(head))
        shown = np.reshape(view.report()["weights"], (8, 8))
        np.testing.assert_allclose(shown, made.trace.weights[head], atol=1e-3)


def test_work_and_bytes_are_those_python_counted(view: ViewOnScreen, made: CacheView) -> None:
    ends = made.trace.ends
    for step, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        view.slide("step", step)
        shown = view.report()
        assert shown["span"] == [start, end]
        assert shown["work"] == [made.costs.cached(start, end), made.costs.whole(end)]
        assert shown["held"] == made.costs.bytes_per_token * end
        assert shown["rowsShown"] == [row < end for row in range(8)]


def test_the_title_says_how_much_is_read_and_saved(view: ViewOnScreen, made: CacheView) -> None:
    share = round(100 * made.costs.cached(3, 4) / made.costs.whole(4))
    title = view.report()["title"].replace("\u00a0", " ")
    assert title == f"Token 3: one query, 3 keys from the cache, {share} % of the work"
    view.slide("step", 0)
    assert view.report()["title"].startswith("The prompt: 3 tokens at once")


def test_the_sentence_follows_the_cursor(view: ViewOnScreen) -> None:
    assert "1 new query over 4 keys" in view.report()["readout"]
    view.part(".matrix canvas").focus()
    view.press("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown")
    assert "its key read from the cache" in view.report()["readout"]
    view.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert "its key computed in this step" in view.report()["readout"]
    view.press("ArrowRight")
    assert "a cannot see ,, which comes later" in view.report()["readout"]
    view.press("ArrowDown")
    assert "has not been read yet" in view.report()["readout"]
    view.part(".matrix canvas", 1).focus()
    view.press("ArrowDown")
    assert "kept since an earlier step" in view.report()["readout"]
    view.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert "appended in this step" in view.report()["readout"]
    view.press("ArrowRight")
    assert "is not there yet" in view.report()["readout"]


def test_a_cost_under_the_cursor_is_read_out(view: ViewOnScreen, made: CacheView) -> None:
    view.part(".plot canvas").focus()
    view.press("ArrowRight", "ArrowRight")
    readout = view.report()["readout"].replace("\u00a0", " ")
    assert readout.startswith("When 4 tokens are read: ")
    assert f"{made.costs.cached(3, 4):,} multiplications with the cache" in readout
    assert f"{made.costs.bytes_per_token * 4} bytes" in readout
