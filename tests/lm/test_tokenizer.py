"""Text to ids and back."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeta_edu.lm import Tokenizer
from zeta_edu.lm.tokenizer import START

anything = st.text(st.characters(exclude_categories=["Cs"]))


@given(text=anything)
def test_any_text_comes_back_from_its_ids(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=anything)
def test_pieces_join_to_the_text(tokenizer, text):
    ids = tokenizer.encode(text)
    pieces = tokenizer.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


@given(ids=st.lists(st.integers(1, 299)))
def test_pieces_of_any_ids_join_to_what_they_decode_to(tokenizer, ids):
    unfinished = tokenizer.decode(ids).removeprefix("".join(tokenizer.pieces(ids)))
    assert unfinished in ("", "\N{REPLACEMENT CHARACTER}")


def test_the_name_of_the_start_token_in_a_text_is_plain_text(tokenizer):
    ids = tokenizer.encode(f"before {START} after")
    assert tokenizer.start not in ids
    assert tokenizer.decode(ids) == f"before {START} after"


def test_the_start_token_is_shown_by_name_and_decodes_to_nothing(tokenizer):
    assert tokenizer.pieces([0, *tokenizer.encode("x")]) == [START, "x"]
    assert tokenizer.decode([0, *tokenizer.encode("x")]) == "x"


def test_newline_and_indentation_are_one_token(tokenizer):
    assert "\n    " in tokenizer.pieces(tokenizer.encode("def f():\n    return 1"))


def test_every_digit_is_a_token_however_often_a_number_comes():
    tokenizer = Tokenizer.train(["x = 2024\n" * 50], vocab_size=300)
    assert tokenizer.pieces(tokenizer.encode("x = 2024")) == ["x", " =", " 2", "0", "2", "4"]


def test_a_name_is_never_merged_with_punctuation(text):
    tokenizer = Tokenizer.train([text * 10], vocab_size=400)
    pieces = tokenizer.pieces(range(1, len(tokenizer)))
    assert any(piece.strip().isidentifier() and len(piece) > 3 for piece in pieces)
    assert not any(set("()+,") & set(p) and any(map(str.isalnum, p)) for p in pieces)


def test_the_same_text_gives_the_same_tokenizer(text, tmp_path):
    for name in ("a", "b"):
        Tokenizer.train([text], vocab_size=290).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_saved_tokenizer_loads_equal(tokenizer, text, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.encode(text) == tokenizer.encode(text)
    assert len(loaded) == len(tokenizer) == 300


def test_a_small_text_gives_fewer_ids_than_asked_for():
    assert len(Tokenizer.train(["abab"], vocab_size=1000)) == 259


@pytest.mark.parametrize("vocab_size", [256, 2**16 + 1])
def test_a_vocabulary_too_small_or_too_large_is_refused(vocab_size):
    with pytest.raises(ValueError, match="vocab_size"):
        Tokenizer.train(["text"], vocab_size)


@pytest.mark.parametrize("ids", [[-1], [300], [5, 10**9]])
def test_ids_out_of_range_are_refused(tokenizer, ids):
    with pytest.raises(ValueError, match="ids must lie between 0 and 299"):
        tokenizer.decode(ids)
    with pytest.raises(ValueError, match="ids must lie between 0 and 299"):
        tokenizer.pieces(ids)


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(ValueError, match="surrogate at character 2"):
        tokenizer.encode("ab\ud800")


def test_bytes_are_not_text(tokenizer):
    with pytest.raises(TypeError, match="text must be a str"):
        tokenizer.encode(b"abc")


def changed(description, path, value):
    """A copy of a tokenizer's description with one entry replaced."""
    copy = json.loads(json.dumps(description))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (["model"], 3, "does not describe"),
        (["pre_tokenizer"], {"type": "ByteLevel"}, "does not describe"),
        (["pre_tokenizer", "pretokenizers", 0, "pattern", "Regex"], "x", "other pieces"),
        (["model", "vocab"], [1, 2], "begin with"),
        (["model", "vocab"], {"a": 0}, "begin with"),
        (["model", "vocab"], {START: 0, "a": 1.5}, "whole numbers"),
        (["model", "vocab"], {START: 0, "a": 2}, "without gaps"),
        (["model", "vocab"], {START: 0, "\u4e2d": 1}, "byte characters"),
        (["model", "vocab"], {START: 0, "a": 1}, "256 bytes"),
        (["model", "merges"], None, "not a list"),
        (["model", "merges"], ["a b"], "not a pair"),
        (["model", "merges"], [["a", "nothing"]], "not in the vocabulary"),
        (["model", "merges"], [["a", 1]], "not in the vocabulary"),
        (["model", "merges"], [["~", "~"]], "makes no token"),
    ],
)
def test_a_foreign_tokenizer_file_is_refused_by_name(tokenizer, tmp_path, path, value, fault):
    file = tmp_path / "tokenizer.json"
    tokenizer.save(file)
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(ValueError, match=rf"tokenizer\.json.*{fault}"):
        Tokenizer.load(file)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"3"])
def test_what_is_not_a_tokenizer_file_is_refused_by_name(tmp_path, content):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        Tokenizer.load(file)


def test_special_tokens_that_a_file_adds_are_not_found_in_text(tokenizer, tmp_path):
    file = tmp_path / "tokenizer.json"
    tokenizer.save(file)
    special = {"id": 0, "content": START, "special": True, "normalized": False}
    added = [special | {"single_word": False, "lstrip": False, "rstrip": False}]
    file.write_text(json.dumps(changed(json.loads(file.read_text()), ["added_tokens"], added)))
    assert Tokenizer.load(file).encode(START) == tokenizer.encode(START)


def test_the_file_is_read_by_the_tokenizers_package_alike(tokenizer, text, tmp_path):
    import tokenizers

    tokenizer.save(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode(text).ids == tokenizer.encode(text)


def test_without_the_package_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'zeta-edu\[train\]'"):
        Tokenizer.train(["text"])
