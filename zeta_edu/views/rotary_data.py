"""The numbers of the rotary view: pairs, their speeds, and the product of a query and a key."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int

from zeta_edu.rotary import rotary_frequencies, rotate

HALF_SPLIT, INTERLEAVED = "half-split", "interleaved"
PAIRINGS = (HALF_SPLIT, INTERLEAVED)


def frequencies(dim: int, base: float) -> Float[np.ndarray, "half"]:
    """Radians per position of each pair: base ** (-2i / dim).

    Examples:
        >>> frequencies(4, 100.0).round(4).tolist()
        [1.0, 0.1]
    """
    # The package's own are powers of 10,000; a power of them has any other base.
    return rotary_frequencies(dim).numpy() ** math.log(base, 10_000)


def pairs(dim: int, pairing: str) -> Int[np.ndarray, "half 2"]:
    """Which two features make up each pair.

    Examples:
        >>> pairs(4, "half-split").tolist(), pairs(4, "interleaved").tolist()
        ([[0, 2], [1, 3]], [[0, 1], [2, 3]])
    """
    features = np.arange(dim)
    if pairing == HALF_SPLIT:
        return features.reshape(2, dim // 2).T
    return features.reshape(dim // 2, 2)


def hands(
    vector: Float[np.ndarray, "dim"], positions: Float[np.ndarray, "n"], base: float, pairing: str
) -> Float[np.ndarray, "n half 2"]:
    """Where the pairs of a vector point at some positions: first feature, second feature."""
    dim = len(vector)
    angles = torch.from_numpy(np.outer(positions, frequencies(dim, base)))
    order = pairs(dim, pairing).T.reshape(-1)  # all first members, then all second ones
    turned = rotate(torch.from_numpy(vector[order]), angles.cos(), angles.sin())
    return turned.reshape(len(angles), 2, dim // 2).transpose(1, 2).numpy()


def products(
    query: Float[np.ndarray, "dim"],
    key: Float[np.ndarray, "dim"],
    distances: Float[np.ndarray, "n"],
    base: float,
    pairing: str,
) -> Float[np.ndarray, "n"]:
    """The product of the query and the key when the query stands so many positions after it.

    Examples:
        >>> up = np.array([1.0, 0.0])
        >>> products(up, up, np.array([0.0, np.pi]), 10_000.0, "half-split").round(6).tolist()
        [1.0, -1.0]
    """
    there = hands(query, distances, base, pairing)
    here = hands(key, np.zeros(1), base, pairing)
    return (there * here).sum(axis=(1, 2))


def upright(dim: int) -> Float[np.ndarray, "1 dim"]:
    """A query or key in which every half-split pair is (1, 0): a hand that points up at 0."""
    return np.concatenate([np.ones(dim // 2), np.zeros(dim // 2)])[None]
