"""The mask view: scores plus a mask, through softmax, with what is hidden and what is left."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from zeta_edu.attention import attention_weights
from zeta_edu.checks import flag
from zeta_edu.masks import causal_mask
from zeta_edu.views import arguments, codec
from zeta_edu.views.display import Control, View
from zeta_edu.views.mask_figure import mask_figure
from zeta_edu.views.tokens import visible

MOST_KEYS = 64  # more cells than this, three tables wide, are too small to be told apart
SIDES = ("left", "right")
EMPTY = "Nothing to look at yet: there are no scores."


class MaskView(View):
    """Scores, a mask and the weights they give. Made by `mask_view`, which explains it all."""

    modules = (
        "runtime.js",
        "frame.js",
        "controls.js",
        "words.js",
        "matrix.js",
        "mask_data.js",
        "mask_words.js",
        "mask.css",
        "mask.js",
    )

    def __init__(
        self,
        scores: Float[np.ndarray, "queries keys"],
        tokens: list[str],
        start: dict[str, Any],
    ) -> None:
        self.scores = scores
        self.tokens = tokens
        self.start = start
        self.first = scores.shape[1] - scores.shape[0]  # the position of the first row

    @property
    def new_scores(self) -> Float[np.ndarray, "queries keys"]:
        """The rows of the queries that are not in the cache."""
        return self.scores[self.start["past"] - self.first :]

    def masked(self) -> tuple[Bool[np.ndarray, "queries keys"], Float[np.ndarray, "queries keys"]]:
        """What each new query may see, and its weights, as the package computes both."""
        return masked_weights(
            self.new_scores,
            causal=self.start["causal"],
            keep=kept(self.scores.shape[1], self.start["padding"], self.start["padding_side"]),
        )

    @property
    def title(self) -> str:
        """Who sees whom, and how many cells stay open or how many queries see nothing."""
        if not self.scores.size:
            return "A mask over no scores at all"
        return finding(self.masked()[0], self.start["causal"], self.start["padding"])

    @property
    def alt(self) -> str:
        """What the three tables show."""
        if not self.scores.size:
            return "Scores and a mask: nothing to look at yet."
        queries, keys = self.new_scores.shape
        return (
            f"Three tables of {queries} by {keys}, queries by keys: the scores, the mask of zeros "
            f"and minus infinities that is added, and the weights after softmax. {self.title}."
        )

    def controls(self) -> dict[str, Control]:
        """Causality, the padding and its side, and how many positions are in the cache."""
        keys = self.scores.shape[1]
        return {
            "causal": (True, False),
            "padding": range(max(keys, 1)),
            "padding_side": SIDES,
            "past": range(self.first, max(keys, self.first + 1)),
        }

    def state(self) -> dict[str, Any]:
        """The raw scores, visible tokens, and where the controls start; the rest is computed."""
        return {
            "kind": "mask",
            "empty": None if self.scores.size else EMPTY,
            "shape": list(self.scores.shape),
            "labels": [visible(token) for token in self.tokens],
            "arrays": {"scores": codec.encode_scores(self.scores)},
            "start": dict(self.start),
        }

    def figure(self) -> Figure:
        """Scores, mask, weights and row sums, side by side."""
        return mask_figure(self)


def mask_view(
    scores: Any,
    *,
    tokens: Sequence[str] | None = None,
    causal: bool = True,
    padding: int = 0,
    padding_side: str = "left",
    past: int | None = None,
) -> MaskView:
    """Watch a mask hide scores from the softmax.

    Args:
        scores: raw scores, not masked yet, of one head: (queries, keys), as a tensor or array. The
            queries are the last positions of the keys; usually there are as many.
        tokens: a text for each key; without any, the keys are numbered.
        causal: whether a query sees only keys up to its own position.
        padding: how many positions hold padding, which no query may see; not all of them.
        padding_side: where the padding is, "left" or "right".
        past: how many positions are in the cache. Their queries have been computed earlier, so
            their rows are not shown. By default as many as there are more keys than queries.

    Returns:
        The view: display it, or call `save`, `live`, `figure` or `state` on it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, shape or range; it is named.

    Source: the causal mask of Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.3.

    Examples:
        >>> import torch
        >>> mask_view(torch.zeros(4, 4)).title
        'Each token sees itself and the tokens before it: 10 of 16 cells are open'
    """
    array = arguments.numbers("scores", scores, "queries keys")
    queries, keys = array.shape
    if queries > keys:
        raise ValueError(f"scores must have a key for every query, got shape {array.shape}")
    if keys > MOST_KEYS:
        raise ValueError(f"scores must have at most {MOST_KEYS} keys, got {keys}")
    if not np.isfinite(array).all():
        raise ValueError("scores must be finite; the view adds the minus infinities itself")
    if padding_side not in SIDES:
        raise ValueError(f'padding_side must be "left" or "right", got {padding_side!r}')
    first = keys - queries
    start = {
        "causal": flag("causal", causal),
        "padding": _within("padding", padding, 0, max(keys - 1, 0)),
        "padding_side": padding_side,
        "past": first if past is None else _within("past", past, first, max(first, keys - 1)),
    }
    return MaskView(array.astype(np.float32), arguments.names("tokens", tokens, keys), start)


def kept(keys: int, padding: int, side: str) -> Bool[np.ndarray, "keys"]:
    """True for every position that does not hold padding.

    >>> kept(4, 1, "left").tolist()
    [False, True, True, True]
    """
    places = np.arange(keys)
    return places >= padding if side == "left" else places < keys - padding


def masked_weights(
    scores: Float[np.ndarray, "queries keys"], *, causal: bool, keep: Bool[np.ndarray, "keys"]
) -> tuple[Bool[np.ndarray, "queries keys"], Float[np.ndarray, "queries keys"]]:
    """What each query may see, and its weights, by the package's own attention.

    >>> masked_weights(np.zeros((2, 2)), causal=True, keep=np.ones(2, bool))[1].tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    queries, keys = scores.shape
    mask = torch.tensor(keep)[None]
    seen = causal_mask(queries, keys, mask.device) & mask if causal else mask.expand(queries, keys)
    # With the unit vectors as keys, the scores of these queries are their own entries.
    rows, units = torch.tensor(scores)[None, None], torch.eye(keys, dtype=torch.float64)
    weights = attention_weights(
        rows.double(), units[None, None], mask=mask, causal=causal, scale=1.0
    )
    return seen.numpy(), weights[0, 0].numpy()


