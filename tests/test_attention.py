"""Regular and flash attention: the same function, under any mask, in parts or at once."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.reference import softmax_over
from tests.strategies import block_options, drawn, explore, gradients, keep_masks, make_block
from zeta_edu import attention
from zeta_edu.attention import (
    Attend,
    attention_weights,
    flash_attention,
    regular_attention,
)

close = torch.testing.assert_close
CPU = torch.device("cpu")


def queries_keys_values(
    batch: int, heads: int, kv_heads: int, queries: int, keys: int, dim_head: int
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (heads, queries), (kv_heads, keys), (kv_heads, keys)
    parts = [drawn(batch, *shape, dim_head, seed=i) for i, shape in enumerate(shapes)]
    q, k, v = (part.requires_grad_() for part in parts)
    return q, k, v


@st.composite
def situations(draw: st.DrawFn) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
    """Queries, keys and values with a mask of any broadcastable shape, causal or not."""
    batch, kv_heads, group = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
    )
    queries = draw(st.integers(1, 6))
    keys = queries + draw(st.integers(0, 5))
    inputs = queries_keys_values(batch, kv_heads * group, kv_heads, queries, keys, 4)
    mask = draw(keep_masks(batch, keys))
    if mask is not None:
        mask = mask[:, None, None]
        if draw(st.booleans()):  # one row of the mask for each query
            ragged = drawn(batch, 1, queries, keys) > draw(st.sampled_from((-1, 0, 1)))
            mask = mask & ragged
    scale = draw(st.sampled_from((None, 0.3, 8)))
    return inputs, {"mask": mask, "causal": draw(st.booleans()), "scale": scale}


def visible_in(situation: dict[str, Any], queries: int, keys: int) -> Tensor:
    visible = torch.ones(queries, keys, dtype=torch.bool)
    if situation["causal"]:
        visible = torch.arange(keys) <= torch.arange(queries)[:, None] + keys - queries
    return visible if situation["mask"] is None else visible & situation["mask"]


@explore(100)
@given(situations())
def test_weights_are_the_softmax_of_the_scaled_products_over_visible_keys(situation: Any):
    (q, k, _), options = situation
    weights = attention_weights(q, k, **options)
    scale = 0.5 if options["scale"] is None else options["scale"]
    shared = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = torch.einsum("bhid,bhjd->bhij", q, shared) * scale
    visible = visible_in(options, q.shape[2], k.shape[2]).expand_as(scores)
    close(weights, softmax_over(scores, visible), atol=1e-12, rtol=1e-10)
    assert not weights[~visible].any()
    close(weights.sum(dim=-1), visible.any(dim=-1).double())


@explore(100)
@given(situations())
def test_flash_equals_regular_under_any_mask(situation: Any):
    inputs, options = situation
    ours, theirs = flash_attention(*inputs, **options), regular_attention(*inputs, **options)
    close(ours, theirs, atol=1e-12, rtol=1e-10)
    pairs = zip(gradients(ours, *inputs), gradients(theirs, *inputs), strict=True)
    for slope, other in pairs:
        assert torch.isfinite(slope).all()
        close(slope, other, atol=1e-10, rtol=1e-9)


@explore(100)
@given(situations())
def test_regular_attention_mixes_the_values_by_its_weights(situation: Any):
    (q, k, v), options = situation
    shared = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    expected = attention_weights(q, k, **options) @ shared
    close(regular_attention(q, k, v, **options), expected, atol=1e-12, rtol=1e-10)
    unseen = ~visible_in(options, q.shape[2], k.shape[2]).expand(expected.shape[0], 1, -1, -1).any(
        -1
    )
    assert not regular_attention(q, k, v, **options)[unseen.expand(expected.shape[:3])].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@explore(40)
@given(situation=situations())
def test_flash_equals_regular_within_the_precision(dtype: torch.dtype, situation: Any):
    inputs, options = situation
    if options["scale"] == 8:
        options["scale"] = 1.0
    inputs = [part.detach().to(dtype).requires_grad_() for part in inputs]
    exact = regular_attention(*(part.double() for part in inputs), **options)
    slopes = gradients(exact, *inputs)
    for attend in (flash_attention, regular_attention):
        out = attend(*inputs, **options)
        assert out.dtype == dtype
        eps = torch.finfo(dtype).eps
        assert (out - exact).norm() <= 8 * eps * (exact.norm() + 0.1)
        for slope, other in zip(gradients(out.double(), *inputs), slopes, strict=True):
            assert (slope.double() - other.double()).norm() <= 40 * eps * (
                other.double().norm() + 1
            )


@explore(60)
@given(st.data())
def test_a_flash_block_equals_a_regular_one(data: st.DataObject):
    options = data.draw(block_options())
    n = data.draw(st.integers(1, 12))
    mask, x = data.draw(keep_masks(2, n)), drawn(2, n, options["dim"]).requires_grad_()
    regular, flash = make_block(**options), make_block(**options, flash_attn=True)
    ours, theirs = flash(x, mask), regular(x, mask)
    close(ours, theirs, atol=1e-12, rtol=1e-10)
    pairs = zip(
        gradients(ours, x, *flash.parameters()),
        gradients(theirs, x, *regular.parameters()),
        strict=True,
    )
    for slope, other in pairs:
        assert torch.isfinite(slope).all()
        close(slope, other, atol=1e-10, rtol=1e-9)


def test_defaults_are_everything_visible_and_the_usual_scale():
    q, k, v = queries_keys_values(1, 2, 1, 3, 3, 4)
    usual = {"mask": None, "causal": False, "scale": 0.5}
    close(attention_weights(q, k), attention_weights(q, k, **usual))
    for attend in (regular_attention, flash_attention):
        close(attend(q, k, v), attend(q, k, v, **usual, dropout=0.0))


# Work in parts: long sequences are taken a few queries at a time.


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("past", [0, 5])
def test_parts_give_what_the_whole_gives(
    flash: bool, padded: bool, causal: bool, past: int, monkeypatch: pytest.MonkeyPatch
):
    core = Attend(0.7, causal, 0.0, flash, 512 if causal else None)
    q, k, v = queries_keys_values(2, 4, 2, 150, 150 + past, 4)
    mask = torch.arange(150 + past) >= torch.tensor([[0], [7]]) if padded else None
    whole = core(q, k, v, mask)
    weights, slopes = core.weights(q, k, mask), gradients(whole, q, k, v)
    monkeypatch.setattr(attention, "REGULAR_ROWS", 7)
    monkeypatch.setattr(attention, "MASK_ENTRIES", 2 * 70 * (150 + past))
    parts = core(q, k, v, mask)
    close(parts, whole, atol=1e-12, rtol=1e-10)
    close(core.weights(q, k, mask), weights, atol=1e-12, rtol=1e-10)
    for slope, other in zip(gradients(parts, q, k, v), slopes, strict=True):
        close(slope, other, atol=1e-11, rtol=1e-10)


def test_parts_bound_the_scores_and_the_masks_in_memory(monkeypatch: pytest.MonkeyPatch):
    sizes = []
    original = attention.visible_keys

    def spy(queries: int, keys: int, *rest: Any) -> Tensor | None:
        sizes.append((queries, keys))
        return original(queries, keys, *rest)

    monkeypatch.setattr(attention, "visible_keys", spy)
    monkeypatch.setattr(attention, "REGULAR_ROWS", 10)
    monkeypatch.setattr(attention, "MASK_ENTRIES", 2 * 70 * 100)
    q, k, v = queries_keys_values(2, 2, 1, 100, 100, 2)
    Attend(1.0, True, 0.0, False, None)(q, k, v)
    assert sizes == [(10, keys) for keys in range(10, 101, 10)]
    sizes.clear()
    Attend(1.0, True, 0.0, True, None)(q, k, v, torch.ones(2, 100, dtype=torch.bool))
    assert sizes == [(70, 70), (30, 100)]


def test_flash_without_a_mask_needs_no_mask(monkeypatch: pytest.MonkeyPatch):
    given = spy_on_the_kernels(monkeypatch)
    q, k, v = queries_keys_values(1, 2, 1, 100, 100, 2)
    monkeypatch.setattr(attention, "MASK_ENTRIES", 1)
    Attend(1.0, True, 0.0, True, None)(q, k, v)
    Attend(1.0, True, 0.0, True, 512)(q, k, v)
    Attend(1.0, False, 0.0, True, None)(q, k, v)
    assert [options.get("is_causal", False) for options in given] == [True, True, False]
    assert all(options.get("attn_mask") is None for options in given)


# Defects of the original that must not come back.


def spy_on_the_kernels(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = []
    fused = F.scaled_dot_product_attention

    def spy(*args: Any, **options: Any) -> Tensor:
        assert len(args) == 3
        given.append(options)
        return fused(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return given


@explore(30)
@given(situation=situations())
def test_kernels_never_get_a_mask_and_is_causal_together(situation: Any):
    inputs, options = situation
    with pytest.MonkeyPatch.context() as monkeypatch:
        given = spy_on_the_kernels(monkeypatch)
        flash_attention(*inputs, **options)
    (call,) = given
    assert not (call.get("is_causal") and call.get("attn_mask") is not None)
    if call.get("attn_mask") is not None:
        assert call["attn_mask"].dtype == torch.bool


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
