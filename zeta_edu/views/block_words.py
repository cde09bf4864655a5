"""What is said about each part and each wire of a block."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from zeta_edu.block import TransformerBlock
from zeta_edu.views.block_data import AXES
from zeta_edu.views.parts import PARTS

TITLES = {
    "x": "x, the input",
    "normed": "x, normed",
    "fused": "the fused projection",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "ff": "feed-forward input",
    "q_tuned": "queries, adapted",
    "k_tuned": "keys, adapted",
    "v_tuned": "values, adapted",
    "q_heads": "queries by head",
    "k_heads": "keys by head",
    "v_heads": "values by head",
    "q_normed": "queries, normed",
    "k_normed": "keys, normed",
    "q_rotated": "queries, rotated",
    "k_rotated": "keys, rotated",
    "scores": "scores",
    "weights": "weights",
    "merged": "heads, merged",
    "attn_out": "attention out",
    "swiglu": "gated features",
    "ff_out": "feed-forward out",
    "out": "block(x), their sum",
}
"""What each wire carries."""
AS_WRITTEN = ("x", "normed", "out")  # x stays small at the beginning of a line


class Explained(NamedTuple):
    """A part in words.

    Args:
        lesson: the number of the lesson that builds it.
        file: its source in the package.
        function: the function, class or attribute of that file.
        gives: the names of the wires that leave it.
        does: what it does, as one or two sentences, with the sizes in braces.
    """

    lesson: str
    file: str
    function: str
    gives: tuple[str, ...]
    does: str


FORWARD = "TransformerBlock.forward"
PLACES = {
    "norm": (
        ("norm", "norm.py", "LayerNorm", "normed"),
        (
            "Shifts each token's {dim} numbers to mean 0, scales them to variance 1, and "
            "multiplies each by a learned gain."
        ),
    ),
    "projection": (
        ("projection", "block.py", "fused_attn_ff_proj", "fused"),
        (
            "One matrix product makes {fused} numbers of each token's {dim}: its queries, keys, "
            "values and feed-forward input side by side."
        ),
    ),
    "split": (
        ("projection", "block.py", FORWARD, "q k v ff"),
        "Cuts the row of numbers into four slices. Nothing is computed.",
    ),
    "lora": (
        ("lora", "lora.py", "FinetuneModules.add", "q_tuned k_tuned v_tuned"),
        "Adds what the fine-tuning modules make of the normed input.",
    ),
    "heads": (
        ("heads", "block.py", FORWARD, "q_heads k_heads v_heads"),
        (
            "Cuts queries into {heads} heads and keys and values into {kv_heads}, {dim_head} "
            "numbers each. Nothing is computed."
        ),
    ),
    "qk_norm": (
        ("qk_norm", "norm.py", "l2_normalise", "q_normed k_normed"),
        (
            "Brings every query and key to length 1, then multiplies each feature by a learned "
            "scale, so that scores stay bounded."
        ),
    ),
    "rotary": (
        ("rotary", "rotary.py", "rotate", "q_rotated k_rotated"),
        "Turns each pair of features by an angle that grows with the position. Lengths stay.",
    ),
    "xpos": (
        ("xpos", "rotary.py", "apply_xpos", "scores"),
        (
            "Scales queries and keys so that their products fade with distance; the slowest "
            "pairs fade least. The scale base is {base} positions."
        ),
    ),
    "products": (
        ("attention", "attention.py", "attention_weights", "scores"),
        "Takes the dot product of every query with every key, times {scale}.",
    ),
    "masks": (
        ("masks", "attention.py", "attention_weights", "weights"),
        (
            "A query sees {sight}; softmax turns the scores of the keys it sees into weights "
            "that sum to 1."
        ),
    ),
    "mix": (
        ("attention", "attention.py", "regular_attention", "merged"),
        "Sums the values by their weights, in each head.",
    ),
    "flash": (
        ("flash", "attention.py", "flash_attention", "merged"),
        (
            "Sums the values by their weights, in each head, without ever storing the weights. "
            "Those shown are computed beside it."
        ),
    ),
    "merge": (
        ("heads", "block.py", FORWARD, "merged"),
        "Puts the {heads} heads of each token side by side again. Nothing is computed.",
    ),
    "out": (
        ("out", "block.py", "attn_out", "attn_out"),
        "A matrix makes {dim} numbers of the {merged} that come from all heads.",
    ),
    "swiglu": (
        ("feedforward", "feedforward.py", "SwiGLU", "swiglu"),
        (
            "Multiplies each of {inner} values by the silu of its gate. A gate far below 0 "
            "holds its value back."
        ),
    ),
    "ff_out": (
        ("feedforward", "block.py", "ff_out", "ff_out"),
        "A matrix makes {dim} numbers of the {inner} gated ones.",
    ),
    "sum": (
        ("feedforward", "block.py", FORWARD, "out"),
        "Adds the two halves, which ran in parallel. The model adds x back: x + block(x).",
    ),
}
"""Each part: the part of the map it belongs to, its file and function, its wires, what it does."""


def explained(block: TransformerBlock) -> dict[str, Explained]:
    """Each part that a block may have, in words, with the sizes of this one."""
    sizes = {
        "dim": block.dim,
        "fused": sum(block.fused_dims),
        "heads": block.heads,
        "kv_heads": block.kv_heads,
        "dim_head": block.dim_head,
        "merged": block.heads * block.dim_head,
        "inner": block.fused_dims[3] // 2,
        "base": f"{block.xpos_scale_base:g}",
        "scale": f"{block.attend.scale:.3g}",
        "sight": "keys up to its own position" if block.causal else "the keys of all positions",
    }
    places = PLACES | {"mix": PLACES["flash" if block.attend.flash else "mix"]}
    return {
        name: Explained(
            PARTS[part].lesson, file, function, tuple(gives.split()), does.format(**sizes)
        )
        for name, ((part, file, function, gives), does) in places.items()
        if name != "flash"
    }


def shape_in_words(name: str, shape: tuple[int, ...]) -> str:
    """The axes of a wire with their lengths: "batch 1, heads 4, n 8, dim_head 8"."""
    axes = AXES.get(name, "batch n dim").split()
    return ", ".join(f"{axis} {size}" for axis, size in zip(axes, shape, strict=True))


def findings(
    block: TransformerBlock, wires: Mapping[str, Tensor], table: Mapping[str, Any], sequence: int
) -> dict[str, str]:
    """One line about each wire and each part: what is to be seen there, for one sequence.

    Args:
        block: whose wires they are.
        wires: from `block_wires`.
        table: each wire's row of `Statistics.table` for this sequence.
        sequence: which of the batch.
    """
    about = {name: _about_wire(name, row) for name, row in table.items()}
    rms = {name: number(row[3]) for name, row in table.items()}
    gates = wires["ff"][sequence].chunk(2, dim=-1)[1]
    return (
        about
        | _about_sizes(block)
        | _about_changes(block, rms)
        | {
            "part:products": about["scores"],
            "part:masks": _about_spread(wires["weights"][sequence]),
            "part:swiglu": f"{_percent(float((gates > 0).double().mean()))} of the gates are open",
            "part:sum": _comparison(*(float(table[name][3]) for name in ("attn_out", "ff_out"))),
        }
    )


def _about_sizes(block: TransformerBlock) -> dict[str, str]:
    """What does not depend on the numbers."""
    heads, kv_heads, fused = block.heads, block.kv_heads, sum(block.fused_dims)
    sharing = f"Every {heads // kv_heads} of {heads} query heads share a head of keys and values"
    if kv_heads == 1:
        sharing = f"All {heads} query heads share one head of keys and values"
    if heads == kv_heads:
        sharing = f"{heads} query heads, each with keys and values of its own"
    share = _percent(block.fused_dims[3] / fused)
    return {
        "part:projection": f"One matrix product makes {fused} numbers of each token's {block.dim}",
        "part:split": f"{share} of the projection is for the feed-forward",
        "part:heads": sharing,
        "part:xpos": f"xPos: scores fade with distance, in units of {block.xpos_scale_base:g}",
        "part:merge": f"{heads} heads side by side make {heads * block.dim_head} numbers per token",
    }


def _about_changes(block: TransformerBlock, rms: Mapping[str, str]) -> dict[str, str]:
    """What a part makes of the size of its numbers."""
    before = "q_normed" if block.qk_rmsnorm else "q_heads"

    def change(what: str, one: str, other: str) -> str:
        same = rms[one] == rms.get(other)
        after = "before and after" if same else f"before, {rms.get(other)} after"
        return f"{what} rms {rms[one]} {after}"

    return {
        "part:norm": change("Layer norm:", "x", "normed"),
        "part:lora": change("Adapters change the queries:", "q", "q_tuned"),
        "part:qk_norm": change("qk norm: queries of", "q_heads", "q_normed"),
        "part:rotary": change("Rotation keeps lengths: queries of", before, "q_rotated"),
        "part:mix": change("Mixing averages values:", "v_heads", "merged"),
        "part:out": f"The attention half writes numbers of rms {rms['attn_out']}",
        "part:ff_out": f"The feed-forward half writes numbers of rms {rms['ff_out']}",
    }


def number(value: float) -> str:
    """A number with three digits and a real minus sign.

    Examples:
        >>> number(-0.12345), number(12.0)
        ('−0.123', '12')
    """
    return "none" if value != value else f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _about_wire(name: str, row: Float[Any, " 5"]) -> str:
    title = TITLES[name] if name in AS_WRITTEN else TITLES[name].capitalize()
    if row[4]:
        return f"{title}: {int(row[4])} numbers are not finite"
    return f"{title}: from {number(row[0])} to {number(row[1])}, rms {number(row[3])}"


def _about_spread(weights: Float[Tensor, "heads query key"]) -> str:
    """Over how many keys the queries spread their weights: exp of the entropy, on average."""
    looking = weights.sum(dim=-1) > 0
    if not looking.any():
        return "No query may see any key"
    entropy = -torch.xlogy(weights.double(), weights.double()).sum(dim=-1)
    count = float(entropy[looking].exp().mean())
    return f"A query spreads its attention over about {count:.1f} tokens"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _comparison(attn: float, ff: float) -> str:
    """Which of the two halves says more."""
    written = f"rms {number(ff)} against {number(attn)}"
    if not attn > 0 or not ff > 0:
        return f"Feed-forward and attention write {written}"
    if ff >= attn:
        return f"The feed-forward writes {number(ff / attn)} times as much as attention: {written}"
    written = f"rms {number(attn)} against {number(ff)}"
    return f"Attention writes {number(attn / ff)} times as much as the feed-forward: {written}"
