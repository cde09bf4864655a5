"""The LoRA view in the browser: its own sums and singular values equal torch's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.browser.screen import ViewOnScreen
from zeta_edu import LoRA
from zeta_edu.views import lora_view
from zeta_edu.views.lora import LoRAView


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(dim: int, dim_out: int, rank: int) -> LoRAView:
    adapter = LoRA(dim, dim_out, rank=rank, alpha=2 * rank)
    adapter.A.data, adapter.B.data = drawn(dim, rank, seed=1), drawn(rank, dim_out, seed=2)
    return lora_view(drawn(dim, dim_out), adapter)


@pytest.fixture
def view(screen: Any, tmp_path: Path) -> ViewOnScreen:
    (shown,) = screen(made(12, 10, 4).save(tmp_path / "page.html")).wait_for_views()
    return shown


@pytest.mark.parametrize(
    ("dim", "dim_out", "rank"), [(12, 10, 4), (10, 33, 3), (1, 5, 1), (96, 64, 8)]
)
def test_update_sum_and_singular_values_equal_torchs(
    screen: Any, tmp_path: Path, dim: int, dim_out: int, rank: int
) -> None:
    python = made(dim, dim_out, rank)
    (view,) = screen(python.save(tmp_path / "page.html")).wait_for_views()
    for kept in sorted({0, 1, rank}):
        for alpha in (0.0, 1.0, 5.0):
            view.host.evaluate(
                "(host, changes) => host.view.set(changes)", {"rank": kept, "alpha": alpha}
            )
            shown = view.report()
            update = python.update(kept, alpha)
            drawn_update = np.reshape(shown["update"], (dim, dim_out))
            np.testing.assert_allclose(drawn_update, update, atol=1e-4)
            total = torch.from_numpy(python.weight + update)
            np.testing.assert_allclose(shown["singular"], torch.linalg.svdvals(total), atol=1e-3)
            sizes = torch.linalg.svdvals(torch.from_numpy(update))[:kept]
            np.testing.assert_allclose(shown["singularOfUpdate"], sizes, atol=1e-3)


def test_equal_and_zero_singular_values_are_found(screen: Any, tmp_path: Path) -> None:
    for weight in (torch.eye(6), torch.zeros(6, 6), torch.ones(6, 6)):
        python = lora_view(weight, LoRA(6, 6, rank=1))
        (view,) = screen(python.save(tmp_path / "page.html")).wait_for_views()
        expected = torch.linalg.svdvals(weight)
        np.testing.assert_allclose(view.report()["singular"], expected, atol=1e-3)


def test_without_rank_or_strength_the_sum_is_the_weight(view: ViewOnScreen) -> None:
    view.slide("rank", 0)
    assert view.report()["title"] == "No update: the sum is the weight itself"
    np.testing.assert_allclose(view.report()["sum"], made(12, 10, 4).weight.ravel(), atol=1e-6)
    view.slide("rank", 2)
    view.slide("alpha", 0)
    assert view.report()["title"] == "No update: the sum is the weight itself"


def test_the_title_and_the_sentence_count_what_is_trained(view: ViewOnScreen) -> None:
    view.slide("rank", 1)
    shown = view.report()
    assert shown["title"].startswith("An update of rank 1: 18\u00a0% of the numbers, ")
    assert "22 numbers are trained in place of 120" in shown["readout"]
    assert "at most 1 direction." in shown["readout"]
    assert "its 3 smallest parts are dropped" in shown["readout"]


def test_the_tables_share_a_cursor_and_the_sentence_adds_up(view: ViewOnScreen) -> None:
    view.part(".matrix canvas", 1).focus()
    view.press("ArrowDown", "ArrowDown", "ArrowRight")
    shown = view.report()
    at = 1 * 10 + 1
    assert shown["readout"].startswith("From feature 1 to feature 1: ")
    assert f"= {shown['sum'][at]:.3g}".replace("-", "−") in shown["readout"]
    cursors = view.host.evaluate("(host) => Object.values(host.view.tables).map((t) => t.cursor)")
    assert cursors == [{"row": 1, "column": 1}] * 3


def test_a_singular_value_under_the_cursor_is_read_out(view: ViewOnScreen) -> None:
    view.part(".plot canvas").focus()
    view.press("ArrowRight", "ArrowRight")
    values = view.report()["singular"]
    assert view.report()["readout"].startswith("Singular value 2: weight ")
    assert f"sum {values[1]:.3g}" in view.report()["readout"]
