"""The exercises of lesson 08: a total rescaled, a row recovered, two halves merged, a gradient."""

import torch
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "08 flash attention"


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# The total, one tile later.


def _states_and_scores() -> list[Arguments]:
    maximum, scores = _draw((3, 1), (3, 4), seed=1)
    drawn = [
        [torch.tensor([[0.0]]), torch.tensor([[1.0]]), torch.tensor([[2.0, 1.0]])],
        [torch.full((2, 1), -torch.inf), torch.zeros(2, 1), 2 * scores[:2]],
        [maximum, maximum.exp() + 1, 2 * scores],
        [torch.tensor([[1000.0], [3.0]]), torch.tensor([[1.5], [2.5]]), 3 + scores[:2]],
    ]
    names = ("maximum", "total", "scores")
    return [dict(zip(names, inputs, strict=True)) for inputs in drawn]


def _top(scores: Tensor) -> Tensor:
    return scores.amax(-1, keepdim=True)


def _grown(maximum: Tensor, scores: Tensor) -> Tensor:
    return torch.maximum(maximum, _top(scores))


def _powers(scores: Tensor, origin: Tensor) -> Tensor:
    """The sum of the powers of a tile's scores, measured from `origin`."""
    return (scores - origin).exp().sum(-1, keepdim=True)


def _rescale(maximum: Tensor, scores: Tensor) -> Tensor:
    return (maximum - _grown(maximum, scores)).exp()


def _new(maximum: Tensor, scores: Tensor) -> Tensor:
    return _powers(scores, _grown(maximum, scores))


def _total(maximum: Tensor, total: Tensor, scores: Tensor) -> Tensor:
    return total * _rescale(maximum, scores) + _new(maximum, scores)


TOTAL = Exercise(
    name="flash.total",
    inputs=_states_and_scores,
    solution=_total,
    mistakes=(
        Mistake(
            "The old total is not rescaled; its powers were measured from the old maximum.",
            lambda maximum, total, scores: total + _new(maximum, scores),
        ),
        Mistake(
            "The factor is upside down: it is exp(old maximum − new maximum), at most 1.",
            lambda maximum, total, scores: (
                total / _rescale(maximum, scores) + _new(maximum, scores)
            ),
        ),
        Mistake(
            "The new powers are rescaled too; they are measured from the new maximum already.",
            lambda maximum, total, scores: (
                (total + _new(maximum, scores)) * _rescale(maximum, scores)
            ),
        ),
        Mistake(
            "The powers are measured from the tile's own maximum; the old one may be larger.",
            lambda maximum, total, scores: (
                total * (maximum - _top(scores)).exp() + _powers(scores, _top(scores))
            ),
        ),
        Mistake(
            "The scores are summed without exp; the total is a sum of powers.",
            lambda maximum, total, scores: (
                total * _rescale(maximum, scores)
                + (scores - _grown(maximum, scores)).sum(-1, keepdim=True)
            ),
        ),
    ),
    hints=(
        "Find the new maximum first: the larger of the old one and the tile's.",
        "Everything in the old total is wrong by one factor, exp(old maximum − new maximum).",
        "To the rescaled total add the new powers: `(scores - new).exp().sum(-1, keepdim=True)`.",
    ),
    verified="right for a first tile, for a tile with and without a new maximum, and at 1000.",
    gradients=False,
)


# A row of weights from its log-sum-exp.


def _queries_keys_logs() -> list[Arguments]:
    pairs = [
        [torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([[1.0, 0, 0, 0], [3.0, 0, 0, 0]])],
        _draw((3, 9), (5, 9), seed=2),
        [4 * part for part in _draw((4, 16), (4, 16), seed=3)],
    ]
    return [{"queries": q, "keys": k, "log_sum_exp": _scaled(q, k).logsumexp(-1)} for q, k in pairs]


def _scaled(queries: Tensor, keys: Tensor) -> Tensor:
    return queries @ keys.T / queries.shape[-1] ** 0.5


def _row(queries: Tensor, keys: Tensor, log_sum_exp: Tensor) -> Tensor:
    return (_scaled(queries, keys) - log_sum_exp[:, None]).exp()


ROW = Exercise(
    name="flash.row",
    inputs=_queries_keys_logs,
    solution=_row,
    mistakes=(
        Mistake(
            "The scores are not scaled; divide them by the square root of d.",
            lambda queries, keys, log_sum_exp: (queries @ keys.T - log_sum_exp[:, None]).exp(),
        ),
        Mistake(
            "The powers are divided by the log-sum-exp; it is a logarithm, so divide by its exp.",
            lambda queries, keys, log_sum_exp: _scaled(queries, keys).exp() / log_sum_exp[:, None],
        ),
        Mistake(
            "These are the logarithms of the weights; exp is missing.",
            lambda queries, keys, log_sum_exp: _scaled(queries, keys) - log_sum_exp[:, None],
        ),
        Mistake(
            "The log-sum-exp is added; subtracting it is dividing by the sum.",
            lambda queries, keys, log_sum_exp: (
                _scaled(queries, keys) + log_sum_exp[:, None]
            ).exp(),
        ),
        Mistake(
            "Each key gets a log-sum-exp; it belongs to the query: `log_sum_exp[:, None]`.",
            lambda queries, keys, log_sum_exp: (_scaled(queries, keys) - log_sum_exp).exp(),
        ),
    ),
    hints=(
        "A weight is exp(score) divided by the row's sum of exp(score).",
        "The sum is exp(log_sum_exp), and dividing powers is subtracting exponents.",
        "`(scores - log_sum_exp[:, None]).exp()`, with the scores scaled as in attention.",
    ),
    verified="right for 4, 9 and 16 features, the gradients too.",
)


