"""The cache view: a text is read token by token, and what is kept of the tokens before."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from zeta_edu.block import TransformerBlock
from zeta_edu.cache import KVCache
from zeta_edu.checks import positive_integer
from zeta_edu.modes import evaluating
from zeta_edu.recording import record_attention
from zeta_edu.views import arguments, codec
from zeta_edu.views.display import Control, View
from zeta_edu.views.tokens import visible

MOST_POSITIONS = 64
LEAST_ERROR = 1e-6  # what rounding in float32 may do, on any machine


class Trace(NamedTuple):
    """One block, run over a text with its cache: first the prompt, then token by token.

    Args:
        ends: how many positions the cache holds after each step.
        weights: (heads, positions, positions), the weights of every query, as it was computed.
        keys: (positions, dim_head), the keys of the first key head, rotated, as the cache has them.
        error: a power of ten, 1e-6 at least, that no difference between the cached outputs and
            those of the whole text at once exceeds, relative to the largest output.
    """

    ends: list[int]
    weights: Float[np.ndarray, "heads positions positions"]
    keys: Float[np.ndarray, "positions dim_head"]
    error: float


class Costs(NamedTuple):
    """Multiplications of a block, and the bytes of its cache, by the number of positions.

    Args:
        per_token: for the projections and the feed-forward half of one token.
        per_pair: for a query and a key it sees: the score and the mix, all heads together.
        bytes_per_token: of the cache, for this block's number of key heads.
        others: bytes per token for multi-head and multi-query attention, by name, where the block
            is not of that kind itself.
    """

    per_token: int
    per_pair: int
    bytes_per_token: int
    others: dict[str, int]

    def cached(self, start: int, end: int) -> int:
        """Multiplications for the tokens `start` to `end`, with what came before in the cache."""
        pairs = sum(range(start + 1, end + 1))
        return (end - start) * self.per_token + pairs * self.per_pair

    def whole(self, end: int) -> int:
        """Multiplications for all `end` tokens at once, as a model without a cache needs them."""
        return self.cached(0, end)


def trace(block: TransformerBlock, x: Float[torch.Tensor, "1 n dim"], prompt: int) -> Trace:
    """Run the block over its cache, and note what it holds and how its outputs compare."""
    n = x.shape[1]
    ends = list(range(prompt, n + 1))
    cache: KVCache = block.new_cache(batch_size=1)
    outputs, start = [], 0
    weights = np.zeros((block.heads, n, n))
    with torch.no_grad():
        for end in ends:
            with record_attention(block) as record:
                outputs.append(block(x[:, start:end], cache=cache))
            weights[:, start:end, :end] = record[0][0].double().numpy()
            start = end
        together = block(x)
    difference = float((torch.cat(outputs, dim=1) - together).abs().max() / together.abs().max())
    keys = cache.keys[0, 0].double().numpy()
    return Trace(
        ends, weights, keys, max(LEAST_ERROR, 10.0 ** np.ceil(np.log10(difference or 1e-9)))
    )


def costs(block: TransformerBlock) -> Costs:
    """Count from the block's own matrices and its cache's own tensors."""
    matrices = [part.weight for part in block.modules() if isinstance(part, torch.nn.Linear)]
    cache = block.new_cache(batch_size=1, max_length=1)
    shape = torch.Size((1, block.kv_heads, 1, block.dim_head))
    size = cache.keys.element_size() * shape.numel() * 2  # keys and values
    one = size // block.kv_heads
    ways = {"multi-head": block.heads, "multi-query": 1}
    return Costs(
        sum(matrix.numel() for matrix in matrices),
        2 * block.heads * block.dim_head,
        size,
        {name: heads * one for name, heads in ways.items() if heads != block.kv_heads},
    )


class CacheView(View):
    """Decoding with a KV cache. Made by `cache_view`, which explains the arguments."""

    modules = (
        "runtime.js",
        "frame.js",
        "controls.js",
        "player.js",
        "words.js",
        "plot.js",
        "matrix.js",
        "cache.css",
        "cache.js",
    )

    def __init__(
        self, found: Trace, price: Costs, heads: tuple[int, int], tokens: list[str]
    ) -> None:
        self.trace = found
        self.costs = price
        self.heads, self.kv_heads = heads
        self.tokens = tokens

    @property
    def saved(self) -> float:
        """The share of all multiplications that the cache saves by the end of the text."""
        done, ends = 0, self.trace.ends
        for start, end in zip([0, *ends], ends, strict=False):
            done += self.costs.cached(start, end)
        return 1 - done / sum(self.costs.whole(end) for end in ends)

    @property
    def title(self) -> str:
        """What the cache saves over the whole text."""
        n = self.trace.ends[-1]
        return f"With a cache {n} tokens need {100 * (1 - self.saved):.0f}\u00a0% of the work"

    @property
    def alt(self) -> str:
        """The table of weights in words."""
        n, prompt = self.trace.ends[-1], self.trace.ends[0]
        return (
            f"Attention weights of {n} queries over {n} keys. The first {prompt} rows are computed "
            f"together, each later row in a step of its own, with the keys before it read from "
            f"the cache. {self.title}."
        )

    def controls(self) -> dict[str, Control]:
        """The step, and the head whose weights are shown."""
        return {"step": range(len(self.trace.ends)), "head": range(self.heads)}

    def state(self) -> dict[str, Any]:
        """The trace, the costs and the tokens."""
        low, high = self.trace.keys.min(), self.trace.keys.max()
        return {
            "kind": "cache",
            "labels": [visible(token) for token in self.tokens],
            "ends": self.trace.ends,
            "positions": self.trace.ends[-1],
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "features": self.trace.keys.shape[1],
            "key_range": [float(f"{low:.3g}"), float(f"{high:.3g}")],
            "costs": self.costs._asdict(),
            "error": self.trace.error,
            "arrays": {
                "weights": codec.encode_weights(self.trace.weights.astype(np.float32)),
                "keys": codec.encode_scores(self.trace.keys.astype(np.float32)),
            },
            "start": {"step": min(1, len(self.trace.ends) - 1), "head": 0},
        }

    def figure(self) -> Figure:
        """The weights, and work and bytes by position."""
        from zeta_edu.views.cache_figure import cache_figure

        return cache_figure(self)


def cache_view(
    block: TransformerBlock,
    x: Float[torch.Tensor, "1 n dim"],
    *,
    prompt: int = 1,
    tokens: Sequence[str] | None = None,
) -> CacheView:
    """Watch one block read a text with its KV cache: the prompt at once, then token by token.

    Args:
        block: a causal `TransformerBlock`. It is run in evaluation mode, and left as it was.
        x: (1, n, dim) or (n, dim), its input for the whole text, at most 64 tokens.
        prompt: how many tokens are read at once in the first step.
        tokens: a str for each token; without them they are numbered.

    Returns:
        A view to display, save or make live.

    Raises:
        TypeError, ValueError: an argument is not of the kind above.

    Source: keys and values kept for decoding: Shazeer 2019 (arXiv:1911.02150), section 2.4.

    >>> block = TransformerBlock(dim=16, dim_head=8, heads=2).eval()
    >>> x = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0))
    >>> view = cache_view(block, x, prompt=3)
    >>> view.trace.ends, view.trace.error
    ([3, 4, 5, 6], 1e-06)
    """
    if not isinstance(block, TransformerBlock):
        raise TypeError(f"block must be a TransformerBlock, got {type(block).__name__}")
    if not block.causal:
        raise ValueError("block must be causal: without that, later tokens change earlier ones")
    inputs = _input(block, x)
    n = inputs.shape[1]
    if positive_integer("prompt", prompt) > n:
        raise ValueError(f"prompt must be at most the {n} tokens of x, got {prompt}")
    labels = arguments.names("tokens", tokens, n)
    with evaluating(block):
        found = trace(block, inputs, prompt)
    return CacheView(found, costs(block), (block.heads, block.kv_heads), labels)


def _input(block: TransformerBlock, x: Any) -> torch.Tensor:
    """`x` as (1, n, dim) in the block's own dtype, or an error that names it."""
    array = arguments.numbers("x", x, "n dim")
    n, dim = array.shape
    if not 1 <= n <= MOST_POSITIONS:
        raise ValueError(f"x must hold 1 to {MOST_POSITIONS} tokens, got {n}")
    if dim != block.dim:
        raise ValueError(f"x must have the block's {block.dim} features, got {dim}")
    if not np.isfinite(array).all():
        raise ValueError(f"x must be finite, got {array[~np.isfinite(array)][0]}")
    weight = block.fused_attn_ff_proj.weight
    return torch.from_numpy(array)[None].to(weight.device, weight.dtype)
