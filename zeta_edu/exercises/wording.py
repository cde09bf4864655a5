"""Puts values, types and exceptions into words that fit on a line."""

import traceback
from typing import Any

import torch

LONGEST_MESSAGE = 120
MOST_NUMBERS = 12


def shown(value: Any) -> str:
    """A small value as it would be typed, a large one by its shape.

    >>> shown(torch.tensor([[1.0, 0.25]]))
    '[[1, 0.25]]'
    >>> shown(torch.zeros(5, 7))
    'a tensor of shape (5, 7)'
    """
    if not isinstance(value, torch.Tensor):
        return repr(value)
    if value.numel() > MOST_NUMBERS or value.is_meta:
        return f"a tensor of shape {tuple(value.shape)}"
    return _typed(value.detach().tolist())


def _typed(numbers: Any) -> str:
    if isinstance(numbers, list):
        return "[" + ", ".join(_typed(number) for number in numbers) + "]"
    return f"{numbers:.4g}"


def kind_of(value: object) -> str:
    """The type of a value in words.

    >>> kind_of([1])
    'a value of type list'
    """
    return f"a value of type {type(value).__name__}"


def told(error: BaseException, function: object) -> str:
    """An exception of a learner's function in one sentence, with the line it came from."""
    try:
        words = " ".join(str(error).split())
    except Exception:
        words = ""
    words = words if len(words) <= LONGEST_MESSAGE else words[: LONGEST_MESSAGE - 1] + "…"
    return f"It raises {type(error).__name__}{_line_of(error, function)}" + (
        f": {words}" if words else "."
    )


def _line_of(error: BaseException, function: object) -> str:
    """` in its line 3`, counted from the `def`, where the function's code is known."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    steps = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in steps if frame.f_code is code]
    return f" in its line {lines[-1] - code.co_firstlineno + 1}" if lines else ""
