"""The exercises of lesson 13: loss by position, far attention, blocks, keys that add up."""

import math

import torch
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake
from zeta_edu.exercises.weights import causal_weights, even_weights

LESSON = "13 longer than it was trained on"


# Loss by stretch of positions.


SIZE = 4  # positions of a stretch, as the task says


def _losses() -> list[Arguments]:
    generator = torch.Generator().manual_seed(0)
    small = torch.tensor([[1.0, 2, 3, 6, 5, 5, 4, 2], [3, 4, 5, 8, 1, 3, 0, 2]])
    drawn = (torch.rand(shape, generator=generator) for shape in ((3, 12), (5, 20)))
    return [{"losses": losses} for losses in (small, *drawn)]


def _stretches(losses: Tensor) -> Tensor:
    return losses.mean(dim=0).unflatten(0, (-1, SIZE)).mean(dim=-1)


def _up_to(losses: Tensor) -> Tensor:
    return _stretches(losses).cumsum(0) / torch.arange(1, losses.shape[1] // SIZE + 1)


STRETCHES = Exercise(
    name="length.stretches",
    inputs=_losses,
    solution=_stretches,
    mistakes=(
        Mistake(
            "Each piece has numbers of its own here; take the mean over the pieces as well.",
            lambda losses: losses.unflatten(1, (-1, SIZE)).mean(dim=-1),
        ),
        Mistake(
            "Positions that lie far apart are put together; a stretch is of neighbours.",
            lambda losses: losses.mean(dim=0).unflatten(0, (SIZE, -1)).mean(dim=0),
        ),
        Mistake(
            "This is one mean for every place within a stretch; asked is one for every stretch.",
            lambda losses: losses.mean(dim=0).unflatten(0, (-1, SIZE)).mean(dim=0),
        ),
        Mistake(
            "These are sums over a stretch; divide by its size.",
            lambda losses: _stretches(losses) * SIZE,
        ),
        Mistake(
            "The stretches are sums over the pieces; take their mean.",
            lambda losses: _stretches(losses) * len(losses),
        ),
        Mistake(
            "This is the loss up to the end of each stretch, from the first position on.",
            _up_to,
        ),
        Mistake(
            "This is a single mean for the whole text, which hides where it breaks.",
            lambda losses: losses.mean(),
        ),
    ),
    hints=(
        "First the mean over the pieces, `losses.mean(dim=0)`: one number for every position.",
        "`.unflatten(0, (-1, 4))` lays n numbers out in rows of four neighbours.",
        "Then the mean of every row, over the last axis.",
    ),
    verified="right for two, three and five stretches, the gradients too.",
)


# The weight on keys that are far.

TRAINED = 4  # characters of a piece, as the task says


def _tables() -> list[Arguments]:
    return [
        {"weights": even_weights(6)},
        {"weights": causal_weights(2, 9, seed=1)},
        {"weights": causal_weights(3, 13, seed=2)},
    ]


def _far(weights: Tensor, length: int = TRAINED) -> Tensor:
    """The weight of each query on keys `length` or more back: (head, n)."""
    return (weights * torch.ones_like(weights).tril(diagonal=-length)).sum(dim=-1)


FAR = Exercise(
    name="length.far",
    inputs=_tables,
    solution=lambda weights: _far(weights)[:, TRAINED:].mean(dim=-1),
    mistakes=(
        Mistake(
            "The first four queries have no key so far back and should not count in the mean.",
            lambda weights: _far(weights).mean(dim=-1),
        ),
        Mistake(
            "Keys exactly four back are missing; the training has not had that distance.",
            lambda weights: _far(weights, TRAINED + 1)[:, TRAINED:].mean(dim=-1),
        ),
        Mistake(
            "Keys that are three back are counted; the training has had that distance.",
            lambda weights: _far(weights, TRAINED - 1)[:, TRAINED:].mean(dim=-1),
        ),
        Mistake(
            "This is the weight on the near keys; asked are those four or more back.",
            lambda weights: 1 - _far(weights)[:, TRAINED:].mean(dim=-1),
        ),
        Mistake(
            "These are the keys at the first four positions, not those far from the query.",
            lambda weights: weights[:, TRAINED:, :TRAINED].sum(dim=-1).mean(dim=-1),
        ),
        Mistake(
            "This is a sum over the queries; take their mean.",
            lambda weights: _far(weights).sum(dim=-1),
        ),
        Mistake(
            "The heads are averaged too; each should have a number of its own.",
            lambda weights: _far(weights)[:, TRAINED:].mean(),
        ),
    ),
    hints=(
        "Query i and key j are i − j apart: a table of distances, or one diagonal and all below.",
        "`weights.tril(diagonal=-4)` keeps what is four or more below the main diagonal.",
        "Sum over the keys, leave out the first four queries, take the mean over the others.",
    ),
    verified="right for one, two and three heads, the gradients too.",
)


# The mask of blockwise causal attention.


BLOCK = 4  # places of a block, as the task says


def _places() -> list[Arguments]:
    return [{"at": torch.arange(n)} for n in (6, 10, 18)]


def _distances(at: Tensor) -> Tensor:
    return at[:, None] - at


def _blocks_back(at: Tensor) -> Tensor:
    return _distances(at // BLOCK)


BLOCKS = Exercise(
    name="length.blocks",
    inputs=_places,
    solution=lambda at: (_distances(at) >= 0) & (_blocks_back(at) <= 1),
    mistakes=(
        Mistake(
            "Later keys are visible: within its own block a query sees only keys up to itself.",
            lambda at: (_blocks_back(at) <= 1) & (_blocks_back(at) >= 0),
        ),
        Mistake(
            "This is a window that slides with the query; blocks stay where they are.",
            lambda at: (_distances(at) >= 0) & (_distances(at) < 2 * BLOCK),
        ),
        Mistake(
            "This is a window of one block that slides; a query sees its own block and the one "
            "before.",
            lambda at: (_distances(at) >= 0) & (_distances(at) < BLOCK),
        ),
        Mistake(
            "Only the own block is visible; the one before belongs too.",
            lambda at: (_distances(at) >= 0) & (_blocks_back(at) == 0),
        ),
        Mistake(
            "Two blocks before the own one are visible; there should be one.",
            lambda at: (_distances(at) >= 0) & (_blocks_back(at) <= 2),
        ),
        Mistake(
            "The whole past is visible; this is the causal mask without any blocks.",
            lambda at: _distances(at) >= 0,
        ),
        Mistake(
            "True and false are exchanged: true is for a key that is seen.",
            lambda at: ~((_distances(at) >= 0) & (_blocks_back(at) <= 1)),
        ),
        Mistake(
            "Rows and columns are exchanged: queries stand in rows, keys in columns.",
            lambda at: ((_distances(at) >= 0) & (_blocks_back(at) <= 1)).T,
        ),
    ),
    hints=(
        "The place i is in block i // 4.",
        "`at[:, None]` is a column of queries, and `at` a row of keys.",
        "Two conditions with `&`: the key is not later, and its block is at most one back.",
    ),
    verified="right for two, three and five blocks, the last of them cut short.",
)


# How many keys of score 0 outweigh one that fits.


def _scores_and_shares() -> list[Arguments]:
    drawn = (([0.0, 5.0], 0.5), ([1.0, 3.0, 8.0], 0.2), ([4.0, 6.5], 0.9))
    return [
        {"scores": torch.tensor(s, dtype=torch.double), "share": torch.tensor(w).double()}
        for s, w in drawn
    ]


def _crowd(scores: Tensor, share: Tensor) -> Tensor:
    return scores.exp() * (1 - share) / share


CROWD = Exercise(
    name="length.crowd",
    inputs=_scores_and_shares,
    solution=_crowd,
    mistakes=(
        Mistake(
            "Share and rest are exchanged: a smaller share needs more of the others.",
            lambda scores, share: scores.exp() * share / (1 - share),
        ),
        Mistake(
            "The key that fits is counted among the others; it is one of the sum, so subtract it.",
            lambda scores, share: scores.exp() / share,
        ),
        Mistake(
            "The exponential is missing: softmax compares e to the scores.",
            lambda scores, share: scores * (1 - share) / share,
        ),
        Mistake(
            "The exponential is of base 2; softmax takes e.",
            lambda scores, share: scores.exp2() * (1 - share) / share,
        ),
        Mistake(
            "Each of the others adds e⁰, which is 1, not e.",
            lambda scores, share: _crowd(scores, share) / math.e,
        ),
        Mistake(
            "This is for a share of one half; `share` is given.",
            lambda scores, share: scores.exp(),
        ),
    ),
    hints=(
        "With m others the weight is e^s / (e^s + m), since each of them adds e^0 = 1.",
        "Set that equal to `share`, and solve for m.",
        "m = e^s (1 − share) / share, for all the scores at once.",
    ),
    verified="right for three shares, the gradients too.",
)

EXERCISES = (STRETCHES, FAR, BLOCKS, CROWD)
