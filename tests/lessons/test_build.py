"""The build of a lesson, and nbval mended so that it runs lessons as the build does."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient.output_widget import OutputWidget

from zeta_edu.views import codec
from zeta_edu.views.bundle import to_json

ROOT = Path(__file__).resolve().parents[2]
PICTURE = '{"image/png": "iVBORw0KGgo=", "text/plain": "a picture"}'
SOURCE = f"""\
# %% [markdown]
# # A tiny lesson

# %%
print("one")
print("two")

# %%
from IPython.display import display
from ipywidgets import interact

def show(x=1):
    print(f"only in the widget", x)
    display({PICTURE}, raw=True, metadata={{"image/png": {{"alt": "a small white square"}}}})

_ = interact(show, x=(0, 3))

# %% tags=["raises-exception"]
raise ValueError("on purpose")

# %% tags=["solution"]
"a value that a semicolon hides";

# %%
"the last value"
"""


def make_house(folder: Path) -> None:
    (folder / "notebooks" / "source").mkdir(parents=True)
    (folder / "tests" / "lessons").mkdir(parents=True)
    for name in ("conftest.py", "notebooks/build.py", "tests/lessons/sanitize.cfg"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "notebooks" / "source" / "00-tiny.py").write_text(SOURCE)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A checkout in small: the build, the tests' configuration and one lesson."""
    make_house(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    house = tmp_path_factory.mktemp("house")
    make_house(house)
    assert build(house).returncode == 0
    return house


@pytest.fixture
def built(built_once: Path, tmp_path: Path) -> Path:
    """The same with its lesson built."""
    return shutil.copytree(built_once, tmp_path / "built")


def build(house: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "notebooks/build.py", *words]
    return subprocess.run(command, cwd=house, capture_output=True, text=True)


def run_again(house: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:xdist"]
    return subprocess.run([*command, "notebooks"], cwd=house, capture_output=True, text=True)


def edit(house: Path, old: str, new: str) -> None:
    source = house / "notebooks" / "source" / "00-tiny.py"
    assert old in source.read_text()
    source.write_text(source.read_text().replace(old, new))


def test_building_again_gives_the_same_bytes(built: Path) -> None:
    target = built / "notebooks" / "00-tiny.ipynb"
    stored = target.read_bytes()
    again = build(built, "00")
    assert (again.returncode, again.stderr) == (0, "")
    assert "unchanged" in again.stdout
    assert target.read_bytes() == stored
    assert build(built, "--check").returncode == 0


def test_what_is_stored_is_what_a_reader_without_a_kernel_can_use(built: Path) -> None:
    notebook = nbformat.read(built / "notebooks" / "00-tiny.ipynb", as_version=4)
    text, widget, error, hidden, shown = notebook.cells[1:]
    assert text.outputs == [{"output_type": "stream", "name": "stdout", "text": "one\ntwo\n"}]
    assert set(widget.outputs[0].data) == {"image/png", "text/plain"}
    assert widget.outputs[0].metadata["image/png"]["alt"] == "a small white square"
    assert error.outputs[0].traceback == ["ValueError: on purpose"]
    assert hidden.outputs == []
    assert hidden.metadata == {"jupyter": {"source_hidden": True}, "tags": ["solution"]}
    assert shown.outputs[0].data["text/plain"] == "'the last value'"
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2, 3, 4, 5]


def test_a_built_lesson_passes_when_run_again(built: Path) -> None:
    rerun = run_again(built)
    assert rerun.returncode == 0, rerun.stdout
    assert "6 passed" in rerun.stdout  # five cells and the time budget


def test_another_output_an_error_in_a_widget_and_lost_time_fail(built: Path) -> None:
    target, conftest = built / "notebooks" / "00-tiny.ipynb", built / "conftest.py"
    stored = target.read_text()
    stored = stored.replace("two\\n", "three\\n", 1).replace("only in the widget", "{1 / 0}")
    target.write_text(stored)
    limits = conftest.read_text()
    conftest.write_text(limits.replace("SECONDS_PER_LESSON = 60", "SECONDS_PER_LESSON = 0"))
    rerun = run_again(built)
    assert "3 failed, 3 passed" in rerun.stdout
    assert "three" in rerun.stdout
    assert "ZeroDivisionError" in rerun.stdout
    assert "its budget is 0 s" in rerun.stdout


def test_the_state_of_a_view_is_compared_as_numbers(
    settle_numbers: Callable[[str, str], str],
) -> None:
    weights = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)

    def page(numbers: np.ndarray, title: str = "a view", **more: object) -> str:
        arrays = {"weights": codec.encode_weights(numbers), "scores": codec.encode_scores(numbers)}
        state = to_json({"arrays": arrays, "range": [0.5, 2.25], "label": "a", **more})
        return f'<b>{title}</b><script type="application/json">{state}</script>'

    stored, nearly = page(weights), page(np.nextafter(weights, 2, dtype=np.float32))
    assert nearly != stored
    assert settle_numbers(nearly, stored) == stored
    assert settle_numbers(page(weights, range=[0.5, 2.2500001]), stored) == stored
    for other in (
        page(weights + 0.01),
        page(weights.T),
        page(weights, "another"),
        page(weights, range=[0.5, 2.26]),
        page(weights, range=[0.5]),
        page(weights, label="b"),
        page(weights, label=1.0),
        page(weights, more=0),
    ):
        assert settle_numbers(other, stored) != stored


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('print("one")', "1 / 0", "ZeroDivisionError"),
        ('print("one")', "import sys; print(1, file=sys.stderr)", "writes to stderr"),
        (
            'print(f"only',
            'raise KeyError("lost"); print(f"only',
            "the function of the widget fails",
        ),
    ],
)
def test_a_lesson_that_fails_is_not_built(house: Path, old: str, new: str, complaint: str) -> None:
    edit(house, old, new)
    result = build(house)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert not (house / "notebooks" / "00-tiny.ipynb").exists()


