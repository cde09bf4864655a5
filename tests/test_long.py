"""A hundred thousand tokens: nothing overflows, nothing vanishes, cached or not."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.reference import reference_parts
from tests.strategies import THOROUGH, make_block
from zeta_edu import KVCache, TransformerBlock, record_attention

SMALL = {"dim": 8, "dim_head": 16, "heads": 2, "ff_mult": 1}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# All at once takes minutes and is drawn on request; a cache holds as much at every run.
WHOLE = 100_000 if THOROUGH > 1 else 10_000
precisions = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def drawn(n: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(1, n, 8, generator=torch.Generator().manual_seed(1)).to(dtype)


def assert_close_to_float64(
    out: Tensor, block: TransformerBlock, x: Tensor, rows: Tensor, **options: Any
) -> None:
    """Rows of the output equal the definition within the rounding of a short sequence."""
    with torch.no_grad():
        parts = reference_parts(dict(block.named_parameters()), x, None, rows, **options)
    assert torch.isfinite(out).all()
    error, size = (out.double() - parts[0] - parts[1]).norm(), (parts[0] + parts[1]).norm()
    assert error < 8 * torch.finfo(out.dtype).eps * size


def filled_cache(block: TransformerBlock, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> KVCache:
    """A cache of everything in `x`, made without attending to it."""
    cache = block.new_cache(len(x))
    with monkeypatch.context() as without_attention, torch.no_grad():
        without_attention.setattr(block.attend, "forward", lambda q, *_: torch.zeros_like(q))
        block(x, cache=cache)
    assert cache.length == x.shape[1]
    return cache


FAR = [(512, dtype, flash) for dtype in DTYPES for flash in (False, True)]


@pytest.mark.parametrize(
    ("scale_base", "dtype", "flash"), [*FAR, (20_000, torch.bfloat16, False)], ids=str
)
def test_decoding_at_position_100_000_is_exact(
    scale_base: float, dtype: torch.dtype, flash: bool, monkeypatch: pytest.MonkeyPatch
):
    options = {**SMALL, "xpos_scale_base": scale_base}
    block, x = make_block(dtype, **options, flash_attn=flash), drawn(100_000, dtype)
    cache = filled_cache(block, x[:, :99_990], monkeypatch)
    with torch.no_grad(), record_attention(block) as record:
        steps = [block(x[:, 99_990:99_998], cache=cache)]
        steps += [block(x[:, i : i + 1], cache=cache) for i in (99_998, 99_999)]
    rows = torch.tensor([0, 7, 8, 9])
    out = torch.cat(steps, dim=1)[:, rows]
    assert_close_to_float64(out, block, x, 99_990 + rows, **options)
    for weights in record:
        assert (weights.double().sum(dim=-1) - 1).abs().max() < 1e-4


@precisions
def test_a_long_sequence_at_once_is_exact(dtype: torch.dtype):
    block, x = make_block(dtype, **SMALL, flash_attn=True), drawn(WHOLE, dtype)
    with torch.no_grad():
        out = block(x)
    assert torch.isfinite(out).all()
    # Around the borders of windows, at both ends, and between.
    rows = torch.tensor([0, 1, 1_023, 1_024, 5_000, 8_191, 8_192, WHOLE - 1])
    assert_close_to_float64(out[:, rows], block, x, rows, **SMALL)


@precisions
def test_gradients_of_several_windows_stay_finite_and_exact(dtype: torch.dtype):
    options = {**SMALL, "xpos_scale_base": 8}
    narrow = make_block(dtype, **options, flash_attn=True)
    exact = copy.deepcopy(narrow).double()
    x = drawn(600, dtype)
    narrow(x).float().square().mean().backward()
    exact(x.double()).square().mean().backward()
    for ours, theirs in zip(narrow.parameters(), exact.parameters(), strict=True):
        assert torch.isfinite(ours.grad).all()
        error = (ours.grad.double() - theirs.grad).norm()
        assert error < 12 * torch.finfo(dtype).eps * theirs.grad.norm()


def test_what_was_seen_before_changes_nothing():
    block, x = make_block(torch.float32, **SMALL, flash_attn=True), drawn(3_000, torch.float32)
    with torch.no_grad():
        first = block(x[:, :300])
        block(x)
        assert torch.equal(block(x[:, :300]), first)
