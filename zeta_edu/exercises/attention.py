"""The exercises of lesson 01: scores and their scale, softmax by hand, a lookup by distance."""

import math

import torch
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "01 attention"


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# Scores and their scale.


def _queries_and_keys() -> list[Arguments]:
    pairs = [
        [torch.tensor([[4.0, 2.0, 0.0, 0.0]]), torch.tensor([[1.0, 0, 0, 0], [0, 3.0, 0, 0]])],
        _draw((3, 8), (5, 8), seed=1),
        _draw((2, 3, 8), (2, 5, 8), seed=2),
        _draw((2, 4, 5, 16), (2, 4, 6, 16), seed=3),
    ]
    return [dict(zip(("queries", "keys"), pair, strict=True)) for pair in pairs]


def _scaled_scores(queries: Tensor, keys: Tensor) -> Tensor:
    return queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])


SCALE = Exercise(
    name="attention.scale",
    inputs=_queries_and_keys,
    solution=_scaled_scores,
    mistakes=(
        Mistake(
            "The scores are not scaled; divide them by the square root of d.",
            lambda queries, keys: queries @ keys.transpose(-1, -2),
        ),
        Mistake(
            "The scores are divided by d; the spread of the scores is the square root of d.",
            lambda queries, keys: queries @ keys.transpose(-1, -2) / queries.shape[-1],
        ),
        Mistake(
            "The scores are multiplied by the square root of d; divide by it.",
            lambda queries, keys: queries @ keys.transpose(-1, -2) * queries.shape[-1] ** 0.5,
        ),
        Mistake(
            "The scale is taken from the number of keys; d is the length of one query.",
            lambda queries, keys: (
                _scaled_scores(queries, keys) * math.sqrt(queries.shape[-1] / keys.shape[-2])
            ),
        ),
        Mistake(
            "The table has a row for every key; it should have a row for every query.",
            lambda queries, keys: _scaled_scores(keys, queries),
        ),
        Mistake(
            "`.T` turns every axis round; with leading axes only the last two should swap.",
            lambda queries, keys: (
                queries @ keys.permute(*reversed(range(keys.ndim))) / math.sqrt(queries.shape[-1])
            ),
        ),
    ),
    hints=(
        "Every query meets every key: that is one matrix product.",
        "`keys.transpose(-1, -2)` swaps the last two axes and leaves the others alone.",
        "d is `queries.shape[-1]`; divide the product by its square root.",
    ),
    verified="right for 2, 3 and 4 axes, the gradients too.",
)


# Softmax by hand.


def _score_tables() -> list[Arguments]:
    tables = [
        torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
        torch.tensor([[0.0, -1.0, 2.0], [3.0, 3.0, -3.0]]),
        torch.tensor([[1000.0, 999.0], [0.0, 1.0]]),
        10 * _draw((2, 4, 6))[0],
    ]
    return [{"scores": table} for table in tables]


def _softmax(scores: Tensor) -> Tensor:
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


SOFTMAX = Exercise(
    name="attention.softmax",
    inputs=_score_tables,
    solution=_softmax,
    mistakes=(
        Mistake(
            "exp overflows on large scores and leaves NaN; subtract each row's maximum first.",
            lambda scores: scores.exp() / scores.exp().sum(-1, keepdim=True),
        ),
        Mistake(
            "One maximum is taken for the whole table, so small rows underflow to 0/0; "
            "each row needs its own.",
            lambda scores: (
                (scores - scores.max()).exp() / (scores - scores.max()).exp().sum(-1, keepdim=True)
            ),
        ),
        Mistake(
            "The weights sum to 1 over queries; softmax belongs on the keys, the last axis.",
            lambda scores: scores.softmax(-2),
        ),
        Mistake(
            "The sum runs over the whole table; each query's row should sum to 1.",
            lambda scores: (
                (scores - scores.amax(-1, keepdim=True)).exp()
                / (scores - scores.amax(-1, keepdim=True)).exp().sum()
            ),
        ),
        Mistake(
            "The rows are not divided by their sums, so they do not sum to 1.",
            lambda scores: (scores - scores.amax(-1, keepdim=True)).exp(),
        ),
        Mistake(
            "The scores are divided by their sum without exp; negative scores spoil that.",
            lambda scores: scores / scores.sum(-1, keepdim=True),
        ),
    ),
    hints=(
        "Work out the weights for the scores 1, 0, 1 and for 0, −1, 0. What do you notice?",
        "`keepdim=True` keeps the summed axis, so that the division lines up with the rows.",
        (
            "exp(1000) is infinite. Subtracting one number from a whole row leaves softmax as it "
            "was: the factor cancels. The row's maximum, `scores.amax(-1, keepdim=True)`, will do."
        ),
    ),
    verified="right on every row, also where a score is 1000, the gradients too.",
)


