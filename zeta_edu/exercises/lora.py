"""The exercises of lesson 10: the update, merged, one gradient of it, and a lower rank."""

import torch
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "10 LoRA"
ALPHA = 6.0  # as the tasks say


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# The update of some tokens.


def _tokens_and_factors() -> list[Arguments]:
    drawn = [
        [torch.tensor([1.0, 2.0]), torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 3.0]])],
        _draw((5, 4), (4, 3), (3, 4), seed=1),
        _draw((2, 3, 6), (6, 4), (4, 5), seed=2),
    ]
    return [dict(zip(("x", "A", "B"), tensors, strict=True)) for tensors in drawn]


def _update(x: Tensor, A: Tensor, B: Tensor, factor: float | None = None) -> Tensor:
    return x @ A @ B * (ALPHA / A.shape[-1] if factor is None else factor)


UPDATE = Exercise(
    name="lora.update",
    inputs=_tokens_and_factors,
    solution=_update,
    mistakes=(
        Mistake(
            "The factor α/r is missing.",
            lambda x, A, B: _update(x, A, B, 1.0),
        ),
        Mistake(
            "The update is multiplied by α alone; divide by the rank too.",
            lambda x, A, B: _update(x, A, B, ALPHA),
        ),
        Mistake(
            "The factor is upside down; it is α/r, not r/α.",
            lambda x, A, B: _update(x, A, B, A.shape[-1] / ALPHA),
        ),
        Mistake(
            "α is divided by the number of features in; the rank is the other axis of A.",
            lambda x, A, B: _update(x, A, B, ALPHA / A.shape[0]),
        ),
        Mistake(
            "α is divided by the root of the rank; the factor here is α/r.",
            lambda x, A, B: _update(x, A, B, ALPHA / A.shape[-1] ** 0.5),
        ),
        Mistake(
            "The factor is there twice, once for each matrix.",
            lambda x, A, B: _update(x, A, B, (ALPHA / A.shape[-1]) ** 2),
        ),
        Mistake(
            "B comes before A; x has as many features as A has rows.",
            lambda x, A, B: x @ B @ A * (ALPHA / A.shape[-1]),
        ),
    ),
    hints=(
        "Two products, one after the other, and one number.",
        "The rank is the number of columns of A, `A.shape[-1]`.",
        "`x @ A` has r numbers for each token; times B they become features again.",
    ),
    verified="right for ranks 2 to 4 and up to two leading axes, the gradients too.",
)


# The update, folded into a weight as a linear layer stores it.


def _weights_and_factors() -> list[Arguments]:
    drawn = [
        [torch.zeros(2, 2), torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 5.0]])],
        _draw((4, 4), (4, 2), (2, 4), seed=3),
        _draw((5, 3), (3, 2), (2, 5), seed=4),
    ]
    return [dict(zip(("weight", "A", "B"), tensors, strict=True)) for tensors in drawn]


def _merged(weight: Tensor, A: Tensor, B: Tensor, factor: float | None = None) -> Tensor:
    return weight + (A @ B).T * (ALPHA / A.shape[1] if factor is None else factor)


MERGE = Exercise(
    name="lora.merge",
    inputs=_weights_and_factors,
    solution=_merged,
    mistakes=(
        Mistake(
            "A · B is (in, out) and the weight (out, in): transpose the update.",
            lambda weight, A, B: weight + A @ B * (ALPHA / A.shape[1]),
        ),
        Mistake(
            "The factor α/r is missing: the merged model would not equal the unmerged one.",
            lambda weight, A, B: _merged(weight, A, B, 1.0),
        ),
        Mistake(
            "The update is multiplied by α alone; divide by the rank too.",
            lambda weight, A, B: _merged(weight, A, B, ALPHA),
        ),
        Mistake(
            "The update is subtracted; that takes a merged one out again.",
            lambda weight, A, B: _merged(weight, A, B, -ALPHA / A.shape[1]),
        ),
        Mistake(
            "This is the update alone; the old weight belongs to it.",
            lambda weight, A, B: _merged(torch.zeros_like(weight), A, B),
        ),
        Mistake(
            "The old weight is multiplied by α/r as well; only the update is.",
            lambda weight, A, B: (weight + (A @ B).T) * (ALPHA / A.shape[1]),
        ),
        Mistake(
            "The update is added twice.",
            lambda weight, A, B: _merged(weight, A, B, 2 * ALPHA / A.shape[1]),
        ),
    ),
    hints=(
        "For every x the result M must give x Wᵀ + α/r · x A B = x Mᵀ.",
        "So Mᵀ = Wᵀ + α/r · A B; transpose both sides.",
        "`(A @ B).T` has the shape of the weight; the rank is `A.shape[1]`.",
    ),
    verified="right for square weights and others, the gradients too.",
)


# The gradient of A, by hand.


