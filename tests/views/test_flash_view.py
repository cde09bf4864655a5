"""The flash view shows what online softmax holds after every tile."""

from typing import Any

import numpy as np
import pytest
import torch

from zeta_edu.views import codec, flash_view
from zeta_edu.views.flash import bytes_of_regular


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_after_every_tile_the_output_is_softmax_over_the_keys_so_far() -> None:
    queries, keys, values = drawn(3, 8, 4)
    found = flash_view(queries, keys, values, query_tile=4, key_tile=2, causal=False).trace
    for step, ((top, bottom), (_, right)) in enumerate(zip(found.rows, found.columns, strict=True)):
        scores = queries[top:bottom] @ keys[:right].T / 2
        expected = scores.softmax(-1) @ values[:right]
        np.testing.assert_allclose(found.output[step, top:bottom], expected, atol=1e-12)
        np.testing.assert_allclose(found.maximum[step, top:bottom], scores.amax(-1), atol=1e-12)
    full = (queries @ keys.T / 2).softmax(-1) @ values
    np.testing.assert_allclose(found.output[-1], full, atol=1e-12)
    assert found.error == 1e-12


def test_causal_tiles_are_skipped_and_the_rest_is_exact() -> None:
    view = flash_view(*drawn(3, 8, 4), query_tile=2, key_tile=2)
    assert len(view.trace.rows) + len(view.trace.skipped) == 16
    assert len(view.trace.skipped) == 6
    assert np.isneginf(view.trace.scores).sum() == 28
    assert view.trace.error == 1e-12


def test_fewer_queries_than_keys_are_the_last_ones() -> None:
    queries, keys, values = drawn(2, 4), drawn(6, 4, seed=1), drawn(6, 3, seed=2)
    found = flash_view(queries, keys, values, query_tile=2, key_tile=2).trace
    assert np.isneginf(found.scores).sum() == 1
    assert np.isneginf(found.scores[0, 5])


def test_bytes_are_counted_as_each_tile_is_read_and_written() -> None:
    view = flash_view(*drawn(3, 8, 4), query_tile=4, key_tile=4, causal=False)
    # Two tiles of queries; each reads its queries (4 x 4), both tiles of keys and values, and
    # writes its output.
    once = 4 * 4 + 2 * (4 * 4 + 4 * 4) + 4 * 4
    assert view.moved[-1] == 4 * 2 * once
    assert view.moved[0] == 4 * (4 * 4 + 4 * 4 + 4 * 4)
    assert view.regular == bytes_of_regular(8, 8, 4, 4) == 4 * (4 * 8 * 4 + 4 * 64)
    assert view.moved == sorted(view.moved)


def test_the_state_carries_the_trace() -> None:
    view = flash_view(*drawn(3, 6, 4), query_tile=2, key_tile=3, tokens=list("abcd\n "))
    state = view.state()
    assert state["labels"] == ["a", "b", "c", "d", "⏎", "·"]
    shapes = {"scores": (6, 6), "exact": (6, 4), "output": (len(view.trace.rows), 6, 4)}
    for name, shape in shapes.items():
        assert codec.decode(state["arrays"][name]).shape == shape
    np.testing.assert_allclose(
        codec.decode(state["arrays"]["output"]), view.trace.output, rtol=1e-6
    )


def test_the_words_say_how_many_tiles_and_how_exact() -> None:
    view = flash_view(*drawn(3, 8, 4), query_tile=4, key_tile=4)
    assert view.title == "Softmax in 3 tiles, 1 skipped: the same result to 1e-12"
    assert "8 queries and 8 keys" in view.alt
    assert "16 scores at a time instead of 64" in view.alt


def test_one_query_and_one_key_are_enough() -> None:
    view = flash_view(*drawn(3, 1, 4))
    assert view.title == "Softmax in 1 tile: the same result to 1e-12"
    view.figure()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"queries": "abc"}, TypeError, "queries must hold real numbers"),
        ({"keys": torch.ones(4)}, ValueError, r"keys must be \(key, dim_head\), got shape \(4,\)"),
        ({"values": torch.ones(5, 4)}, ValueError, "do not fit each other"),
        ({"keys": torch.ones(6, 3)}, ValueError, "do not fit each other"),
        ({"queries": torch.ones(65, 4)}, ValueError, "queries must hold 1 to 64 positions, got 65"),
        ({"queries": torch.ones(0, 4)}, ValueError, "queries must hold 1 to 64 positions, got 0"),
        ({"queries": torch.ones(7, 4)}, ValueError, "causal: a query would see no key"),
        ({"values": torch.full((6, 4), torch.nan)}, ValueError, "values must be finite, got nan"),
        ({"query_tile": 0}, ValueError, "query_tile must be a positive integer"),
        ({"key_tile": "2"}, TypeError, "key_tile must be a positive integer"),
        ({"causal": None}, TypeError, "causal must be True or False"),
        ({"scale": -1}, ValueError, "scale must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    change: dict[str, Any], error: type[Exception], match: str
) -> None:
    right = {name: torch.ones(6, 4) for name in ("queries", "keys", "values")}
    with pytest.raises(error, match=match):
        flash_view(**(right | change))
