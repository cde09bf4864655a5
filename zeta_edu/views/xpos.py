"""The xPos view: what rotation and xPos leave of a product at a distance, and what it costs."""

from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from zeta_edu.checks import positive_integer, positive_number
from zeta_edu.views import arguments, codec
from zeta_edu.views import xpos_data as data
from zeta_edu.views.display import Control, Span, View
from zeta_edu.views.xpos_figure import xpos_figure

SPANS = {"base": Span(10.0, 1e6), "gamma": Span(0.05, 5.0), "scale_base": Span(16.0, 16_384.0)}
LENGTHS = range(16, 65_537)


class XPosView(View):
    """Curves, pairs and factors of xPos. Made by `xpos_view`, which explains the arguments."""

    modules = (
        "runtime.js",
        "frame.js",
        "controls.js",
        "words.js",
        "plot.js",
        "xpos.css",
        "xpos_math.js",
        "xpos_words.js",
        "xpos.js",
    )

    def __init__(
        self,
        dim: int,
        base: float,
        gamma: float,
        scale_base: float,
        length: int,
        own: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.dim, self.base, self.gamma = dim, base, gamma
        self.scale_base, self.length = scale_base, length
        self.own = own
        """A model's distances and products, from `products_by_distance`."""

    @property
    def most_left(self) -> float:
        """The largest share of a product that xPos leaves at distance `length`."""
        return float(self.strengths(torch.tensor([float(self.length)])).mean())

    def strengths(self, distances: Float[Tensor, " distance"]) -> Float[Tensor, "distance half"]:
        """What xPos leaves of each pair at each distance."""
        return data.strengths(distances.double(), self.dim, self.gamma, self.scale_base)

    @property
    def title(self) -> str:
        """What xPos leaves at the largest distance, at most."""
        share = 100 * self.most_left
        most = "less than 1" if share < 0.5 else f"at most {share:.0f}"
        return (
            f"With pairs of one length, xPos leaves {most}\u00a0% of a product at distance "
            f"{self.length:,}; rotation alone can leave all of it"
        )

    @property
    def alt(self) -> str:
        """The three parts of the picture, with their numbers."""
        places = data.overflows(self.gamma, self.scale_base)
        own = "" if self.own is None else " With the products of a model, averaged by distance."
        return (
            f"Curves of what rotation and xPos leave of a product up to distance {self.length:,}; "
            f"what groups of the {self.dim // 2} pairs add to the most that xPos leaves; and the "
            f"factor of a key, infinite {places['float16']:,} positions after a fixed origin in "
            f"float16 and {places['float32']:,} in float32. {self.title}.{own}"
        )

    def controls(self) -> dict[str, Control]:
        """Which curve, the largest distance, the three constants, and the head, if a model's."""
        controls: dict[str, Control] = {"curve": tuple(data.CURVES), "length": LENGTHS, **SPANS}
        if self.own is not None:
            controls["head"] = range(len(self.own[1]))
        return controls

    def state(self) -> dict[str, Any]:
        """The constants to start at, the limits of the dtypes, and a model's coded products."""
        ranges = {name: [span.low, span.high] for name, span in SPANS.items()}
        start: dict[str, Any] = {
            "curve": "sum",
            "length": self.length,
            "base": self.base,
            "gamma": self.gamma,
            "scale_base": self.scale_base,
        }
        model, arrays = None, {}
        if self.own is not None:
            distances, products = self.own
            start["head"] = 0
            model = {
                "heads": len(products),
                "distances": [int(distance) for distance in distances],
                "count": products[0].numel(),
            }
            arrays["products"] = codec.encode_scores(products.numpy())
        limits = [{"name": name, "log": log} for name, log in data.log_limits().items()]
        return {
            "kind": "xpos",
            "empty": None,
            "dim": self.dim,
            "curves": data.CURVES,
            "ranges": {"length": [LENGTHS[0], LENGTHS[-1]], **ranges},
            "limits": limits,
            "model": model,
            "arrays": arrays,
            "start": start,
        }

    def figure(self) -> Figure:
        """The curves above, the pairs and the factors below."""
        return xpos_figure(self)


def xpos_view(
    dim: int = 64,
    *,
    base: float = 10_000.0,
    gamma: float = 0.4,
    scale_base: float = 512,
    length: int = 2048,
    queries: Any = None,
    keys: Any = None,
) -> XPosView:
    """Look at what rotation and xPos leave of the product of a query and a key at a distance.

    Three curves are drawn for both, each as a share of its value at distance 0:
    the product of a query and a key whose pairs are all in step at the start, the mean over pairs
    of zeta_i ** (distance / scale_base) * cos(distance * theta_i); the upper bound by summation
    by parts, the mean size of the partial sums of the same terms with exp(i ...) for cos; and the
    most that any query and key with pairs of one length can keep. For rotation alone zeta is 1.
    Below them: what groups of pairs add to the last, and where the factor of a key overflows when
    every key is scaled from one origin.

    Args:
        dim: features of a head, even.
        base: of the rotary frequencies theta_i = base ** (-2i / dim), from 10 to 1,000,000.
        gamma: of zeta_i = (2i + gamma * dim) / ((1 + gamma) * dim), from 0.05 to 5.
        scale_base: positions after which pair i has faded to zeta_i, from 16 to 16,384.
        length: the largest distance, from 16 to 65,536.
        queries: (heads, positions, dim) of a model, before rotation; their products with `keys`,
            averaged by distance and divided by the mean lengths of both, are drawn on top.
        keys: (kv_heads, positions, dim) of the same text; kv_heads divides heads.

    Returns:
        The view: display it, or call `save`, `live`, `figure` or `state` on it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or range; it is named.

    Source: Sun et al. 2022 (arXiv:2212.10554), section 3.2, for zeta and the sum of cosines;
    Su et al. 2021 (arXiv:2104.09864), section 3.4.3, for the bound.

    Examples:
        >>> round(xpos_view(scale_base=512, length=2048).most_left, 2)
        0.26
    """
    if positive_integer("dim", dim) % 2:
        raise ValueError(f"dim must be even, got {dim}")
    given = {"base": base, "gamma": gamma, "scale_base": scale_base}
    constants = {name: _inside(name, value) for name, value in given.items()}
    if positive_integer("length", length) not in LENGTHS:
        raise ValueError(f"length must be from {LENGTHS[0]} to {LENGTHS[-1]:,}, got {length}")
    return XPosView(dim, **constants, length=length, own=_own(queries, keys, dim))


def _inside(name: str, value: Any) -> float:
    span = SPANS[name]
    if not span.low <= positive_number(name, value) <= span.high:
        raise ValueError(f"{name} must be from {span.low:g} to {span.high:,.0f}, got {value}")
    return float(value)


def _own(queries: Any, keys: Any, dim: int) -> tuple[Tensor, Tensor] | None:
    """A model's distances and products, or an error that names what does not fit."""
    if queries is None and keys is None:
        return None
    if queries is None or keys is None:
        missing = "queries" if queries is None else "keys"
        raise TypeError(f"queries and keys go together, got no {missing}")
    q = torch.from_numpy(arguments.numbers("queries", queries, "heads positions dim"))
    k = torch.from_numpy(arguments.numbers("keys", keys, "kv_heads positions dim"))
    for name, x in (("queries", q), ("keys", k)):
        if 0 in x.shape or x.shape[-1] != dim:
            shape = f"(heads, positions, dim={dim}) with a head and a position"
            raise ValueError(f"{name} must be {shape}, got shape {tuple(x.shape)}")
        if not x.isfinite().all():
            raise ValueError(f"{name} must be finite")
    if q.shape[1] != k.shape[1] or q.shape[0] % k.shape[0]:
        shapes = f"{tuple(q.shape)} and {tuple(k.shape)}"
        raise ValueError(
            f"keys must have the positions of queries, and kv_heads that divide heads, got {shapes}"
        )
    return data.products_by_distance(q, k.repeat_interleave(len(q) // len(k), dim=0))
