"""The exercises of lesson 15: what training costs, the roof, ratios of times, a joint gradient."""

import torch
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake

LESSON = "15 faster"


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# The operations of a training.


def _stacks() -> list[Arguments]:
    names = ("n", "depth", "weights", "width")
    sizes = ((3, 2, 5, 1), (512, 6, 950_272, 256), (2048, 12, 3_735_552, 512), (10, 1, 7, 4))
    return [dict(zip(names, map(torch.tensor, size), strict=True)) for size in sizes]


def _operations(n: Tensor, depth: Tensor, weights: Tensor, width: Tensor) -> Tensor:
    return depth * (2 * n * weights + 4 * n * n * width)


OPERATIONS = Exercise(
    name="faster.operations",
    inputs=_stacks,
    solution=lambda *sizes: 3 * _operations(*sizes),
    mistakes=(
        Mistake(
            "This is the forward pass alone; backward takes twice as much again.",
            _operations,
        ),
        Mistake(
            "Backward is counted like forward; it takes twice as much.",
            lambda *sizes: 2 * _operations(*sizes),
        ),
        Mistake(
            "These are multiplications; each comes with an addition, which counts apart.",
            lambda *sizes: 3 * _operations(*sizes) // 2,
        ),
        Mistake(
            "This is one block; the stack has `depth` of them.",
            lambda n, depth, weights, width: 3 * _operations(n, depth // depth, weights, width),
        ),
        Mistake(
            "The pairs of queries and keys are missing: scores and mix.",
            lambda n, depth, weights, width: 3 * _operations(n, depth, weights, 0 * width),
        ),
        Mistake(
            "A pair costs a product for the score and one for the mix; one of the two is missing.",
            lambda n, depth, weights, width: 6 * depth * (n * weights + n * n * width),
        ),
        Mistake(
            "Scores grow with the square of n: every query meets every key.",
            lambda n, depth, weights, width: 3 * depth * (2 * n * weights + 4 * n * width),
        ),
    ),
    hints=(
        "The function `operations` of the lesson counts the forward pass of one block.",
        "The backward pass takes twice the forward pass, so both take three times.",
        "`2 * n * weights` for the matrices and `4 * n * n * width` for the pairs.",
    ),
    verified="right for four stacks of blocks.",
    gradients=False,
)


# The least time of a product.


def _products() -> list[Arguments]:
    names = ("tokens", "d", "size", "peak", "bandwidth")
    drawn = [
        ([1.0, 100.0], 10.0, 4.0, 1000.0, 100.0),
        ([1.0, 16, 64, 256, 1024], 4096.0, 4.0, 1e11, 1e10),
        ([1.0, 16, 256, 4096], 1024.0, 2.0, 3e12, 5e10),
    ]
    return [
        dict(zip(names, (torch.tensor(part, dtype=torch.float64) for part in parts), strict=True))
        for parts in drawn
    ]


def _arithmetic(tokens: Tensor, d: Tensor, peak: Tensor) -> Tensor:
    return 2 * tokens * d * d / peak


def _memory(tokens: Tensor, d: Tensor, size: Tensor, bandwidth: Tensor) -> Tensor:
    return size * (d * d + 2 * tokens * d) / bandwidth


def _longer(one: Tensor, other: Tensor) -> Tensor:
    return torch.maximum(*torch.broadcast_tensors(one, other))


ROOF = Exercise(
    name="faster.roof",
    inputs=_products,
    solution=lambda tokens, d, size, peak, bandwidth: _longer(
        _arithmetic(tokens, d, peak), _memory(tokens, d, size, bandwidth)
    ),
    mistakes=(
        Mistake(
            "This takes the shorter of the two times; the longer one holds the product up.",
            lambda tokens, d, size, peak, bandwidth: torch.minimum(
                _arithmetic(tokens, d, peak), _memory(tokens, d, size, bandwidth)
            ),
        ),
        Mistake(
            "This adds the two times; at best they overlap, and the longer one counts.",
            lambda tokens, d, size, peak, bandwidth: (
                _arithmetic(tokens, d, peak) + _memory(tokens, d, size, bandwidth)
            ),
        ),
        Mistake(
            "This is the time of the arithmetic alone; the bytes have to be moved as well.",
            lambda tokens, d, size, peak, bandwidth: _arithmetic(tokens, d, peak),
        ),
        Mistake(
            "This is the time of the memory alone; with many tokens arithmetic takes longer.",
            lambda tokens, d, size, peak, bandwidth: _memory(tokens, d, size, bandwidth),
        ),
        Mistake(
            "Numbers are counted as bytes; each takes `size` of them.",
            lambda tokens, d, size, peak, bandwidth: _longer(
                _arithmetic(tokens, d, peak), _memory(tokens, d, size / size, bandwidth)
            ),
        ),
        Mistake(
            "Only the matrix is moved here; the tokens and the results are, too.",
            lambda tokens, d, size, peak, bandwidth: _longer(
                _arithmetic(tokens, d, peak), _memory(0 * tokens, d, size, bandwidth)
            ),
        ),
        Mistake(
            "The matrix is moved once for every token; it is moved once for all of them.",
            lambda tokens, d, size, peak, bandwidth: _longer(
                _arithmetic(tokens, d, peak),
                size * tokens * (d * d + 2 * d) / bandwidth,
            ),
        ),
        Mistake(
            "A multiplication and an addition are counted as one; they are two operations.",
            lambda tokens, d, size, peak, bandwidth: _longer(
                _arithmetic(tokens, d, 2 * peak), _memory(tokens, d, size, bandwidth)
            ),
        ),
        Mistake(
            "These are the operations a second that can be reached; seconds are asked for.",
            lambda tokens, d, size, peak, bandwidth: (
                2
                * tokens
                * d**2
                / _longer(_arithmetic(tokens, d, peak), _memory(tokens, d, size, bandwidth))
            ),
        ),
    ),
    hints=(
        "How long would the arithmetic take if no byte had to be moved? And the other way round?",
        "2 · tokens · d² operations; size · (d² + 2 · tokens · d) bytes.",
        "`torch.maximum` takes the longer of the two times, product by product.",
    ),
    verified="right on both sides of the edge, for four bytes and for two.",
    gradients=False,
)


# Ratios of medians.


def _rounds() -> list[Arguments]:
    small = torch.tensor([[9.0, 1.0], [1.0, 3.0], [2.0, 2.0], [4.0, 8.0]])
    drawn = [small]
    for rounds, programs, seed in ((8, 3, 1), (12, 4, 2)):
        (times,) = _draw((rounds, programs), seed=seed)
        times = 1 + times.abs() * torch.arange(1, programs + 1)
        times[0] = 20.0 / torch.arange(1, programs + 1) ** 3  # the warm-up, slow for some only
        drawn.append(times)
    return [{"times": times} for times in drawn]


def _medians(times: Tensor) -> Tensor:
    return times.median(dim=0).values


def _over_first(values: Tensor) -> Tensor:
    return values / values[..., :1]


RATIO = Exercise(
    name="faster.ratio",
    inputs=_rounds,
    solution=lambda times: _over_first(_medians(times[1:])),
    mistakes=(
        Mistake(
            "The warm-up is counted; leave the first round out.",
            lambda times: _over_first(_medians(times)),
        ),
        Mistake(
            "These are ratios of means, which one slow call can move; take medians.",
            lambda times: _over_first(times[1:].mean(dim=0)),
        ),
        Mistake(
            "These are medians, in seconds; divide them by the median of program 0.",
            lambda times: _medians(times[1:]),
        ),
        Mistake(
            "The ratio is upside down: it is how many times as fast, not as long.",
            lambda times: 1 / _over_first(_medians(times[1:])),
        ),
        Mistake(
            "This is the median of the ratios of each round; asked for is the ratio of medians.",
            lambda times: _medians(_over_first(times[1:])),
        ),
        Mistake(
            "These are the shortest times; asked for are the medians.",
            lambda times: _over_first(times[1:].amin(dim=0)),
        ),
        Mistake(
            "The last round is left out; the warm-up is the first.",
            lambda times: _over_first(_medians(times[:-1])),
        ),
        Mistake(
            "The median is taken over programs; take it over rounds, dim=0.",
            lambda times: _over_first(times[1:].median(dim=1).values),
        ),
    ),
    hints=(
        "`times[1:]` is every round but the first.",
        "`.median(dim=0).values` is the median over rounds, one for each program.",
        "Divide all of them by the first.",
    ),
    verified="right for two, three and four programs.",
    gradients=False,
)


# One gradient from those of several processes.


def _processes() -> list[Arguments]:
    first, second = _draw((3, 4), (4, 5), seed=1)
    second[2] = 0  # a process without targets
    drawn = [
        (torch.tensor([[4.0], [1.0]]), torch.tensor([1, 3])),
        (first, torch.tensor([10, 2, 5])),
        (second, torch.tensor([7, 2, 0, 4])),
    ]
    return [dict(zip(("gradients", "targets"), pair, strict=True)) for pair in drawn]


def _sums(gradients: Tensor, targets: Tensor) -> Tensor:
    return (gradients * targets[:, None]).sum(dim=0)


AVERAGE = Exercise(
    name="faster.average",
    inputs=_processes,
    solution=lambda gradients, targets: _sums(gradients, targets) / targets.sum(),
    mistakes=(
        Mistake(
            "This is the mean of means; a process with more targets has to count more.",
            lambda gradients, targets: gradients.mean(dim=0),
        ),
        Mistake(
            "This is the gradient of the sum of all losses; divide by the number of targets.",
            _sums,
        ),
        Mistake(
            "This is divided by the number of processes; divide by that of all targets.",
            lambda gradients, targets: _sums(gradients, targets) / len(targets),
        ),
        Mistake(
            "The gradients are added up as they come; each counts by its share of the targets.",
            lambda gradients, targets: gradients.sum(dim=0) + 0 * targets.sum(),
        ),
        Mistake(
            "Means are added up and divided by all targets; multiply each by its own targets "
            "first.",
            lambda gradients, targets: gradients.sum(dim=0) / targets.sum(),
        ),
        Mistake(
            "There is a gradient for each process still; add them up.",
            lambda gradients, targets: gradients * targets[:, None] / targets.sum(),
        ),
    ),
    hints=(
        "A mean times its number of targets is a sum, and the sums of all processes add up.",
        "`targets[:, None]` is a column, one number for each process.",
        "Divide what you have added up by `targets.sum()`.",
    ),
    verified="right for two to four processes, also where one has no targets; gradients too.",
)

EXERCISES = (OPERATIONS, ROOF, RATIO, AVERAGE)
