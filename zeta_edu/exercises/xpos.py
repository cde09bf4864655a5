"""The exercises of lesson 05: the zetas, half-lives, scores without overflow, moved keys."""

import math

import torch
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "05 xPos"
SCALE_BASE = 512


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # In single precision, whatever the lesson has made the default.
    return [torch.randn(shape, generator=generator, dtype=torch.float32) for shape in shapes]


# The zetas.


def _pair_numbers() -> list[Arguments]:
    return [{"pairs": torch.arange(count, dtype=torch.float32)} for count in (2, 4, 32)]


def _zetas(pairs: Tensor) -> Tensor:
    return (pairs / len(pairs) + 0.4) / 1.4


ZETA = Exercise(
    name="xpos.zeta",
    inputs=_pair_numbers,
    solution=_zetas,
    mistakes=(
        Mistake(
            "The line climbs only half way: i stands over d/2, the number of pairs, not over d.",
            lambda pairs: (pairs / (2 * len(pairs)) + 0.4) / 1.4,
        ),
        Mistake(
            "Some ζ are above 1, so these pairs would grow with distance; divide by 1 + γ.",
            lambda pairs: pairs / len(pairs) + 0.4,
        ),
        Mistake(
            "The last ζ is 1, so this pair would never fade; divide i by the number of pairs, not "
            "by one less.",
            lambda pairs: (pairs / (len(pairs) - 1) + 0.4) / 1.4,
        ),
        Mistake(
            "γ is missing above the line: ζ of pair 0 is 0, and nothing is left of it.",
            lambda pairs: pairs / len(pairs) / 1.4,
        ),
        Mistake(
            "γ is missing altogether: ζ of pair 0 is 0, and nothing is left of it.",
            lambda pairs: pairs / len(pairs),
        ),
        Mistake(
            "The slow pairs fade fastest; pair 0 turns fastest and must have the smallest ζ.",
            lambda pairs: _zetas(pairs).flip(0),
        ),
    ),
    hints=(
        "Two steps: how far along the pairs, as a share from 0 to almost 1; then γ comes in.",
        "The share of pair i is i / (d/2), and `len(pairs)` is d/2.",
        "Add 0.4 to the share, and divide the sum by 1.4.",
    ),
    verified="right for 2, 4 and 32 pairs, the gradients too.",
)


# Half-lives.


def _zetas_and_scale_base() -> list[Arguments]:
    cases = [
        ([0.5, 0.25], 100.0),
        ([0.2857, 0.6429, 0.9], 512.0),
        ([0.1, 0.3, 0.5, 0.7, 0.95], 40.0),
    ]
    return [
        {
            "zeta": torch.tensor(zeta, dtype=torch.float32),
            "scale_base": torch.tensor(base, dtype=torch.float32),
        }
        for zeta, base in cases
    ]


def _half_lives(zeta: Tensor, scale_base: Tensor) -> Tensor:
    return scale_base * math.log(0.5) / zeta.log()


HALF = Exercise(
    name="xpos.half",
    inputs=_zetas_and_scale_base,
    solution=_half_lives,
    mistakes=(
        Mistake(
            "The scale base is missing: a pair fades to ζ after a whole scale base, not after one "
            "position.",
            lambda zeta, scale_base: math.log(0.5) / zeta.log() + 0 * scale_base,
        ),
        Mistake(
            "The two logarithms are upside down: a small ζ should give a short half-life.",
            lambda zeta, scale_base: scale_base * zeta.log() / math.log(0.5),
        ),
        Mistake(
            "The distances are negative: log(1/2) and log(ζ) are both negative, and their ratio "
            "is not.",
            lambda zeta, scale_base: scale_base * math.log(2) / zeta.log(),
        ),
        Mistake(
            "It is divided by the scale base; a larger scale base fades more slowly.",
            lambda zeta, scale_base: math.log(0.5) / zeta.log() / scale_base,
        ),
        Mistake(
            "This takes fading for a straight line; what is left is multiplied at every position, "
            "so logarithms are needed.",
            lambda zeta, scale_base: scale_base * 0.5 / (1 - zeta),
        ),
    ),
    hints=(
        "Solve ζ ** (distance / scale_base) = 1/2 for the distance.",
        "Take the logarithm of both sides: (distance / scale_base) · log(ζ) = log(1/2).",
        "The distance is scale_base · log(1/2) / log(ζ), and `math.log(0.5)` is log(1/2).",
    ),
    verified="right for three scale bases, the gradients too.",
)


# Scores that do not overflow.


