"""The exercises of lesson 02: split into heads, join them, share keys and values, average heads."""

import math

import torch
from einops import rearrange, reduce
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "02 heads"


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# Split into heads.


def _long_vectors() -> list[Arguments]:
    numbered = 10 * torch.arange(2)[:, None] + torch.arange(6)
    drawn = [_draw(shape)[0] for shape in ((4, 15), (2, 5, 6), (2, 3, 4, 12))]
    return [{"x": x} for x in (numbered.float(), *drawn)]


def _split(x: Tensor) -> Tensor:
    return rearrange(x, "... n (h d) -> ... h n d", h=3)


SPLIT = Exercise(
    name="heads.split",
    inputs=_long_vectors,
    solution=_split,
    mistakes=(
        Mistake(
            "The numbers are cut without moving, so a head's rows are pieces of other tokens; "
            "cut the last axis into (3, d) first, then swap the axes of tokens and heads.",
            lambda x: x.reshape(*x.shape[:-2], 3, x.shape[-2], x.shape[-1] // 3),
        ),
        Mistake(
            "Each head takes every third number; head 0 should have the first d in a row: (h d), "
            "not (d h).",
            lambda x: rearrange(x, "... n (d h) -> ... h n d", h=3),
        ),
        Mistake(
            "The heads stand behind the tokens, (..., n, 3, d); swap these two axes.",
            lambda x: rearrange(x, "... n (h d) -> ... n h d", h=3),
        ),
        Mistake(
            "The heads stand in front of the leading axes; they belong just before the tokens.",
            lambda x: rearrange(x, "... n (h d) -> h ... n d", h=3),
        ),
        Mistake(
            "Each head has 3 numbers; there should be 3 heads.",
            lambda x: rearrange(x, "... n (h d) -> ... h n d", d=3),
        ),
        Mistake(
            "The last two axes have changed places; the result is (..., 3, n, d).",
            lambda x: rearrange(x, "... n (h d) -> ... h d n", h=3),
        ),
    ),
    hints=(
        "`rearrange` can do it in one line; the three dots stand for the leading axes.",
        '`"... n (h d)"` names the pieces of the last axis; give the number of heads: `h=3`.',
        'The whole pattern is `"... n (h d) -> ... h n d"`.',
    ),
    verified="right for 2, 3 and 4 axes, the gradients too.",
)


# Out of the heads.


def _mixed_and_weight() -> list[Arguments]:
    pairs = [
        [torch.tensor([[[1.0], [2.0]], [[10.0], [20.0]]]), torch.tensor([[1.0, -1.0], [0.0, 1.0]])],
        _draw((2, 3, 4), (8, 8), seed=1),
        _draw((2, 4, 4, 3), (12, 12), seed=2),
        _draw((2, 3, 5, 2), (7, 6), seed=3),
    ]
    return [dict(zip(("mixed", "weight"), pair, strict=True)) for pair in pairs]


def _join(mixed: Tensor, weight: Tensor) -> Tensor:
    return rearrange(mixed, "... h n d -> ... n (h d)") @ weight.T


def _reshaped(mixed: Tensor) -> Tensor:
    heads, n, d = mixed.shape[-3:]
    return mixed.reshape(*mixed.shape[:-3], n, heads * d)


JOIN = Exercise(
    name="heads.join",
    inputs=_mixed_and_weight,
    solution=_join,
    mistakes=(
        Mistake(
            "The heads are merged without moving, which mixes tokens; bring the axis of heads "
            "behind that of tokens first.",
            lambda mixed, weight: _reshaped(mixed) @ weight.T,
        ),
        Mistake(
            "The heads' numbers are merged in turn, (d h); each head's numbers belong in a row: "
            "(h d).",
            lambda mixed, weight: rearrange(mixed, "... h n d -> ... n (d h)") @ weight.T,
        ),
        Mistake(
            "The matrix is not transposed; a row of it makes one number of the output.",
            lambda mixed, weight: rearrange(mixed, "... h n d -> ... n (h d)") @ weight,
        ),
        Mistake(
            "The heads are averaged; they should add up.",
            lambda mixed, weight: _join(mixed, weight) / mixed.shape[-3],
        ),
        Mistake(
            "The heads are merged and not multiplied by the matrix.",
            lambda mixed, weight: rearrange(mixed, "... h n d -> ... n (h d)"),
        ),
    ),
    hints=(
        "Two steps: merge the heads into one long vector for each token, then one product.",
        '`rearrange(mixed, "... h n d -> ... n (h d)")` puts the heads side by side.',
        "A linear layer computes `vectors @ weight.T`.",
    ),
    verified="right with and without a leading axis, the gradients too.",
)


# Shared keys and values.


def _heads_and_shared() -> list[Arguments]:
    small = [
        torch.tensor([[[1.0]], [[2.0]], [[1.0]], [[2.0]]]),
        torch.tensor([[[0.0], [1.0]], [[1.0], [0.0]]]),
        torch.tensor([[[0.0], [1.0]], [[5.0], [7.0]]]),
    ]
    triples = [
        small,
        _draw((6, 3, 4), (2, 5, 4), (2, 5, 4), seed=4),
        _draw((2, 8, 4, 9), (2, 4, 4, 9), (2, 4, 4, 9), seed=5),
        _draw((2, 4, 3, 4), (2, 1, 6, 4), (2, 1, 6, 4), seed=6),
        _draw((3, 4, 8), (3, 4, 8), (3, 4, 8), seed=7),
    ]
    names = ("queries", "keys", "values")
    return [dict(zip(names, triple, strict=True)) for triple in triples]


def _attend(queries: Tensor, keys: Tensor, values: Tensor, dim: int = -1) -> Tensor:
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    return scores.softmax(dim) @ values


def _for_each(queries: Tensor, shared: Tensor) -> Tensor:
    """A copy of its key or value head for every query head."""
    return shared.repeat_interleave(queries.shape[-3] // shared.shape[-3], dim=-3)


def _grouped(queries: Tensor, keys: Tensor, values: Tensor, dim: int = -1) -> Tensor:
    return _attend(queries, _for_each(queries, keys), _for_each(queries, values), dim)


def _in_turn(queries: Tensor, shared: Tensor) -> Tensor:
    return torch.cat([shared] * (queries.shape[-3] // shared.shape[-3]), dim=-3)


SHARED = Exercise(
    name="heads.shared",
    inputs=_heads_and_shared,
    solution=_grouped,
    mistakes=(
        Mistake(
            "The query heads read the key heads in turn, 0 1 0 1; heads in a row should share one, "
            "0 0 1 1, as `repeat_interleave` copies them.",
            lambda queries, keys, values: _attend(
                queries, _in_turn(queries, keys), _in_turn(queries, values)
            ),
        ),
        Mistake(
            "The keys are shared in rows, but the values are taken in turn; both need the same "
            "order.",
            lambda queries, keys, values: _attend(
                queries, _for_each(queries, keys), _in_turn(queries, values)
            ),
        ),
        Mistake(
            "All query heads read key head 0; each group has a head of its own.",
            lambda queries, keys, values: _attend(
                queries, keys[..., :1, :, :], values[..., :1, :, :]
            ),
        ),
        Mistake(
            "The key and value heads are averaged into one; each group reads its own.",
            lambda queries, keys, values: _attend(
                queries, keys.mean(-3, keepdim=True), values.mean(-3, keepdim=True)
            ),
        ),
        Mistake(
            "The scores are not divided by the square root of d.",
            lambda queries, keys, values: _grouped(
                queries * math.sqrt(queries.shape[-1]), keys, values
            ),
        ),
        Mistake(
            "The weights sum to 1 over queries; softmax belongs on the keys, the last axis.",
            lambda queries, keys, values: _grouped(queries, keys, values, dim=-2),
        ),
        Mistake(
            "Queries and keys have different numbers of heads, and nothing brings them together; "
            "copy each key head, or split the query heads into groups.",
            _attend,
        ),
    ),
    hints=(
        "A group has `queries.shape[-3] // keys.shape[-3]` query heads.",
        "`keys.repeat_interleave(group, dim=-3)` copies each key head for its group, in a row.",
        "Copy the values the same way. What is left is the attention of lesson 01.",
    ),
    verified="right for multi-head, grouped and multi-query, the gradients too.",
)


# From many heads to few.


def _key_matrices() -> list[Arguments]:
    numbered = torch.arange(16.0)[:, None]
    drawn = _draw((16, 3), (24, 5), (8, 6), (32, 8), seed=8)
    return [{"weight": weight} for weight in (numbered, *drawn)]


def _pooled(weight: Tensor, pattern: str, how: str = "mean") -> Tensor:
    return reduce(weight, pattern, how, kv=2, d=4)


def _average(weight: Tensor) -> Tensor:
    return _pooled(weight, "(kv g d) dim -> (kv d) dim")


AVERAGE = Exercise(
    name="heads.average",
    inputs=_key_matrices,
    solution=_average,
    mistakes=(
        Mistake(
            "The heads are taken in turn, 0 2 and 1 3; a group is a run of heads: the first half, "
            "then the second.",
            lambda weight: _pooled(weight, "(g kv d) dim -> (kv d) dim"),
        ),
        Mistake(
            "The heads of a group are added up; their average is asked for.",
            lambda weight: _pooled(weight, "(kv g d) dim -> (kv d) dim", "sum"),
        ),
        Mistake(
            "Only the first head of each group is kept; all of them belong into the average.",
            lambda weight: rearrange(weight, "(kv g d) dim -> kv g d dim", kv=2, d=4)[:, 0].reshape(
                8, -1
            ),
        ),
        Mistake(
            "Rows of one head are averaged with each other; row i of a head belongs with row i of "
            "the group's other heads.",
            lambda weight: _pooled(weight, "(kv d g) dim -> (kv d) dim"),
        ),
        Mistake(
            "Both heads are the average of all; each is the average of its own half.",
            lambda weight: _pooled(weight, "(kv g d) dim -> d dim").repeat(2, 1),
        ),
    ),
    hints=(
        "The rows are heads of 4 numbers one after another: give the heads an axis first.",
        (
            '`rearrange(weight, "(kv g d) dim -> kv g d dim", kv=2, d=4)` has an axis for the '
            "groups and one for the heads in them."
        ),
        "Average over `g`, with `.mean(dim=1)`, and merge the first two axes that are left.",
    ),
    verified="right for 2, 4, 6 and 8 heads, the gradients too.",
)

EXERCISES = (SPLIT, JOIN, SHARED, AVERAGE)
