"""The rotary view: positions as clocks, and a product that only their distance decides."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from zeta_edu.checks import positive_integer, positive_number
from zeta_edu.views import arguments, codec
from zeta_edu.views.display import Control, Span, View
from zeta_edu.views.rotary_data import HALF_SPLIT, PAIRINGS, products, upright
from zeta_edu.views.rotary_figure import rotary_figure

MOST_FEATURES = 256
MOST_POSITIONS = 2**20
LOWEST_BASE, HIGHEST_BASE = 10.0, 1e6


class RotaryView(View):
    """Rotary position embedding as clocks. Made by `rotary_view`, which explains the arguments."""

    modules = (
        "runtime.js",
        "words.js",
        "frame.js",
        "controls.js",
        "plot.js",
        "rotary_turns.js",
        "rotary_clocks.js",
        "rotary_map.js",
        "rotary_words.js",
        "rotary.css",
        "rotary.js",
    )

    def __init__(
        self,
        base: float,
        length: int,
        queries: Float[np.ndarray, "queries dim"],
        keys: Float[np.ndarray, "keys dim"],
    ) -> None:
        self.base, self.length = base, length
        self.queries, self.keys = queries, keys
        self.dim = queries.shape[1]
        # Far enough apart that the fast clocks differ, near enough that the slow ones agree.
        self.n = length // 4
        self.m = min(self.n + 16, length - 1)

    @property
    def product(self) -> float:
        """q·k as the view opens: the first query at m, the first key at n."""
        distance = np.array([self.m - self.n], dtype=np.float64)
        return float(products(self.queries[0], self.keys[0], distance, self.base, HALF_SPLIT)[0])

    @property
    def title(self) -> str:
        """The product, and that only the distance decides it."""
        apart = self.m - self.n
        value = f"{self.product:.4g}".replace("-", "−")
        place = f"With the query {apart} position{'s' if apart != 1 else ''} after the key"
        if not apart:
            place = "With query and key at one position"
        return f"{place}, q·k is {value} wherever they stand"

    @property
    def alt(self) -> str:
        """What the clocks, the map and the curve show."""
        return (
            f"{self.dim // 2} clocks, one for each pair of {self.dim} features, with a hand for "
            f"a query at position {self.m} and one for a key at {self.n}; how far each pair has "
            f"turned at the positions 0 to {self.length - 1}; and q·k against the distance. "
            f"{self.title}."
        )

    @property
    def bases(self) -> Span:
        """The bases to choose from, the given one among them."""
        return Span(min(LOWEST_BASE, self.base), max(HIGHEST_BASE, self.base))

    def controls(self) -> dict[str, Control]:
        """Both positions, whether they move together, pairing, base, and which query and key."""
        return {
            "m": range(self.length),
            "n": range(self.length),
            "together": (False, True),
            "pairing": PAIRINGS,
            "base": self.bases,
            "query": range(len(self.queries)),
            "key": range(len(self.keys)),
        }

    def state(self) -> dict[str, Any]:
        """The unrotated queries and keys, and where the controls start; the browser rotates."""
        return {
            "kind": "rotary",
            "empty": None,
            "dim": self.dim,
            "length": self.length,
            "bases": [self.bases.low, self.bases.high],
            "arrays": {
                "queries": codec.encode_scores(self.queries),
                "keys": codec.encode_scores(self.keys),
            },
            "start": {
                "m": self.m,
                "n": self.n,
                "together": False,
                "pairing": HALF_SPLIT,
                "base": self.base,
                "query": 0,
                "key": 0,
            },
        }

    def figure(self) -> Figure:
        """The clocks, the map of angles and the curve of the product, as the view opens."""
        return rotary_figure(self)


def rotary_view(
    dim: int | None = None,
    base: float = 10_000.0,
    *,
    queries: Any = None,
    keys: Any = None,
    length: int = 128,
) -> RotaryView:
    """Turn the clocks of rotary position embedding, and watch q·k follow the distance alone.

    Every pair of features is a clock: its hand turns by `base ** (-2i / dim)` radians with each
    position. The product of a query at position m and a key at n is the sum, over the clocks, of
    the lengths of both hands times the cosine of the angle between them.

    Args:
        dim: features of a query or key, even, at most 256; by default those of `queries`, or 16.
        base: the larger, the slower the slow clocks; above 1.
        queries: (queries, dim) or (dim,), before rotation; by default the keys. Without queries
            and keys every hand has length 1 and points up at position 0.
        keys: (keys, dim) or (dim,), before rotation; by default the queries.
        length: how many positions there are, from 0 on; at most 1,048,576.

    Returns:
        The view: display it, or call `save`, `live`, `figure` or `state` on it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or range; it is named.

    Source: Su et al. 2021, "RoFormer" (arXiv:2104.09864), section 3.2 and equation 15; the
        half-split pairs are those of GPT-NeoX and Llama as Hugging Face's transformers runs them.

    Examples:
        >>> rotary_view(8).title
        'With the query 16 positions after the key, q·k is 1 wherever they stand'
    """
    if positive_number("base", base) <= 1:
        raise ValueError(f"base must be above 1, got {base}")
    if positive_integer("length", length) > MOST_POSITIONS:
        raise ValueError(f"length must be at most {MOST_POSITIONS:,}, got {length:,}")
    first = keys if queries is None else queries
    second = queries if keys is None else keys
    if first is None:
        vectors = upright(_even(16 if dim is None else positive_integer("dim", dim)))
        return RotaryView(float(base), length, vectors, vectors)
    asking = _vectors("queries" if queries is not None else "keys", first, dim)
    offering = _vectors("keys" if keys is not None else "queries", second, asking.shape[1])
    return RotaryView(float(base), length, asking, offering)


def _even(dim: int) -> int:
    if dim % 2 or not 2 <= dim <= MOST_FEATURES:
        raise ValueError(f"dim must be even and at most {MOST_FEATURES}, got {dim}")
    return dim


def _vectors(name: str, source: Any, dim: int | None) -> Float[np.ndarray, "count dim"]:
    """One or several vectors as (count, dim), or an error that names the argument."""
    one = getattr(source, "ndim", 2) == 1
    array = arguments.numbers(name, source, "dim" if one else f"{name} dim")
    array = np.atleast_2d(array)
    if array.shape[1] != (dim or array.shape[1]):
        raise ValueError(f"{name} must have {dim} features each, got {array.shape[1]}")
    if not len(array) or array.shape[1] % 2 or not 2 <= array.shape[1] <= MOST_FEATURES:
        raise ValueError(
            f"{name} must hold at least one vector of an even number of features, at most "
            f"{MOST_FEATURES}, got shape {array.shape}"
        )
    if array.size > codec.SMALL // 2:
        raise ValueError(f"{name} must hold at most {codec.SMALL // 2:,} numbers, got {array.size}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    return array
