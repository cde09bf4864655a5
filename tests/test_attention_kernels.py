"""Kernels, precisions and dropout of attention: the original's defects that must not come back."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from tests.attention_inputs import queries_keys_values, situations, spy_on_the_kernels
from tests.strategies import drawn, explore, gradients
from zeta_edu.attention import (
    Attend,
    attention_weights,
    flash_attention,
    regular_attention,
)

close = torch.testing.assert_close


@explore(30)
@given(situation=situations())
def test_kernels_get_a_mask_or_is_causal_and_never_a_query_without_a_key(situation: Any):
    inputs, options = situation
    with pytest.MonkeyPatch.context() as monkeypatch:
        given = spy_on_the_kernels(monkeypatch)
        flash_attention(*inputs, **options)
    (call,) = given
    assert not (call.get("is_causal") and call.get("attn_mask") is not None)
    if call.get("attn_mask") is not None:
        seen = call["attn_mask"]
        if seen.dtype != torch.bool:  # what is added to the scores
            assert set(seen.unique().tolist()) <= {0.0, -math.inf}
            seen = seen == 0
        assert seen.any(dim=-1).all()  # on a row without a key they differ


def test_flash_with_padding_under_causal_works_on_every_backend():
    q, k, v = queries_keys_values(2, 2, 1, 6, 6, 4)
    mask = (torch.arange(6) < torch.tensor([[6], [3]]))[:, None, None]
    expected = regular_attention(q, k, v, mask=mask, causal=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        close(flash_attention(q, k, v, mask=mask, causal=True), expected)
    dropped = flash_attention(q, k, v, mask=mask, causal=True, dropout=0.5)
    assert torch.isfinite(dropped).all()
    on_meta = [part.to("meta") for part in (q, k, v, mask)]
    out = flash_attention(*on_meta[:3], mask=on_meta[3], causal=True)
    assert out.shape == (2, 2, 6, 4)


@pytest.mark.parametrize("attend", [regular_attention, flash_attention])
def test_fewer_queries_than_keys_are_aligned_with_the_last_keys(attend: Any):
    q, k, v = queries_keys_values(1, 2, 1, 6, 6, 4)
    whole = attend(q, k, v, causal=True)
    for queries in range(1, 7):
        last = attend(q[:, :, -queries:], k, v, causal=True)
        close(last, whole[:, :, -queries:], atol=1e-13, rtol=1e-11)


@pytest.mark.parametrize("attend", [regular_attention, flash_attention])
def test_a_query_with_nothing_to_see_is_zero_and_its_gradients_finite(attend: Any):
    q, k, v = queries_keys_values(1, 2, 1, 4, 4, 4)
    mask = torch.tensor([False, False, True, True])[None, None, None]
    out = attend(q, k, v, mask=mask, causal=True)
    assert not out[:, :, :2].any()
    assert out[:, :, 2:].all()
    for slope in gradients(out, q, k, v):
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, torch.ones(1, 1, 1, 2_000, dtype=torch.bool)])
def test_softmax_is_taken_in_float32(dtype: torch.dtype, causal: bool, mask: Tensor | None):
    q, k = drawn(1, 1, 3, 4).to(dtype), drawn(1, 1, 2_000, 4, seed=2).to(dtype)
    weights = attention_weights(q, k, mask=mask, causal=causal)
    assert weights.dtype == torch.float32
    close(weights.sum(dim=-1), torch.ones(1, 1, 3), atol=1e-5, rtol=0)


def test_a_hidden_score_may_overflow_float16():
    q, k = torch.ones(1, 1, 3, 4).half(), torch.ones(1, 1, 3, 4).half()
    k[:, :, 2] = 60_000.0
    seen = torch.tensor([True, True, False])
    for mask in (seen[None, None, None], None):
        weights = attention_weights(q, k, mask=mask, causal=True)
        close(weights[0, 0, 1], torch.tensor([0.5, 0.5, 0.0]))


def test_float16_scores_do_not_overflow_before_they_are_scaled():
    q = torch.full((1, 1, 1, 64), 40.0, dtype=torch.float16)
    k = torch.full((1, 1, 2, 64), 40.0, dtype=torch.float16)
    k[:, :, 1] = -40.0
    weights = attention_weights(q, k)  # the products are 102,400, scaled they are 12,800
    close(weights, torch.tensor([[[[1.0, 0.0]]]]))
    assert math.isfinite(regular_attention(q, k, k).sum().item())


@pytest.mark.parametrize("attend", [regular_attention, flash_attention])
@pytest.mark.parametrize("mask", [None, torch.ones(1, 1, 1, 4, dtype=torch.bool)])
def test_dropout_drops_weights_and_keeps_the_mean(attend: Any, mask: Tensor | None):
    q, k = torch.zeros(1, 1, 2000, 4), torch.zeros(1, 1, 4, 4)
    v = torch.eye(4)[None, None]
    torch.manual_seed(0)
    out = attend(q, k, v, mask=mask, dropout=0.5)
    assert set(out.unique().tolist()) == {0.0, 0.5}
    assert 0.45 < (out == 0).double().mean() < 0.55


def test_attend_drops_in_training_only():
    core = Attend(1.0, True, 0.5, False, None)
    q, k, v = queries_keys_values(1, 2, 1, 20, 20, 4)
    assert not torch.equal(core(q, k, v), core(q, k, v))
    core.eval()
    assert torch.equal(core(q, k, v), core(q, k, v))
