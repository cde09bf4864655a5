"""The exercises of lesson 04: a pair turned, angles, pairs of another kind, a look back."""

import torch
from einops import rearrange
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "04 rotary"


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# One pair, turned.


def _pairs_and_angles() -> list[Arguments]:
    drawn = [
        [torch.tensor([[1.0, 0.0], [2.0, 1.0]]), torch.tensor([torch.pi / 2, torch.pi])],
        _draw((3, 2), (3,), seed=1),
        _draw((2, 3, 2), (2, 3), seed=2),
    ]
    return [dict(zip(("pairs", "angles"), inputs, strict=True)) for inputs in drawn]


def _turned(pairs: Tensor, angles: Tensor) -> Tensor:
    x, y = pairs.unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((x * cos - y * sin, x * sin + y * cos), -1)


def _matrix_turned(pairs: Tensor, angles: Tensor, signs: tuple[int, int, int, int]) -> Tensor:
    """(x, y) times a matrix of cosines and sines with these signs."""
    x, y = pairs.unbind(-1)
    a, b, c, d = signs
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((a * x * cos + b * y * sin, c * x * sin + d * y * cos), -1)


TURN = Exercise(
    name="rotary.turn",
    inputs=_pairs_and_angles,
    solution=_turned,
    mistakes=(
        Mistake(
            "The pairs turn the other way round: the minus belongs to y sin a, in the first row.",
            lambda pairs, angles: _turned(pairs, -angles),
        ),
        Mistake(
            "No term has a minus, so lengths change; x' is x cos a − y sin a.",
            lambda pairs, angles: _matrix_turned(pairs, angles, (1, 1, 1, 1)),
        ),
        Mistake(
            "Two terms have a minus; only y sin a has one.",
            lambda pairs, angles: _matrix_turned(pairs, angles, (1, -1, 1, -1)),
        ),
        Mistake(
            "Sine and cosine are exchanged; at angle 0 a pair should stay as it is.",
            lambda pairs, angles: _turned(pairs, torch.pi / 2 - angles),
        ),
        Mistake(
            "The angles are taken for degrees; they are radians.",
            lambda pairs, angles: _turned(pairs, angles.deg2rad()),
        ),
        Mistake(
            "The two results are in the wrong order: first x', then y'.",
            lambda pairs, angles: _turned(pairs, angles).flip(-1),
        ),
        Mistake(
            "y' is made from the x that is turned already; both need the old x and y.",
            lambda pairs, angles: _one_after_the_other(pairs, angles),
        ),
    ),
    hints=(
        "`x, y = pairs.unbind(-1)` gives all first members, and all second ones.",
        "x' = x cos a − y sin a, and y' = x sin a + y cos a, for all pairs at once.",
        "`torch.stack((new_x, new_y), dim=-1)` puts the two side by side again.",
    ),
    verified="right for one and two leading axes, the gradients too.",
)


def _one_after_the_other(pairs: Tensor, angles: Tensor) -> Tensor:
    x, y = pairs.unbind(-1)
    x = x * angles.cos() - y * angles.sin()
    return torch.stack((x, x * angles.sin() + y * angles.cos()), -1)


# The angle of every pair at every position.


def _positions_and_vectors() -> list[Arguments]:
    drawn = [
        [torch.tensor([0.0, 1, 3]), torch.zeros(3, 4)],
        [torch.tensor([7.0, 100, 2, 9]), torch.zeros(2, 4, 8)],
        [torch.arange(40.0, 46), torch.zeros(2, 3, 6, 10)],
    ]
    names = ("positions", "x")
    return [dict(zip(names, (t.double() for t in pair), strict=True)) for pair in drawn]


def _angles(positions: Tensor, x: Tensor) -> Tensor:
    return _powers(positions, -torch.arange(0, x.shape[-1], 2) / x.shape[-1])


def _powers(positions: Tensor, exponents: Tensor, base: float = 10_000.0) -> Tensor:
    return positions[:, None] * base ** exponents.to(positions)


