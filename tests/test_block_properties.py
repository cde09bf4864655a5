"""What holds for every block: causality, independence, padding, precision, derivatives."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.reference import reference_parts
from tests.strategies import block_options, drawn, explore, gradients, keep_masks, make_block
from zeta_edu import record_attention

close = torch.testing.assert_close
SMALL = {"dim": 6, "dim_head": 4, "heads": 2}


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("batch", "n"), [(0, 3), (2, 0), (0, 0)])
def test_nothing_in_nothing_out(batch: int, n: int, causal: bool, flash: bool):
    block = make_block(**SMALL, causal=causal, flash_attn=flash, qk_rmsnorm=True)
    x = drawn(batch, n, 6).requires_grad_()
    for mask in (None, torch.ones(batch, n, dtype=torch.bool)):
        out = block(x, mask)
        assert out.shape == x.shape
        out.sum().backward()
        assert not any(p.grad is not None and p.grad.any() for p in block.parameters())
        with record_attention(block) as record:
            block(x, mask)
        assert record[0].shape == (batch, 2, n, n)


@explore(40)
@given(st.data())
def test_no_future_position_influences_a_past_one(data: st.DataObject):
    options = data.draw(block_options(causal=True, flash_attn=data.draw(st.booleans())))
    block, n = make_block(**options), data.draw(st.integers(2, 12))
    mask = data.draw(keep_masks(2, n))
    at = data.draw(st.integers(1, n - 1))
    x = drawn(2, n, options["dim"])
    changed = x.clone()
    changed[:, at:] = drawn(2, n - at, options["dim"], seed=2) * 30
    close(block(x, mask)[:, :at], block(changed, mask)[:, :at], atol=1e-12, rtol=1e-11)


@explore(20)
@given(st.data())
def test_without_causal_every_position_influences_every_other(data: st.DataObject):
    options = data.draw(block_options(causal=False, flash_attn=data.draw(st.booleans())))
    options["dim"] = max(options["dim"], 4)
    block = make_block(**options)
    x = drawn(1, 4, options["dim"]).requires_grad_()
    for position in range(4):
        (slope,) = gradients(block(x)[:, position], x)
        assert (slope.abs().sum(dim=-1) > 0).all()


def test_without_causal_a_distance_does_not_fade():
    for scale_base in (0.3, 512):
        block = make_block(**SMALL, causal=False, xpos_scale_base=scale_base)
        x = drawn(1, 6, 6)
        close(block(x), make_block(**SMALL, causal=False, use_xpos=False)(x))


@explore(40)
@given(st.data())
def test_rows_of_a_batch_are_independent(data: st.DataObject):
    options = data.draw(block_options(flash_attn=data.draw(st.booleans())))
    block, n = make_block(**options), data.draw(st.integers(1, 8))
    x, mask = drawn(3, n, options["dim"]), data.draw(keep_masks(3, n))
    together = block(x, mask)
    for row in range(3):
        alone = block(x[row : row + 1], None if mask is None else mask[row : row + 1])
        close(together[row : row + 1], alone, atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf])
def test_a_sequence_that_is_not_a_number_stays_alone(causal: bool, flash: bool, worst: float):
    block = make_block(**SMALL, causal=causal, flash_attn=flash)
    x = drawn(3, 5, 6)
    clean = block(x)
    x[1, 2] = worst
    mask = torch.ones(3, 5, dtype=torch.bool)
    for out in (block(x), block(x, mask)):
        close(out[[0, 2]], clean[[0, 2]])
        assert out[1, 2].isnan().all()
        if causal:
            assert out[1, 2:].isnan().all()


@explore(60)
@given(st.data())
def test_padding_left_or_right_changes_nothing(data: st.DataObject):
    options = data.draw(block_options(flash_attn=data.draw(st.booleans())))
    block = make_block(**options)
    n, pad = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 6))
    left = data.draw(st.booleans())
    x, filler = drawn(2, n, options["dim"]), drawn(2, pad, options["dim"], seed=2) * 5
    padded = torch.cat((filler, x) if left else (x, filler), dim=1)
    mask = torch.ones(2, n + pad, dtype=torch.bool)
    here = slice(pad, None) if left else slice(0, n)
    mask[:] = False
    mask[:, here] = True
    close(block(padded, mask)[:, here], block(x), atol=1e-11, rtol=1e-10)


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_query_with_nothing_to_see_gets_nothing(flash: bool, causal: bool):
    block = make_block(**SMALL, flash_attn=flash, causal=causal)
    x = drawn(2, 5, 6).requires_grad_()
    mask = torch.tensor([[False, False, True, True, True], [False] * 5])
    _, feed_forward, _ = reference_parts(dict(block.named_parameters()), x, **SMALL)
    out = block(x, mask)
    close(out[1], feed_forward[1])
    if causal:
        close(out[0, :2], feed_forward[0, :2])
    for slope in gradients(out, x, *block.parameters()):
        assert torch.isfinite(slope).all()


@explore(12)
@given(st.data())
def test_derivatives_are_those_of_finite_differences(data: st.DataObject):
    options = data.draw(block_options(dim=3, ff_mult=1, flash_attn=data.draw(st.booleans())))
    block, n = make_block(**options), data.draw(st.integers(1, 4))
    mask = data.draw(keep_masks(1, n))
    names = [name for name, _ in block.named_parameters()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(block, given, (x, mask))

    inputs = drawn(1, n, 3).requires_grad_(), *block.parameters()
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@explore(25)
@given(data=st.data())
def test_narrow_precision_stays_close_to_float64(dtype: torch.dtype, data: st.DataObject):
    options = data.draw(block_options(flash_attn=data.draw(st.booleans())))
    options["qk_scale"] = 3
    block = make_block(**options, dtype=dtype)
    n = data.draw(st.integers(1, 12))
    x, mask = drawn(2, n, options["dim"]).to(dtype), data.draw(keep_masks(2, n))
    out = block(x, mask)
    assert out.dtype == dtype
    parts = reference_parts(dict(block.named_parameters()), x, mask, **options)
    error = (out.double() - parts[0] - parts[1]).norm()
    # Narrower dtypes are summed up in float32, and round less often for their size.
    units = 48 if dtype == torch.float32 else 12
    assert error <= units * torch.finfo(dtype).eps * (parts[0].norm() + parts[1].norm() + 0.1)
    for slope in gradients(out.float(), *block.parameters()):
        assert torch.isfinite(slope).all()
