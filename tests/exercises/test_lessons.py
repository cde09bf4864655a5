"""The exercises as they stand in the lessons: skeletons, folded solutions, words around them."""

import re
from pathlib import Path

import jupytext
import pytest

from zeta_edu.exercises import EXERCISES, LESSONS
from zeta_edu.exercises.judging import judge

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "source"
HINT = 'hint("{}")'
CHECKED = re.compile(r'^check\("([\w.]+)", (\w+)\)$', re.MULTILINE)
SOLUTION = re.compile(
    r"<details>\s<summary>Solution</summary>\n\n.*?```python\n(.*?)```.*?\n</details>", re.DOTALL
)


def in_lessons():
    """Yield every exercise: its name, function's name, task, code, hint and solution."""
    for source in sorted(SOURCES.glob("*.py")):
        cells = jupytext.read(source, fmt="py:percent").cells
        for task, cell, hint, solution in zip(cells, cells[1:], cells[2:], cells[3:], strict=False):
            if "exercise" in cell.metadata.get("tags", []):
                name, function = CHECKED.search(cell.source).groups()
                yield pytest.param(name, function, task, cell, hint, solution, id=name)


def defined(code, function):
    """Run code without its check, and return the function that it defines."""
    names = {}
    exec(CHECKED.sub("", code), names)  # noqa: S102
    return names[function]


each_exercise = pytest.mark.parametrize(
    ("name", "function", "task", "cell", "hint", "solution"), list(in_lessons())
)


@each_exercise
def test_the_skeleton_is_not_started(name, function, task, cell, hint, solution):
    assert judge(EXERCISES[name], defined(cell.source, function)).status == "not started"


@each_exercise
def test_the_folded_solution_behind_it_is_done(name, function, task, cell, hint, solution):
    (code,) = SOLUTION.findall(solution.source)
    assert judge(EXERCISES[name], defined(code, function)).status == "done"


@each_exercise
def test_its_own_hint_stands_under_it(name, function, task, cell, hint, solution):
    assert hint.source == HINT.format(name)


@each_exercise
def test_difficulty_and_minutes_stand_before_it(name, function, task, cell, hint, solution):
    assert re.search(r"^Difficulty (★☆☆|★★☆|★★★), \d+ minutes\.", task.source, re.MULTILINE)


def test_every_exercise_stands_in_the_lesson_of_its_number_once():
    places = {}
    for source in sorted(SOURCES.glob("*.py")):
        for name, _ in CHECKED.findall(source.read_text(encoding="utf-8")):
            places.setdefault(name, []).append(source.stem[:2])
    expected = {
        exercise.name: [lesson.LESSON[:2]] for lesson in LESSONS for exercise in lesson.EXERCISES
    }
    assert places == expected