# Two halves of the keys.


def _halves() -> list[Arguments]:
    first, second, logs = _draw((3, 4), (3, 4), (2, 3), seed=4)
    drawn = [
        [*torch.tensor([[[8.0]], [[0.0]]]), *torch.tensor([[1.0], [3.0]]).log()],
        [first, second, *(2 * logs)],
        [first, second, *(1000 + logs)],
    ]
    return [
        {"first": one, "first_log": one_log, "second": other, "second_log": other_log}
        for one, other, one_log, other_log in drawn
    ]


def _mix(first: Tensor, one: Tensor, second: Tensor, other: Tensor) -> Tensor:
    return one[:, None] * first + other[:, None] * second


def _merged(first: Tensor, first_log: Tensor, second: Tensor, second_log: Tensor) -> Tensor:
    share = (first_log - second_log).sigmoid()
    return _mix(first, share, second, 1 - share)


MERGE = Exercise(
    name="flash.merge",
    inputs=_halves,
    solution=_merged,
    mistakes=(
        Mistake(
            "The two are averaged; the half with the larger sum should count for more.",
            lambda first, first_log, second, second_log: (first + second) / 2,
        ),
        Mistake(
            "exp overflows at 1000 and leaves NaN; subtract the larger log-sum-exp first.",
            lambda first, first_log, second, second_log: (
                _mix(first, first_log.exp(), second, second_log.exp())
                / (first_log.exp() + second_log.exp())[:, None]
            ),
        ),
        Mistake(
            "The shares are proportional to the log-sum-exps; they should be to their exp.",
            lambda first, first_log, second, second_log: (
                _mix(first, first_log, second, second_log) / (first_log + second_log)[:, None]
            ),
        ),
        Mistake(
            "Each half has the other's share.",
            lambda first, first_log, second, second_log: _merged(
                first, second_log, second, first_log
            ),
        ),
        Mistake(
            "The shares sum to 1 over the queries; for each query the two shares should.",
            lambda first, first_log, second, second_log: _mix(
                first, first_log.softmax(0), second, second_log.softmax(0)
            ),
        ),
        Mistake(
            "The shares do not sum to 1: divide by the sum of both powers, not the larger.",
            lambda first, first_log, second, second_log: _mix(
                first,
                (first_log - torch.maximum(first_log, second_log)).exp(),
                second,
                (second_log - torch.maximum(first_log, second_log)).exp(),
            ),
        ),
    ),
    hints=(
        "Each half has divided by its own sum, exp of its log-sum-exp. What is the sum of both?",
        "The share of the first half is exp(first_log) / (exp(first_log) + exp(second_log)).",
        "A softmax over two numbers: `torch.stack((first_log, second_log)).softmax(dim=0)`.",
    ),
    verified="right also where the log-sum-exps are 1000, the gradients too.",
)


# The gradient of a tile of scores.


def _tiles() -> list[Arguments]:
    hand = [torch.tensor([[0.5, 0.25]]), torch.tensor([[10.0], [30.0]])]
    hand += [torch.tensor([[20.0]]), torch.tensor([[1.0]])]
    drawn = [hand]
    for queries, keys, width, seed in ((3, 4, 2, 5), (4, 4, 6, 6)):
        shapes = (queries, 2 * keys), (2 * keys, width), (queries, width)
        scores, values, grad = _draw(*shapes, seed=seed)
        weights = scores.softmax(-1)
        drawn.append([weights[:, :keys], values[:keys], weights @ values, grad])
    names = ("weights", "values", "out", "grad")
    return [dict(zip(names, inputs, strict=True)) for inputs in drawn]


def _shift(out: Tensor, grad: Tensor) -> Tensor:
    return (grad * out).sum(-1, keepdim=True)


BACKWARD = Exercise(
    name="flash.backward",
    inputs=_tiles,
    solution=lambda weights, values, out, grad: weights * (grad @ values.T - _shift(out, grad)),
    mistakes=(
        Mistake(
            "What softmax subtracts is missing: grad · out, one number for each query.",
            lambda weights, values, out, grad: weights * (grad @ values.T),
        ),
        Mistake(
            "The sum runs over this tile only; over the whole row it is grad · out.",
            lambda weights, values, out, grad: (
                weights * (grad @ values.T - (weights * (grad @ values.T)).sum(-1, keepdim=True))
            ),
        ),
        Mistake(
            "This is the gradient of the weights, less a number; multiply it by the weights.",
            lambda weights, values, out, grad: grad @ values.T - _shift(out, grad),
        ),
        Mistake(
            "grad · out is added; subtract it.",
            lambda weights, values, out, grad: weights * (grad @ values.T + _shift(out, grad)),
        ),
        Mistake(
            "grad · out is subtracted outside the brackets; the weights multiply it too.",
            lambda weights, values, out, grad: weights * (grad @ values.T) - _shift(out, grad),
        ),
        Mistake(
            "grad · out is summed over all queries; each query has its own.",
            lambda weights, values, out, grad: weights * (grad @ values.T - (grad * out).sum()),
        ),
    ),
    hints=(
        "The gradient with respect to the weights is `grad @ values.T`, (query, key).",
        "Softmax gives weight · (that − a number for each query): the sum over the *whole* row.",
        "That number is grad · out: `(grad * out).sum(dim=-1, keepdim=True)`.",
    ),
    verified="right for tiles of 2 and 4 keys whose weights do not sum to 1.",
    gradients=False,
)

EXERCISES = (TOTAL, ROW, MERGE, BACKWARD)
