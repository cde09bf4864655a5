"""The exercises as they stand in the lessons: skeletons, folded solutions, words around them."""

import re
from pathlib import Path

import jupytext
import pytest

from zeta_edu.exercises import EXERCISES, LESSONS
from zeta_edu.exercises.judging import judge

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "source"
CHECKED = re.compile(r'^check\("([\w.]+)", (\w+)\)$', re.MULTILINE)
SOLUTION = re.compile(
    r"<details>\s<summary>Solution</summary>\n\n.*?```python\n(.*?)```.*?\n</details>", re.DOTALL
)


def in_lessons():
    """Yield every exercise cell: exercise, function's name, code, the text before and behind."""
    for source in sorted(SOURCES.glob("*.py")):
        cells = jupytext.read(source, fmt="py:percent").cells
        for before, cell, behind in zip(cells, cells[1:], cells[2:], strict=False):
            if "exercise" in cell.metadata.get("tags", []):
                name, function = CHECKED.search(cell.source).groups()
                yield pytest.param(name, function, before, cell, behind, id=name)


def defined(code, function):
    """Run code without its check, and return the function that it defines."""
    names = {}
    exec(CHECKED.sub("", code), names)  # noqa: S102
    return names[function]


FOUND = list(in_lessons())


@pytest.mark.parametrize(("name", "function", "before", "cell", "behind"), FOUND)
def test_the_skeleton_is_not_started(name, function, before, cell, behind):
    assert judge(EXERCISES[name], defined(cell.source, function)).status == "not started"


@pytest.mark.parametrize(("name", "function", "before", "cell", "behind"), FOUND)
def test_the_folded_solution_behind_it_is_done(name, function, before, cell, behind):
    (solution,) = SOLUTION.findall(behind.source)
    assert judge(EXERCISES[name], defined(solution, function)).status == "done"


@pytest.mark.parametrize(("name", "function", "before", "cell", "behind"), FOUND)
def test_difficulty_and_minutes_stand_before_it(name, function, before, cell, behind):
    assert re.search(r"^Difficulty (★☆☆|★★☆|★★★), \d+ minutes\.", before.source, re.MULTILINE)


def test_every_exercise_stands_in_the_lesson_of_its_number_once():
    places = {}
    for source in sorted(SOURCES.glob("*.py")):
        for name, _ in CHECKED.findall(source.read_text(encoding="utf-8")):
            places.setdefault(name, []).append(source.stem[:2])
    expected = {
        exercise.name: [lesson.LESSON[:2]] for lesson in LESSONS for exercise in lesson.EXERCISES
    }
    assert places == expected
