"""Turns a learner's function into a verdict: not started, not yet (and why), or done."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake
from zeta_edu.exercises.running import Outcome, call_safely
from zeta_edu.exercises.wording import kind_of, shown, told

NO_GRADIENT = (
    "The numbers are right, but no gradient reaches {name}: a step leaves the graph, as "
    "`.detach()`, `.item()`, `torch.tensor(...)` and numpy do."
)


@dataclass(frozen=True)
class Verdict:
    """What `check` says.

    Args:
        status: one of the three verdicts.
        message: what is wrong, or what was verified.
        details: further lines: the smallest input that shows it, what was printed.
    """

    status: Literal["not started", "not yet", "done"]
    message: str
    details: tuple[str, ...] = ()


def judge(exercise: Exercise, function: object) -> Verdict:
    """Try a learner's function on every input of an exercise.

    Args:
        exercise: the exercise.
        function: the learner's answer, of any type; only a callable can be right.

    Returns:
        The verdict. Nothing that the function does makes this raise or hang.
    """
    if not callable(function):
        return Verdict("not yet", f"check takes the function itself, and came {kind_of(function)}.")
    inputs, outcomes = exercise.inputs(), []
    for arguments in inputs:
        outcomes.append(call_safely(function, arguments, exercise.seconds))
        if _is_untouched(outcomes[-1]):
            return Verdict("not started", "replace the dots with your code, then run it again.")
        if not outcomes[-1].finished:
            break
    verdict = _verdict_on(exercise, function, inputs, outcomes)
    printed = sum(outcome.printed for outcome in outcomes)
    return _with_note_on_printing(verdict, printed)


def _is_untouched(outcome: Outcome) -> bool:
    return outcome.value is Ellipsis or isinstance(outcome.error, NotImplementedError)


def _verdict_on(
    exercise: Exercise,
    function: Callable[..., Any],
    inputs: list[Arguments],
    outcomes: list[Outcome],
) -> Verdict:
    for arguments, outcome in zip(inputs, outcomes, strict=False):
        fault = _misbehaviour(exercise, outcome) or _difference(exercise, arguments, outcome)
        if fault is None:
            continue
        mistake = _recognised(exercise, inputs, outcomes)
        if mistake is not None:
            fault = mistake.message
        elif outcome.error is not None:
            fault = told(outcome.error, function)
        return Verdict("not yet", fault, (_smallest(exercise, arguments, outcome),))
    fault = _gradient_fault(exercise, function, inputs) if exercise.gradients else None
    return Verdict("not yet", fault) if fault else Verdict("done", exercise.verified)


def _misbehaviour(exercise: Exercise, outcome: Outcome) -> str | None:
    if not outcome.finished:
        still = "" if outcome.stopped else " It is still running: restart the kernel to end it."
        return f"It did not finish within {exercise.seconds:g} seconds; look for a loop.{still}"
    if outcome.edited:
        return f"It changes its argument {outcome.edited}; work on a new tensor instead."
    return None


def _difference(exercise: Exercise, arguments: Arguments, outcome: Outcome) -> str | None:
    """Say how an answer differs from the right one, or None when it does not."""
    if outcome.error is not None:
        return "It raises an exception."
    try:
        return _compare(outcome.value, exercise.solution(*arguments.values()))
    except Exception:
        return "It returns a tensor that cannot be compared with the expected one."


def _compare(value: Any, right: torch.Tensor) -> str | None:
    if value is None:
        return "It returns None; a `return` is missing."
    if not isinstance(value, torch.Tensor):
        return f"It returns {kind_of(value)}; a tensor is expected."
    if value.shape != right.shape:
        return f"It returns the shape {tuple(value.shape)}; expected is {tuple(right.shape)}."
    if value.dtype != right.dtype:
        return f"It returns {value.dtype}; expected is {right.dtype}, as in its arguments."
    if _close(value, right):
        return None
    if value.isnan().any():
        return "Its result has NaN, which is what 0/0 and inf − inf give."
    return "Its numbers are not the expected ones."


def _close(value: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.allclose(value, right, rtol=1e-4, atol=1e-6, equal_nan=True)


def _recognised(
    exercise: Exercise, inputs: list[Arguments], outcomes: list[Outcome]
) -> Mistake | None:
    """The catalogued mistake that behaves like these outcomes on every input, if there is one."""
    if len(outcomes) < len(inputs) or any(outcome.edited for outcome in outcomes):
        return None
    for mistake in exercise.mistakes:
        pairs = zip(inputs, outcomes, strict=True)
        if all(_behaves_alike(mistake.answer, arguments, seen) for arguments, seen in pairs):
            return mistake
    return None


def _behaves_alike(answer: Callable[..., Any], arguments: Arguments, seen: Outcome) -> bool:
    try:
        value = answer(*arguments.values())
    except Exception as error:
        return type(error) is type(seen.error)
    try:
        return seen.error is None and seen.value.shape == value.shape and _close(seen.value, value)
    except Exception:
        return False


def _gradient_fault(
    exercise: Exercise, function: Callable[..., Any], inputs: list[Arguments]
) -> str | None:
    for arguments in inputs:
        tracked = {name: _tracked(value) for name, value in arguments.items()}
        names = [name for name, value in tracked.items() if _has_gradient(value)]
        outcome = call_safely(_gradients_of(function), tracked, exercise.seconds)
        if outcome.error is not None or not outcome.finished:
            return "The numbers are right, but the gradient cannot be taken through it."
        right = _gradients_of(exercise.solution)(*tracked.values())
        for name, mine, expected in zip(names, outcome.value, right, strict=True):
            if mine is None and expected is not None:
                return NO_GRADIENT.format(name=name)
            if expected is not None and not _close(mine, expected):
                return f"The numbers are right, but the gradient for {name} is not."
    return None


def _tracked(value: Any) -> Any:
    return value.clone().requires_grad_() if _has_gradient(value) else value


def _has_gradient(value: Any) -> bool:
    """A mask of truth values, or token numbers, have none."""
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _gradients_of(function: Callable[..., Any]) -> Callable[..., list[torch.Tensor | None]]:
    """A function that returns the gradients of a fixed mixture of `function`'s outputs."""

    def gradients(*arguments: Any) -> list[torch.Tensor | None]:
        tensors = [value for value in arguments if _has_gradient(value)]
        output = function(*arguments)
        if not output.requires_grad:
            return [None] * len(tensors)
        mixture = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
        return list(torch.autograd.grad((output * mixture).sum(), tensors, allow_unused=True))

    return gradients


def _smallest(exercise: Exercise, arguments: Arguments, outcome: Outcome) -> str:
    given = ", ".join(f"{name} = {shown(value)}" for name, value in arguments.items())
    expected = shown(exercise.solution(*arguments.values()))
    if not isinstance(outcome.value, torch.Tensor):
        return f"Smallest input: {given}. Expected: {expected}."
    return f"Smallest input: {given}. Expected: {expected}. Came: {shown(outcome.value)}."


def _with_note_on_printing(verdict: Verdict, characters: int) -> Verdict:
    if characters == 0:
        return verdict
    note = f"What it printed ({characters:,} characters) is left out here; call it to see that."
    return Verdict(verdict.status, verdict.message, (*verdict.details, note))