ANGLES = Exercise(
    name="rotary.angles",
    inputs=_positions_and_vectors,
    solution=_angles,
    mistakes=(
        Mistake(
            "The 2 is missing in the exponent −2i/d, so the last pair turns too fast.",
            lambda positions, x: _powers(positions, -torch.arange(x.shape[-1] // 2) / x.shape[-1]),
        ),
        Mistake(
            "The minus is missing in the exponent −2i/d: later pairs turn slower, not faster.",
            lambda positions, x: _powers(positions, torch.arange(0, x.shape[-1], 2) / x.shape[-1]),
        ),
        Mistake(
            "The exponent is divided by the number of positions; d is the last axis of x.",
            lambda positions, x: _powers(positions, -torch.arange(0, x.shape[-1], 2) / x.shape[-2]),
        ),
        Mistake(
            "There is an angle for every feature; every pair has one, so d/2 of them.",
            lambda positions, x: _powers(positions, -torch.arange(x.shape[-1]) / x.shape[-1]),
        ),
        Mistake(
            "The table has a row for every pair; it should have a row for every position.",
            lambda positions, x: _angles(positions, x).T,
        ),
        Mistake(
            "The positions are counted from 0; they are given.",
            lambda positions, x: _angles(torch.arange(len(positions)).to(x), x),
        ),
        Mistake(
            "The pairs are counted from 1; pair 0 turns by a whole radian for each position.",
            lambda positions, x: _powers(
                positions, -torch.arange(2, x.shape[-1] + 2, 2) / x.shape[-1]
            ),
        ),
        Mistake(
            "These are the frequencies; an angle is the position times the frequency.",
            lambda positions, x: _angles(torch.ones(1), x)[0].to(x),
        ),
    ),
    hints=(
        "d is `x.shape[-1]`; nothing else of x is needed.",
        "`torch.arange(0, d, 2)` is 2i for every pair i.",
        "`positions[:, None]` is a column; a column times a row is a table.",
    ),
    verified="right for 2, 4 and 5 pairs.",
)


# Weights for interleaved pairs, mended for half-split code.

PER_HEAD = 8  # features of a head, as the task says


def _weights() -> list[Arguments]:
    one_head = torch.arange(8.0)[:, None]
    return [{"weights": w} for w in (one_head, *_draw((16, 3), (24, 5), seed=3))]


def _to_half_split(weights: Tensor) -> Tensor:
    return rearrange(
        weights, "(heads half two) dim -> (heads two half) dim", two=2, half=PER_HEAD // 2
    )


PAIRING = Exercise(
    name="rotary.pairing",
    inputs=_weights,
    solution=_to_half_split,
    mistakes=(
        Mistake(
            "The rows are sorted over all heads at once; each head's eight should stay together.",
            lambda weights: rearrange(weights, "(half two) dim -> (two half) dim", two=2),
        ),
        Mistake(
            "This is the way back, from half-split to interleaved; features 0, 2, 4, 6 come first.",
            lambda weights: rearrange(
                weights, "(heads two half) dim -> (heads half two) dim", two=2, half=PER_HEAD // 2
            ),
        ),
        Mistake(
            "The odd features come first; they are the second members of their pairs.",
            lambda weights: _to_half_split(weights).unflatten(0, (-1, 2, 4)).flip(1).flatten(0, 2),
        ),
        Mistake(
            "The two halves are exchanged, and no pair is split; this mends nothing.",
            lambda weights: weights.unflatten(0, (-1, 2, 4)).flip(1).flatten(0, 2),
        ),
        Mistake(
            "Neighbours are exchanged; members of a pair should move half a head apart.",
            lambda weights: weights.unflatten(0, (-1, 2)).flip(1).flatten(0, 1),
        ),
        Mistake(
            "Nothing has moved.",
            lambda weights: weights,
        ),
    ),
    hints=(
        "Where does the half-split code look for the members of pair 0? At rows 0 and 4 of a head.",
        "Of one head, the new order of the rows is 0, 2, 4, 6, 1, 3, 5, 7.",
        "`rearrange` can cut the rows into (heads half two), with half=4 and two=2.",
    ),
    verified="right for one, two and three heads, the gradients too.",
)


# A head that looks back.


def _keys_and_steps() -> list[Arguments]:
    drawn = [
        [torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor(1.0)],
        [*_draw((8,), seed=4), torch.tensor(3.0)],
        [*_draw((16,), seed=5), torch.tensor(25.0)],
    ]
    return [dict(zip(("key", "steps"), inputs, strict=True)) for inputs in drawn]


def _moved(key: Tensor, position: Tensor) -> Tensor:
    angles = _angles(position[None], key[None])[0]
    first, second = key.chunk(2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos))


def _moved_interleaved(key: Tensor, position: Tensor) -> Tensor:
    angles = _angles(position[None], key[None])[0]
    return _turned(key.unflatten(0, (-1, 2)), angles).flatten()


def _one_speed(key: Tensor, position: Tensor) -> Tensor:
    first, second = key.chunk(2)
    cos, sin = position.cos(), position.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos))


BACK = Exercise(
    name="rotary.back",
    inputs=_keys_and_steps,
    solution=lambda key, steps: _moved(key, -steps),
    mistakes=(
        Mistake(
            "This query looks ahead, at a key that comes `steps` later; turn the other way.",
            lambda key, steps: _moved(key, steps),
        ),
        Mistake(
            "This query looks at its own position: it is the key, not turned.",
            lambda key, steps: key + 0 * steps,
        ),
        Mistake(
            "The pairs are interleaved; here feature i goes with feature i + d/2.",
            lambda key, steps: _moved_interleaved(key, -steps),
        ),
        Mistake(
            "All pairs turn by the same angle; pair i turns by steps times its own frequency.",
            lambda key, steps: _one_speed(key, -steps),
        ),
        Mistake(
            "This query looks back by one position; `steps` is not used.",
            lambda key, steps: _moved(key, -torch.ones_like(steps)),
        ),
        Mistake(
            "The query is the key times −steps; it should be the key, turned.",
            lambda key, steps: -steps * key,
        ),
    ),
    hints=(
        "At m − n = steps both hands of every pair should point the same way.",
        "Turned on by `steps` positions, your query should be the key.",
        "It is the key at the position −steps: every pair turned by −steps times its frequency.",
    ),
    verified="it scores highest with its key at the distance asked for, the gradients too.",
)

EXERCISES = (TURN, ANGLES, PAIRING, BACK)
