"""The block by its definition, in float64 and complex numbers: an oracle that shares no code.

A pair of features is one complex number, its rotation a factor of modulus 1, and the position
enters only through the difference of query and key, so nothing here has an origin or a window.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

DEFAULTS: dict[str, Any] = {
    "dim_head": 64,
    "causal": True,
    "heads": 8,
    "qk_rmsnorm": False,
    "qk_scale": 8,
    "ff_mult": 4,
    "use_xpos": True,
    "xpos_scale_base": 512,
    "kv_heads": 1,
}


def zeta(dim_head: int) -> Tensor:
    """What is left of each pair of features after one scale base."""
    pair = torch.arange(dim_head // 2, dtype=torch.float64)
    return (2 * pair + 0.4 * dim_head) / (1.4 * dim_head)


def frequencies(dim_head: int) -> Tensor:
    """Radians per position of each pair of features."""
    pair = torch.arange(dim_head // 2, dtype=torch.float64)
    return 10_000.0 ** (-2 * pair / dim_head)


def pairs(x: Tensor) -> Tensor:
    """Features i and i + dim_head/2 as one complex number, in double precision."""
    half = x.shape[-1] // 2
    return torch.complex(x[..., :half].double(), x[..., half:].double())


def positioned_products(
    queries: Tensor,
    keys: Tensor,
    query_positions: Tensor,
    key_positions: Tensor,
    scale_base: float | None,
) -> Tensor:
    """Dot products (..., query, key) of unrotated queries and keys, given their positions.

    `scale_base` None is without xPos. A key after its query is taken not to fade.
    """
    dim_head = queries.shape[-1]
    distance = (query_positions[:, None] - key_positions[None, :]).double()[..., None]
    turn = torch.polar(torch.ones(()).double(), distance * frequencies(dim_head))
    if scale_base is not None:
        turn = turn * zeta(dim_head) ** (distance.clamp(min=0) / scale_base)
    q, k = pairs(queries), pairs(keys).conj()
    return torch.einsum("...mi,...ni,mni->...mn", q, k, turn).real


def softmax_over(scores: Tensor, visible: Tensor) -> Tensor:
    """Softmax over the visible keys; zeros where there is none."""
    scores = scores.masked_fill(~visible, -torch.inf)
    highest = scores.amax(dim=-1, keepdim=True).detach().clamp(min=torch.finfo(scores.dtype).min)
    weights = (scores - highest).exp()
    total = weights.sum(dim=-1, keepdim=True)
    return weights / torch.where(total > 0, total, 1)


def _unit(x: Tensor) -> Tensor:
    return x / x.square().sum(dim=-1, keepdim=True).sqrt()


def reference_parts(
    parameters: Mapping[str, Tensor],
    x: Tensor,
    mask: Tensor | None = None,
    rows: Tensor | None = None,
    **changed: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return attention output, feed-forward output and weights of a block of these options.

    With `rows`, those of the queries at these positions only.
    """
    o = {**DEFAULTS, **changed}
    p = {name: tensor.double() for name, tensor in parameters.items()}
    x = x.double()
    batch, n, dim = x.shape
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    normed = centred / (variance + 1e-5).sqrt() * p["norm.gamma"]
    inner = o["ff_mult"] * dim
    sizes = [o["heads"] * o["dim_head"], *[o["kv_heads"] * o["dim_head"]] * 2, inner, inner]
    fused = torch.einsum("bnd,fd->bnf", normed, p["fused_attn_ff_proj.weight"])
    q, k, v, value, gate = fused.split(sizes, dim=-1)

    def heads_of(t: Tensor, count: int) -> Tensor:
        split = torch.stack(t.chunk(count, dim=-1), dim=1)
        return split.repeat_interleave(o["heads"] // count, dim=1)

    q, k, v = heads_of(q, o["heads"]), heads_of(k, o["kv_heads"]), heads_of(v, o["kv_heads"])
    factor = o["dim_head"] ** -0.5
    if o["qk_rmsnorm"]:
        q, k = _unit(q) * p["q_scale"], _unit(k) * p["k_scale"]
        factor = o["qk_scale"]
    place = torch.arange(n)
    rows = place if rows is None else rows
    q, value, gate = q[:, :, rows], value[:, rows], gate[:, rows]
    scale_base = o["xpos_scale_base"] if o["use_xpos"] and o["causal"] else None
    scores = positioned_products(q, k, rows, place, scale_base) * factor
    visible = torch.ones(batch, 1, len(rows), n, dtype=torch.bool)
    if o["causal"]:
        visible = visible & (rows[:, None] >= place)
    if mask is not None:
        visible = visible & mask[:, None, None, :]
    weights = softmax_over(scores, visible)
    merged = torch.cat((weights @ v).unbind(dim=1), dim=-1)
    attention = torch.einsum("bnf,df->bnd", merged, p["attn_out.weight"])
    gated = value * gate * torch.sigmoid(gate)
    return attention, torch.einsum("bnf,df->bnd", gated, p["ff_out.2.weight"]), weights


def reference(
    parameters: Mapping[str, Tensor], x: Tensor, mask: Tensor | None = None, **changed: Any
) -> Tensor:
    """Return what a block with these parameters and options gives for `x`, in float64."""
    attention, feed_forward, _ = reference_parts(parameters, x, mask, **changed)
    return attention + feed_forward
