"""The stored lessons, read: what nbval, which runs them, does not see."""

from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbformat import NotebookNode

from tests.lessons import guards

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(scope="module")
def lessons() -> dict[str, NotebookNode]:
    return {
        f"{name}.ipynb": nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4) for name in NAMES
    }


@pytest.fixture
def lesson(request: pytest.FixtureRequest, lessons: dict[str, NotebookNode]) -> NotebookNode:
    return lessons[f"{request.param}.ipynb"]


each_lesson = pytest.mark.parametrize("lesson", NAMES, indirect=True)


def test_every_source_is_built_and_every_lesson_has_a_source() -> None:
    sources = sorted(path.stem for path in (NOTEBOOKS / "source").glob("*.py"))
    assert sources == NAMES
    assert any(name.startswith("00-") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_lesson_is_its_source(
    name: str, lessons: dict[str, NotebookNode], lesson_build: ModuleType
) -> None:
    source = lesson_build.read_source(NOTEBOOKS / "source" / f"{name}.py")
    assert list(guards.unfaithful(lessons[f"{name}.ipynb"], source)) == []


@each_lesson
def test_cells_ran_once_in_order(lesson: NotebookNode) -> None:
    assert list(guards.miscounted(lesson)) == []


@each_lesson
def test_errors_are_announced_and_stderr_is_silent(lesson: NotebookNode) -> None:
    assert list(guards.failing(lesson)) == []


@each_lesson
def test_nothing_stored_hangs_on_the_run(lesson: NotebookNode) -> None:
    assert list(guards.changeable(lesson)) == []


@each_lesson
def test_every_output_is_compared_or_says_why(lesson: NotebookNode) -> None:
    assert list(guards.uncompared(lesson)) == []


@each_lesson
def test_every_picture_has_alternative_text(lesson: NotebookNode) -> None:
    assert list(guards.undescribed(lesson)) == []


@each_lesson
def test_every_link_leads_somewhere(lesson: NotebookNode, lessons: dict[str, NotebookNode]) -> None:
    assert list(guards.dangling(lesson, NOTEBOOKS, lessons)) == []


@each_lesson
def test_cells_are_small(lesson: NotebookNode) -> None:
    assert list(guards.long_winded(lesson)) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_built_is_proved(name: str, lessons: dict[str, NotebookNode]) -> None:
    assert list(guards.unproved(lessons[f"{name}.ipynb"], name)) == []
