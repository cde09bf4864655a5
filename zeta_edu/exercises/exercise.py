"""What an exercise is: its inputs, its answer, the mistakes it knows by name, its hints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Arguments = Mapping[str, Any]
"""One input of an exercise: argument names, in the order of the call, and their values."""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that learners give, and the sentence that names it.

    A learner's function makes this mistake when it behaves as `answer` does on every input
    of the exercise: the same values, or the same type of exception.

    Args:
        message: one or two short sentences: what is wrong, and what belongs there.
        answer: the wrong answer itself, a function of the exercise's arguments.
    """

    message: str
    answer: Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """A function to fill in, and what is needed to judge it.

    Args:
        name: the lesson's word, a full stop, the exercise's word: `"attention.scale"`.
        inputs: makes the inputs, the smallest first. Every call makes the same ones.
        solution: a right answer, a function of the exercise's arguments.
        mistakes: the wrong answers known by name.
        hints: sentences that help, from the gentlest to the plainest.
        verified: what a tick means here, one sentence.
        gradients: whether the gradients of the answer are compared too.
        seconds: how long one call may take before it is stopped.
    """

    name: str
    inputs: Callable[[], list[Arguments]]
    solution: Callable[..., Any]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, ...]
    verified: str
    gradients: bool = True
    seconds: float = 5.0
