"""The view of query-key normalisation: what growing activations do to attention."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from zeta_edu.checks import flag, number, positive_number
from zeta_edu.views import arguments, codec
from zeta_edu.views.display import Control, Span, View
from zeta_edu.views.qknorm_data import (
    BARS,
    EVEN,
    HARD,
    LEAST_REACH,
    SCALES,
    Vectors,
    finding,
    keys_in_words,
    measure,
    reach,
)
from zeta_edu.views.qknorm_figure import qknorm_figure

MOST_NUMBERS = codec.SMALL // 2  # of queries or keys: as many as are sent without rounding
MOST_LOGITS = 2**19  # that the browser computes anew while a slider moves
QK_SCALES = (1.0, 64.0)  # what the slider offers, and the given value where it lies outside
EMPTY = "Nothing to look at yet: there are no queries or no keys."


class QKNormView(View):
    """Attention as activations grow. Made by `qknorm_view`, which explains the arguments."""

    modules = (
        "runtime.js",
        "words.js",
        "controls.js",
        "plot.js",
        "matrix.js",
        "frame.js",
        "qknorm_math.js",
        "qknorm_words.js",
        "qknorm.css",
        "qknorm.js",
    )

    def __init__(
        self, vectors: Vectors, qk_scale: float, activations: float = 1.0, normalise: bool = True
    ) -> None:
        self.vectors = vectors
        self.qk_scale = qk_scale
        self.activations = activations
        self.normalise = normalise

    @property
    def empty(self) -> bool:
        """Whether there is nothing to attend to, or nobody who does."""
        return 0 in self.vectors.queries.shape or 0 in self.vectors.keys.shape

    @property
    def title(self) -> str:
        """What the view opens on."""
        if self.empty:
            return "Queries and keys, with and without normalisation"
        return finding(self.vectors, self.activations, self.normalise, self.qk_scale)

    @property
    def alt(self) -> str:
        """How much is shown, what is to be seen, and what becomes of it at the largest scale."""
        heads, queries, dim = self.vectors.queries.shape
        keys = self.vectors.keys.shape[1]
        many = "" if heads == 1 else "s"
        shape = f"{heads} head{many}, {queries} queries and {keys} keys of {dim} features"
        if self.empty:
            return f"Attention logits of {shape}: nothing to look at yet."
        ends = [
            measure(self.vectors, SCALES[-1], on, self.qk_scale).entropy for on in (False, True)
        ]
        without, with_norm = map(keys_in_words, ends)
        return (
            f"Attention logits of {shape}, and the entropy of attention against the activations. "
            f"{self.title}. At activations ×100 attention is spread as if over {without} without "
            f"normalisation, and as if over {with_norm} with it."
        )

    def controls(self) -> dict[str, Control]:
        """The activations' scale, normalisation, `qk_scale`, and the head that is shown whole."""
        return {
            "activations": Span(SCALES[0], SCALES[-1]),
            "normalise": (True, False),
            "qk_scale": Span(*self._qk_scales()),
            "head": range(len(self.vectors.queries)),
        }

    def _qk_scales(self) -> tuple[float, float]:
        """The ends of the slider, with the given value inside."""
        low, high = QK_SCALES
        return min(low, self.qk_scale), max(high, self.qk_scale)

    def state(self) -> dict[str, Any]:
        """Queries and keys in full, the learned scales, and where the controls start."""
        vectors = self.vectors
        reached = LEAST_REACH if self.empty else reach(self.qk_scale * vectors.gain)
        return {
            "kind": "qknorm",
            "empty": EMPTY if self.empty else None,
            "queries": list(vectors.queries.shape),
            "keys": list(vectors.keys.shape),
            "causal": vectors.causal,
            "scales": [vectors.q_scale.tolist(), vectors.k_scale.tolist()],
            "qk_scales": list(self._qk_scales()),
            "curve": list(SCALES),
            "bars": BARS,
            "reach": reached,
            "even": EVEN,
            "hard": HARD,
            "arrays": {
                "queries": codec.encode_scores(vectors.queries.numpy()),
                "keys": codec.encode_scores(vectors.keys.numpy()),
            },
            "start": {
                "activations": self.activations,
                "normalise": self.normalise,
                "qk_scale": self.qk_scale,
                "head": 0,
            },
        }

    def figure(self) -> Figure:
        """The logits with and without normalisation, and the entropy against the activations."""
        return qknorm_figure(self)


