"""Attention over queries, keys and values: regular and flash.

Shapes: queries (batch, heads, query, dim_head), keys and values (batch, kv_heads, key, dim_head).
`kv_heads` divides `heads`; each key/value head serves heads / kv_heads query heads in a row.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zeta_edu.masks import BIAS_ROWS, as_bias, causal_bias, causal_mask, visible_keys
from zeta_edu.rotary import apply_xpos, is_tracing, xpos_window

# Queries that regular attention takes at once, each part with the keys it may see. A causal pass
# over 2,048 positions takes 0.6 of the time of one with parts of 1,024, and 1/4 of the memory.
REGULAR_ROWS = 128
MASK_ENTRIES = 2**24  # of the mask that flash attention is given at once where keys are padded


def attention_weights(
    queries: Float[Tensor, "batch heads query dim_head"],
    keys: Float[Tensor, "batch kv_heads key dim_head"],
    *,
    mask: Bool[Tensor, "*some #query key"] | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "batch heads query key"]:
    """Compute the softmax over keys of the scaled dot products, in at least float32.

    Args:
        queries: (batch, heads, query, dim_head)
        keys: (batch, kv_heads, key, dim_head)
        mask: True where a query may see a key; broadcasts to (batch, heads, query, key).
        causal: whether a query sees only keys up to its own; the last query is at the last key.
        scale: factor of the dot products; dim_head ** -0.5 when None.

    Returns:
        Weights that sum to 1 over the keys, or are all 0 for a query that may see none.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), equation 1; shared keys as in Shazeer 2019
    (arXiv:1911.02150).

    >>> attention_weights(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 4, 2))
    tensor([[[[0.2500, 0.2500, 0.2500, 0.2500]]]])
    """
    heads, kv_heads = queries.shape[1], keys.shape[1]
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    # The query heads of one key head are stacked, so that one product serves them all. The queries
    # are scaled, not the scores: there are fewer of them, and float16 scores would overflow.
    stacked = rearrange(queries * scale, "b (kv g) i d -> b kv (g i) d", kv=kv_heads)
    scores = stacked @ keys.mT
    scores = rearrange(scores, "b kv (g i) j -> b (kv g) i j", g=heads // kv_heads)
    precise = torch.promote_types(scores.dtype, torch.float32)
    visible = visible_keys(queries.shape[2], keys.shape[2], keys.device, mask, causal)
    if visible is None:
        return scores.softmax(dim=-1, dtype=precise)
    if mask is None:  # causal alone: a query sees at least its own key
        return _hide(scores, ~visible).softmax(dim=-1, dtype=precise)
    sees_some = visible.any(dim=-1, keepdim=True)
    # A row of -inf alone would give NaN: it is left unmasked here and set to 0 after the softmax.
    weights = _hide(scores, ~visible & sees_some).softmax(dim=-1, dtype=precise)
    return weights.masked_fill(~sees_some, 0.0)


def _hide(scores: Tensor, hidden: Tensor) -> Tensor:
    """Set hidden scores to minus infinity."""
    if scores.dtype == torch.float16:  # a hidden score may be inf there, and inf - inf is NaN
        return scores.masked_fill(hidden, -torch.inf)
    # Adding takes an eighth of the time of masked_fill, whose mask would broadcast over heads.
    return scores + as_bias(hidden, scores.dtype)


def regular_attention(
    queries: Float[Tensor, "batch heads query dim_head"],
    keys: Float[Tensor, "batch kv_heads key dim_head"],
    values: Float[Tensor, "batch kv_heads key dim_head"],
    *,
    mask: Bool[Tensor, "*some #query key"] | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads query dim_head"]:
    """Mix the values by the attention weights, which are written out in full.

    Args:
        queries: (batch, heads, query, dim_head)
        keys: (batch, kv_heads, key, dim_head)
        values: (batch, kv_heads, key, dim_head)
        mask: True where a query may see a key; broadcasts to (batch, heads, query, key).
        causal: whether a query sees only keys up to its own; the last query is at the last key.
        scale: factor of the dot products; dim_head ** -0.5 when None.
        dropout: probability that a weight is dropped.

    Returns:
        (batch, heads, query, dim_head); zeros for a query that may see no key.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), equation 1.

    >>> values = torch.tensor([[[[1.0], [3.0]]]])
    >>> regular_attention(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 2, 1), values)
    tensor([[[[2.]]]])
    """
    weights = attention_weights(queries, keys, mask=mask, causal=causal, scale=scale)
    weights = F.dropout(weights, dropout).to(values.dtype)
    # The heads of one key head share its values. An einsum, because torch.export cannot prove that
    # weights stacked as in `attention_weights` are a view for every length.
    grouped = weights.unflatten(1, (keys.shape[1], -1))
    return torch.einsum("bkgij,bkjd->bkgid", grouped, values).flatten(1, 2)


def flash_attention(
    queries: Float[Tensor, "batch heads query dim_head"],
    keys: Float[Tensor, "batch kv_heads key dim_head"],
    values: Float[Tensor, "batch kv_heads key dim_head"],
    *,
    mask: Bool[Tensor, "*some #query key"] | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads query dim_head"]:
    """Compute what `regular_attention` does by torch's fused kernels, which store no weights.

    Args:
        queries: (batch, heads, query, dim_head)
        keys: (batch, kv_heads, key, dim_head)
        values: (batch, kv_heads, key, dim_head)
        mask: True where a query may see a key; broadcasts to (batch, heads, query, key).
        causal: whether a query sees only keys up to its own; the last query is at the last key.
        scale: factor of the dot products; dim_head ** -0.5 when None.
        dropout: probability that a weight is dropped.

    Returns:
        (batch, heads, query, dim_head); zeros for a query that may see no key.

    Source: Dao et al. 2022, "FlashAttention" (arXiv:2205.14135).

    >>> values = torch.tensor([[[[1.0], [3.0]]]])
    >>> flash_attention(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 2, 1), values)
    tensor([[[[2.]]]])
    """
    group = queries.shape[1] // keys.shape[1]
    if queries.shape[2] == 1 and group > 1:
        return _one_query(queries, keys, values, mask=mask, scale=scale, dropout=dropout)
    if group > 1:  # a view when there is one key head
        keys, values = (repeat(t, "b kv j d -> b (kv g) j d", g=group) for t in (keys, values))
    new, total = queries.shape[2], keys.shape[2]
    attend = partial(
        F.scaled_dot_product_attention, queries, keys, values, scale=scale, dropout_p=dropout
    )
    if mask is None:
        if not causal or new == 1:
            return attend()
        if new == total:  # otherwise torch aligns the diagonal with the top left
            return attend(is_causal=True)
        return attend(attn_mask=causal_bias(new, total, queries))
    visible = causal_mask(new, total, keys.device) & mask if causal else mask
    # A row without any key is left unmasked and set to 0 after: the kernels differ on it.
    sees_some = visible.any(dim=-1, keepdim=True)
    return attend(attn_mask=visible | ~sees_some).masked_fill(~sees_some, 0.0)


def _one_query(
    queries: Tensor, keys: Tensor, values: Tensor, *, mask: Tensor | None, **options: Any
) -> Tensor:
    """Flash attention of a single query, for which the heads of one key head become its queries.

    So a step of decoding reads each key once and not once for every head: after 4,096 positions,
    with 8 heads, in 0.4 of the time.
    """
    groups = keys.shape[1], queries.shape[1] // keys.shape[1]
    if mask is not None and mask.ndim > 2 and mask.shape[-3] > 1:
        mask = mask.unflatten(-3, groups).squeeze(-2)
    mixed = flash_attention(
        queries.unflatten(1, groups).squeeze(3), keys, values, mask=mask, **options
    )
    return mixed.flatten(1, 2).unsqueeze(2)


class Attend(nn.Module):
    """Attention as a block needs it: causal or not, padded or not, with or without xPos.

    It has no parameters. It works through the queries in parts, each with the keys it may see,
    because an xPos origin serves one window of queries only, and to bound memory.

    Args:
        scale: factor of the dot products.
        causal: whether a query sees only keys up to its own position.
        dropout: probability that a weight is dropped, in training.
        flash: whether torch's fused kernels are used.
        xpos_scale_base: of the decay, or None for none.
    """

    def __init__(
        self,
        scale: float,
        causal: bool,
        dropout: float,
        flash: bool,
        xpos_scale_base: float | None,
    ):
        super().__init__()
        self.scale, self.causal, self.dropout = scale, causal, dropout
        self.flash, self.xpos_scale_base = flash, xpos_scale_base

    def forward(
        self,
        queries: Float[Tensor, "batch heads query dim_head"],
        keys: Float[Tensor, "batch kv_heads key dim_head"],
        values: Float[Tensor, "batch kv_heads key dim_head"],
        mask: Bool[Tensor, "batch key"] | None = None,
    ) -> Float[Tensor, "batch heads query dim_head"]:
        """Attend from rotated queries to rotated keys; the queries are the last positions."""
        if not queries.numel():
            return torch.zeros_like(queries)
        attend = partial(
            flash_attention if self.flash else regular_attention,
            causal=self.causal,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
        )
        mixed = [
            attend(part, seen, _first(values, seen.shape[2]), mask=kept)
            for part, seen, kept in self._parts(queries, keys, mask)
        ]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=2)

    def weights(
        self,
        queries: Float[Tensor, "batch heads query dim_head"],
        keys: Float[Tensor, "batch kv_heads key dim_head"],
        mask: Bool[Tensor, "batch key"] | None = None,
    ) -> Float[Tensor, "batch heads query key"]:
        """Return the weights by which `forward` mixes the values, before dropout, flash or not."""
        weigh = partial(attention_weights, causal=self.causal, scale=self.scale)
        rows = [
            F.pad(weigh(part, seen, mask=kept), (0, keys.shape[2] - seen.shape[2]))
            for part, seen, kept in self._parts(queries, keys, mask)
        ]
        return torch.cat(rows, dim=2)

    def _parts(
        self, queries: Tensor, keys: Tensor, mask: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Queries in parts, each with the keys any of them may see and their mask, xPos applied."""
        seen = keys.shape[2] - queries.shape[2]
        for window in _split(queries, self._window(queries)):
            start, seen = seen, seen + window.shape[2]
            known = _first(keys, seen) if self.causal else keys
            if self.xpos_scale_base is not None:
                window, known = apply_xpos(window, known, start, self.xpos_scale_base)
            for part in _split(window, self._rows_at_once(window, known, mask)):
                start += part.shape[2]
                visible = _first(known, start) if self.causal else known
                kept = None if mask is None else mask[:, None, None, : visible.shape[2]]
                yield part, visible, kept

    def _window(self, queries: Tensor) -> int:
        if self.xpos_scale_base is None:
            return queries.shape[2]
        return xpos_window(self.xpos_scale_base, queries.dtype)

    def _rows_at_once(self, window: Tensor, keys: Tensor, mask: Tensor | None) -> int:
        count, total = window.shape[2], keys.shape[2]
        if is_tracing():  # few parts, so that few lengths need their own graph
            return count
        if not self.flash:
            return REGULAR_ROWS
        if mask is not None:
            return max(64, MASK_ENTRIES // max(1, len(mask) * total))
        return BIAS_ROWS if self.causal and count < total else count


def _split(queries: Tensor, size: int) -> tuple[Tensor, ...]:
    return queries.split(size, dim=2) if queries.shape[2] > size else (queries,)


def _first(keys: Tensor, count: int) -> Tensor:
    return keys if keys.shape[2] == count else keys[:, :, :count]
