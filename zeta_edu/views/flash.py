"""The flash attention view: softmax tile by tile, with what is kept and what is forgotten."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from zeta_edu.attention import attention_weights
from zeta_edu.checks import flag, positive_integer, positive_number
from zeta_edu.tiled import online_softmax, sees_any, tiles
from zeta_edu.views import arguments, codec
from zeta_edu.views.display import Control, View
from zeta_edu.views.tokens import visible

MOST_POSITIONS = 64
BYTES = 4  # of a number, in float32


class Trace(NamedTuple):
    """Everything that online softmax holds, after each tile.

    Args:
        rows, columns: (steps, 2), the first query and key of a tile and the first behind it.
        maximum, total, rescale: (steps, queries); NaN for queries not in the tile.
        output: (steps, queries, dim_value), what has been mixed so far, divided by the total.
        scores: (queries, keys), scaled, minus infinity where causality hides the key.
        exact: (queries, dim_value), softmax over whole rows.
        skipped: tiles that causality hides, as (first query, last, first key, last).
    """

    rows: np.ndarray
    columns: np.ndarray
    maximum: Float[np.ndarray, "steps queries"]
    total: Float[np.ndarray, "steps queries"]
    rescale: Float[np.ndarray, "steps queries"]
    output: Float[np.ndarray, "steps queries dim_value"]
    scores: Float[np.ndarray, "queries keys"]
    exact: Float[np.ndarray, "queries dim_value"]
    skipped: list[tuple[int, int, int, int]]

    @property
    def error(self) -> float:
        """A power of ten, 1e-12 at least, that no difference from whole-row softmax exceeds."""
        # The difference itself is rounding, and is not the same on two machines.
        largest = float(np.abs(self.output[-1] - self.exact).max())
        return 10.0 ** max(-12, math.ceil(math.log10(max(largest, 1e-300))))


def trace(
    queries: Float[torch.Tensor, "query dim_head"],
    keys: Float[torch.Tensor, "key dim_head"],
    values: Float[torch.Tensor, "key dim_value"],
    query_tile: int,
    key_tile: int,
    causal: bool,
    scale: float,
) -> Trace:
    """Run the package's `online_softmax`, and write down where it stands after every tile."""
    count, width = len(queries), values.shape[-1]
    steps = list(online_softmax(queries * scale, keys, values, query_tile, key_tile, causal))
    running = np.full((3, len(steps), count), np.nan)
    output = np.full((len(steps), count, width), np.nan)
    for number, step in enumerate(steps):
        if number:
            output[number] = output[number - 1]
        for kind, now in enumerate((step.maximum, step.total, step.rescale)):
            running[kind, number, step.rows] = now.squeeze(-1)
        output[number, step.rows] = step.mixed / step.total
    scores = queries * scale @ keys.T
    heads = queries[None, None], keys[None, None]
    weights = attention_weights(*heads, causal=causal, scale=scale)[0, 0]
    past = len(keys) - count
    return Trace(
        np.array([(step.rows.start, step.rows.stop) for step in steps]),
        np.array([(step.columns.start, step.columns.stop) for step in steps]),
        running[0],
        running[1],
        running[2],
        output,
        np.where(weights.numpy() > 0, scores.numpy(), -np.inf) if causal else scores.numpy(),
        (weights @ values).numpy(),
        [
            (rows.start, rows.stop, columns.start, columns.stop)
            for rows in tiles(count, query_tile)
            for columns in tiles(len(keys), key_tile)
            if causal and not sees_any(rows, columns, past)
        ],
    )


def bytes_moved(found: Trace, dim_head: int) -> list[int]:
    """Bytes read from and written to slow memory up to each step, in float32.

    A tile of queries is read once, each tile of keys and values when it comes, and the output is
    written once for each query: the count of FlashAttention (arXiv:2205.14135), section 3.2.
    """
    width, moved, total = found.output.shape[-1], [], 0
    for number, (rows, columns) in enumerate(zip(found.rows, found.columns, strict=True)):
        in_rows, in_columns = rows[1] - rows[0], columns[1] - columns[0]
        first = number == 0 or found.rows[number - 1][0] != rows[0]
        last = number + 1 == len(found.rows) or found.rows[number + 1][0] != rows[0]
        total += in_columns * (dim_head + width) + first * in_rows * dim_head
        total += last * in_rows * width
        moved.append(int(total) * BYTES)
    return moved


def bytes_of_regular(queries: int, keys: int, dim_head: int, dim_value: int) -> int:
    """Bytes moved by attention that writes its scores and weights out, in float32.

    Queries, keys and values are read and the output written; the scores are written, read for the
    softmax, written again as weights and read for the mix.
    """
    small = queries * dim_head + keys * (dim_head + dim_value) + queries * dim_value
    return (small + 4 * queries * keys) * BYTES


