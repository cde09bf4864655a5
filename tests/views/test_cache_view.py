"""The cache view shows what a block computes in each step, and what it keeps."""

from typing import Any

import numpy as np
import pytest
import torch

from zeta_edu import TransformerBlock, record_attention
from zeta_edu.views import cache_view, codec


def block(**options: Any) -> TransformerBlock:
    torch.manual_seed(0)
    return TransformerBlock(dim=32, dim_head=8, heads=4, **options)


def drawn(n: int) -> torch.Tensor:
    return torch.randn(1, n, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "options", [{}, {"kv_heads": 4}, {"flash_attn": True}, {"use_xpos": False}]
)
def test_the_steps_put_together_are_the_weights_of_the_whole_text(options: dict[str, Any]) -> None:
    made = block(**options)
    view = cache_view(made, drawn(9), prompt=4)
    with torch.no_grad(), record_attention(made.eval()) as record:
        made(drawn(9))
    np.testing.assert_allclose(view.trace.weights, record[0][0], atol=1e-6)
    assert view.trace.error == 1e-6


def test_steps_end_after_the_prompt_and_after_every_token() -> None:
    assert cache_view(block(), drawn(6), prompt=3).trace.ends == [3, 4, 5, 6]
    assert cache_view(block(), drawn(1)).trace.ends == [1]
    assert cache_view(block(), drawn(6), prompt=6).trace.ends == [6]


def test_the_keys_are_those_in_the_blocks_cache() -> None:
    made = block(kv_heads=2)
    view = cache_view(made, drawn(5), prompt=2)
    cache = made.new_cache(1)
    with torch.no_grad():
        made.eval()(drawn(5), cache=cache)
    np.testing.assert_allclose(view.trace.keys, cache.keys[0, 0], atol=1e-6)


def test_multiplications_are_counted_from_the_blocks_own_matrices() -> None:
    view = cache_view(block(), drawn(6), prompt=3)
    fused, out, ff_out = 32 * (4 * 8 + 8 + 8 + 2 * 128), 32 * 32, 128 * 32
    assert view.costs.per_token == fused + out + ff_out
    # A query of 4 heads of 8 features meets a key for the score, and its value for the mix.
    assert view.costs.per_pair == 2 * 4 * 8
    assert view.costs.whole(3) == 3 * view.costs.per_token + 6 * view.costs.per_pair
    assert view.costs.cached(3, 4) == view.costs.per_token + 4 * view.costs.per_pair
    steps = [view.costs.cached(0, 3), *(view.costs.cached(n, n + 1) for n in (3, 4, 5))]
    assert sum(steps) == view.costs.whole(6)
    alone = sum(view.costs.whole(n) for n in (3, 4, 5, 6))
    assert view.saved == pytest.approx(1 - view.costs.whole(6) / alone)


@pytest.mark.parametrize(
    ("kv_heads", "bytes_per_token", "others"),
    [
        (1, 64, {"multi-head": 256}),
        (2, 128, {"multi-head": 256, "multi-query": 64}),
        (4, 256, {"multi-query": 64}),
    ],
)
def test_bytes_are_those_that_the_cache_grows_by(
    kv_heads: int, bytes_per_token: int, others: dict[str, int]
) -> None:
    made = block(kv_heads=kv_heads)
    costs = cache_view(made, drawn(4)).costs
    cache = made.new_cache(1)
    with torch.no_grad():
        made(drawn(4), cache=cache)
    held = sum(part.numel() * part.element_size() for part in (cache.keys, cache.values))
    assert costs.bytes_per_token == bytes_per_token == held / 4
    assert costs.others == others  # the block's own way is not drawn twice


def test_the_block_is_left_in_the_mode_it_was_in() -> None:
    made = block(attn_dropout=0.5).train()
    view = cache_view(made, drawn(5), prompt=2)
    assert made.training
    assert view.trace.error == 1e-6  # without dropout


def test_the_state_carries_the_trace() -> None:
    view = cache_view(block(), drawn(5), prompt=2, tokens=list("ab\ncd"))
    state = view.state()
    assert state["labels"] == ["a", "b", "⏎", "c", "d"]
    assert state["start"] == {"step": 1, "head": 0}
    np.testing.assert_allclose(
        codec.decode(state["arrays"]["weights"]), view.trace.weights, atol=1e-3
    )
    np.testing.assert_allclose(codec.decode(state["arrays"]["keys"]), view.trace.keys, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"block": torch.nn.Linear(2, 2)}, TypeError, "block must be a TransformerBlock"),
        ({"block": block(causal=False)}, ValueError, "block must be causal"),
        ({"x": torch.ones(2, 5, 32)}, ValueError, r"x must be \(n, dim\), got shape \(2, 5, 32\)"),
        ({"x": torch.ones(1, 0, 32)}, ValueError, "x must hold 1 to 64 tokens, got 0"),
        ({"x": torch.ones(1, 65, 32)}, ValueError, "x must hold 1 to 64 tokens, got 65"),
        ({"x": torch.ones(1, 5, 16)}, ValueError, "x must have the block's 32 features, got 16"),
        ({"x": torch.full((1, 5, 32), torch.inf)}, ValueError, "x must be finite, got inf"),
        ({"x": "text"}, TypeError, "x must hold real numbers"),
        ({"prompt": 6}, ValueError, "prompt must be at most the 5 tokens of x, got 6"),
        ({"prompt": 0}, ValueError, "prompt must be a positive integer, got 0"),
        ({"tokens": list("abc")}, ValueError, "tokens must have 5 entries"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    change: dict[str, Any], error: type[Exception], match: str
) -> None:
    right = {"block": block(), "x": torch.ones(1, 5, 32)}
    given = right | change
    with pytest.raises(error, match=match):
        cache_view(given.pop("block"), given.pop("x"), **given)