def qknorm_view(
    queries: Any,
    keys: Any,
    *,
    qk_scale: float = 8,
    causal: bool = False,
    q_scale: Any = None,
    k_scale: Any = None,
    activations: float = 1,
    normalise: bool = True,
) -> QKNormView:
    """Watch attention as activations grow, with queries and keys normalised and without.

    The histogram shows all logits, beside it stand the entropy of attention in bits against the
    scale of the activations, the entropy of each head, and the weights of one head. Without
    normalisation the logits are q·k / √dim_head; with it both are brought to length 1, multiplied
    by their learned scales, and the dot product by `qk_scale`.

    Args:
        queries: (heads, queries, dim_head), or with a batch of one before; a tensor or array, as
            a projection gives them, before any normalisation.
        keys: (kv_heads, keys, dim_head); `kv_heads` divides `heads`.
        qk_scale: the factor of the dot products with normalisation.
        causal: whether a query sees only keys up to its own; the last query is at the last key.
        q_scale: (dim_head,) learned factors of the normalised queries; ones by default.
        k_scale: (dim_head,) of the normalised keys.
        activations: the factor to open at, from 0.1 to 100.
        normalise: whether normalisation is on at first.

    Returns:
        The view: display it, or call `save`, `live`, `figure` or `state` on it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or range; it is named.

    Source:
        Henry et al. 2020 (arXiv:2010.04245), equations 5 and 6; learned scales, and the growth of
        the logits without normalisation, in ViT-22B (arXiv:2302.05442), section 2.

    Examples:
        >>> one = torch.eye(4)[None]
        >>> qknorm_view(one, one, activations=10, normalise=False).title
        'Without normalisation activations ×10 make logits ×100: attention falls onto one key'
    """
    asked = _vectors("queries", queries, "heads queries dim_head")
    offered = _vectors("keys", keys, "kv_heads keys dim_head")
    _check_together(asked, offered, flag("causal", causal))
    vectors = Vectors(
        asked,
        offered,
        _learned("q_scale", q_scale, asked.shape[-1]),
        _learned("k_scale", k_scale, asked.shape[-1]),
        causal,
    )
    if not SCALES[0] <= number("activations", activations) <= SCALES[-1]:
        raise ValueError(f"activations must be from 0.1 to 100, got {activations}")
    scale = float(positive_number("qk_scale", qk_scale))
    return QKNormView(vectors, scale, float(activations), flag("normalise", normalise))


def _vectors(name: str, source: Any, axes: str) -> Float[Tensor, "heads positions dim_head"]:
    """Queries or keys, rounded to the float32 that the browser gets, to compute with in float64."""
    return _finite(name, arguments.numbers(name, source, axes))


def _learned(name: str, source: Any, dim_head: int) -> Float[Tensor, " dim_head"]:
    if source is None:
        return torch.ones(dim_head, dtype=torch.double)
    factors = _finite(name, arguments.numbers(name, source, "dim_head"))
    if len(factors) != dim_head:
        raise ValueError(f"{name} must have dim_head={dim_head} entries, got {len(factors)}")
    return factors


def _finite(name: str, array: Float[np.ndarray, "..."]) -> Float[Tensor, "..."]:
    with np.errstate(over="ignore"):
        rounded = torch.from_numpy(array.astype(np.float32)).double()
    if not rounded.isfinite().all():
        raise ValueError(
            f"{name} must be finite in float32, got NaN, an infinity or a larger number"
        )
    if rounded.numel() > MOST_NUMBERS:
        raise ValueError(
            f"{name} must hold at most {MOST_NUMBERS:,} numbers, got {rounded.numel():,}; "
            "pass fewer heads or positions"
        )
    return rounded


def _check_together(queries: Tensor, keys: Tensor, causal: bool) -> None:
    """Refuse queries and keys that do not go together, by the names of the arguments."""
    (heads, asking, dim), (kv_heads, offered, keys_dim) = queries.shape, keys.shape
    if dim != keys_dim:
        raise ValueError(f"keys must have the queries' dim_head={dim}, got {keys_dim}")
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(f"keys must have heads that divide the queries' {heads}, got {kv_heads}")
    if causal and asking > offered:
        raise ValueError(
            f"causal needs a key for every query, got {asking} queries and {offered} keys"
        )
    if heads * asking * offered > MOST_LOGITS:
        raise ValueError(
            f"queries and keys must meet in at most {MOST_LOGITS:,} logits, "
            f"got {heads} heads × {asking} × {offered}; pass fewer heads or positions"
        )
