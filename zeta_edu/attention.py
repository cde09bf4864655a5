"""Attention over queries, keys and values: regular, flash, and the cache of causal masks.

Shapes: queries (batch, heads, query, dim_head), keys and values (batch, kv_heads, key, dim_head).
`kv_heads` divides `heads`; each key/value head serves heads / kv_heads query heads in a row.
"""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zeta_edu.rotary import apply_xpos, is_tracing, power_of_two, xpos_window

# device -> a square mask, True on and below the diagonal. One serves every block.
_CAUSAL: dict[torch.device, Tensor] = {}

# Queries that regular attention takes at once, each part with the keys it may see. A causal pass
# over 2,048 positions takes 0.6 of the time of one with parts of 1,024, and 1/4 of the memory.
REGULAR_ROWS = 128
MASK_ENTRIES = 2**24  # of the mask that flash attention is given at once


def causal_mask(queries: int, keys: int, device: torch.device) -> Bool[Tensor, "query key"]:
    """True where a query may see a key: itself and all before it, the last query the last key.

    With a cache there are more keys than queries, and the diagonal ends in the bottom-right
    corner. The square of the new positions is built once per device and grown; every key before
    it is visible to all.

    >>> causal_mask(2, 3, torch.device("cpu")).int()
    tensor([[1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    past = keys - queries
    if is_tracing():
        return _no_later(queries, keys, device)
    square = _CAUSAL.get(device)
    if square is None or len(square) < queries:
        size = power_of_two(queries)
        with torch.inference_mode(False):  # so that a training step may use it
            square = _no_later(size, size, device)
        _CAUSAL[device] = square
    square = square[:queries, :queries]
    return F.pad(square, (past, 0), value=True) if past else square


def _no_later(queries: int, keys: int, device: torch.device) -> Tensor:
    places = torch.arange(keys, device=device)
    return places <= places[keys - queries :, None]


def visible_keys(
    queries: int,
    keys: int,
    device: torch.device,
    mask: Bool[Tensor, "*some #query key"] | None,
    causal: bool,
) -> Bool[Tensor, "*some query key"] | None:
    """Which query may see which key by `mask` and causality together; None when each may all."""
    if not causal or queries == 1:  # a single query is the last one, and sees every key
        return mask
    earlier = causal_mask(queries, keys, device)
    return earlier if mask is None else earlier & mask


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
    bias = torch.zeros_like(hidden, dtype=scores.dtype).masked_fill_(hidden, -torch.inf)
    return scores + bias


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
    keys = repeat(keys, "b kv j d -> b (kv g) j d", g=group)  # a view when there is one key head
    values = repeat(values, "b kv j d -> b (kv g) j d", g=group)
    attend = partial(F.scaled_dot_product_attention, queries, keys, values)
    if causal and mask is None and queries.shape[2] == keys.shape[2]:  # else aligned top-left
        return attend(is_causal=True, scale=scale, dropout_p=dropout)
    visible = visible_keys(queries.shape[2], keys.shape[2], keys.device, mask, causal)
    if visible is None:
        return attend(scale=scale, dropout_p=dropout)
    # A row without any key is left unmasked and set to 0 after: the kernels differ on it.
    sees_some = visible.any(dim=-1, keepdim=True)
    mixed = attend(attn_mask=visible | ~sees_some, scale=scale, dropout_p=dropout)
    return mixed.masked_fill(~sees_some, 0.0)


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
            attend(part, seen, values[:, :, : seen.shape[2]], mask=kept)
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
        count, past = queries.shape[2], keys.shape[2] - queries.shape[2]
        rows = self._rows_at_once(queries, keys, mask)
        for start in range(0, count, rows) if count > rows else (0,):
            part = queries[:, :, start : start + rows]
            seen = keys[:, :, : past + start + part.shape[2]] if self.causal else keys
            kept = None if mask is None else rearrange(mask[:, : seen.shape[2]], "b j -> b 1 1 j")
            if self.xpos_scale_base is not None:
                part, seen = apply_xpos(part, seen, past + start, self.xpos_scale_base)
            yield part, seen, kept

    def _rows_at_once(self, queries: Tensor, keys: Tensor, mask: Tensor | None) -> int:
        count, total = queries.shape[2], keys.shape[2]
        window = xpos_window(self.xpos_scale_base, queries.dtype) if self.xpos_scale_base else count
        if is_tracing():  # few parts, so that few lengths need their own graph
            return window
        if not self.flash:
            return min(window, REGULAR_ROWS)
        if mask is None and total == count <= window:  # no mask is materialised
            return count
        return min(window, max(64, MASK_ENTRIES // max(1, len(queries) * total)))
