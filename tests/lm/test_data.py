"""Documents, their split, and windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeta_edu.lm import Document, python_source, read_texts, split_documents
from zeta_edu.lm.data import TokenWindows, encode_documents


@pytest.fixture(scope="module")
def library():
    return python_source()


def test_the_standard_library_is_read_in_order(library):
    names = [document.name for document in library]
    assert names == sorted(names)
    assert {"dataclasses.py", "json/decoder.py", "asyncio/tasks.py"} <= set(names)
    assert 5e6 < sum(len(document.text) for document in library) < 20e6


def test_tests_tables_and_installed_packages_are_left_out(library):
    names = [document.name for document in library]
    left_out = ("site-packages", "/test/", "/tests/", "idle_test", "encodings/", "topics.py")
    assert [name for name in names if any(part in name for part in left_out)] == []


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_gives_its_text_files_by_name(tmp_path):
    write(tmp_path, {"b.py": b"b", "sub/a.txt": "ä".encode(), "c.md": b"c"})
    assert read_texts(tmp_path) == [("b.py", "b"), ("c.md", "c"), ("sub/a.txt", "ä")]


def test_what_is_not_text_is_passed_over(tmp_path):
    write(
        tmp_path,
        {
            "good.py": b"good",
            "latin.txt": b"\xe4",
            "null.txt": b"a\0b",
            "empty.py": b"",
            ".hidden": b"x",
            ".git/config": b"x",
            "__pycache__/a.py": b"x",
            "env/pyvenv.cfg": b"x",
            "env/lib/a.py": b"x",
        },
    )
    assert read_texts(tmp_path) == [("good.py", "good")]


def test_a_folder_that_links_to_itself_is_read_once(tmp_path):
    write(tmp_path, {"a.py": b"a"})
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert read_texts(tmp_path) == [("a.py", "a")]


def test_no_text_is_told(tmp_path):
    with pytest.raises(ValueError, match="no text files in folder"):
        read_texts(tmp_path)
    write(tmp_path, {"picture.png": b"\x89PNG\0"})
    with pytest.raises(ValueError, match=r"picture\.png.*is not a text"):
        read_texts(tmp_path / "picture.png")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_texts(tmp_path / "nowhere")


names = st.lists(st.text("abcdefgh/.", min_size=1), min_size=2, max_size=50, unique=True)


@given(names=names)
def test_a_split_keeps_every_document_once_and_no_side_empty(names):
    documents = [Document(name, "text") for name in names]
    training, validation = split_documents(documents)
    assert training
    assert validation
    assert sorted(training + validation) == sorted(documents)


def test_a_larger_corpus_moves_no_document_to_the_other_side():
    documents = [Document(f"{i}.py", "text") for i in range(2000)]
    _, few = split_documents(documents[:1000])
    _, many = split_documents(documents)
    assert set(few) == set(many) & set(documents[:1000])
    assert 60 < len(many) < 140


def test_of_one_document_the_end_validates():
    [training], [validation] = split_documents([Document("a", "0123456789" * 10)])
    assert training.text + validation.text == "0123456789" * 10
    assert len(validation.text) == 5


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="validation must lie between 0 and 1"):
        split_documents([Document("a", "b")], share)


def test_nothing_cannot_be_split():
    with pytest.raises(ValueError, match="documents is empty"):
        split_documents([])


def test_a_start_id_stands_before_every_document(tokenizer):
    tokens = encode_documents([Document("a", "def"), Document("b", "return")], tokenizer)
    expected = [0, *tokenizer.encode("def"), 0, *tokenizer.encode("return")]
    assert tokens.tolist() == expected
    assert tokens.dtype == np.uint16


def test_a_batch_depends_on_seed_and_step_alone():
    tokens = np.arange(1000, dtype=np.uint16)
    windows = TokenWindows(tokens, batch_size=4, length=10, seed=1)
    later = windows.batch(7)
    windows.batch(3)
    assert windows.batch(7)[0].equal(later[0])
    assert not windows.batch(8)[0].equal(later[0])
    assert not TokenWindows(tokens, 4, 10, seed=2).batch(7)[0].equal(later[0])


def test_targets_are_the_inputs_one_token_later():
    inputs, targets = TokenWindows(np.arange(100), batch_size=8, length=20).batch(0)
    assert inputs.shape == targets.shape == (8, 20)
    assert targets.equal(inputs + 1)


def test_windows_reach_both_ends_of_the_text():
    windows = TokenWindows(np.arange(12), batch_size=64, length=10)
    inputs, targets = windows.batch(0)
    assert inputs.min() == 0
    assert targets.max() == 11


def test_windows_come_from_a_mapped_file(tmp_path):
    np.save(tmp_path / "tokens.npy", np.arange(100, dtype=np.uint16))
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    inputs, _ = TokenWindows(mapped, 2, 8).batch(0)
    assert inputs.equal(TokenWindows(np.arange(100), 2, 8).batch(0)[0])


def test_a_text_too_short_for_a_window_is_refused():
    with pytest.raises(ValueError, match="8 tokens; a window of length 8 needs at least 9"):
        TokenWindows(np.arange(8), batch_size=1, length=8)
    with pytest.raises(ValueError, match="one dimension"):
        TokenWindows(np.zeros((2, 2)), batch_size=1, length=1)
