"""The cache by itself: what it holds, how it grows, what it gives back."""

import pytest
import torch

from tests.strategies import drawn, make_block
from zeta_edu import KVCache, TransformerBlock

close = torch.testing.assert_close
SMALL = {"dim": 6, "dim_head": 4, "heads": 4, "kv_heads": 2}


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
    assert cache.keys.untyped_storage().nbytes() == 0
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
