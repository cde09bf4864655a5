"""The exercises of the lessons: check an answer, ask for a hint, see how far you are.

Examples:
    >>> from zeta_edu.exercises import check
    >>> def scaled_scores(queries, keys):
    ...     return ...
    >>> check("attention.scale", scaled_scores)
    · attention.scale, not started: replace the dots with your code, then run it again.
"""

import difflib

from zeta_edu.exercises import (
    attention,
    block,
    cache,
    faster,
    feedforward,
    flash,
    heads,
    induction,
    length,
    lora,
    masks,
    qk_norm,
    reading,
    rotary,
    start,
    xpos,
)
from zeta_edu.exercises.exercise import Exercise
from zeta_edu.exercises.judging import judge
from zeta_edu.exercises.keeping import done_exercises, keep_done

__all__ = ["check", "hint", "progress"]

LESSONS = (
    start,
    attention,
    heads,
    masks,
    rotary,
    xpos,
    qk_norm,
    feedforward,
    flash,
    cache,
    lora,
    block,
    induction,
    length,
    reading,
    faster,
)
EXERCISES = {exercise.name: exercise for lesson in LESSONS for exercise in lesson.EXERCISES}

_MARKS = {"not started": "·", "not yet": "✗", "done": "✓"}
_hints_given: dict[str, int] = {}


def check(name: str, function: object) -> None:
    """Try your answer to an exercise and print what is right or wrong with it.

    Prints one of three verdicts: not started; not yet, with the mistake by name and the
    smallest input that shows it; or a tick with what was verified. Whatever the function does
    (raise, loop for ever, print without end), the verdict is a sentence.

    Args:
        name: the exercise's name, such as `"attention.scale"`.
        function: your function, without brackets behind its name.

    Raises:
        ValueError: when no exercise has this name.

    >>> check("attention.scale", lambda queries, keys: ...)
    · attention.scale, not started: replace the dots with your code, then run it again.
    """
    verdict = judge(_exercise(name), function)
    print(f"{_MARKS[verdict.status]} {name}, {verdict.status}: {verdict.message}")
    for line in verdict.details:
        print(f"  {line}")
    if verdict.status == "done" and not keep_done(name):
        print("  (Nothing can be written in this folder, so progress() will not know of it.)")


def hint(name: str) -> None:
    """Print the next hint for an exercise; after the last one, the last again.

    Args:
        name: the exercise's name.

    Raises:
        ValueError: when no exercise has this name.

    >>> hint("attention.scale")
    attention.scale, hint ... of 3: ...
    """
    hints = _exercise(name).hints
    number = min(_hints_given.get(name, 0) + 1, len(hints))
    _hints_given[name] = number
    print(f"{name}, hint {number} of {len(hints)}: {hints[number - 1]}")


def progress() -> None:
    """Print which exercises are done, by the record in the working folder."""
    done = done_exercises()
    for lesson in LESSONS:
        names = [exercise.name for exercise in lesson.EXERCISES]
        print(f"{lesson.LESSON}: {len(done.intersection(names))} of {len(names)} done")
        for name in names:
            print(f"  {_MARKS['done' if name in done else 'not started']} {name}")


def _exercise(name: str) -> Exercise:
    if name in EXERCISES:
        return EXERCISES[name]
    near = difflib.get_close_matches(str(name), EXERCISES, n=1)
    suggestion = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(EXERCISES)}"
    raise ValueError(f"name: no exercise is called {name!r}{suggestion}")