class FlashView(View):
    """Flash attention step by step. Made by `flash_view`, which explains the arguments."""

    modules = (
        "runtime.js",
        "frame.js",
        "controls.js",
        "player.js",
        "words.js",
        "plot.js",
        "matrix.js",
        "flash.css",
        "flash.js",
    )

    def __init__(self, found: Trace, dim_head: int, tokens: list[str], numbered: bool) -> None:
        self.trace = found
        self.dim_head = dim_head
        self.tokens = tokens
        self.numbered = numbered
        self.moved = bytes_moved(found, dim_head)
        queries, keys = found.scores.shape
        self.regular = bytes_of_regular(queries, keys, dim_head, found.exact.shape[-1])

    @property
    def title(self) -> str:
        """What the steps come to."""
        steps, skipped = len(self.trace.rows), len(self.trace.skipped)
        more = f", {skipped} skipped" if skipped else ""
        tile = "tile" if steps == 1 else "tiles"
        return f"Softmax in {steps} {tile}{more}: the same result to {self.trace.error:.0e}"

    @property
    def alt(self) -> str:
        """The table of scores in words."""
        queries, keys = self.trace.scores.shape
        return (
            f"A table of scores of {queries} queries and {keys} keys, cut into tiles. "
            f"{self.title}. It holds {self.tile_numbers} scores at a time instead of "
            f"{queries * keys}."
        )

    @property
    def tile_numbers(self) -> int:
        """How many scores the largest tile holds."""
        sizes = np.diff(self.trace.rows)[:, 0] * np.diff(self.trace.columns)[:, 0]
        return int(sizes.max())

    def controls(self) -> dict[str, Control]:
        """The step: how many tiles have been worked through."""
        return {"step": range(len(self.trace.rows))}

    def state(self) -> dict[str, Any]:
        """Every step's running numbers, the scores, the tiles, and the bytes moved."""
        found = self.trace
        running = {name: getattr(found, name) for name in ("maximum", "total", "rescale", "output")}
        return {
            "kind": "flash",
            "queries": found.scores.shape[0],
            "keys": found.scores.shape[1],
            "width": found.exact.shape[-1],
            "labels": [visible(token) for token in self.tokens],
            "rows": found.rows.tolist(),
            "columns": found.columns.tolist(),
            "skipped": found.skipped,
            "tile_numbers": self.tile_numbers,
            "moved": self.moved,
            "regular": self.regular,
            "arrays": {
                "scores": codec.encode_scores(found.scores.astype(np.float32)),
                "exact": codec.encode_scores(found.exact.astype(np.float32)),
                **{
                    name: codec.encode_scores(array.astype(np.float32))
                    for name, array in running.items()
                },
            },
            "error": found.error,
            "start": {"step": 0},
        }

    def figure(self) -> Figure:
        """Three moments: the first tile, half way, and the end, which is softmax itself."""
        from zeta_edu.views.flash_figure import flash_figure

        return flash_figure(self)


def flash_view(
    queries: Any,
    keys: Any,
    values: Any,
    *,
    query_tile: int = 4,
    key_tile: int = 4,
    causal: bool = True,
    scale: float | None = None,
    tokens: Sequence[str] | None = None,
) -> FlashView:
    """Watch flash attention work through one head, tile by tile.

    Args:
        queries: (query, dim_head), of one head; leading axes of length 1 are dropped.
        keys: (key, dim_head)
        values: (key, dim_value)
        query_tile: queries in a tile.
        key_tile: keys in a tile.
        causal: whether a query sees only keys up to its own; the last query is at the last key.
        scale: factor of the dot products; dim_head ** -0.5 when None.
        tokens: a str for each key; without them they are numbered.

    Returns:
        A view to display, save or make live. Its numbers come from `zeta_edu.tiled`.

    Raises:
        TypeError, ValueError: an argument is not of the kind above, or there are more than 64
            queries or keys, which nobody could follow.

    Source: Dao et al. 2022, FlashAttention (arXiv:2205.14135), algorithm 1.

    >>> queries, keys, values = torch.randn(3, 12, 8, generator=torch.Generator().manual_seed(0))
    >>> view = flash_view(queries, keys, values)
    >>> len(view.trace.rows), len(view.trace.skipped), view.trace.error
    (6, 3, 1e-12)
    """
    parts = {"queries": queries, "keys": keys, "values": values}
    axes = {"queries": "query dim_head", "keys": "key dim_head", "values": "key dim_value"}
    q, k, v = (
        torch.from_numpy(arguments.numbers(name, part, axes[name])) for name, part in parts.items()
    )
    for name, part in zip(parts, (q, k, v), strict=True):
        if not 1 <= len(part) <= MOST_POSITIONS:
            raise ValueError(f"{name} must hold 1 to {MOST_POSITIONS} positions, got {len(part)}")
        if not part.isfinite().all():
            raise ValueError(f"{name} must be finite, got {part[~part.isfinite()][0]}")
    if len(k) != len(v) or q.shape[1] != k.shape[1]:
        shapes = ", ".join(str(tuple(part.shape)) for part in (q, k, v))
        raise ValueError(f"queries, keys and values do not fit each other: {shapes}")
    if flag("causal", causal) and len(q) > len(k):
        raise ValueError(f"causal: a query would see no key, with {len(q)} queries, {len(k)} keys")
    scale = q.shape[1] ** -0.5 if scale is None else positive_number("scale", scale)
    sizes = positive_integer("query_tile", query_tile), positive_integer("key_tile", key_tile)
    labels = arguments.names("tokens", tokens, len(k))
    return FlashView(trace(q, k, v, *sizes, causal, scale), q.shape[1], labels, tokens is None)
