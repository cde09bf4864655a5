"""Flash attention in plain PyTorch: tile by tile, exact, and never a whole row of weights.

This is the algorithm that torch's fused kernels run, written to be read. It is slower than they
are, and needs as little memory: of the scores it holds one tile at a time.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from zeta_edu.checks import flag, floating_tensor, number, positive_integer


class TileStep(NamedTuple):
    """Where online softmax stands after one more tile of keys.

    Args:
        rows, columns: the queries and the keys of the tile.
        maximum: (..., rows, 1), the largest score of each query so far.
        total: (..., rows, 1), the sum of exp(score - maximum) so far.
        mixed: (..., rows, dim_head), the sum of exp(score - maximum) * value so far; divided by
            `total` it is attention over the keys seen so far.
        rescale: (..., rows, 1), the factor that the earlier sums were multiplied by, because the
            maximum has grown.
    """

    rows: slice
    columns: slice
    maximum: Tensor
    total: Tensor
    mixed: Tensor
    rescale: Tensor


def tiles(length: int, size: int) -> list[slice]:
    """Cut `length` positions into slices of `size`, the last one shorter.

    >>> tiles(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def sees_any(rows: slice, columns: slice, past: int) -> bool:
    """Whether causality lets any query of a tile see any of its keys."""
    return columns.start <= rows.stop - 1 + past


def _scores(queries: Tensor, keys: Tensor, step: tuple[slice, slice], past: int | None) -> Tensor:
    """The scores of a tile, with minus infinity where a key comes after the query."""
    rows, columns = step
    scores = queries[..., rows, :] @ keys[..., columns, :].mT
    if past is None or columns.stop - 1 <= rows.start + past:
        return scores
    row = torch.arange(rows.start, rows.stop, device=keys.device)[:, None] + past
    column = torch.arange(columns.start, columns.stop, device=keys.device)
    return scores.masked_fill(column > row, -torch.inf)


def online_softmax(
    queries: Float[Tensor, "*batch query dim_head"],
    keys: Float[Tensor, "*others key dim_head"],
    values: Float[Tensor, "*others key dim_value"],
    query_tile: int,
    key_tile: int,
    causal: bool,
) -> Iterator[TileStep]:
    """Attention one tile after another, for scaled queries; what is known after each is yielded.

    Tiles that causality hides are skipped. The last step of each tile of queries holds its result.

    Source: Milakov and Gimelshein 2018 (arXiv:1805.02867), algorithm 3, and Dao et al. 2022,
    FlashAttention (arXiv:2205.14135), algorithm 1.

    >>> q, k, v = torch.zeros(1, 2), torch.zeros(4, 2), torch.arange(4.0)[:, None]
    >>> [(step.mixed / step.total).item() for step in online_softmax(q, k, v, 1, 2, False)]
    [0.5, 1.5]
    """
    past = keys.shape[-2] - queries.shape[-2] if causal else None
    for rows in tiles(queries.shape[-2], query_tile):
        lead = queries[..., rows, :1]
        maximum = torch.full_like(lead, -torch.inf)
        total, mixed = torch.zeros_like(lead), torch.zeros_like(lead) * values[..., :1, :]
        for columns in tiles(keys.shape[-2], key_tile):
            if past is not None and not sees_any(rows, columns, past):
                break
            scores = _scores(queries, keys, (rows, columns), past)
            grown = torch.maximum(maximum, scores.amax(dim=-1, keepdim=True))
            rescale = (maximum - grown).exp()
            powers = (scores - grown).exp()  # of this tile only
            total = total * rescale + powers.sum(dim=-1, keepdim=True)
            mixed = mixed * rescale + powers @ values[..., columns, :]
            maximum = grown
            yield TileStep(rows, columns, maximum, total, mixed, rescale)


class _Tiled(torch.autograd.Function):
    """Forward keeps one number for each query, its log-sum-exp; backward computes tiles anew."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sizes: Any) -> tuple[Tensor, Tensor]:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        log_sum_exp = q.new_empty(q.shape[:-1])
        for step in online_softmax(q, k, v, *sizes):
            out[..., step.rows, :] = step.mixed / step.total
            log_sum_exp[..., step.rows] = (step.maximum + step.total.log()).squeeze(-1)
        ctx.save_for_backward(q, k, v, out, log_sum_exp)
        ctx.sizes = sizes
        ctx.mark_non_differentiable(log_sum_exp)
        return out, log_sum_exp

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, log_sum_exp = ctx.saved_tensors
        query_tile, key_tile, causal = ctx.sizes
        past = k.shape[-2] - q.shape[-2] if causal else None
        grad_q, grad_k, grad_v = (torch.zeros_like(t) for t in (q, k, v))
        shift = (grad * out).sum(dim=-1, keepdim=True)  # what softmax's gradient subtracts
        for rows in tiles(q.shape[-2], query_tile):
            for columns in tiles(k.shape[-2], key_tile):
                if past is not None and not sees_any(rows, columns, past):
                    break
                scores = _scores(q, k, (rows, columns), past)
                weights = (scores - log_sum_exp[..., rows, None]).exp()
                above, values = grad[..., rows, :], v[..., columns, :]
                grad_scores = weights * (above @ values.mT - shift[..., rows, :])
                grad_q[..., rows, :] += grad_scores @ k[..., columns, :]
                grad_k[..., columns, :] += _over_group(grad_scores.mT @ q[..., rows, :])
                grad_v[..., columns, :] += _over_group(weights.mT @ above)
        return grad_q, grad_k, grad_v, None


def _over_group(grad: Tensor) -> Tensor:
    """Add up what the query heads that share a key head send back to it."""
    return grad.sum(dim=-3, keepdim=True)


def tiled_attention(
    queries: Float[Tensor, "batch heads query dim_head"],
    keys: Float[Tensor, "batch kv_heads key dim_head"],
    values: Float[Tensor, "batch kv_heads key dim_value"],
    *,
    causal: bool = False,
    scale: float | None = None,
    query_tile: int = 128,
    key_tile: int = 128,
) -> tuple[Float[Tensor, "batch heads query dim_value"], Float[Tensor, "batch heads query"]]:
    """Attention, exact, that holds one tile of the scores at a time, forwards and backwards.

    Args:
        queries: (batch, heads, query, dim_head)
        keys: (batch, kv_heads, key, dim_head); `kv_heads` divides `heads`.
        values: (batch, kv_heads, key, dim_value)
        causal: whether a query sees only keys up to its own; the last query is at the last key.
        scale: factor of the dot products; dim_head ** -0.5 when None.
        query_tile: queries in a tile.
        key_tile: keys in a tile.

    Returns:
        The output, in the dtype of the queries, and for every query the log of the sum of
        exp(score): exp(score - log_sum_exp) is its row of weights. Gradients flow through the
        output only, once.

    Raises:
        TypeError, ValueError: an argument is not of the kind above; causal with more queries than
            keys; no key at all.

    Source: Dao et al. 2022, FlashAttention (arXiv:2205.14135), algorithms 1 and 4.

    >>> q, k, v = torch.randn(3, 1, 2, 100, 8, generator=torch.Generator().manual_seed(0))
    >>> out, log_sum_exp = tiled_attention(q, k, v, query_tile=16, key_tile=32)
    >>> torch.allclose(out, (q @ k.mT / 8**0.5).softmax(-1) @ v, atol=1e-6)
    True
    """
    sizes = _checked(queries, keys, values, causal, query_tile, key_tile)
    scale = queries.shape[-1] ** -0.5 if scale is None else number("scale", scale)
    wide = torch.promote_types(queries.dtype, torch.float32)
    # (batch, kv_heads, group, ...): the query heads that share a key head stand in one axis.
    q = rearrange(queries.to(wide) * scale, "b (kv g) i d -> b kv g i d", kv=keys.shape[1])
    k, v = (t.to(wide).unsqueeze(2) for t in (keys, values))
    out, log_sum_exp = _Tiled.apply(q, k, v, sizes)
    out = rearrange(out, "b kv g i d -> b (kv g) i d").to(queries.dtype)
    return out, rearrange(log_sum_exp, "b kv g i -> b (kv g) i")


def _checked(
    queries: Tensor, keys: Tensor, values: Tensor, causal: bool, query_tile: int, key_tile: int
) -> tuple[int, int, bool]:
    for name, tensor in (("queries", queries), ("keys", keys), ("values", values)):
        floating_tensor(name, tensor, f"batch heads {name} dim_head")
    if keys.shape[:3] != values.shape[:3]:
        shapes = f"{tuple(keys.shape)} and {tuple(values.shape)}"
        raise ValueError(f"keys and values must share (batch, kv_heads, key), got {shapes}")
    if queries.shape[0] != keys.shape[0] or queries.shape[-1] != keys.shape[-1]:
        shapes = f"{tuple(queries.shape)} and {tuple(keys.shape)}"
        raise ValueError(f"queries and keys must share batch and dim_head, got {shapes}")
    if queries.shape[1] % keys.shape[1]:
        raise ValueError(
            f"keys must have heads that divide {queries.shape[1]}, got {keys.shape[1]}"
        )
    if not keys.shape[2]:
        raise ValueError("keys must hold at least one key, got none")
    if flag("causal", causal) and queries.shape[2] > keys.shape[2]:
        counts = f"{queries.shape[2]} queries, {keys.shape[2]} keys"
        raise ValueError(f"causal: a query would see no key, with {counts}")
    tile = positive_integer("query_tile", query_tile), positive_integer("key_tile", key_tile)
    return (*tile, causal)
