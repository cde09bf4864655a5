"""What rotation and xPos leave of a product at a distance: curves, overflow, a model's own q·k.

Everything is a share of what it is at distance 0, and for any base, gamma and scale base; at the
package's own, 10000 and 0.4, frequencies and zetas are those of `zeta_edu.rotary`.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
CURVES = {
    "sum": {
        "label": "all pairs in step",
        "axis": "share of the product at distance 0",
        "keeps": "pairs that start in step keep",
        "about": "The product of a query and a key whose pairs all point one way. The pairs turn "
        "at different speeds and fall out of step; xPos fades each besides.",
    },
    "bound": {
        "label": "RoPE's bound",
        "axis": "bound, as a share",
        "keeps": "RoPE's bound stands at",
        "about": "RoPE's upper bound: no product is larger than this, times a number that depends "
        "on the query and the key alone. Nothing has to come near it.",
    },
    "ceiling": {
        "label": "most possible",
        "axis": "largest share",
        "keeps": "some query and key keep",
        "about": "The largest product of a query and a key with pairs of one length. Rotation "
        "alone lets some query and key keep everything at any distance; xPos lets none.",
    },
}
"""The curves to choose from, and how they are spoken of."""

GROUPS = 4  # of pairs, at most
MOST_DISTANCES = 256
MOST_NUMBERS = 2**16  # of a model's products on their way to the browser


def frequencies(dim: int, base: float) -> Float[Tensor, " half"]:
    """Radians per position of each pair: base ** (-2i / dim)."""
    even = torch.arange(0, dim, 2, dtype=torch.float64)
    return base ** (-even / dim)


def zetas(dim: int, gamma: float) -> Float[Tensor, " half"]:
    """What xPos leaves of each pair after one scale base: (2i + gamma dim) / ((1 + gamma) dim).

    Source: Sun et al. 2022 (arXiv:2212.10554), section 3.2.
    """
    even = torch.arange(0, dim, 2, dtype=torch.float64)
    return (even + gamma * dim) / ((1 + gamma) * dim)


def strengths(
    distances: Float[Tensor, " distance"], dim: int, gamma: float, scale_base: float
) -> Float[Tensor, "distance half"]:
    """What xPos leaves of each pair at each distance; with rotation alone it is 1 everywhere."""
    return zetas(dim, gamma) ** (distances[:, None] / scale_base)


def curve(
    name: str,
    distances: Float[Tensor, " distance"],
    left: Float[Tensor, "distance half"],
    base: float,
) -> Float[Tensor, " distance"]:
    """One of `CURVES` against distance, 1 at distance 0.

    Args:
        name: `"sum"`: the product of a query and a key whose pairs all have one length and one
            direction, the mean over pairs of strength · cos(distance · frequency).
            `"bound"`: the factor of the upper bound by summation by parts, the mean over j of the
            size of the first j terms' sum, with strength · exp(i distance · frequency) as terms.
            `"ceiling"`: the largest product that pairs of one length can have, the mean strength.
        distances: in positions.
        left: of each pair at each distance, from `strengths`; ones for rotation alone.
        base: of the rotary frequencies.

    Source: the sum, Sun et al. 2022 (arXiv:2212.10554), section 3.2; the bound, Su et al. 2021
    (arXiv:2104.09864), section 3.4.3, here with the strengths inside its terms.
    """
    if name == "ceiling":
        return left.mean(dim=1)
    angles = distances[:, None] * frequencies(2 * left.shape[1], base)
    if name == "sum":
        return (left * angles.cos()).mean(dim=1)
    sizes = torch.polar(left, angles).cumsum(dim=1).abs()
    return sizes.mean(dim=1) / ((1 + left.shape[1]) / 2)


def bands(
    left: Float[Tensor, "distance half"],
) -> list[tuple[tuple[int, int], Float[Tensor, " distance"]]]:
    """The ceiling in parts: what groups of pairs, from fast to slow, add to it.

    Args:
        left: of each pair at each distance, from `strengths`.

    Returns:
        For each group its first and last pair, and the sum of their strengths over all pairs.
    """
    half = left.shape[1]
    count = min(GROUPS, half)
    edges = [i * half // count for i in range(count + 1)]
    return [((a, b - 1), left[:, a:b].sum(dim=1) / half) for a, b in pairwise(edges)]


def log_limits() -> dict[str, float]:
    """The logarithm of the least number that is infinite in each dtype."""
    limits = {}
    for name, dtype in DTYPES.items():
        largest, eps = torch.finfo(dtype).max, torch.finfo(dtype).eps
        # Numbers beyond the largest by less than half a step are still rounded down to it.
        half_step = largest / (2 - eps) * eps / 2
        limits[name] = math.log(largest + half_step)
    return limits


def overflows(gamma: float, scale_base: float) -> dict[str, int]:
    """The first position at which a key's factor is infinite, with one origin at position 0.

    The fastest pair overflows first: its factor is zeta_0 ** (-position / scale_base).
    """
    grows = -math.log(gamma / (1 + gamma)) / scale_base
    return {name: math.ceil(limit / grows) for name, limit in log_limits().items()}


def products_by_distance(
    queries: Float[Tensor, "heads positions dim"], keys: Float[Tensor, "heads positions dim"]
) -> tuple[Float[Tensor, " distance"], Float[Tensor, "heads distance half 2"]]:
    """A model's own q·k averaged by distance, pair by pair, before any rotation.

    A pair (a, b) is read as the complex number a + ib. Of query q and key k at a distance, a pair
    gives Re(q conj(k) exp(i distance · frequency)) after rotation; here is the mean of q conj(k)
    over all places of the text, divided by the mean length of a query times that of a key.

    Args:
        queries: (heads, positions, dim), float64, before rotation.
        keys: the same, a key head for each query head.

    Returns:
        The distances, at most `MOST_DISTANCES`; and (heads, distance, half, 2), the real and the
        imaginary part.
    """
    heads, positions, dim = queries.shape
    q, k = (torch.complex(*x.chunk(2, dim=-1)) for x in (queries, keys))
    most = max(2, min(positions, MOST_DISTANCES, MOST_NUMBERS // (heads * dim)))
    distances = torch.linspace(0, positions - 1, most, dtype=torch.float64).round().unique()
    means = []
    for distance in distances.int().tolist():
        means.append((q[:, distance:] * k[:, : positions - distance].conj()).mean(dim=1))
    length = queries.norm(dim=-1).mean(dim=1) * keys.norm(dim=-1).mean(dim=1)
    unit = torch.where(length > 0, length, 1.0)[:, None, None]
    return distances, torch.view_as_real(torch.stack(means, dim=1) / unit)


def model_curve(
    distances: Float[Tensor, " distance"],
    products: Float[Tensor, "distance half 2"],
    left: Float[Tensor, "distance half"],
    base: float,
) -> Float[Tensor, " distance"]:
    """A head's q·k averaged by distance after rotation, from `products_by_distance`."""
    angles = distances[:, None] * frequencies(2 * left.shape[1], base)
    real, imaginary = products.unbind(dim=-1)
    return (left * (real * angles.cos() - imaginary * angles.sin())).sum(dim=1)
