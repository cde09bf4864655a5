"""The exercises of lesson 11: all weights, the keys of a head, the gain folded, the right order."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "11 the block"
HEADS, KV_HEADS, DIM_HEAD = 4, 2, 3  # as the task of the keys says


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# How many weights a block has.


def _sizes() -> list[Arguments]:
    names = ("dim", "dim_head", "heads", "kv_heads", "ff_mult")
    return [
        dict(zip(names, map(torch.tensor, sizes), strict=True))
        for sizes in ((10, 2, 2, 1, 1), (512, 64, 8, 1, 4), (192, 32, 6, 3, 2), (12, 4, 4, 2, 3))
    ]


def _count(dim: Tensor, dim_head: Tensor, heads: Tensor, kv_heads: Tensor, mult: Tensor) -> Tensor:
    inner = dim * mult
    rows = (heads + 2 * kv_heads) * dim_head + 2 * inner
    return dim + rows * dim + dim * heads * dim_head + dim * inner


COUNT = Exercise(
    name="block.count",
    inputs=_sizes,
    solution=_count,
    mistakes=(
        Mistake(
            "Keys and values are counted for every query head; there are kv_heads of them.",
            lambda dim, d, heads, kv_heads, mult: _count(dim, d, heads, heads, mult),
        ),
        Mistake(
            "Keys and values have rows of their own, both; one of the two is missing.",
            lambda dim, d, heads, kv_heads, mult: (
                _count(dim, d, heads, kv_heads, mult) - dim * kv_heads * d
            ),
        ),
        Mistake(
            "The feed-forward has a value, a gate and a way out for each inner feature; one of the "
            "three is missing.",
            lambda dim, d, heads, kv_heads, mult: (
                _count(dim, d, heads, kv_heads, mult) - dim * dim * mult
            ),
        ),
        Mistake(
            "The matrix out, behind the merged heads, is missing.",
            lambda dim, d, heads, kv_heads, mult: (
                _count(dim, d, heads, kv_heads, mult) - dim * heads * d
            ),
        ),
        Mistake(
            "The gain of the norm is missing: one number for each feature.",
            lambda dim, d, heads, kv_heads, mult: _count(dim, d, heads, kv_heads, mult) - dim,
        ),
        Mistake(
            "The norm has a gain and no bias; here it has both.",
            lambda dim, d, heads, kv_heads, mult: _count(dim, d, heads, kv_heads, mult) + dim,
        ),
        Mistake(
            "These are the rows of the fused matrix alone; each has dim weights, and more follows.",
            lambda dim, d, heads, kv_heads, mult: (heads + 2 * kv_heads) * d + 2 * dim * mult,
        ),
    ),
    hints=(
        "A gain, the fused matrix, the matrix out, and the last one of the feed-forward half.",
        "The fused matrix has a row for each number of q, k, v, and two for each inner feature.",
        "Inner features are `dim * ff_mult`; queries take `heads * dim_head` rows.",
    ),
    verified="right for four blocks, the one of the lesson among them: 3,736,064.",
    gradients=False,
)


# The rows of the fused matrix that make the keys of one query head.


def _matrices_and_heads() -> list[Arguments]:
    drawn = [(26, 1, 2), (28, 4, 1), (32, 5, 3), (40, 6, 0)]  # rows, dim, head
    return [
        {"fused": _draw((rows, dim), seed=rows)[0], "head": torch.tensor(head)}
        for rows, dim, head in drawn
    ]


def _rows(fused: Tensor, first: Tensor | int, head: Tensor) -> Tensor:
    """The rows of a head, counted from where its kind begins."""
    start = int(first + head * DIM_HEAD)
    return fused[start : start + DIM_HEAD]


_GROUP = HEADS // KV_HEADS
_KEYS, _VALUES = HEADS * DIM_HEAD, (HEADS + KV_HEADS) * DIM_HEAD

KEYS = Exercise(
    name="block.keys",
    inputs=_matrices_and_heads,
    solution=lambda fused, head: _rows(fused, _KEYS, head // _GROUP),
    mistakes=(
        Mistake(
            "These rows make the queries of that head.",
            lambda fused, head: _rows(fused, 0, head),
        ),
        Mistake(
            "These rows make the values that the head reads; keys come before values.",
            lambda fused, head: _rows(fused, _VALUES, head // _GROUP),
        ),
        Mistake(
            "This gives every query head a key head of its own; two in a row share one.",
            lambda fused, head: _rows(fused, _KEYS, head),
        ),
        Mistake(
            "Key heads are read in turn here; query heads 0 and 1 read the first, 2 and 3 the "
            "second.",
            lambda fused, head: _rows(fused, _KEYS, head % KV_HEADS),
        ),
        Mistake(
            "The keys begin behind all the queries; this counts from the first row.",
            lambda fused, head: _rows(fused, 0, head // _GROUP),
        ),
        Mistake(
            "These are the rows of both key heads.",
            lambda fused, head: fused[_KEYS:_VALUES] + 0 * head,
        ),
        Mistake(
            "This is transposed; the rows of the matrix stay rows.",
            lambda fused, head: _rows(fused, _KEYS, head // _GROUP).T,
        ),
    ),
    hints=(
        "Where do the keys begin? Four heads of three queries come first.",
        "Query heads 0 and 1 read key head 0, and 2 and 3 read key head 1: `head // 2`.",
        "The first row is 4 · 3 + (head // 2) · 3.",
    ),
    verified="right for all four heads.",
    gradients=False,
)


# The gain of the norm, moved into the matrix behind it.


def _matrices_and_gains() -> list[Arguments]:
    drawn = [
        [torch.tensor([[1.0, 1.0], [3.0, 0.0]]), torch.tensor([2.0, 5.0])],
        _draw((4, 4), (4,), seed=1),
        _draw((7, 3), (3,), seed=2),
    ]
    return [dict(zip(("fused", "gamma"), tensors, strict=True)) for tensors in drawn]


FOLD = Exercise(
    name="block.fold",
    inputs=_matrices_and_gains,
    solution=lambda fused, gamma: fused * gamma,
    mistakes=(
        Mistake(
            "The gain is multiplied into the rows; a feature of x meets a column.",
            lambda fused, gamma: fused * gamma[:, None],
        ),
        Mistake(
            "The matrix is divided by the gain; with a gain of ones it must do its work itself.",
            lambda fused, gamma: fused / gamma,
        ),
        Mistake(
            "The matrix is as it was; the gain is lost.",
            lambda fused, gamma: fused + 0 * gamma,
        ),
        Mistake(
            "The gain is in it twice.",
            lambda fused, gamma: fused * gamma**2,
        ),
        Mistake(
            "The gain is added; it is a factor.",
            lambda fused, gamma: fused + gamma,
        ),
        Mistake(
            "This is what the matrix makes of the gain, a vector; a matrix is asked for.",
            lambda fused, gamma: fused @ gamma,
        ),
        Mistake(
            "This is transposed; the rows of the matrix stay rows.",
            lambda fused, gamma: (fused * gamma).T,
        ),
    ),
    hints=(
        "Row i of the result is the sum over j of fused[i, j] · gamma[j] · normed[j].",
        "So entry (i, j) of the new matrix is fused[i, j] · gamma[j].",
        "A tensor (dim,) stretches along the rows of a (rows, dim) by itself.",
    ),
    verified="right for square matrices and others, the gradients too.",
)


# qk norm and rotation, in the right order.


def _queries() -> list[Arguments]:
    inputs: list[Arguments] = []
    for n, half, seed in ((1, 1, 3), (4, 4, 4), (5, 3, 5)):
        q, scale, angles = _draw((n, 2 * half), (2 * half,), (n, half), seed=seed)
        if half == 1:
            q, scale, angles = torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]), angles + 0.5
        inputs.append({"q": q, "scale": scale, "cos": angles.cos(), "sin": angles.sin()})
    return inputs


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _turned_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x[..., 0::2], x[..., 1::2]
    pairs = [first * cos - second * sin, second * cos + first * sin]
    return rearrange(pairs, "two ... half -> ... (half two)")


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


PLACE = Exercise(
    name="block.place",
    inputs=_queries,
    solution=lambda q, scale, cos, sin: _turned(_unit(q) * scale, cos, sin),
    mistakes=(
        Mistake(
            "The scale comes after the rotation; it belongs to features that are not yet mixed.",
            lambda q, scale, cos, sin: _turned(_unit(q), cos, sin) * scale,
        ),
        Mistake(
            "The length is taken after the scale, which then only changes the direction.",
            lambda q, scale, cos, sin: _turned(_unit(q * scale), cos, sin),
        ),
        Mistake(
            "The learned scale is missing.",
            lambda q, scale, cos, sin: _turned(_unit(q), cos, sin) + 0 * scale,
        ),
        Mistake(
            "The queries keep their own length; divide by it first.",
            lambda q, scale, cos, sin: _turned(q * scale, cos, sin),
        ),
        Mistake(
            "The rotation is missing.",
            lambda q, scale, cos, sin: _unit(q) * scale + 0 * (cos + sin).sum(),
        ),
        Mistake(
            "The rotation goes the wrong way: look at the signs of the sines.",
            lambda q, scale, cos, sin: _turned(_unit(q) * scale, cos, -sin),
        ),
        Mistake(
            "Neighbours are turned as pairs; here feature i goes with feature i + d/2.",
            lambda q, scale, cos, sin: _turned_neighbours(_unit(q) * scale, cos, sin),
        ),
        Mistake(
            "The length is taken over the tokens; each query has one of its own.",
            lambda q, scale, cos, sin: _turned(F.normalize(q, dim=0) * scale, cos, sin),
        ),
    ),
    hints=(
        "The three steps in the order of the sentence: each works on what the one before gave.",
        "`F.normalize(q, dim=-1)` divides each query by its length; then times `scale`.",
        "Cut that in two with `chunk(2, dim=-1)`, and turn each pair as `rotate` does.",
    ),
    verified="right for d = 2, 6 and 8, the gradients too.",
)

EXERCISES = (COUNT, KEYS, FOLD, PLACE)
