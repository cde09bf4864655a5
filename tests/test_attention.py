"""Regular and flash attention: the same function, under any mask."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.attention_inputs import queries_keys_values, situations, visible_in
from tests.reference import softmax_over
from tests.strategies import block_options, drawn, explore, gradients, keep_masks, make_block
from zeta_edu.attention import attention_weights, flash_attention, regular_attention

close = torch.testing.assert_close


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
