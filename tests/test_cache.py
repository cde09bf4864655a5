"""Decoding with a cache gives what the whole sequence gives, however it is cut."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.strategies import block_options, drawn, explore, gradients, keep_masks, make_block
from zeta_edu import KVCache, TransformerBlock, record_attention

close = torch.testing.assert_close
SMALL = {"dim": 6, "dim_head": 4, "heads": 4, "kv_heads": 2}


def in_steps(
    block: TransformerBlock, x: Tensor, cache: KVCache, cuts: list[int], mask: Tensor | None = None
) -> Tensor:
    """The block's output for `x`, computed from one cut to the next."""
    outs, past = [], cache.length
    for start, stop in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        seen = None if mask is None else mask[:, : past + stop]
        outs.append(block(x[:, start:stop], seen, cache=cache))
        assert cache.length == past + stop
    return torch.cat(outs, dim=1)


@st.composite
def cuts_of(draw: st.DrawFn, n: int) -> list[int]:
    return sorted(draw(st.lists(st.integers(0, n), max_size=4)))


def a_block_and_its_cache(
    data: st.DataObject, batch: int, max_length: int | None
) -> tuple[TransformerBlock, KVCache]:
    options = data.draw(block_options(causal=True, flash_attn=data.draw(st.booleans())))
    block = make_block(**options)
    return block, block.new_cache(batch, max_length)


@explore(100)
@given(st.data())
def test_cached_equals_whole_in_random_chunks_under_any_mask(data: st.DataObject):
    options = data.draw(block_options(causal=True, flash_attn=data.draw(st.booleans())))
    block, n = make_block(**options), data.draw(st.integers(1, 14))
    x, mask = drawn(2, n, options["dim"]), data.draw(keep_masks(2, n))
    room = data.draw(st.sampled_from((None, n, n + 5)))
    grad = data.draw(st.booleans())
    with torch.set_grad_enabled(grad):
        steps = in_steps(block, x, block.new_cache(2, room), data.draw(cuts_of(n)), mask)
    close(steps, block(x, mask), atol=1e-11, rtol=1e-10)


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("scale_base", [0.3, 2, 512])
@pytest.mark.parametrize("max_length", [None, 40])
def test_cached_equals_whole_token_by_token(flash: bool, scale_base: float, max_length: int | None):
    block = make_block(**SMALL, flash_attn=flash, xpos_scale_base=scale_base)
    x = drawn(3, 40, 6)
    with torch.no_grad():
        steps = in_steps(block, x, block.new_cache(3, max_length), list(range(1, 40)))
        close(steps, block(x), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@explore(25)
@given(data=st.data())
def test_cached_equals_whole_within_the_precision(dtype: torch.dtype, data: st.DataObject):
    options = data.draw(block_options(causal=True, flash_attn=data.draw(st.booleans())))
    options["qk_scale"] = 3
    block, n = make_block(dtype, **options), data.draw(st.integers(1, 40))
    x, mask = drawn(2, n, options["dim"]).to(dtype), data.draw(keep_masks(2, n))
    with torch.no_grad():
        steps = in_steps(block, x, block.new_cache(2), data.draw(cuts_of(n)), mask)
        whole = block(x, mask)
    assert steps.dtype == dtype
    assert torch.isfinite(steps).all()
    error = (steps.double() - whole.double()).norm()
    assert error <= 12 * torch.finfo(dtype).eps * (whole.double().norm() + 0.1)


def test_a_first_cached_call_counts_positions_from_the_same_place():
    """Only differences matter, up to rounding: so it shows in the last bit."""
    block, x = make_block(torch.float32, **SMALL), drawn(1, 30, 6, dtype=torch.float32)
    with record_attention(block) as record:
        block(x)
        block(x, cache=block.new_cache(1))
    assert torch.equal(record[0], record[1])


def test_keys_cached_early_agree_with_keys_computed_late():
    """The original counts xPos from the middle of the sequence, which moves as it grows."""
    block = make_block(**SMALL, xpos_scale_base=64)
    x, cache = drawn(1, 1_500, 6), block.new_cache(1)
    with torch.no_grad():
        in_steps(block, x[:, :256], cache, [])
        late = in_steps(block, x[:, 256:], cache, [256])
        close(late, block(x)[:, 256:], atol=1e-11, rtol=1e-10)


def test_left_padded_prompts_of_different_lengths_decode_as_alone():
    block = make_block(**SMALL)
    prompts, more = [drawn(1, n, 6, seed=n) for n in (2, 5)], drawn(2, 3, 6)
    padded = torch.cat(
        [torch.cat((torch.ones(1, 5 - p.shape[1], 6).double(), p), 1) for p in prompts]
    )
    mask = torch.arange(8) >= torch.tensor([[3], [0]])
    together = in_steps(block, torch.cat((padded, more), 1), block.new_cache(2), [5, 6, 7], mask)
    for row, prompt in enumerate(prompts):
        alone = block(torch.cat((prompt, more[row : row + 1]), dim=1))
        close(together[row, -3:], alone[0, -3:], atol=1e-12, rtol=1e-10)


@explore(40)
@given(st.data())
def test_a_reset_cache_is_as_new(data: st.DataObject):
    block, cache = a_block_and_its_cache(data, 2, data.draw(st.sampled_from((None, 20))))
    for seed in range(data.draw(st.integers(1, 3))):
        n = data.draw(st.integers(1, 20))
        x, mask = drawn(2, n, block.dim, seed=seed), data.draw(keep_masks(2, n))
        with torch.set_grad_enabled(data.draw(st.booleans())):
            out = in_steps(block, x, cache, data.draw(cuts_of(n)), mask)
        close(out, block(x, mask), atol=1e-11, rtol=1e-10)
        cache.reset()
        assert cache.length == 0
        assert cache.keys.shape == cache.values.shape == (2, block.kv_heads, 0, block.dim_head)


@explore(60)
@given(st.data())
def test_reorder_continues_other_sequences(data: st.DataObject):
    block, cache = a_block_and_its_cache(data, 3, data.draw(st.sampled_from((None, 7))))
    index = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=5)))
    before, after = drawn(3, 4, block.dim), drawn(len(index), 3, block.dim, seed=2)
    old, new = data.draw(keep_masks(3, 4)), data.draw(keep_masks(len(index), 3))
    if old is not None or new is not None:
        old = torch.ones(3, 4, dtype=torch.bool) if old is None else old
        new = torch.ones(len(index), 3, dtype=torch.bool) if new is None else new
    mask = None if old is None else torch.cat((old[index], new), dim=1)
    with torch.set_grad_enabled(data.draw(st.booleans())):
        block(before, old, cache=cache)
        cache.reorder(index.to(data.draw(st.sampled_from((torch.int32, torch.int64)))))
        assert cache.batch_size == len(index)
        out = block(after, mask, cache=cache)
    whole = block(torch.cat((before[index], after), dim=1), mask)
    close(out, whole[:, 4:], atol=1e-11, rtol=1e-10)


