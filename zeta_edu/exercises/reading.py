"""The exercises of lesson 14: a score with its control, open brackets, a mean, written lengths."""

from collections.abc import Callable

import torch
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "14 reading a real model"


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _weights(*shape: int, seed: int) -> Tensor:
    """Causal weights (..., n, n) whose rows sum to 1."""
    later = torch.ones(shape[-1], shape[-1]).triu(1).bool()
    return _draw(*shape, seed=seed).masked_fill(later, -torch.inf).softmax(dim=-1)


# The score of a habit, less the score of the same places in the next text.


def _tables_and_triples() -> list[Arguments]:
    drawn = (
        ((2, 1, 3, 3), [[0, 2, 0], [1, 1, 0]], 1),
        ((3, 2, 4, 4), [[0, 3, 1], [2, 2, 0], [1, 3, 2], [1, 2, 1]], 2),
        ((5, 3, 6, 6), [[4, 5, 0], [0, 3, 2], [2, 4, 1], [3, 5, 3], [1, 1, 0]], 3),
    )
    return [
        {"weights": _weights(*shape, seed=seed), "triples": torch.tensor(triples)}
        for shape, triples, seed in drawn
    ]


def _at(weights: Tensor, triples: Tensor, shift: int = 0) -> Tensor:
    text, query, key = triples.unbind(-1)
    return weights[(text + shift) % len(weights), :, query, key]  # (triple, heads)


def _lift(weights: Tensor, triples: Tensor) -> Tensor:
    return (_at(weights, triples) - _at(weights, triples, 1)).mean(dim=0)


LIFT = Exercise(
    name="reading.lift",
    inputs=_tables_and_triples,
    solution=_lift,
    mistakes=(
        Mistake(
            "This is the score alone; take off the control, the same places in the next text.",
            lambda weights, triples: _at(weights, triples).mean(dim=0),
        ),
        Mistake(
            "This is the control less the score; a head that follows the habit is above 0.",
            lambda weights, triples: -_lift(weights, triples),
        ),
        Mistake(
            "Query and key are exchanged: a triple is text, query, key.",
            lambda weights, triples: _lift(weights.mT, triples),
        ),
        Mistake(
            "The control is taken from the text before; the next one is asked for.",
            lambda weights, triples: (_at(weights, triples) - _at(weights, triples, -1)).mean(0),
        ),
        Mistake(
            "The last text has no next one here; after it comes text 0 again, with `%`.",
            lambda weights, triples: (
                _at(weights, triples)
                - weights[(triples[:, 0] + 1), :, triples[:, 1], triples[:, 2]]
            ).mean(dim=0),
        ),
        Mistake(
            "The heads are averaged too; each should have a number of its own.",
            lambda weights, triples: _lift(weights, triples).mean(),
        ),
        Mistake(
            "These are sums; divide by the number of triples.",
            lambda weights, triples: _lift(weights, triples) * len(triples),
        ),
        Mistake(
            "This is the score divided by the control; subtract it.",
            lambda weights, triples: (
                _at(weights, triples).mean(dim=0) / _at(weights, triples, 1).mean(dim=0)
            ),
        ),
    ),
    hints=(
        "`text, query, key = triples.unbind(-1)` gives three rows of numbers, one for each place.",
        "`weights[text, :, query, key]` is (triple, head): the attention at each of the places.",
        "For the control put `(text + 1) % len(weights)` for text; subtract the two means.",
    ),
    verified="right for one, two and three heads, also after the last text; the gradients too.",
)


# The innermost open bracket, by a stack.


def _steps() -> list[Arguments]:
    lines = (
        [1, 0, -1],
        [0, 1, 0, 1, 0, -1, 0, -1, 0],
        [1, 1, 1, 0, -1, 0, -1, 1, -1, 0, -1, 0],
        [0, 1, -1, 0, 1, 0, 1, -1, 0, 0, -1, 1, 0],
    )
    return [{"steps": torch.tensor(line)} for line in lines]


def _walk(steps: Tensor, answer: Callable[[list[int]], int], late: bool = False) -> Tensor:
    """An answer from the stack at every place, before the place's own step where it is late."""
    stack: list[int] = []
    found = []
    for place, step in enumerate(steps.tolist()):
        before = list(stack)
        if step > 0:
            stack.append(place)
        if step < 0:
            stack.pop()
        found.append(answer(before if late else stack))
    return torch.tensor(found)


def _nearest(steps: Tensor) -> Tensor:
    """The last opening bracket, closed or not."""
    places = torch.where(steps > 0, torch.arange(len(steps)), -1)
    return places.cummax(dim=0).values


OPEN = Exercise(
    name="reading.open",
    inputs=_steps,
    solution=lambda steps: _walk(steps, lambda stack: stack[-1] if stack else -1),
    mistakes=(
        Mistake(
            "This is the last opening bracket, open or not; one that is closed does not count.",
            _nearest,
        ),
        Mistake(
            "This is the outermost open bracket; the innermost is the one opened last.",
            lambda steps: _walk(steps, lambda stack: stack[0] if stack else -1),
        ),
        Mistake(
            "A place's own bracket comes too late: at a closing bracket its pair is closed.",
            lambda steps: _walk(steps, lambda stack: stack[-1] if stack else -1, late=True),
        ),
        Mistake(
            "This says how many brackets are open; asked is the place of the innermost one.",
            lambda steps: steps.cumsum(dim=0),
        ),
        Mistake(
            "The −1 is missing where no bracket is open.",
            lambda steps: _walk(steps, lambda stack: stack[-1] if stack else 0),
        ),
    ),
    hints=(
        "Keep a list of the places of open brackets while you go along the line.",
        "An opening bracket appends its place, a closing one pops the last.",
        "After that step the answer is the last entry of the list, or −1 when it is empty.",
    ),
    verified="right for nested brackets, for pairs in a row, and outside of all.",
)