def finding(seen: Bool[np.ndarray, "queries keys"], causal: bool, padding: int) -> str:
    """The title: who sees whom, and what is left. `mask_words.js` says the same.

    >>> finding(np.ones((1, 3), dtype=bool), causal=True, padding=0)
    'A single new token comes last, so causality hides nothing from it: 3 of 3 cells are open'
    """
    queries, keys = seen.shape
    blind = int((~seen.any(axis=1)).sum())
    left = f"{seen.sum()} of {seen.size} cells are open"
    if blind:
        left = f"{blind} {'queries' if blind > 1 else 'query'} can see nothing"
    besides = f", except the {padding} padded ones" if padding > 1 else ", except the padded one"
    return f"{_who_sees_whom(queries, keys, causal)}{besides if padding else ''}: {left}"


def _who_sees_whom(queries: int, keys: int, causal: bool) -> str:
    if causal and queries == 1 and keys > 1:
        return "A single new token comes last, so causality hides nothing from it"
    if causal and queries < keys:
        return f"Each of {queries} new tokens sees the cache, itself, and the new ones before it"
    if causal:
        return "Each token sees itself and the tokens before it"
    if queries == keys:
        return "Every token sees every token"
    return "The new token sees every token" if queries == 1 else "New tokens see every token"


def _within(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low} to {high}, got {value}")
    return int(value)