def _rotated() -> list[Arguments]:
    def case(n: int, d: int, first: int, step: int, seed: int) -> Arguments:
        queries, keys = _draw((n, d), (n, d), seed=seed)
        positions = first + step * torch.arange(n, dtype=torch.float32)
        zeta = _zetas(torch.arange(d // 2, dtype=torch.float32))
        return {"queries": queries, "keys": keys, "positions": positions, "zeta": zeta}

    return [case(2, 4, 1, 512, 6), case(5, 8, 0, 300, 7), case(3, 4, 60_000, 512, 8)]


def _scores_from(
    queries: Tensor, keys: Tensor, powers: Tensor, zeta: Tensor, repeats: bool = True
) -> Tensor:
    """Products of queries times and keys divided by zeta ** powers."""
    factors = zeta ** powers[:, None]
    both = factors.repeat(1, 2) if repeats else factors.repeat_interleave(2, dim=1)
    return (queries * both) @ (keys / both).T


def _faded_scores(queries: Tensor, keys: Tensor, positions: Tensor, zeta: Tensor) -> Tensor:
    return _scores_from(queries, keys, (positions - positions[0]) / SCALE_BASE, zeta)


SCORES = Exercise(
    name="xpos.scores",
    inputs=_rotated,
    solution=_faded_scores,
    mistakes=(
        Mistake(
            "At position 60,000 the factors overflow: their origin is 0. Measure the positions "
            "from one that is near, such as the first.",
            lambda queries, keys, positions, zeta: _scores_from(
                queries, keys, positions / SCALE_BASE, zeta
            ),
        ),
        Mistake(
            "The scores grow with distance: the query takes ζ ** (m − o), the key ζ ** (o − n).",
            lambda queries, keys, positions, zeta: _scores_from(
                queries, keys, (positions[0] - positions) / SCALE_BASE, zeta
            ),
        ),
        Mistake(
            "Queries and keys are both multiplied by the same factor, so the scores depend on the "
            "sum of two positions; the key is to be divided.",
            lambda queries, keys, positions, zeta: _scores_from(
                queries,
                keys
                * (zeta ** ((positions - positions[0]) / SCALE_BASE)[:, None]).repeat(1, 2) ** 2,
                (positions - positions[0]) / SCALE_BASE,
                zeta,
            ),
        ),
        Mistake(
            "The scale base is missing: the exponent is the distance divided by 512.",
            lambda queries, keys, positions, zeta: _scores_from(
                queries, keys, positions - positions[0], zeta
            ),
        ),
        Mistake(
            "The factors are laid side by side; the two members of a pair are half a vector "
            "apart: `torch.cat((f, f), dim=-1)`.",
            lambda queries, keys, positions, zeta: _scores_from(
                queries, keys, (positions - positions[0]) / SCALE_BASE, zeta, repeats=False
            ),
        ),
        Mistake(
            "The scores do not fade: these are the products of the rotated queries and keys alone.",
            lambda queries, keys, positions, zeta: queries @ keys.T,
        ),
    ),
    hints=(
        "A query takes ζ ** ((m − o) / 512), a key ζ ** ((o − n) / 512), and you may choose o.",
        (
            "`zeta ** (distances[:, None] / 512)` is (n, d/2); both members of a pair take the "
            "same factor: `f.repeat(1, 2)`."
        ),
        (
            "With `o = positions[0]`, multiply the queries by the factors, divide the keys by "
            "them, and take the product of every query with every key."
        ),
    ),
    verified="right at small positions and at 60,000.",
    gradients=False,  # several right answers round them differently
)


# Keys that were scaled from another origin.


def _scaled_keys() -> list[Arguments]:
    def case(n: int, d: int, old: float, new: float, seed: int) -> Arguments:
        zeta = _zetas(torch.arange(d // 2, dtype=torch.float32))
        places = {"old": old, "new": new}.items()
        origins = {name: torch.tensor(at, dtype=torch.float32) for name, at in places}
        return {"keys": _draw((n, d), seed=seed)[0], "zeta": zeta, **origins}

    return [case(1, 4, 256.0, 768.0, 9), case(3, 8, 300.0, 100.0, 10), case(4, 16, 0.0, 600.0, 11)]


def _moved_by(keys: Tensor, zeta: Tensor, distance: Tensor) -> Tensor:
    return keys * (zeta**distance).repeat(2)


REPAIR = Exercise(
    name="xpos.repair",
    inputs=_scaled_keys,
    solution=lambda keys, zeta, old, new: _moved_by(keys, zeta, (new - old) / SCALE_BASE),
    mistakes=(
        Mistake(
            "The sign is wrong: the key's factor is ζ ** (o − n), so a later origin means a "
            "higher power of ζ.",
            lambda keys, zeta, old, new: _moved_by(keys, zeta, (old - new) / SCALE_BASE),
        ),
        Mistake(
            "The old factor is still in the keys: take out ζ ** old when you put in ζ ** new.",
            lambda keys, zeta, old, new: _moved_by(keys, zeta, (new + 0 * old) / SCALE_BASE),
        ),
        Mistake(
            "The scale base is missing: the exponent is the distance divided by 512.",
            lambda keys, zeta, old, new: _moved_by(keys, zeta, new - old),
        ),
        Mistake(
            "The factors are laid side by side; the two members of a pair are half a vector "
            "apart: `torch.cat((f, f), dim=-1)`.",
            lambda keys, zeta, old, new: (
                keys * (zeta ** ((new - old) / SCALE_BASE)).repeat_interleave(2)
            ),
        ),
        Mistake(
            "Nothing has moved: these are the keys as they came.",
            lambda keys, zeta, old, new: keys + 0 * (old + new + zeta.sum()),
        ),
    ),
    hints=(
        "What is in the keys is ζ ** ((old − n) / 512), what should be is ζ ** ((new − n) / 512).",
        "Divide the second by the first: the position n drops out, and all keys take one factor.",
        "The factor is ζ ** ((new − old) / 512), once for each member of a pair.",
    ),
    verified="right for an origin moved on and back, the gradients too.",
)

EXERCISES = (ZETA, HALF, SCORES, REPAIR)
