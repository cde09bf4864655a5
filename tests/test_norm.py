"""The two normalisations: LayerNorm without bias, and vectors of length 1."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.strategies import drawn, explore
from zeta_edu.norm import LayerNorm, l2_normalise

close = torch.testing.assert_close


@explore(30)
@given(dim=st.integers(1, 9), axes=st.lists(st.integers(1, 4), max_size=3), seed=st.integers(0, 99))
def test_layer_norm_shifts_to_mean_0_and_scales_to_variance_1(dim: int, axes: list[int], seed: int):
    norm, x = LayerNorm(dim).double(), drawn(*axes, dim, seed=seed) * 9 + 4
    nn.init.uniform_(norm.gamma, 0.5, 1.5)
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    close(norm(x), centred / (variance + 1e-5).sqrt() * norm.gamma)


def test_layer_norm_equals_torchs_without_bias():
    ours, theirs = LayerNorm(8), nn.LayerNorm(8, bias=False)
    x = drawn(2, 3, 8, dtype=torch.float32)
    close(ours(x), theirs(x))
    assert list(ours.state_dict()) == ["gamma"]
    assert (ours.gamma == 1).all()


def test_layer_norm_ignores_shift_and_scale_of_its_input():
    norm, x = LayerNorm(64).double(), drawn(3, 64)
    close(norm(x * 1_000 + 50), norm(x), atol=1e-4, rtol=1e-4)


@explore(30)
@given(n=st.integers(0, 5), dim_head=st.integers(1, 8), seed=st.integers(0, 99))
def test_normalised_vectors_have_length_1_before_their_scale(n: int, dim_head: int, seed: int):
    x, scale = drawn(2, n, dim_head, seed=seed) * 7, drawn(dim_head, seed=seed + 1)
    ours = l2_normalise(x, scale)
    close(ours, x / x.square().sum(-1, keepdim=True).sqrt() * scale)
    close(l2_normalise(x, torch.ones(dim_head).double()).norm(dim=-1), torch.ones(2, n).double())
    close(l2_normalise(3 * x, scale), ours)


def test_a_zero_vector_stays_zero_with_finite_gradients():
    x = torch.zeros(3, 4, requires_grad=True)
    out = l2_normalise(x, torch.ones(4))
    assert not out.any()
    (slope,) = torch.autograd.grad(out.sum(), x)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-4, 1.0, 200.0, 15_000.0])
def test_lengths_are_taken_in_at_least_float32(dtype: torch.dtype, size: float):
    """In float16 the length of 64 features of 15,000 overflows."""
    x, scale = (drawn(5, 64) * size).to(dtype), torch.full((64,), 1.5, dtype=dtype)
    ours = l2_normalise(x, scale)
    assert ours.dtype == dtype
    close(ours, l2_normalise(x.double(), scale.double()).to(dtype), rtol=1e-2, atol=1e-4)


def test_a_tiny_vector_is_still_normalised():
    x = torch.tensor([3e-5, 4e-5], dtype=torch.float64)
    close(l2_normalise(x, torch.ones(2).double()), torch.tensor([0.6, 0.8]).double())
