"""The exercises of lesson 07: RMSNorm, silu's slope, the feed-forward's half, the last product."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "07 feed-forward, and in parallel"
EPS = 1e-5


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# The norm without the mean.


def _vectors_and_gains() -> list[Arguments]:
    pairs = [
        [torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([1.0, 2.0])],
        [torch.tensor([[0.001, -0.003, 0.002]]), torch.tensor([1.0, 1.0, 0.5])],
        _draw((3, 8), (8,), seed=1),
        _draw((2, 3, 5), (5,), seed=2),
    ]
    return [dict(zip(("x", "gamma"), pair, strict=True)) for pair in pairs]


def _mean_square(x: Tensor, dim: int = -1) -> Tensor:
    return x.square().mean(dim, keepdim=True)


def _rms_norm(x: Tensor, gamma: Tensor) -> Tensor:
    return gamma * x / (_mean_square(x) + EPS).sqrt()


RMS = Exercise(
    name="feedforward.rms",
    inputs=_vectors_and_gains,
    solution=_rms_norm,
    mistakes=(
        Mistake(
            "The mean is subtracted; that is layer norm, and RMSNorm leaves the mean alone.",
            lambda x, gamma: _rms_norm(x - x.mean(-1, keepdim=True), gamma),
        ),
        Mistake(
            "The squares are summed; divide by their mean's root, which takes d into account.",
            lambda x, gamma: gamma * x / (x.square().sum(-1, keepdim=True) + EPS).sqrt(),
        ),
        Mistake(
            "eps is missing: a vector of zeros gives 0/0.",
            lambda x, gamma: gamma * x / _mean_square(x).sqrt(),
        ),
        Mistake(
            "eps is added after the root; it belongs beside the mean of the squares.",
            lambda x, gamma: gamma * x / (_mean_square(x).sqrt() + EPS),
        ),
        Mistake(
            "The root is missing; this divides by the mean of the squares itself.",
            lambda x, gamma: gamma * x / (_mean_square(x) + EPS),
        ),
        Mistake(
            "The mean runs over the tokens; it belongs on the features, the last axis.",
            lambda x, gamma: gamma * x / (_mean_square(x, -2) + EPS).sqrt(),
        ),
        Mistake(
            "One mean is taken for the whole table; every vector needs its own.",
            lambda x, gamma: gamma * x / (x.square().mean() + EPS).sqrt(),
        ),
        Mistake(
            "The gain is missing; multiply each feature by its gamma.",
            lambda x, gamma: x / (_mean_square(x) + EPS).sqrt(),
        ),
    ),
    hints=(
        "It is layer norm with its first line left out.",
        "`x.square().mean(dim=-1, keepdim=True)` is the mean of the squares of every vector.",
        "Add 1e-5, take the root, divide x by it, and multiply by gamma.",
    ),
    verified="right for every size, zeros and tiny numbers too, and so are the gradients.",
)


# The slope of silu.


def _gates() -> list[Arguments]:
    return [
        {"z": torch.tensor([0.0, 1.0])},
        {"z": torch.tensor([-1.278, 6.0, -6.0])},
        {"z": 3 * _draw((4, 5), seed=3)[0]},
    ]


def _silu_slope(z: Tensor) -> Tensor:
    s = z.sigmoid()
    return s + z * s * (1 - s)


SLOPE = Exercise(
    name="feedforward.slope",
    inputs=_gates,
    solution=_silu_slope,
    mistakes=(
        Mistake(
            "This is silu itself; its slope is asked for.",
            lambda z: z * z.sigmoid(),
        ),
        Mistake(
            "This is the slope of the sigmoid; silu is z times the sigmoid, so use the product "
            "rule.",
            lambda z: z.sigmoid() * (1 - z.sigmoid()),
        ),
        Mistake(
            "The slopes of the factors are multiplied; by the product rule each is multiplied by "
            "the other factor, and the two are added.",
            lambda z: z * z.sigmoid() * (1 - z.sigmoid()),
        ),
        Mistake(
            "The second part lacks its factor z.",
            lambda z: z.sigmoid() + z.sigmoid() * (1 - z.sigmoid()),
        ),
        Mistake(
            "This is the sigmoid alone; z times the slope of the sigmoid belongs beside it.",
            lambda z: z.sigmoid(),
        ),
        Mistake(
            "The second part has the wrong sign.",
            lambda z: z.sigmoid() - z * z.sigmoid() * (1 - z.sigmoid()),
        ),
    ),
    hints=(
        "silu is a product of two functions of z, so its slope has two parts.",
        "The slope of f · g is f' · g + f · g'; here f is z, with slope 1, and g the sigmoid.",
        "With s = z.sigmoid(), the parts are s, and z · s · (1 − s).",
    ),
    verified="right on both sides of 0, and at the bottom of the dip; the second slope too.",
)


# From the fused row to the feed-forward's half.


def _rows_and_matrices() -> list[Arguments]:
    pairs = [
        [torch.tensor([[9.0, 8.0, 7.0, 2.0, 6.0]]), torch.tensor([[1.0], [2.0]])],
        _draw((3, 14), (4, 3), seed=4),
        _draw((2, 3, 20), (4, 6), seed=5),
    ]
    return [dict(zip(("projected", "ff_out"), pair, strict=True)) for pair in pairs]


def _slices(projected: Tensor, ff_out: Tensor) -> tuple[Tensor, Tensor]:
    value, gate = projected[..., -2 * ff_out.shape[-1] :].chunk(2, dim=-1)
    return value, gate


def _ff_half(projected: Tensor, ff_out: Tensor) -> Tensor:
    value, gate = _slices(projected, ff_out)
    return (F.silu(gate) * value) @ ff_out.T


def _swapped(projected: Tensor, ff_out: Tensor) -> Tensor:
    value, gate = _slices(projected, ff_out)
    return (F.silu(value) * gate) @ ff_out.T


def _ungated(projected: Tensor, ff_out: Tensor) -> Tensor:
    value, gate = _slices(projected, ff_out)
    return (value * gate) @ ff_out.T


def _through_sigmoid(projected: Tensor, ff_out: Tensor) -> Tensor:
    value, gate = _slices(projected, ff_out)
    return (gate.sigmoid() * value) @ ff_out.T


def _every_other(projected: Tensor, ff_out: Tensor) -> Tensor:
    both = projected[..., -2 * ff_out.shape[-1] :]
    return (F.silu(both[..., 1::2]) * both[..., ::2]) @ ff_out.T


HALF = Exercise(
    name="feedforward.half",
    inputs=_rows_and_matrices,
    solution=_ff_half,
    mistakes=(
        Mistake(
            "Gate and value are swapped: the first half is the value, the second the gate.",
            _swapped,
        ),
        Mistake(
            "The slice is taken from the front, where the queries are; the feed-forward's comes "
            "last.",
            lambda projected, ff_out: _ff_half(projected[..., : 2 * ff_out.shape[-1]], ff_out),
        ),
        Mistake("The gate goes in as it is; silu is missing.", _ungated),
        Mistake(
            "The gate goes through the sigmoid alone; silu is the gate times its sigmoid.",
            _through_sigmoid,
        ),
        Mistake(
            "Values and gates are taken in turn; they are two halves, one behind the other.",
            _every_other,
        ),
        Mistake(
            "The values are passed on without their gates.",
            lambda projected, ff_out: _slices(projected, ff_out)[0] @ ff_out.T,
        ),
        Mistake(
            "silu is applied to both halves; the value is multiplied as it is.",
            lambda projected, ff_out: (
                (F.silu(_slices(projected, ff_out)[0]) * F.silu(_slices(projected, ff_out)[1]))
                @ ff_out.T
            ),
        ),
    ),
    hints=(
        "The feed-forward's slice is the last one, 2 · inner long; inner is `ff_out.shape[-1]`.",
        "`projected[..., -2 * inner:].chunk(2, dim=-1)` gives the values and the gates.",
        "Multiply the values by silu of the gates, and the result by the transposed matrix.",
    ),
    verified="right for several slices and axes, the gradients too.",
)


# One product at the end.


def _ends() -> list[Arguments]:
    groups = [
        [
            torch.tensor([[1.0]]),
            torch.tensor([[2.0]]),
            torch.tensor([[3.0]]),
            torch.tensor([[5.0]]),
        ],
        _draw((3, 4), (3, 6), (5, 4), (5, 6), seed=6),
        _draw((2, 3, 4), (2, 3, 4), (5, 4), (5, 4), seed=7),
    ]
    names = ("mixed", "gated", "out", "ff_out")
    return [dict(zip(names, group, strict=True)) for group in groups]


def _both_halves(mixed: Tensor, gated: Tensor, out: Tensor, ff_out: Tensor) -> Tensor:
    return torch.cat((mixed, gated), dim=-1) @ torch.cat((out, ff_out), dim=-1).T


ENDS = Exercise(
    name="feedforward.ends",
    inputs=_ends,
    solution=_both_halves,
    mistakes=(
        Mistake(
            "The rows and the matrices are put together in different orders, so the features meet "
            "the wrong columns.",
            lambda mixed, gated, out, ff_out: (
                torch.cat((mixed, gated), dim=-1) @ torch.cat((ff_out, out), dim=-1).T
            ),
        ),
        Mistake(
            "Only attention's half is there.",
            lambda mixed, gated, out, ff_out: mixed @ out.T,
        ),
        Mistake(
            "Only the feed-forward's half is there.",
            lambda mixed, gated, out, ff_out: gated @ ff_out.T,
        ),
        Mistake(
            "The halves are averaged; they are to be added.",
            lambda mixed, gated, out, ff_out: _both_halves(mixed, gated, out, ff_out) / 2,
        ),
        Mistake(
            "The shapes do not meet: put the matrices side by side, with dim=-1, then transpose.",
            lambda mixed, gated, out, ff_out: (
                torch.cat((mixed, gated), dim=-1) @ torch.cat((out, ff_out), dim=0).T
            ),
        ),
        Mistake(
            "The halves stand side by side; they are to be added.",
            lambda mixed, gated, out, ff_out: torch.cat((mixed @ out.T, gated @ ff_out.T), dim=-1),
        ),
    ),
    hints=(
        "The dot product of two long rows is the sum of the dot products of their parts.",
        "Put `mixed` and `gated` side by side along the features, with `torch.cat(..., dim=-1)`.",
        "Do the same with `out` and `ff_out`, in the same order, and multiply by its transpose.",
    ),
    verified="right for several widths and axes, the gradients too.",
)

EXERCISES = (RMS, SLOPE, HALF, ENDS)