def test_check_writes_nothing_and_tells_by_its_exit_code(house: Path) -> None:
    result = build(house, "--check")
    assert result.returncode == 1
    assert "differs" in result.stdout
    assert not (house / "notebooks" / "00-tiny.ipynb").exists()


def test_an_unknown_lesson_is_named(house: Path) -> None:
    result = build(house, "42")
    assert result.returncode == 2
    assert "no lesson '42'; there are ['00-tiny']" in result.stderr


def test_an_inserted_cell_leaves_the_other_ids(house: Path, lesson_build: ModuleType) -> None:
    source = house / "notebooks" / "source" / "00-tiny.py"
    before = [cell.id for cell in lesson_build.read_source(source).cells]
    edit(house, "# %%\nprint", "# %%\n0\n\n# %%\n0\n\n# %%\nprint")
    after = [cell.id for cell in lesson_build.read_source(source).cells]
    assert len(set(after)) == len(after)
    assert [name for name in after if name in before] == before


def test_a_reply_that_comes_while_a_widgets_state_is_sent_is_not_waited_for(
    house: Path, lesson_build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = OutputWidget.send

    def send_late(*arguments: Any, **named: Any) -> None:
        time.sleep(0.1)  # so that the cell is done, and its reply there, before this is sent
        send(*arguments, **named)

    monkeypatch.setattr(OutputWidget, "send", send_late)
    monkeypatch.setattr(lesson_build, "CELL_TIMEOUT", 30)
    start = time.perf_counter()
    lesson_build.execute(lesson_build.read_source(house / "notebooks" / "source" / "00-tiny.py"))
    assert time.perf_counter() - start < 30


def test_a_notebook_is_json_with_one_final_newline(built: Path) -> None:
    text = (built / "notebooks" / "00-tiny.ipynb").read_text()
    assert json.loads(text)["nbformat_minor"] == 5
    assert text.endswith("}\n")
