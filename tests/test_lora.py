"""LoRA: a low-rank update, thin in memory and zero at the start."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.strategies import drawn, explore
from zeta_edu import LoRA
from zeta_edu.lora import FinetuneModules, SmallLoRA

close = torch.testing.assert_close


@explore(30)
@given(
    dim=st.integers(1, 7),
    dim_out=st.integers(1, 7),
    rank=st.integers(1, 9),
    alpha=st.sampled_from((None, 1, 16, 0.5, -2)),
    axes=st.lists(st.integers(0, 3), max_size=3),
)
def test_update_is_x_a_b_alpha_over_rank(
    dim: int, dim_out: int, rank: int, alpha: float | None, axes: list[int]
):
    lora, x = LoRA(dim, dim_out, rank, alpha).double(), drawn(*axes, dim)
    nn.init.normal_(lora.B)
    assert (lora.A.shape, lora.B.shape) == ((dim, rank), (rank, dim_out))
    factor = 1 if alpha is None else alpha / rank
    close(lora(x), torch.einsum("...i,ir,ro->...o", x, lora.A, lora.B) * factor)


def test_defaults_are_rank_8_and_a_factor_of_1():
    lora = LoRA(12, 5)
    assert lora.A.shape == (12, 8)
    assert lora.scale == 1
    assert list(lora.state_dict()) == ["A", "B"]


def test_update_is_zero_at_the_start_and_learns_at_once():
    lora, x = LoRA(12, 5), torch.randn(3, 12)
    assert not lora(x).any()
    lora(x).sum().backward()
    assert lora.B.grad is not None
    assert lora.B.grad.any()


def test_a_starts_as_a_linear_layer_does():
    """The original draws A from N(0, 1), whatever dim is: 39 times the usual at dim 512."""
    torch.manual_seed(0)
    lora, usual = LoRA(512, 4, rank=64), nn.Linear(512, 64)
    bound = 1 / math.sqrt(512)
    assert lora.A.abs().max() <= bound
    assert lora.A.min() < -0.9 * bound
    close(lora.A.std(), usual.weight.std(), rtol=0.05, atol=0)
    close(lora.A.mean(), torch.tensor(0.0), atol=bound / 50, rtol=0)


def test_the_full_weight_is_never_multiplied_out():
    lora, x = LoRA(512, 512, rank=4), torch.randn(3, 512)
    with FlopCounterMode(display=False) as counter:
        lora(x)
    assert counter.get_total_flops() == 2 * 3 * 4 * (512 + 512)


def test_dropout_drops_inputs_in_training_only():
    lora, x = LoRA(2_000, 1, rank=1, dropout=0.25).double(), torch.ones(1, 2_000).double()
    nn.init.ones_(lora.B)
    dropped = []
    for column in range(0, 2_000, 4):
        with torch.no_grad():
            lora.A.zero_()
            lora.A[column] = 1
        dropped.append(lora(x).item())
    assert {round(value, 6) for value in dropped} == {0.0, round(4 / 3, 6)}
    assert 0.18 < dropped.count(0.0) / len(dropped) < 0.32
    close(lora.eval()(x).item(), 1.0)


# The four places of a block.


def test_finetune_modules_keep_their_places():
    modules = [LoRA(2, 2), None, nn.Linear(2, 2), torch.relu]
    for given_as in (modules, tuple(modules)):
        places = FinetuneModules(given_as)
        assert [getattr(places, name) for name in "qkvo"] == modules
        again = FinetuneModules(places)
        assert [getattr(again, name) for name in "qkvo"] == modules
    four = nn.ModuleList([LoRA(2, 2) for _ in range(4)])
    assert [getattr(FinetuneModules(four), name) for name in "qkvo"] == list(four)
    assert [getattr(FinetuneModules(), name) for name in "qkvo"] == [None] * 4


def test_a_module_of_another_precision_is_brought_to_the_blocks():
    places = FinetuneModules([lambda x: torch.ones(2, 3, dtype=torch.float64), None, None, None])
    out = places.add("q", torch.ones(2, 3), torch.ones(2, 5))
    close(out, torch.full((2, 3), 2.0))
    untouched = torch.ones(2, 3)
    assert places.add("k", untouched, torch.ones(2, 5)) is untouched


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (torch.ones(2, 4), ValueError, r"module for v must map \(2, 5\) to \(2, 3\), got \(2, 4\)"),
        (torch.ones(3), ValueError, r"module for v must map \(2, 5\) to \(2, 3\), got \(3,\)"),
        (None, TypeError, "module for v must give a tensor, got NoneType"),
        ((torch.ones(2, 3),), TypeError, "module for v must give a tensor, got tuple"),
    ],
)
def test_what_a_module_gives_must_fit(result: Any, error: type[Exception], message: str):
    places = FinetuneModules([None, None, lambda _: result, None])
    with pytest.raises(error, match=message):
        places.add("v", torch.ones(2, 3), torch.ones(2, 5))


def test_a_small_update_lies_between_the_first_directions_of_its_weight():
    weight, x = drawn(5, 7), drawn(2, 3, 7)
    small = SmallLoRA(weight, rank=2, alpha=6)
    assert not small(x).any()
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    best = left[:, :2] @ values[:2].diag() @ right[:2]  # the nearest matrix of rank 2
    close((small.A @ small.B).T, best)
    close(small.A.T @ small.A, torch.eye(2).double())
    nn.init.normal_(small.R)
    thin, wide = small.factors()
    close(small(x), x @ small.A @ small.R @ small.B * 3)
    close(small(x), x @ thin @ wide * 3)


def test_the_directions_do_not_depend_on_signs_that_a_library_chooses():
    weight = drawn(6, 4)
    small, turned = SmallLoRA(weight, rank=3), SmallLoRA(weight.flip(0), rank=3)
    close(turned.A, small.A)
    close(turned.B.flip(1), small.B)
    assert (small.A.amax(dim=0) >= -small.A.amin(dim=0)).all()


def test_a_small_update_learns_rank_squared_numbers():
    small = SmallLoRA(torch.randn(300, 200))
    assert {name: p.numel() for name, p in small.named_parameters()} == {"R": 64}
    small(torch.randn(4, 200)).square().sum().backward()
    assert small.R.grad is not None
    for rank, message in ((5, "at most 4, the smaller side of the weight"), (0, "positive")):
        with pytest.raises(ValueError, match=f"rank must be .*{message}"):
            SmallLoRA(torch.randn(4, 9), rank)
    with pytest.raises(ValueError, match="weight must be a floating-point tensor"):
        SmallLoRA(torch.randn(4))
