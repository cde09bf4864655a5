"""What flows through a block: every wire's numbers, from its real forward pass.

The block runs once, with a hook on each submodule. What it computes between them is computed
again here by the package's own functions, from what the hooks heard; the tests hold the two
together.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zeta_edu.attention import Attend
from zeta_edu.block import TransformerBlock
from zeta_edu.masks import visible_keys
from zeta_edu.modes import evaluating
from zeta_edu.norm import l2_normalise
from zeta_edu.recording import record_attention
from zeta_edu.rotary import apply_xpos, rotary_tables, rotate, xpos_window

BINS = 24

AXES = {
    "q": "batch n heads·dim_head",
    "k": "batch n kv_heads·dim_head",
    "v": "batch n kv_heads·dim_head",
    "q_heads": "batch heads n dim_head",
    "k_heads": "batch kv_heads n dim_head",
    "v_heads": "batch kv_heads n dim_head",
    "scores": "batch heads query key",
    "weights": "batch heads query key",
    "merged": "batch n heads·dim_head",
    "fused": "batch n q+k+v+ff",
    "ff": "batch n value+gate",
    "swiglu": "batch n inner",
}
"""The names of the axes of each wire; those not here are (batch, n, dim) or like their source."""
for _source, _names in {
    "q": ("q_tuned",),
    "k": ("k_tuned",),
    "v": ("v_tuned",),
    "q_heads": ("q_normed", "q_rotated"),
    "k_heads": ("k_normed", "k_rotated"),
}.items():
    AXES |= dict.fromkeys(_names, AXES[_source])


class Statistics(NamedTuple):
    """Numbers about every wire, for each sequence of the batch.

    Args:
        table: least, largest, mean, root of the mean square, and how many are not finite.
        bins: the share of the numbers in each of `BINS` equal steps from least to largest.
        by_token: root of the mean square at each position.
    """

    table: Float[np.ndarray, "batch wires 5"]
    bins: Float[np.ndarray, "batch wires bins"]
    by_token: Float[np.ndarray, "batch wires n"]


def block_wires(
    block: TransformerBlock,
    x: Float[Tensor, "batch n dim"],
    mask: Bool[Tensor, "batch n"] | None = None,
) -> dict[str, Tensor]:
    """Run a block, without dropout or gradients, and keep what was on each of its wires.

    Args:
        block: stays as it is, its modes included.
        x: (batch, n, dim), its input.
        mask: (batch, n), True where a key is kept.

    Returns:
        From a wire's name to its tensor, in the order of the computation. The scores of keys that
        a query may not see are minus infinity.

    Examples:
        >>> block = TransformerBlock(dim=8, dim_head=4, heads=2)
        >>> x = torch.randn(1, 3, 8)
        >>> wires = block_wires(block, x)
        >>> torch.equal(wires["attn_out"] + wires["ff_out"], block(x))
        True
    """
    heard: dict[str, tuple[Any, Tensor]] = {}
    listened: Mapping[str, nn.Module] = {
        "norm": block.norm,
        "fused": block.fused_attn_ff_proj,
        "attend": block.attend,
        "attn_out": block.attn_out,
        "swiglu": block.ff_out[0],
        "ff_out": block.ff_out,
    }
    with (
        torch.no_grad(),
        evaluating(block),
        _hooks(listened, heard),
        record_attention(block) as seen,
    ):
        out = block(x, mask)
        queries, keys, _, _ = heard["attend"][0]
        wires = {"x": x, "normed": heard["norm"][1], "fused": heard["fused"][1]}
        wires |= _towards_attention(block, wires["normed"], wires["fused"])
        wires |= {"q_rotated": queries, "k_rotated": keys}
        wires |= {"scores": _scores(block.attend, queries, keys, mask), "weights": seen[0]}
        merged, projected = heard["attn_out"]
        attn_out = block.finetune_modules.add("o", projected, merged[0])
        wires |= {"merged": merged[0], "attn_out": attn_out, "swiglu": heard["swiglu"][1]}
    return wires | {"ff_out": heard["ff_out"][1], "out": out}


@contextmanager
def _hooks(
    modules: Mapping[str, nn.Module], heard: dict[str, tuple[Any, Tensor]]
) -> Iterator[None]:
    """Note the inputs and the output of each module while the context is open."""

    def note(name: str) -> Any:
        return lambda _, inputs, output: heard.__setitem__(name, (inputs, output))

    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _towards_attention(block: TransformerBlock, normed: Tensor, fused: Tensor) -> dict[str, Tensor]:
    """The slices of the projection, and queries, keys and values on their way to the rotation."""
    q, k, v, ff = fused.split(block.fused_dims, dim=-1)
    wires = {"q": q, "k": k, "v": v, "ff": ff}
    tuned = block.finetune_modules
    if any(getattr(tuned, name) is not None for name in ("q", "k", "v")):
        q, k, v = (tuned.add(name, wires[name], normed) for name in ("q", "k", "v"))
        wires |= {"q_tuned": q, "k_tuned": k, "v_tuned": v}
    q = rearrange(q, "b n (h d) -> b h n d", h=block.heads)
    k, v = (rearrange(t, "b n (kv d) -> b kv n d", kv=block.kv_heads) for t in (k, v))
    wires |= {"q_heads": q, "k_heads": k, "v_heads": v}
    if block.qk_rmsnorm:
        wires["q_normed"] = l2_normalise(q, block.q_scale)
        wires["k_normed"] = l2_normalise(k, block.k_scale)
    return wires


def rotated(block: TransformerBlock, wires: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Queries and keys as the block rotates them, computed again from the wires before."""
    q, k = (wires.get(f"{name}_normed", wires[f"{name}_heads"]) for name in ("q", "k"))
    cos, sin = rotary_tables(0, q.shape[2], block.dim_head, q.device, q.dtype)
    return rotate(q, cos, sin), rotate(k, cos, sin)


