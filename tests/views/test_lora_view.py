"""The LoRA view shows the update of a `LoRA`, and the nearest ones of lower rank."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zeta_edu import LoRA
from zeta_edu.views import codec, lora_view


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(rank: int = 4, alpha: float | None = None) -> LoRA:
    adapter = LoRA(12, 10, rank=rank, alpha=alpha)
    adapter.A.data, adapter.B.data = drawn(12, rank, seed=1), drawn(rank, 10, seed=2)
    return adapter


@pytest.mark.parametrize("alpha", [None, 2.0, 16.0])
def test_the_update_is_what_the_adapter_adds(alpha: float | None) -> None:
    adapter = made(alpha=alpha)
    view = lora_view(drawn(12, 10), adapter)
    with torch.no_grad():
        added = adapter(torch.eye(12))
    np.testing.assert_allclose(view.update(), added, atol=1e-5)


def test_a_lower_rank_is_the_nearest_update_of_that_rank() -> None:
    view = lora_view(drawn(12, 10), made())
    whole = view.update()
    sizes = np.linalg.svd(whole, compute_uv=False)
    for rank in range(5):
        kept = view.update(rank)
        assert np.linalg.matrix_rank(kept) == rank
        left_out = np.linalg.norm(whole - kept)
        assert left_out == pytest.approx(np.linalg.norm(sizes[rank:4]), abs=1e-6)


def test_alpha_multiplies_the_update() -> None:
    view = lora_view(drawn(12, 10), made(alpha=3.0))
    np.testing.assert_allclose(view.update(alpha=6.0), 2 * view.update(), rtol=1e-12)
    assert not view.update(alpha=0.0).any()


def test_a_linear_layer_is_turned_round() -> None:
    layer = nn.Linear(12, 10, bias=False)
    view = lora_view(layer, made())
    np.testing.assert_allclose(view.weight, layer.weight.detach().T, rtol=1e-6)


def test_two_matrices_stand_for_an_adapter_of_strength_one() -> None:
    a, b = drawn(12, 3, seed=1), drawn(3, 10, seed=2)
    view = lora_view(drawn(12, 10), (a, b))
    np.testing.assert_allclose(view.update(), a @ b, atol=1e-5)
    np.testing.assert_allclose(
        lora_view(drawn(12, 10), (a, b), alpha=6).update(), 2 * (a @ b), atol=1e-5
    )


def test_the_state_carries_the_parts() -> None:
    view = lora_view(drawn(12, 10), made())
    state = view.state()
    assert (state["rows"], state["columns"], state["rank"]) == (12, 10, 4)
    assert state["start"] == {"rank": 4, "alpha": 4.0}
    u, s, v = (codec.decode(state["arrays"][name]) for name in "usv")
    np.testing.assert_allclose((u * s) @ v, view.update(), atol=1e-5)
    own = codec.decode(state["arrays"]["own"])
    np.testing.assert_allclose(own, torch.linalg.svdvals(drawn(12, 10)), rtol=1e-5)


def test_the_title_counts_numbers_and_size() -> None:
    weight = drawn(12, 10)
    view = lora_view(weight, made())
    assert view.numbers == (120, 4 * 22)
    size = np.linalg.norm(view.update()) / np.linalg.norm(weight)
    numbers, share = "73\u00a0% of the numbers", f"{100 * size:.0f}\u00a0%"
    assert view.title == f"An update of rank 4: {numbers}, {share} of the weight's size"


def test_an_untrained_adapter_and_a_zero_weight_can_be_looked_at() -> None:
    view = lora_view(torch.zeros(12, 10), LoRA(12, 10, rank=2))
    assert not view.update().any()
    view.figure()
    assert view.state()["start"]["rank"] == 2


@pytest.mark.parametrize(
    ("weight", "adapter", "options", "error", "match"),
    [
        ("W", made(), {}, TypeError, "weight must hold real numbers"),
        (drawn(12), made(), {}, ValueError, r"weight must be \(dim, dim_out\)"),
        (drawn(11, 10), made(), {}, ValueError, r"like weight, got weight \(11, 10\)"),
        (drawn(12, 10), drawn(12, 4), {}, TypeError, r"a LoRA or the pair \(A, B\), got Tensor"),
        (drawn(12, 10), (drawn(12, 4), drawn(3, 10)), {}, ValueError, "adapter must map"),
        (
            drawn(12, 10),
            (drawn(12, 11), drawn(11, 10)),
            {},
            ValueError,
            "rank from 1 to 10, got 11",
        ),
        (drawn(600, 10), (drawn(600, 2), drawn(2, 10)), {}, ValueError, "1 to 512 features"),
        (drawn(12, 10) / 0, made(), {}, ValueError, "weight must be finite"),
        (drawn(12, 10), made(), {"alpha": float("inf")}, ValueError, "alpha must be finite"),
        (drawn(12, 10), made(), {"alpha": "1"}, TypeError, "alpha must be a number"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    weight: Any, adapter: Any, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        lora_view(weight, adapter, **options)
