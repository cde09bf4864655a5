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
from zeta_edu import KVCache, TransformerBlock

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
@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
def test_cached_equals_whole_within_the_precision(dtype: torch.dtype, flash: bool):
    block = make_block(dtype, **SMALL, flash_attn=flash, xpos_scale_base=8)
    x = drawn(2, 60, 6).to(dtype)
    with torch.no_grad():
        steps = in_steps(block, x, block.new_cache(2), [1, 2, 3, 20, 50])
    close(steps, block(x), atol=8 * torch.finfo(dtype).eps, rtol=8 * torch.finfo(dtype).eps)


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


@explore(25)
@given(st.data())
def test_a_reset_cache_is_as_new(data: st.DataObject):
    block = make_block(**SMALL)
    cache = block.new_cache(2, data.draw(st.sampled_from((None, 20))))
    for seed in range(data.draw(st.integers(1, 3))):
        x = drawn(2, data.draw(st.integers(1, 20)), 6, seed=seed)
        with torch.set_grad_enabled(data.draw(st.booleans())):
            out = in_steps(block, x, cache, data.draw(cuts_of(x.shape[1])))
        close(out, block(x), atol=1e-12, rtol=1e-10)
        cache.reset()
        assert cache.length == 0
        assert cache.keys.shape == cache.values.shape == (2, 2, 0, 4)


@explore(40)
@given(st.data())
def test_reorder_continues_other_sequences(data: st.DataObject):
    block, cache = make_block(**SMALL), KVCache(3, 2, 4, dtype=torch.float64)
    index = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=5)))
    before, after = drawn(3, 4, 6), drawn(len(index), 3, 6, seed=2)
    with torch.set_grad_enabled(data.draw(st.booleans())):
        block(before, cache=cache)
        cache.reorder(index.to(data.draw(st.sampled_from((torch.int32, torch.int64)))))
        assert cache.batch_size == len(index)
        out = block(after, cache=cache)
    whole = block(torch.cat((before[index], after), dim=1))
    close(out, whole[:, 4:], atol=1e-12, rtol=1e-10)


def test_reorder_keeps_room_for_more():
    cache = KVCache(2, 1, 2, max_length=4)
    cache.extend(torch.ones(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
    cache.reorder(torch.tensor([1, 1, 0]))
    keys, _ = cache.extend(torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2))
    assert keys[:, 0, :, 0].tolist() == [[1, 1, 0, 0]] * 3


# The cache by itself.


def test_extend_appends_and_returns_everything_so_far():
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            cache, keys, values = KVCache(2, 3, 4), drawn(2, 3, 200, 4), drawn(2, 3, 200, 4, seed=2)
            keys, values = keys.float(), values.float()
            for start in (0, 1, 50, 120):
                stop = {0: 1, 1: 50, 50: 120, 120: 200}[start]
                new = keys[:, :, start:stop], values[:, :, start:stop]
                for ours, whole in zip(cache.extend(*new), (keys, values), strict=True):
                    assert torch.equal(ours, whole[:, :, :stop])
                assert torch.equal(cache.keys, keys[:, :, :stop])
                assert torch.equal(cache.values, values[:, :, :stop])


def test_cache_grows_by_doubling_and_not_with_every_step():
    cache, one, rooms = KVCache(1, 1, 2), torch.ones(1, 1, 1, 2), set()
    for _ in range(1_000):
        cache.extend(one, one)
        rooms.add(cache.keys.untyped_storage().nbytes() // (2 * 4))
    assert rooms == {64, 128, 256, 512, 1_024}


def test_cache_of_a_fixed_length_is_allocated_once():
    cache, one = KVCache(1, 1, 2, max_length=9), torch.ones(1, 1, 1, 2)
    place = cache._keys.data_ptr()
    for _ in range(9):
        cache.extend(one, one)
    assert cache._keys.data_ptr() == place
    assert cache.max_length == 9
    with pytest.raises(ValueError, match="max_length=9 positions, got 10"):
        cache.extend(one, one)
    assert cache.length == 9


def test_a_refused_step_leaves_the_cache_as_it_was():
    block = make_block(**SMALL)
    x, cache = drawn(2, 6, 6), block.new_cache(2, 4)
    first = block(x[:, :3], cache=cache)
    for bad in (
        lambda: block(x[:, 3:], cache=cache),
        lambda: block(x[:1, 3:4], cache=cache),
        lambda: block(x[:, 3:4], torch.ones(2, 3, dtype=torch.bool), cache=cache),
    ):
        with pytest.raises(ValueError):
            bad()
        assert cache.length == 3
    step = block(x[:, 3:4], cache=cache)
    close(torch.cat((first, step), 1), block(x[:, :4]), atol=1e-12, rtol=1e-10)


def test_cache_holds_copies_and_no_view_of_the_fused_projection():
    block = make_block(**SMALL)
    cache = block.new_cache(1, 5)
    block(drawn(1, 5, 6), cache=cache)
    held = cache.keys.untyped_storage().nbytes() + cache.values.untyped_storage().nbytes()
    assert held == 2 * 2 * 5 * 4 * 8


def test_new_cache_fits_the_block():
    block = TransformerBlock(6, 4, heads=6, kv_heads=3).to(torch.bfloat16)
    cache = block.new_cache(5, 7)
    assert (cache.batch_size, cache.length, cache.max_length) == (5, 0, 7)
    assert cache.keys.dtype == cache.values.dtype == torch.bfloat16
    assert cache._keys.shape == cache._values.shape == (5, 3, 7, 4)
    assert block.new_cache(5).max_length is None
    meta = block.to("meta").new_cache(2)
    assert meta.keys.device.type == "meta"


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
