"""The exercises of lesson 06: length one, a scale that suffices, a whole head, the gradient."""

import torch
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "06 qk norm"

TINIEST = 1e-12


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)


# Length one.


def _vectors_and_scales() -> list[Arguments]:
    pairs = [
        [torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([1.0, 2.0])],
        [torch.tensor([[3e-5, -4e-5], [600.0, 800.0]]), torch.tensor([0.5, -3.0])],
        _draw((3, 8), (8,), seed=1),
        _draw((2, 4, 5, 16), (16,), seed=2),
    ]
    return [dict(zip(("x", "scale"), pair, strict=True)) for pair in pairs]


def _normalise(x: Tensor, scale: Tensor) -> Tensor:
    return x / _length(x).clamp(min=TINIEST) * scale


NORMALISE = Exercise(
    name="qk_norm.normalise",
    inputs=_vectors_and_scales,
    solution=_normalise,
    mistakes=(
        Mistake(
            "A zero vector becomes NaN, as 0/0 does; divide by at least 1e-12.",
            lambda x, scale: x / _length(x) * scale,
        ),
        Mistake(
            "The learned scale is missing.",
            lambda x, scale: _normalise(x, torch.ones_like(scale)),
        ),
        Mistake(
            "The vectors are divided by their squared length; take the root.",
            lambda x, scale: x / _length(x).square().clamp(min=TINIEST) * scale,
        ),
        Mistake(
            "The scale comes before the division, and is mostly divided out again.",
            lambda x, scale: _normalise(x * scale, torch.ones_like(scale)),
        ),
        Mistake(
            "All vectors share one length; each needs its own, along the last axis.",
            lambda x, scale: x / x.norm().clamp(min=TINIEST) * scale,
        ),
        Mistake(
            "The length is taken along the positions; it belongs to the last axis.",
            lambda x, scale: x / x.norm(dim=-2, keepdim=True).clamp(min=TINIEST) * scale,
        ),
        Mistake(
            "The sizes of the entries are summed; the length is the root of their summed squares.",
            lambda x, scale: x / x.abs().sum(-1, keepdim=True).clamp(min=TINIEST) * scale,
        ),
        Mistake(
            "The squares are averaged, so the length comes out as √d; they should be summed.",
            lambda x, scale: x / (_length(x) / x.shape[-1] ** 0.5).clamp(min=TINIEST) * scale,
        ),
        Mistake(
            "A number is added to the length, so that small vectors come out too short.",
            lambda x, scale: x / (_length(x) + 1e-6) * scale,
        ),
    ),
    hints=(
        "The length of a vector is the root of the sum of its squares, along the last axis.",
        "`keepdim=True` keeps that axis, so that the division lines up with the vectors.",
        (
            "`torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-12)` is the length, "
            "never 0. A `sqrt` written out has an infinite slope at 0, and its gradient is NaN."
        ),
    ),
    verified="right for tiny, large and zero vectors, the gradients too.",
)


# A scale that suffices.


def _counts_and_shares() -> list[Arguments]:
    pairs = [
        [torch.tensor([2.0]), torch.tensor([0.9])],
        [torch.tensor([3.0, 16.0, 1024.0]), torch.tensor([0.5, 0.99, 0.9])],
        [torch.tensor([[10.0], [100.0], [1e5]]), torch.tensor([0.25, 0.75])],
    ]
    return [dict(zip(("count", "share"), pair, strict=True)) for pair in pairs]


def _scale_needed(count: Tensor, share: Tensor) -> Tensor:
    return ((count - 1) * share / (1 - share)).log() / 2


SCALE = Exercise(
    name="qk_norm.scale",
    inputs=_counts_and_shares,
    solution=_scale_needed,
    mistakes=(
        Mistake(
            "The half is missing: from −s to s the logits differ by 2s.",
            lambda count, share: 2 * _scale_needed(count, share),
        ),
        Mistake(
            "All keys are counted as others; there are count − 1 of them.",
            lambda count, share: (count * share / (1 - share)).log() / 2,
        ),
        Mistake(
            "The fraction is upside down, so the scale comes out negative.",
            lambda count, share: ((1 - share) / ((count - 1) * share)).log() / 2,
        ),
        Mistake(
            "The number of the other keys is missing; each of them takes its part.",
            lambda count, share: (share / (1 - share)).log() / 2 + 0 * count,
        ),
        Mistake(
            "The other keys have the share 1 − share together, not each: count − 1 belongs "
            "above the line.",
            lambda count, share: (share / ((count - 1) * (1 - share))).log() / 2,
        ),
        Mistake(
            "The logarithm has base 2; softmax works with e, so take the natural one.",
            lambda count, share: ((count - 1) * share / (1 - share)).log2() / 2,
        ),
    ),
    hints=(
        "Take the reciprocal of both sides, so that the power exp(−2s) stands alone.",
        "The weight is 1 / (1 + (count − 1) · exp(−2s)). Set it equal to the share.",
        "Solve for exp(2s): it is (count − 1) · share / (1 − share). Then take the logarithm.",
    ),
    verified="right for 2 keys to 100,000, and for tables of counts and shares.",
)


# A whole head.


