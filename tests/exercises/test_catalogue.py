"""Every exercise, whatever its lesson: the right answer, the wrong ones, the hints."""

import pytest
import torch

from zeta_edu.exercises import EXERCISES, LESSONS
from zeta_edu.exercises.judging import judge

EVERY = list(EXERCISES.values())
WRONG = [(exercise, mistake) for exercise in EVERY for mistake in exercise.mistakes]


@pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.name)
def test_the_solution_is_done(exercise):
    verdict = judge(exercise, exercise.solution)
    assert (verdict.status, verdict.message) == ("done", exercise.verified)


@pytest.mark.parametrize(
    ("exercise", "mistake"), WRONG, ids=[f"{e.name}-{m.message[:30]}" for e, m in WRONG]
)
def test_a_catalogued_mistake_is_met_with_its_own_message(exercise, mistake):
    verdict = judge(exercise, mistake.answer)
    assert (verdict.status, verdict.message) == ("not yet", mistake.message)
    assert verdict.details[0].startswith("Smallest input: ")


@pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.name)
def test_at_least_three_mistakes_and_two_hints_are_known(exercise):
    assert len({mistake.message for mistake in exercise.mistakes}) >= 3
    assert len(exercise.hints) >= 2


@pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.name)
def test_inputs_are_the_same_every_time_and_the_smallest_comes_first(exercise):
    first, second = exercise.inputs(), exercise.inputs()
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    sizes = [sum(value.numel() for value in arguments.values()) for arguments in first]
    assert sizes[0] == min(sizes)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.LESSON)
def test_an_exercise_is_named_after_its_file(lesson):
    word = lesson.__name__.rsplit(".", 1)[-1]
    assert all(exercise.name.startswith(f"{word}.") for exercise in lesson.EXERCISES)
