"""The heads view outside the browser: its sizes are the block's, its words and its errors."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeta_edu import TransformerBlock
from zeta_edu.attention import attention_weights
from zeta_edu.views import heads_view
from zeta_edu.views.heads import sharings


def sizes(block: TransformerBlock) -> dict[str, int]:
    """What a real block with real numbers in it holds for its attention."""
    everything = sum(parameter.numel() for parameter in block.parameters())
    feed_forward = sum(parameter.numel() for parameter in block.ff_out.parameters())
    feed_forward += block.dim * block.fused_dims[-1] + block.norm.gamma.numel()
    return {"attention": everything - feed_forward}


@settings(deadline=None, max_examples=20)
@given(
    heads=st.integers(1, 12),
    dim_head=st.integers(1, 6).map(lambda half: 2 * half),
    dim=st.integers(1, 40),
)
def test_parameters_are_those_of_a_block_without_its_feed_forward(
    heads: int, dim_head: int, dim: int
) -> None:
    for way in sharings(dim, dim_head, heads):
        block = TransformerBlock(dim, dim_head, heads=heads, kv_heads=way.kv_heads)
        assert sum(way.parameters.values()) == sizes(block)["attention"]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2)]
)
def test_cache_bytes_are_those_of_a_cache_that_holds_tokens(
    kv_heads: int, dtype: torch.dtype, width: int
) -> None:
    block = TransformerBlock(16, 8, heads=4, kv_heads=kv_heads).to(dtype).eval()
    cache = block.new_cache(1, max_length=7)
    with torch.no_grad():
        block(torch.randn(1, 7, 16, dtype=dtype), cache=cache)
    (way,) = (way for way in sharings(16, 8, 4) if way.kv_heads == kv_heads)
    for name, held in (("key", cache.keys), ("value", cache.values)):
        assert 7 * width * way.cached[name] == held.untyped_storage().nbytes()


def test_every_divisor_is_a_way_to_share_from_multi_head_to_multi_query() -> None:
    assert [way["kv_heads"] for way in heads_view(12).state()["sharings"]] == [12, 6, 4, 3, 2, 1]
    assert [way["kv_heads"] for way in heads_view(7).state()["sharings"]] == [7, 1]


def test_query_heads_in_a_row_read_the_same_key_head_as_the_view_draws_them() -> None:
    queries, keys = torch.randn(1, 8, 3, 4), torch.randn(1, 2, 3, 4)
    weights = attention_weights(queries, keys)
    for query in range(8):
        own = attention_weights(queries[:, [query]], keys[:, [query // 4]])
        torch.testing.assert_close(weights[:, [query]], own)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "words"),
    [
        (1, 1, "One query head reads one key/value head: there is nothing to share"),
        (8, 8, "Multi-head: each of 8 query heads has keys and values of its own"),
        (
            8,
            2,
            "Grouped-query: 4 query heads share each key/value head; the cache shrinks to 1/4",
        ),
        (8, 1, "Multi-query: all 8 query heads read one key/value head; the cache shrinks to 1/8"),
    ],
)
def test_the_title_names_the_way_of_sharing_and_what_it_saves(
    heads: int, kv_heads: int, words: str
) -> None:
    view = heads_view(heads, kv_heads)
    assert view.title == words
    most, here = view.sharings[0], next(w for w in view.sharings if w.kv_heads == kv_heads)
    if "1/" in words:
        share = int(words.rsplit("1/", 1)[1])
        assert sum(most.cached.values()) == share * sum(here.cached.values())


def test_it_opens_at_multi_head_and_at_the_width_that_the_heads_fill() -> None:
    view = heads_view(6, dim_head=32)
    assert (view.kv_heads, view.dim) == (6, 192)
    assert heads_view(6, 2, dim=100).state()["dim"] == 100


def test_the_controls_reach_whatever_it_was_opened_with() -> None:
    view = heads_view(4, context=10**6, layers=200)
    assert view.state()["most"]["context"] == 10**6
    assert 200 in view.controls()["layers"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"heads": 0}, ValueError, "heads must be a positive integer, got 0"),
        ({"heads": 8.0}, TypeError, "heads must be a positive integer"),
        ({"heads": 257}, ValueError, "heads must be at most 256 to be drawn, got 257"),
        ({"kv_heads": 3}, ValueError, "kv_heads must divide heads=8, got 3"),
        ({"kv_heads": 16}, ValueError, "kv_heads must divide heads=8, got 16"),
        ({"kv_heads": True}, TypeError, "kv_heads must be a positive integer"),
        ({"dim_head": 7}, ValueError, "dim_head must be even"),
        ({"dim": -1}, ValueError, "dim must be a positive integer"),
        ({"layers": 0}, ValueError, "layers must be a positive integer"),
        ({"context": "long"}, TypeError, "context must be a positive integer"),
        ({"bytes_per_number": 3}, ValueError, "bytes_per_number must be 1, 2 or 4, got 3"),
    ],
)
def test_what_it_cannot_draw_is_refused_by_name(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        heads_view(**{"heads": 8, **arguments})


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (8, 2), (48, 8), (240, 30), (256, 256)])
def test_the_still_picture_has_a_box_for_every_head_and_bars_for_every_way_shown(
    heads: int, kv_heads: int
) -> None:
    figure = heads_view(heads, kv_heads).figure()
    diagram, cache, parameters = figure.axes
    assert len(diagram.patches) == 1 + 2 * (heads + 2 * kv_heads)
    shown = [label.get_text().split()[-1] for label in cache.get_yticklabels()]
    assert str(kv_heads) in shown
    assert len(cache.patches) == 2 * len(shown)
    assert len(parameters.patches) == 4 * len(shown)
    assert figure.get_figheight() <= 7
