"""The heads view: which key/value head a query head reads, and what sharing saves."""

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure

from zeta_edu.block import TransformerBlock
from zeta_edu.checks import positive_integer
from zeta_edu.views.display import Control, View
from zeta_edu.views.heads_figure import heads_figure, sharings_shown

MOST_HEADS = 256  # that a picture can show side by side
LAYERS, CONTEXT = 128, 2**17  # where the sliders end, unless more is asked for
BYTES = (1, 2, 4)  # of a number in 8, 16 and 32 bits


@dataclass(frozen=True)
class Sharing:
    """What one block has to learn and to keep for one number of key/value heads.

    Args:
        kv_heads: the key/value heads.
        parameters: of the projections to queries, keys and values and of the one out of the heads.
        cached: numbers that a token leaves in the cache, as keys and as values.
    """

    kv_heads: int
    parameters: dict[str, int]
    cached: dict[str, int]


def sharings(dim: int, dim_head: int, heads: int) -> list[Sharing]:
    """Every way to share: each number of key/value heads that divides `heads`, largest first.

    The numbers are counted on a `TransformerBlock` and its cache, made without memory.

    Args:
        dim: features of the block's input.
        dim_head: features of a head.
        heads: query heads.

    Returns:
        One `Sharing` for each divisor of `heads`.

    Examples:
        >>> [way.kv_heads for way in sharings(512, 64, 8)]
        [8, 4, 2, 1]
        >>> sharings(512, 64, 8)[-1].cached
        {'key': 64, 'value': 64}
    """
    divisors = [count for count in range(heads, 0, -1) if heads % count == 0]
    return [_sharing(dim, dim_head, heads, kv_heads) for kv_heads in divisors]


def _sharing(dim: int, dim_head: int, heads: int, kv_heads: int) -> Sharing:
    with torch.device("meta"):
        block = TransformerBlock(dim, dim_head, heads=heads, kv_heads=kv_heads)
        token = torch.zeros(1, kv_heads, 1, dim_head)
    parts = block.fused_attn_ff_proj.weight.split(block.fused_dims)
    names = ("query", "key", "value", "output")
    counted = zip(names, (*parts[:3], block.attn_out.weight), strict=True)
    keys, values = block.new_cache(1).extend(token, token)
    return Sharing(
        kv_heads,
        {name: weight.numel() for name, weight in counted},
        {"key": keys.numel(), "value": values.numel()},
    )


class HeadsView(View):
    """Heads and what they share. Made by `heads_view`, which explains the arguments."""

    modules = (
        "runtime.js",
        "frame.js",
        "controls.js",
        "words.js",
        "heads.css",
        "heads_words.js",
        "heads_diagram.js",
        "heads_bars.js",
        "heads.js",
    )

    def __init__(
        self,
        heads: int,
        kv_heads: int,
        dim_head: int,
        dim: int,
        layers: int,
        context: int,
        bytes_per_number: int,
    ) -> None:
        self.heads, self.kv_heads = heads, kv_heads
        self.dim_head, self.dim = dim_head, dim
        self.layers, self.context = layers, context
        self.bytes_per_number = bytes_per_number
        self.sharings = sharings(dim, dim_head, heads)

    @property
    def title(self) -> str:
        """How the heads share, and what that leaves of the cache."""
        if self.heads == 1:
            return "One query head reads one key/value head: there is nothing to share"
        if self.kv_heads == self.heads:
            return f"Multi-head: each of {self.heads} query heads has keys and values of its own"
        group = self.heads // self.kv_heads
        less = f"the cache shrinks to 1/{group}"
        if self.kv_heads == 1:
            return f"Multi-query: all {self.heads} query heads read one key/value head; {less}"
        return f"Grouped-query: {group} query heads share each key/value head; {less}"

    @property
    def alt(self) -> str:
        """Which query heads read which key/value head, and the two charts beneath."""
        group = self.heads // self.kv_heads
        bars = ", ".join(str(way.kv_heads) for way in sharings_shown(self))
        return (
            f"{self.title}. Diagram: query heads 0 to {self.heads - 1}, {group} in a row for each "
            f"of {self.kv_heads} key/value heads. Bars: parameters of attention and bytes of the "
            f"cache for {bars} key/value heads."
        )

    def controls(self) -> dict[str, Control]:
        """Key/value heads, tokens in the context, layers, and bytes per number."""
        return {
            "kv_heads": range(1, self.heads + 1),
            "context": range(1, max(CONTEXT, self.context) + 1),
            "layers": range(1, max(LAYERS, self.layers) + 1),
            "bytes_per_number": range(BYTES[0], BYTES[-1] + 1),
        }

    def state(self) -> dict[str, Any]:
        """The sizes of every way to share, for one layer and one token, and the start."""
        return {
            "kind": "heads",
            "heads": self.heads,
            "dim_head": self.dim_head,
            "dim": self.dim,
            "sharings": [vars(way) for way in self.sharings],
            "bytes": list(BYTES),
            "most": {name: allowed[-1] for name, allowed in self._ranges()},
            "start": {name: getattr(self, name) for name in self.controls()},
        }

    def _ranges(self) -> list[tuple[str, range]]:
        found = self.controls().items()
        return [(name, allowed) for name, allowed in found if isinstance(allowed, range)]

    def figure(self) -> Figure:
        """The diagram of the heads above the two charts."""
        return heads_figure(self)


def heads_view(
    heads: int = 8,
    kv_heads: int | None = None,
    *,
    dim_head: int = 64,
    dim: int | None = None,
    layers: int = 1,
    context: int = 4096,
    bytes_per_number: int = 2,
) -> HeadsView:
    """Look at query heads over the keys and values they read, and at what sharing them saves.

    Parameters are those of attention in a `TransformerBlock`, without its feed-forward half and
    its norm; cache bytes are those of its `KVCache` for one text.

    Args:
        heads: query heads, at most 256.
        kv_heads: key/value heads to open at, a divisor of `heads`: `heads` is multi-head
            attention, 1 is multi-query attention, between them it is grouped-query. None opens at
            multi-head.
        dim_head: features of a head, even.
        dim: features of the block's input; `heads * dim_head` when None.
        layers: blocks of the model.
        context: tokens in the cache.
        bytes_per_number: of a cached number: 1, 2 or 4.

    Returns:
        The view: display it, or call `save`, `live`, `figure` or `state` on it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of its range; it is named.

    Source: multi-query attention, Shazeer 2019 (arXiv:1911.02150), section 3; grouped-query
    attention, Ainslie et al. 2023 (arXiv:2305.13245), section 2.2.

    Examples:
        >>> heads_view(8, 2).title
        'Grouped-query: 4 query heads share each key/value head; the cache shrinks to 1/4'
    """
    given = {"heads": heads, "dim_head": dim_head, "layers": layers, "context": context}
    for name, value in given.items():
        positive_integer(name, value)
    if heads > MOST_HEADS:
        raise ValueError(f"heads must be at most {MOST_HEADS} to be drawn, got {heads}")
    kv_heads = positive_integer("kv_heads", heads if kv_heads is None else kv_heads)
    if heads % kv_heads:
        raise ValueError(f"kv_heads must divide heads={heads}, got {kv_heads}")
    if positive_integer("bytes_per_number", bytes_per_number) not in BYTES:
        raise ValueError(f"bytes_per_number must be 1, 2 or 4, got {bytes_per_number}")
    dim = positive_integer("dim", heads * dim_head if dim is None else dim)
    return HeadsView(heads, kv_heads, dim_head, dim, layers, context, bytes_per_number)
