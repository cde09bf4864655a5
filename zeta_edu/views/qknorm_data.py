"""The numbers behind the query-key normalisation view: logits, weights and entropies."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zeta_edu.attention import attention_weights
from zeta_edu.masks import causal_mask
from zeta_edu.norm import l2_normalise

SCALES = tuple(round(10.0 ** (step / 10 - 1), 6) for step in range(31))
"""The activation scales of the curve: 0.1 to 100, thirty steps of equal ratio."""

BARS = 40  # of the histogram, between its two ends
LEAST_REACH = 10.0  # so that a small bound does not stretch small logits over the whole picture
EVEN = 0.97  # the share of the largest entropy above which attention is called all but uniform
HARD = 0.5  # bits: below it attention is said to fall onto one key


class Vectors(NamedTuple):
    """Queries and keys as a projection gives them, and what is done with them.

    Args:
        queries: (heads, queries, dim_head), float64, rounded to float32: what is also drawn.
        keys: (kv_heads, keys, dim_head), the same.
        q_scale: (dim_head,) learned factors of the normalised queries.
        k_scale: (dim_head,) of the normalised keys.
        causal: whether a query sees only keys up to its own position.
    """

    queries: Float[Tensor, "heads queries dim_head"]
    keys: Float[Tensor, "kv_heads keys dim_head"]
    q_scale: Float[Tensor, " dim_head"]
    k_scale: Float[Tensor, " dim_head"]
    causal: bool

    @property
    def visible(self) -> Bool[Tensor, "queries keys"]:
        """True where a query may see a key."""
        queries, keys = self.queries.shape[1], self.keys.shape[1]
        if self.causal:
            return causal_mask(queries, keys, torch.device("cpu"))
        return torch.ones(queries, keys, dtype=torch.bool)

    @property
    def gain(self) -> float:
        """The most that a logit can be with `qk_scale` 1: the largest of the scales' products."""
        return float((self.q_scale * self.k_scale).abs().max())

    @property
    def uniform(self) -> float:
        """The entropy, in bits, of a query that weighs all it may see alike; the queries' mean."""
        return float(self.visible.sum(dim=-1).double().log2().mean())


class Measured(NamedTuple):
    """What attention does at one setting.

    Args:
        logits: (heads, queries, keys), minus infinity where a query may not see a key.
        weights: (heads, queries, keys), the logits after softmax.
        entropies: (heads,), in bits, the mean over a head's queries.
    """

    logits: Float[Tensor, "heads queries keys"]
    weights: Float[Tensor, "heads queries keys"]
    entropies: Float[Tensor, " heads"]

    @property
    def largest(self) -> float:
        """The largest size of a logit that is seen."""
        return float(self.logits[self.logits.isfinite()].abs().max())

    @property
    def entropy(self) -> float:
        """The mean over the heads, in bits."""
        return float(self.entropies.mean())


def measure(vectors: Vectors, activations: float, normalise: bool, qk_scale: float) -> Measured:
    """Attend with queries and keys multiplied by `activations`.

    Args:
        vectors: queries, keys and their learned scales.
        activations: the factor by which queries and keys have grown.
        normalise: whether they are brought to length 1, times their learned scales.
        qk_scale: the factor of the dot products with normalisation; else it is dim_head ** -0.5.

    Returns:
        Logits, weights and entropies.

    Examples:
        >>> one, ones = torch.eye(2, dtype=torch.double)[None], torch.ones(2, dtype=torch.double)
        >>> measure(Vectors(one, one, ones, ones, False), 50.0, True, 8.0).logits
        tensor([[[8., 0.],
                 [0., 8.]]], dtype=torch.float64)
    """
    queries, keys = activations * vectors.queries, activations * vectors.keys
    scale = queries.shape[-1] ** -0.5
    if normalise:
        queries = l2_normalise(queries, vectors.q_scale)
        keys = l2_normalise(keys, vectors.k_scale)
        scale = qk_scale
    weights = attention_weights(queries[None], keys[None], causal=vectors.causal, scale=scale)[0]
    shared = keys.repeat_interleave(len(queries) // len(keys), dim=0)
    logits = (scale * queries @ shared.mT).masked_fill(~vectors.visible, -torch.inf)
    return Measured(logits, weights, entropies(weights))


def entropies(weights: Float[Tensor, "heads queries keys"]) -> Float[Tensor, " heads"]:
    """The entropy of each query's weights in bits, averaged over a head's queries.

    Examples:
        >>> entropies(torch.tensor([[[0.5, 0.5]], [[1.0, 0.0]]]))
        tensor([1., 0.])
    """
    return torch.special.entr(weights).sum(dim=-1).mean(dim=-1) / np.log(2)


def reach(bound: float) -> float:
    """Where the histogram ends on either side: a round number a quarter beyond the bound.

    Examples:
        >>> reach(8.0), reach(0.5), reach(90.0)
        (10.0, 10.0, 200.0)
    """
    wanted = max(LEAST_REACH, 1.25 * bound)
    power = 10.0 ** np.floor(np.log10(wanted) + 1e-9)
    return float(next(times * power for times in (1, 2, 5, 10) if times * power >= wanted - 1e-9))


def histogram(logits: Float[Tensor, "..."], reach: float) -> Float[np.ndarray, "bars"]:
    """The share of logits in each bar; the first and the last bar take all that lies beyond.

    Examples:
        >>> histogram(torch.tensor([-12.0, 0.0, 0.2, 99.0]), 10.0)[[0, 21, -1]]
        array([0.25, 0.5 , 0.25])
    """
    seen = logits[logits.isfinite()].numpy()
    inner = np.floor((seen + reach) / (2 * reach / BARS)).clip(-1, BARS).astype(int)
    return np.asarray(np.bincount(inner + 1, minlength=BARS + 2) / max(1, seen.size))


def finding(vectors: Vectors, activations: float, normalise: bool, qk_scale: float) -> str:
    """What is to be seen at one setting, in a sentence without a full stop."""
    seen = measure(vectors, activations, normalise, qk_scale)
    spread = f"attention spreads as if over {keys_in_words(seen.entropy)}"
    if seen.entropy < HARD:
        spread = "attention falls onto one key"
    elif normalise and seen.entropy > EVEN * vectors.uniform:
        spread = "attention is all but uniform"
    if normalise:
        bound = in_words(qk_scale * vectors.gain)
        return (
            f"With normalisation no logit leaves ±{bound}, however large the activations: {spread}"
        )
    if activations == 1:
        return f"Without normalisation logits grow with the square of the activations: {spread}"
    grown, larger = in_words(activations), in_words(activations**2)
    return f"Without normalisation activations ×{grown} make logits ×{larger}: {spread}"


def in_words(value: float, digits: int = 3) -> str:
    """A number with a few digits that count.

    Examples:
        >>> in_words(12345.6), in_words(0.25)
        ('12,300', '0.25')
    """
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if value >= 1e4 else f"{rounded:g}"


def keys_in_words(entropy: float) -> str:
    """Over how many keys even attention has this entropy.

    Examples:
        >>> keys_in_words(2.0), keys_in_words(0.001)
        ('4 keys', '1 key')
    """
    count = in_words(2**entropy, 2)
    return f"{count} key" if count == "1" else f"{count} keys"