def _tokens_factors_and_upstream() -> list[Arguments]:
    ones = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), torch.tensor([[4.0]])]
    drawn = [
        [ones[0], ones[1], ones[2]],
        _draw((5, 4), (4, 4), (5, 4), seed=5),
        _draw((3, 6), (2, 5), (3, 5), seed=6),
    ]
    return [dict(zip(("x", "B", "G"), tensors, strict=True)) for tensors in drawn]


def _slope_of_a(x: Tensor, B: Tensor, G: Tensor) -> Tensor:
    return x.T @ (G @ B.T) * (ALPHA / len(B))


GRADIENT = Exercise(
    name="lora.gradient",
    inputs=_tokens_factors_and_upstream,
    solution=_slope_of_a,
    mistakes=(
        Mistake(
            "The factor α/r is missing; it is a part of what follows A.",
            lambda x, B, G: x.T @ (G @ B.T),
        ),
        Mistake(
            "The gradient is multiplied by α alone; the rank is the number of rows of B.",
            lambda x, B, G: x.T @ (G @ B.T) * ALPHA,
        ),
        Mistake(
            "B is missing: this is the gradient of the whole weight.",
            lambda x, B, G: x.T @ G * (ALPHA / len(B)),
        ),
        Mistake(
            "B is not transposed; the gradient goes back through it, from features out to rank.",
            lambda x, B, G: x.T @ (G @ B) * (ALPHA / len(B)),
        ),
        Mistake(
            "The gradients of the tokens are averaged; they are summed, as the loss says.",
            lambda x, B, G: _slope_of_a(x, B, G) / len(x),
        ),
        Mistake(
            "This is transposed; a gradient has the shape of A, (dim, rank).",
            lambda x, B, G: _slope_of_a(x, B, G).T,
        ),
        Mistake(
            "The sign is turned; a gradient points uphill, and the step goes against it.",
            lambda x, B, G: -_slope_of_a(x, B, G),
        ),
    ),
    hints=(
        "With N = α/r · B held fixed, the update is x A N. What is the gradient of A?",
        "The shapes leave one order only: (dim, n), (n, dim_out), (dim_out, rank).",
        "`x.T @ G @ B.T`, times α/r; the rank is `B.shape[0]`.",
    ),
    verified="right for ranks 1, 2 and 4: zero wherever B is.",
)


# The nearest update of a lower rank.


def _factors() -> list[Arguments]:
    drawn = [
        [torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 4.0]])],
        _draw((4, 3), (3, 4), seed=7),
        _draw((6, 4), (4, 5), seed=8),
    ]
    return [dict(zip(("A", "B"), tensors, strict=True)) for tensors in drawn]


def _largest_part(A: Tensor, B: Tensor, which: int = 0) -> Tensor:
    u, s, v = torch.linalg.svd(A @ B, full_matrices=False)
    last = A.shape[1] - 1 if which else 0
    return s[last] * torch.outer(u[:, last], v[last])


def _without_size(A: Tensor, B: Tensor) -> Tensor:
    u, _, v = torch.linalg.svd(A @ B, full_matrices=False)
    return torch.outer(u[:, 0], v[0])


def _squared_size(A: Tensor, B: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(A @ B, 2) * _largest_part(A, B)


def _two_parts(A: Tensor, B: Tensor) -> Tensor:
    u, s, v = torch.linalg.svd(A @ B, full_matrices=False)
    return (u[:, :2] * s[:2]) @ v[:2]


TRUNCATE = Exercise(
    name="lora.rank_one",
    inputs=_factors,
    solution=_largest_part,
    mistakes=(
        Mistake(
            "This is the first column of A times the first row of B; they need not be the largest "
            "part.",
            lambda A, B: torch.outer(A[:, 0], B[0]),
        ),
        Mistake(
            "This is the smallest part; singular values come the largest first.",
            lambda A, B: _largest_part(A, B, which=1),
        ),
        Mistake(
            "The singular value is missing: every part has a size.",
            _without_size,
        ),
        Mistake(
            "The singular value is there twice.",
            _squared_size,
        ),
        Mistake(
            "The result is transposed.",
            lambda A, B: _largest_part(A, B).T,
        ),
        Mistake(
            "Two parts are kept; one is asked for.",
            _two_parts,
        ),
        Mistake(
            "This is the whole update; keep its largest part.",
            lambda A, B: A @ B,
        ),
    ),
    hints=(
        "The parts of A B come sorted, the largest first; keep that one alone.",
        "Part i is s[i] times the outer product of `u[:, i]` and `v[i]`.",
        "`torch.outer(column, row)` is an outer product.",
    ),
    verified="the nearest of rank 1, for ranks 2 to 4.",
    gradients=False,
)

EXERCISES = (UPDATE, MERGE, GRADIENT, TRUNCATE)