def _heads() -> list[Arguments]:
    names = ("queries", "keys", "values", "q_scale", "k_scale", "qk_scale")
    small = [
        torch.tensor([[3.0, 4.0]]),
        torch.tensor([[5.0, 0.0], [0.0, 2.0]]),
        torch.tensor([[1.0], [0.0]]),
        torch.tensor([1.0, 1.0]),
        torch.tensor([1.0, 2.0]),
        torch.tensor(4.0),
    ]
    larger = [
        [*_draw((4, 8), (4, 8), (4, 3), (8,), (8,), seed=3), torch.tensor(8.0)],
        [*_draw((2, 3, 8), (2, 6, 8), (2, 6, 8), (8,), (8,), seed=4), torch.tensor(5.0)],
    ]
    return [dict(zip(names, values, strict=True)) for values in (small, *larger)]


def _head(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    q_scale: Tensor,
    k_scale: Tensor,
    qk_scale: Tensor,
) -> Tensor:
    logits = qk_scale * _normalise(queries, q_scale) @ _normalise(keys, k_scale).mT
    return logits.softmax(-1) @ values


HEAD = Exercise(
    name="qk_norm.head",
    inputs=_heads,
    solution=_head,
    mistakes=(
        Mistake(
            "qk_scale is forgotten: the logits stay small, and the weights nearly even.",
            lambda q, k, v, a, b, s: _head(q, k, v, a, b, torch.ones_like(s)),
        ),
        Mistake(
            "The logits are divided by √d besides; qk_scale takes the place of 1/√d.",
            lambda q, k, v, a, b, s: _head(q, k, v, a, b, s / q.shape[-1] ** 0.5),
        ),
        Mistake(
            "1/√d is used; with normalised queries and keys the factor is qk_scale.",
            lambda q, k, v, a, b, s: _head(q, k, v, a, b, torch.ones_like(s) / q.shape[-1] ** 0.5),
        ),
        Mistake(
            "The keys are not normalised; both sides need length 1.",
            lambda q, k, v, a, b, s: (s * _normalise(q, a) @ (k * b).mT).softmax(-1) @ v,
        ),
        Mistake(
            "The queries are not normalised; both sides need length 1.",
            lambda q, k, v, a, b, s: (s * (q * a) @ _normalise(k, b).mT).softmax(-1) @ v,
        ),
        Mistake(
            "The keys are multiplied by q_scale; theirs is k_scale.",
            lambda q, k, v, a, b, s: _head(q, k, v, a, a, s),
        ),
        Mistake(
            "The learned scales are left out.",
            lambda q, k, v, a, b, s: _head(q, k, v, torch.ones_like(a), torch.ones_like(b), s),
        ),
        Mistake(
            "The values are normalised too; only queries and keys are.",
            lambda q, k, v, a, b, s: _head(q, k, v / _length(v).clamp(min=TINIEST), a, b, s),
        ),
        Mistake(
            "The scale comes after the softmax; it belongs on the logits.",
            lambda q, k, v, a, b, s: s * _head(q, k, v, a, b, torch.ones_like(s)),
        ),
    ),
    hints=(
        "Four steps: normalise queries and keys, logits, softmax over the keys, mix.",
        "`normalise(queries, q_scale)` and `normalise(keys, k_scale)` are in the lesson.",
        "The logits are `qk_scale` times queries @ keys, the keys' last two axes swapped.",
    ),
    verified="right with and without a leading axis, the gradients for the scales too.",
)


# The gradient.


def _vectors_and_gradients() -> list[Arguments]:
    pairs = [
        [torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])],
        _draw((3, 8), (3, 8), seed=5),
        [10 * x for x in _draw((2, 5, 4), (2, 5, 4), seed=6)],
    ]
    return [dict(zip(("x", "gradient"), pair, strict=True)) for pair in pairs]


def _across(unit: Tensor, gradient: Tensor) -> Tensor:
    """The part of a gradient across a unit vector."""
    return gradient - (gradient * unit).sum(-1, keepdim=True) * unit


def _gradient(x: Tensor, gradient: Tensor) -> Tensor:
    return _across(x / _length(x), gradient) / _length(x)


GRADIENT = Exercise(
    name="qk_norm.gradient",
    inputs=_vectors_and_gradients,
    solution=_gradient,
    mistakes=(
        Mistake(
            "The part along the vector is still in it; subtract (g · u) u.",
            lambda x, gradient: gradient / _length(x),
        ),
        Mistake(
            "The division by the length is missing: a longer vector turns less.",
            lambda x, gradient: _across(x / _length(x), gradient),
        ),
        Mistake(
            "The part along the vector is taken with x itself; it needs the unit vector u.",
            lambda x, gradient: _across(x, gradient) / _length(x),
        ),
        Mistake(
            "This is the part along the vector; what is left after subtracting it is wanted.",
            lambda x, gradient: (gradient - _across(x / _length(x), gradient)) / _length(x),
        ),
        Mistake(
            "The part along the vector is added; subtract it.",
            lambda x, gradient: (2 * gradient - _across(x / _length(x), gradient)) / _length(x),
        ),
        Mistake(
            "It is divided by the squared length; once is enough.",
            lambda x, gradient: _gradient(x, gradient) / _length(x),
        ),
        Mistake(
            "It is multiplied by the length; divide by it.",
            lambda x, gradient: _gradient(x, gradient) * _length(x).square(),
        ),
    ),
    hints=(
        "Only the part of the gradient across the vector can change a direction.",
        "With u = x / r, the part along it is (g · u) u. Subtract it from g.",
        "Divide what is left by r, the length: `(g - (g * u).sum(-1, keepdim=True) * u) / r`.",
    ),
    verified="equal to what PyTorch's autograd finds, on every vector.",
)

EXERCISES = (NORMALISE, SCALE, HEAD, GRADIENT)
