"""`zeta-edu lessons`: a list, a copy of one, and one put back as it was."""

import re
from pathlib import Path

import pytest

from tests.test_lab import mine, shipped, texts, write_lesson  # noqa: F401
from zeta_edu import cli, lessons


@pytest.fixture
def folder(shipped: Path, mine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    monkeypatch.setattr(lessons, "find_lessons", lambda: shipped)
    return mine


def run(folder: Path, *words: str) -> int:
    return cli.main(["lessons", *words, "--dir", str(folder)])


def states(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert run(folder) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line.split("  ")[-1].strip() for line in lines if line[:1].isdigit()]


def test_the_list_tells_how_each_copy_stands(
    folder: Path,
    shipped: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert states(folder, capsys) == ["not copied", "not copied"]
    assert run(folder, "0") == 0
    assert states(folder, capsys) == ["as it came", "not copied"]
    assert (folder / "figures" / "map.svg").exists()
    write_lesson(folder / "00-start-here.ipynb", "mine")
    assert states(folder, capsys)[0] == "edited"
    run(folder, "1")
    write_lesson(shipped / "01-attention.ipynb", "newer")
    assert states(folder, capsys)[1] == "older"


def test_an_edited_copy_is_kept_when_it_is_copied_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, "01")
    write_lesson(folder / "01-attention.ipynb", "mine")
    assert run(folder, "01-attention") == 0
    assert "yours is edited and kept" in capsys.readouterr().out
    assert texts(folder)["01-attention"] == "mine"


@pytest.mark.parametrize(
    ("answer", "then"), [("y", "second"), ("Yes", "second"), ("", "mine"), ("no", "mine")]
)
def test_reset_asks_before_it_loses_anything(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, then: str
) -> None:
    run(folder, "1")
    write_lesson(folder / "01-attention.ipynb", "mine")
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    assert run(folder, "1", "--reset") == 0
    assert texts(folder)["01-attention"] == then
    assert len(asked) == 1
    assert "will be lost" in asked[0]


def test_reset_does_not_ask_where_nothing_is_lost_or_all_is_agreed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: str) -> str:
        raise AssertionError("asked")

    monkeypatch.setattr("builtins.input", never)
    assert run(folder, "1", "--reset") == 0  # not there yet
    assert run(folder, "1", "--reset") == 0  # as it came
    write_lesson(folder / "01-attention.ipynb", "mine")
    assert run(folder, "1", "--reset", "--yes") == 0
    assert texts(folder) == {"01-attention": "second"}


def test_where_nobody_can_answer_the_copy_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(_: str) -> str:
        raise EOFError

    run(folder, "1")
    write_lesson(folder / "01-attention.ipynb", "mine")
    monkeypatch.setattr("builtins.input", nobody)
    assert run(folder, "1", "--reset") == 0
    assert texts(folder)["01-attention"] == "mine"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("7",), "lesson must be one of 00-start-here, 01-attention, got '7'"),
        (("attention",), "got 'attention'"),
        (("--reset",), "--reset needs a lesson"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    assert run(folder, *words) == 2
    assert says in capsys.readouterr().err


def test_every_shipped_lesson_has_a_title(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lessons"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()]
    assert len(lines) >= 13
    titled = re.compile(r"\d\d-[a-z-]+ {2,}\w\S*( \S+)+ {2,}(not copied|as it came|older|edited)")
    for line in lines:
        assert titled.match(line), line
