"""A whole model in bfloat16 or float16: its tables stay in float32, its numbers finite."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import block_options, explore, keep_masks
from zeta_edu import TransformerLM, rotary

NARROW = [torch.bfloat16, torch.float16]


def model_of(dtype: torch.dtype, **options: Any) -> TransformerLM:
    torch.manual_seed(0)
    return TransformerLM(20, options.pop("dim"), 2, **options).to(dtype)


@pytest.mark.parametrize("dtype", NARROW)
@explore(20)
@given(data=st.data())
def test_a_narrow_model_keeps_wide_tables_and_stays_finite(dtype: torch.dtype, data: st.DataObject):
    rotary._ROTARY.clear()
    rotary._DECAY.clear()
    model = model_of(dtype, **data.draw(block_options(flash_attn=data.draw(st.booleans()))))
    n = data.draw(st.integers(1, 300))
    tokens, mask = torch.arange(2 * n).reshape(2, n) % 20, data.draw(keep_masks(2, n))
    logits = model(tokens, mask)
    assert logits.dtype == dtype
    assert torch.isfinite(logits).all()
    logits.float().logsumexp(dim=-1).sum().backward()
    for parameter in model.parameters():
        assert parameter.dtype == dtype
        assert torch.isfinite(parameter.grad).all()
    tables = [*rotary._ROTARY.values(), *(table for table, _ in rotary._DECAY.values())]
    assert tables
    assert {table.dtype for table in tables} == {torch.float32}


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
def test_a_narrow_model_decodes_past_where_narrow_factors_overflow(dtype: torch.dtype, flash: bool):
    """With a scale base of 4, float16 cannot hold a factor over 36 positions, float32 over 280."""
    model = model_of(dtype, dim=8, dim_head=4, heads=2, xpos_scale_base=4, flash_attn=flash)
    tokens, cache = torch.arange(600)[None] % 20, model.new_cache(1)
    with torch.no_grad():
        whole = model(tokens)
        steps = [model(tokens[:, :590], cache=cache)]
        steps += [model(tokens[:, i : i + 1], cache=cache) for i in range(590, 600)]
    assert torch.isfinite(whole).all()
    error = (torch.cat(steps, dim=1).double() - whole.double()).norm()
    assert error <= 8 * torch.finfo(dtype).eps * whole.double().norm()