def test_reorder_keeps_room_for_more():
    cache = KVCache(2, 1, 2, max_length=4)
    cache.extend(torch.ones(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
    cache.reorder(torch.tensor([1, 1, 0]))
    keys, _ = cache.extend(torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2))
    assert keys[:, 0, :, 0].tolist() == [[1, 1, 0, 0]] * 3


def test_gradients_flow_through_new_positions_and_no_earlier_call():
    block, x = make_block(**SMALL), drawn(1, 6, 6).requires_grad_()
    cache = block.new_cache(1)
    block(x[:, :4], cache=cache)
    out = block(x[:, 4:], cache=cache)
    (slope,) = gradients(out, x)
    assert not slope[:, :4].any()
    assert slope[:, 4:].any()
    # What flows is what flows in the whole sequence when its past is held constant.
    constant = block.new_cache(1)
    with torch.no_grad():
        block(x[:, :4], cache=constant)
    again = x[:, 4:].detach().requires_grad_()
    close(gradients(block(again, cache=constant), again)[0], slope[:, 4:])


def test_gradients_of_a_whole_sequence_in_one_cached_call_are_the_usual_ones():
    block, x = make_block(**SMALL), drawn(2, 6, 6)
    usual = gradients(block(x), *block.parameters())
    cached = gradients(block(x, cache=block.new_cache(2)), *block.parameters())
    for ours, theirs in zip(cached, usual, strict=True):
        close(ours, theirs)


def test_a_backward_pass_after_the_next_step_is_still_right():
    block, x = make_block(**SMALL), drawn(1, 6, 6)
    cache = block.new_cache(1, 10)
    first = block(x[:, :3], cache=cache)
    expected = gradients(first, *block.parameters())
    block(x[:, 3:], cache=cache)
    cache.reset()
    block(x * 7, cache=cache)
    for ours, theirs in zip(gradients(first, *block.parameters()), expected, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("max_length", [None, 8])
@pytest.mark.parametrize("reordered", [False, True])
def test_inference_mode_and_training_may_share_a_cache(max_length: int | None, reordered: bool):
    block, x = make_block(**SMALL), drawn(1, 8, 6)
    with torch.inference_mode():
        cache = block.new_cache(1, max_length)
        block(x[:, :3], cache=cache)
        if reordered:
            cache.reorder(torch.tensor([0]))
    out = block(x[:, 3:6], cache=cache)
    out.sum().backward()
    with torch.inference_mode():
        last = block(x[:, 6:], cache=cache)
    close(torch.cat((out, last), dim=1), block(x)[:, 3:], atol=1e-12, rtol=1e-10)


def test_without_causal_a_cache_serves_one_call():
    block, x = make_block(**SMALL, causal=False), drawn(1, 4, 6)
    cache = block.new_cache(1)
    close(block(x, cache=cache), block(x))
    with pytest.raises(ValueError, match=r"cache must be empty when causal=False.*length 4"):
        block(x, cache=cache)
    cache.reset()
    close(block(x, cache=cache), block(x))


def test_an_empty_step_changes_nothing():
    block, x = make_block(**SMALL), drawn(2, 5, 6)
    cache = block.new_cache(2)
    assert block(x[:, :0], cache=cache).shape == (2, 0, 6)
    block(x, cache=cache)
    assert block(x[:, :0], torch.ones(2, 5, dtype=torch.bool), cache=cache).shape == (2, 0, 6)
    assert cache.length == 5


def test_cached_autocast_decodes_in_the_narrow_dtype():
    block, x = make_block(torch.float32, **SMALL), drawn(2, 8, 6).float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        steps = in_steps(block, x, block.new_cache(2), [3, 4, 5])
        assert steps.dtype == torch.bfloat16
        close(steps, block(x), atol=0.05, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        close(in_steps(block, x, block.new_cache(2), [3]), steps, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_a_copied_cache_goes_its_own_way(twin: Any):
    block, x = make_block(**SMALL), drawn(1, 6, 6)
    cache = block.new_cache(1)
    with torch.no_grad():
        block(x[:, :4], cache=cache)
        other = twin(cache)
        block(-x[:, 4:], cache=cache)
        close(block(x[:, 4:], cache=other), block(x)[:, 4:], atol=1e-12, rtol=1e-10)
