"""The causal mask: aligned with the last key, built once, and never larger than needed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import explore
from zeta_edu import masks
from zeta_edu.masks import BIAS_ROWS, causal_bias, causal_mask, visible_keys

CPU = torch.device("cpu")


@explore(60)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=6))
def test_causal_mask_is_the_same_whatever_was_asked_before(sizes: list[tuple[int, int]]):
    masks._CAUSAL.clear()
    for queries, past in sizes:
        keys = queries + past
        expected = torch.ones(queries, keys, dtype=torch.bool).tril(past)
        assert torch.equal(causal_mask(queries, keys, CPU), expected)


def test_causal_mask_is_built_once():
    masks._CAUSAL.clear()
    first = causal_mask(100, 100, CPU)
    storage = first.untyped_storage().data_ptr()
    for n in (100, 7, 1, 128):
        assert causal_mask(n, n, CPU).untyped_storage().data_ptr() == storage
    assert causal_mask(129, 129, CPU).untyped_storage().data_ptr() != storage


def test_causal_mask_made_in_inference_mode_serves_training():
    masks._CAUSAL.clear()
    with torch.inference_mode():
        mask = causal_mask(5, 5, CPU)
    assert not mask.is_inference()


def test_a_few_queries_far_along_do_not_make_a_giant_mask():
    """What one call needed must not multiply with what another did."""
    masks._CAUSAL.clear()
    causal_mask(4096, 4096, CPU)
    causal_mask(2, 100_000, CPU)
    kept = sum(mask.untyped_storage().nbytes() for mask in masks._CAUSAL.values())
    assert kept <= 4096**2


def test_a_single_query_sees_every_key():
    mask = torch.tensor([[True, False, True]])
    assert visible_keys(1, 3, CPU, None, True) is None
    assert visible_keys(1, 3, CPU, mask, True) is mask
    assert visible_keys(2, 3, CPU, mask, False) is mask
    assert visible_keys(2, 3, CPU, None, False) is None


@explore(60)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 900)), min_size=1, max_size=6))
def test_causal_bias_says_the_same_whatever_was_asked_before(sizes: list[tuple[int, int]]):
    masks._BIAS.clear()
    for queries, past in sizes:
        for dtype in (torch.float32, torch.bfloat16):
            bias = causal_bias(queries, queries + past, torch.empty(0, dtype=dtype))
            assert bias.dtype == dtype
            assert torch.equal(bias == 0, causal_mask(queries, queries + past, CPU))
            assert bias[bias != 0].eq(-torch.inf).all()


def test_the_table_of_causal_bias_grows_with_the_keys_alone():
    masks._BIAS.clear()
    for queries, keys in ((BIAS_ROWS, 1000), (5000, 5000), (3, 20_000)):
        causal_bias(queries, keys, torch.empty(0))
    (table,) = masks._BIAS.values()
    assert table.shape == (BIAS_ROWS, 32_768)
    with torch.inference_mode():
        assert not causal_bias(2, 40_000, torch.empty(0)).is_inference()