# A head replaced by its mean.


def _mixes() -> list[Arguments]:
    drawn = (
        ((1, 2, 2, 1), [False, True]),
        ((3, 2, 4, 2), [True, False]),
        ((2, 4, 3, 5), [True, False, True, False]),
    )
    return [
        {"mixed": _draw(*shape, seed=sum(shape)), "silent": torch.tensor(silent)}
        for shape, silent in drawn
    ]


def _replaced(mixed: Tensor, silent: Tensor, by: Tensor) -> Tensor:
    return torch.where(silent[:, None, None], by, mixed)


MEAN = Exercise(
    name="reading.mean",
    inputs=_mixes,
    solution=lambda mixed, silent: _replaced(mixed, silent, mixed.mean((0, 2), keepdim=True)),
    mistakes=(
        Mistake(
            "The heads are set to 0; put their mean there.",
            lambda mixed, silent: _replaced(mixed, silent, torch.zeros_like(mixed)),
        ),
        Mistake(
            "The other heads are replaced; `silent` is true for those that shall be.",
            lambda mixed, silent: _replaced(mixed, ~silent, mixed.mean((0, 2), keepdim=True)),
        ),
        Mistake(
            "Each text has a mean of its own here; take it over texts and places together.",
            lambda mixed, silent: _replaced(mixed, silent, mixed.mean(2, keepdim=True)),
        ),
        Mistake(
            "Each place has a mean of its own here; take it over texts and places together.",
            lambda mixed, silent: _replaced(mixed, silent, mixed.mean(0, keepdim=True)),
        ),
        Mistake(
            "The features are averaged too; a mean has dim_head numbers, one for each.",
            lambda mixed, silent: _replaced(mixed, silent, mixed.mean((0, 2, 3), keepdim=True)),
        ),
        Mistake(
            "The heads are averaged with each other; each has a mean of its own.",
            lambda mixed, silent: _replaced(mixed, silent, mixed.mean((0, 1, 2), keepdim=True)),
        ),
    ),
    hints=(
        "The axes are batch, head, place, feature; the mean runs over batch and place.",
        "`mixed.mean(dim=(0, 2), keepdim=True)` is (1, heads, 1, dim_head).",
        "`torch.where(silent[:, None, None], mean, mixed)` chooses head by head.",
    ),
    verified="right for one head switched off and for two, the gradients too.",
)


# Attention weighed by the length of what it hands over.


def _weights_values_columns() -> list[Arguments]:
    drawn: list[Arguments] = []
    for heads, n, d, dim, seed in ((1, 2, 2, 2, 1), (2, 4, 3, 5, 2), (3, 6, 2, 4, 3)):
        values = _draw(heads, n, d, seed=seed) + 1.0
        columns = _draw(heads, d, dim, seed=seed + 10)
        weights = _weights(heads, n, n, seed=seed + 20)
        drawn.append({"weights": weights, "values": values, "columns": columns})
    return drawn


def _shares(sizes: Tensor, dim: int = -1) -> Tensor:
    return sizes / sizes.sum(dim=dim, keepdim=True)


def _sizes(weights: Tensor, values: Tensor, columns: Tensor) -> Tensor:
    return weights * (values @ columns).norm(dim=-1)[:, None]


LENGTHS = Exercise(
    name="reading.lengths",
    inputs=_weights_values_columns,
    solution=lambda weights, values, columns: _shares(_sizes(weights, values, columns)),
    mistakes=(
        Mistake(
            "The columns of `attn_out` are left out; the length is that of values @ columns.",
            lambda weights, values, columns: _shares(weights * values.norm(dim=-1)[:, None]),
        ),
        Mistake(
            "These are lengths; divide by their sum over the keys, so that each row sums to 1.",
            _sizes,
        ),
        Mistake(
            "The sums run over the queries; every query's own keys should sum to 1.",
            lambda weights, values, columns: _shares(_sizes(weights, values, columns), dim=-2),
        ),
        Mistake(
            "The lengths stand at the queries; they belong to the keys, which lie in columns.",
            lambda weights, values, columns: _shares(
                weights * (values @ columns).norm(dim=-1)[..., None]
            ),
        ),
        Mistake(
            "The lengths are squared here; take the norm itself.",
            lambda weights, values, columns: _shares(
                weights * (values @ columns).square().sum(dim=-1)[:, None]
            ),
        ),
        Mistake(
            "A softmax of the lengths is no share; divide by their sum.",
            lambda weights, values, columns: _sizes(weights, values, columns).softmax(dim=-1),
        ),
    ),
    hints=(
        "What key j hands over, before it is weighed, is `(values @ columns)[:, j]`.",
        "Its length is `.norm(dim=-1)`, (head, n); `[:, None]` lays it along the keys.",
        "Multiply by the weights, and divide every row by its sum.",
    ),
    verified="right for one, two and three heads, the gradients too.",
)

EXERCISES = (LIFT, OPEN, MEAN, LENGTHS)
