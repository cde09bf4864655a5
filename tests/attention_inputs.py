"""Queries, keys and values to attend with, and the situations that attention meets."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from tests.strategies import drawn, keep_masks


def queries_keys_values(
    batch: int, heads: int, kv_heads: int, queries: int, keys: int, dim_head: int
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (heads, queries), (kv_heads, keys), (kv_heads, keys)
    parts = [drawn(batch, *shape, dim_head, seed=i) for i, shape in enumerate(shapes)]
    q, k, v = (part.requires_grad_() for part in parts)
    return q, k, v


@st.composite
def situations(draw: st.DrawFn) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
    """Queries, keys and values with a mask of any broadcastable shape, causal or not."""
    batch, kv_heads, group = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
    )
    queries = draw(st.integers(1, 6))
    keys = queries + draw(st.integers(0, 5))
    inputs = queries_keys_values(batch, kv_heads * group, kv_heads, queries, keys, 4)
    mask = draw(keep_masks(batch, keys))
    if mask is not None:
        mask = mask[:, None, None]
        if draw(st.booleans()):  # one row of the mask for each query
            ragged = drawn(batch, 1, queries, keys) > draw(st.sampled_from((-1, 0, 1)))
            mask = mask & ragged
    scale = draw(st.sampled_from((None, 0.3, 8)))
    return inputs, {"mask": mask, "causal": draw(st.booleans()), "scale": scale}


def visible_in(situation: dict[str, Any], queries: int, keys: int) -> Tensor:
    visible = torch.ones(queries, keys, dtype=torch.bool)
    if situation["causal"]:
        visible = torch.arange(keys) <= torch.arange(queries)[:, None] + keys - queries
    return visible if situation["mask"] is None else visible & situation["mask"]


def spy_on_the_kernels(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = []
    fused = F.scaled_dot_product_attention

    def spy(*args: Any, **options: Any) -> Tensor:
        assert len(args) == 3
        given.append(options)
        return fused(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return given