# A lookup by distance.


def _queries_keys_values() -> list[Arguments]:
    triples = [
        [
            torch.tensor([[1.0, 0, 0, 0]]),
            torch.tensor([[1.0, 2, 0, 0], [2.0, 0, 0, 0]]),
            torch.tensor([[0.0], [1.0]]),
        ],
        _draw((3, 4), (5, 4), (5, 2), seed=4),
        _draw((2, 3, 9), (2, 4, 9), (2, 4, 9), seed=5),
    ]
    names = ("queries", "keys", "values")
    return [dict(zip(names, triple, strict=True)) for triple in triples]


def _closeness(queries: Tensor, keys: Tensor) -> Tensor:
    """−‖q − k‖²/2 for every query and key."""
    return -(queries.unsqueeze(-2) - keys.unsqueeze(-3)).square().sum(-1) / 2


def _lookup_by_distance(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = _closeness(queries, keys) / math.sqrt(queries.shape[-1])
    return scores.softmax(-1) @ values


def _by_scores(scores: Tensor, queries: Tensor, values: Tensor) -> Tensor:
    return (scores / math.sqrt(queries.shape[-1])).softmax(-1) @ values


DISTANCE = Exercise(
    name="attention.distance",
    inputs=_queries_keys_values,
    solution=_lookup_by_distance,
    mistakes=(
        Mistake(
            "The farthest key weighs most; a score must fall as the distance grows: minus.",
            lambda queries, keys, values: _by_scores(-_closeness(queries, keys), queries, values),
        ),
        Mistake(
            "The half is missing: the score is minus half the squared distance.",
            lambda queries, keys, values: _by_scores(
                2 * _closeness(queries, keys), queries, values
            ),
        ),
        Mistake(
            "The distance is not squared.",
            lambda queries, keys, values: _by_scores(
                -torch.cdist(queries, keys) / 2, queries, values
            ),
        ),
        Mistake(
            "The scores are not divided by the square root of d.",
            lambda queries, keys, values: _closeness(queries, keys).softmax(-1) @ values,
        ),
        Mistake(
            "The squares are averaged over d; they should be summed.",
            lambda queries, keys, values: _by_scores(
                _closeness(queries, keys) / queries.shape[-1], queries, values
            ),
        ),
        Mistake(
            "The weights sum to 1 over queries; softmax belongs on the keys, the last axis.",
            lambda queries, keys, values: (
                (_closeness(queries, keys) / math.sqrt(queries.shape[-1])).softmax(-2) @ values
            ),
        ),
        Mistake(
            "This is attention by dot product; here the scores come from distances.",
            lambda queries, keys, values: _scaled_scores(queries, keys).softmax(-1) @ values,
        ),
    ),
    hints=(
        "Only the scores differ from attention; softmax and the mix stay as they are.",
        (
            "To subtract every key from every query, give each an axis of length 1: "
            "`queries.unsqueeze(-2)` is (queries, 1, d), `keys.unsqueeze(-3)` is (1, keys, d)."
        ),
        (
            "Square the differences, sum them over d, halve them, put a minus in front, and divide "
            "by the square root of d. Then softmax over the keys, and the mix of the values."
        ),
    ),
    verified="right with and without a leading axis, the gradients too.",
)

EXERCISES = (SCALE, SOFTMAX, DISTANCE)
