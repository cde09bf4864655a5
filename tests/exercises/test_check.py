"""What `check`, `hint` and `progress` print, and what they keep."""

import json

import pytest

import zeta_edu.exercises as exercises
from zeta_edu.exercises import EXERCISES, check, hint, progress
from zeta_edu.exercises.keeping import FILE_NAME, done_exercises, keep_done

SCALE = EXERCISES["attention.scale"]


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exercises, "_hints_given", {})
    return tmp_path


def untouched(queries, keys):
    return ...


def test_a_skeleton_is_not_started_and_leaves_no_record(working_folder, capsys):
    check("attention.scale", untouched)
    assert capsys.readouterr().out == (
        "· attention.scale, not started: replace the dots with your code, then run it again.\n"
    )
    assert list(working_folder.iterdir()) == []


def test_a_function_that_raises_not_implemented_is_not_started(capsys):
    def answer(queries, keys):
        raise NotImplementedError

    check("attention.scale", answer)
    assert "not started" in capsys.readouterr().out


def test_not_yet_names_the_mistake_and_shows_the_smallest_input(capsys):
    check("attention.scale", SCALE.mistakes[0].answer)
    assert capsys.readouterr().out == (
        "✗ attention.scale, not yet: The scores are not scaled; divide them by the square root "
        "of d.\n"
        "  Smallest input: queries = [[4, 2, 0, 0]], keys = [[1, 0, 0, 0], [0, 3, 0, 0]]. "
        "Expected: [[2, 3]]. Came: [[4, 6]].\n"
    )


def test_done_is_a_tick_with_what_was_verified_and_is_kept(working_folder, capsys):
    check("attention.scale", SCALE.solution)
    assert capsys.readouterr().out == f"✓ attention.scale, done: {SCALE.verified}\n"
    assert json.loads((working_folder / FILE_NAME).read_text()) == {"done": ["attention.scale"]}


def test_progress_counts_what_was_done_in_this_folder(capsys):
    progress()
    before = capsys.readouterr().out
    check("attention.scale", SCALE.solution)
    capsys.readouterr()
    progress()
    after = capsys.readouterr().out
    assert "01 attention: 0 of 3 done\n  · attention.scale\n" in before
    assert "01 attention: 1 of 3 done\n  ✓ attention.scale\n" in after


def test_a_later_mistake_does_not_undo_a_tick():
    check("attention.scale", SCALE.solution)
    check("attention.scale", untouched)
    assert done_exercises() == {"attention.scale"}


@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"[]", b"null", b'{"done": 3}', b'{"done": [[1]]}', b"\xff\xfe", b"[" * 100_000],
)
def test_a_broken_record_counts_as_none_and_the_next_tick_mends_it(working_folder, broken):
    (working_folder / FILE_NAME).write_bytes(broken)
    assert done_exercises() == set()
    progress()
    assert keep_done("attention.scale")
    assert done_exercises() == {"attention.scale"}


def test_a_record_knows_exercises_that_this_version_does_not(working_folder):
    (working_folder / FILE_NAME).write_text('{"done": ["later.exercise"]}')
    keep_done("attention.scale")
    assert done_exercises() == {"attention.scale", "later.exercise"}


def test_a_failed_write_leaves_the_old_record_and_nothing_else(working_folder, monkeypatch, capsys):
    keep_done("attention.softmax")

    def refuse(self, target):
        raise OSError

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    check("attention.scale", SCALE.solution)
    assert "Nothing can be written in this folder" in capsys.readouterr().out
    assert done_exercises() == {"attention.softmax"}
    assert [file.name for file in working_folder.iterdir()] == [FILE_NAME]


def test_a_missing_folder_is_no_record_and_cannot_be_written(working_folder):
    missing = working_folder / "missing"
    assert done_exercises(missing) == set()
    assert not keep_done("attention.scale", missing)


def test_hints_come_one_by_one_and_the_last_stays(capsys):
    for _ in range(len(SCALE.hints) + 1):
        hint("attention.scale")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"attention.scale, hint 1 of 3: {SCALE.hints[0]}"
    assert lines[2] == lines[3] == f"attention.scale, hint 3 of 3: {SCALE.hints[2]}"


@pytest.mark.parametrize("call", [hint, lambda name: check(name, untouched)])
def test_an_unknown_name_is_refused_with_the_nearest(call):
    with pytest.raises(ValueError, match=r"did you mean 'attention\.scale'"):
        call("attention.sclae")
    with pytest.raises(ValueError, match=r"known: start\.row_sums, attention\.scale"):
        call("zebra")