def _scores(attend: Attend, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot products, xPos included, of the pairs that may see each other."""
    n = queries.shape[2]
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    base, rows = attend.xpos_scale_base, []
    window = n if base is None else xpos_window(base, queries.dtype)
    for start in range(0, n, window):
        part, seen = queries[:, :, start : start + window], keys
        if base is not None:  # the keys of later windows would overflow, and are never seen
            part, seen = apply_xpos(part, keys[:, :, : start + window], start, base)
        products = (part * attend.scale) @ seen.transpose(-1, -2)
        rows.append(nn.functional.pad(products, (0, n - seen.shape[2])))
    kept = None if mask is None else mask[:, None, None]
    visible = visible_keys(n, n, queries.device, kept, attend.causal)
    scores = torch.cat(rows, dim=2)
    return scores if visible is None else scores.masked_fill(~visible, -torch.inf)


def statistics(wires: Mapping[str, Tensor]) -> Statistics:
    """Summarise every wire; masked scores are left out, and so are numbers that are not finite.

    Examples:
        >>> table, bins, by_token = statistics({"x": torch.tensor([[[3.0, -4.0], [0.0, 1.0]]])})
        >>> table[0, 0].tolist()
        [-4.0, 3.0, 0.0, 2.549509..., 0.0]
        >>> by_token[0, 0].tolist()
        [3.535533..., 0.707106...]
    """
    batch, n = wires["x"].shape[:2]
    table = np.full((batch, len(wires), 5), np.nan)
    bins, by_token = np.zeros((batch, len(wires), BINS)), np.full((batch, len(wires), n), np.nan)
    for at, (name, wire) in enumerate(wires.items()):
        for sequence, tensor in enumerate(wire.detach().to("cpu", torch.float64)):
            values = tensor.movedim(-2, 0).reshape(n, -1).numpy()  # a row for each position
            # What a mask hides is no number of the block's; weights of 0 are.
            held = ~np.isneginf(values) if name == "scores" else np.ones_like(values, dtype=bool)
            finite = np.isfinite(values)
            bad = np.count_nonzero(held & ~finite)
            table[sequence, at] = *_summary(values[finite]), bad
            if finite.any():
                bins[sequence, at] = np.histogram(values[finite], BINS)[0] / finite.sum()
            counts = finite.sum(axis=1)
            squares = np.square(np.where(finite, values, 0.0)).sum(axis=1)
            squares[counts == 0] = np.nan
            by_token[sequence, at] = np.sqrt(squares / np.maximum(counts, 1))
    return Statistics(table, bins, by_token)


def _summary(values: Float[np.ndarray, " numbers"]) -> tuple[float, float, float, float]:
    if not values.size:
        return (np.nan, np.nan, np.nan, np.nan)
    mean, squares = float(values.mean()), float(np.square(values).mean())
    return float(values.min()), float(values.max()), mean, squares**0.5
