"""A text in files of tokens, and what is refused as one."""

import json

import numpy as np
import pytest

from zeta_edu.lm import Document, documentation
from zeta_edu.lm.corpus import beginning_of, open_corpus, open_tokens, write_corpus, write_tokens
from zeta_edu.lm.data import encode_documents


@pytest.fixture
def folder(tmp_path, tokenizer):
    """The folder of a text that was written."""
    training = [Document("a.py", "def a():\n    pass\n"), Document("b.py", "x = 1\n")]
    write_corpus(tmp_path / "tokens", "mine", training, [Document("c.py", "ä")], tokenizer)
    return tmp_path / "tokens"


def test_a_written_text_is_mapped_as_it_was(folder, tokenizer):
    text = open_corpus(folder)
    training = [Document("a.py", "def a():\n    pass\n"), Document("b.py", "x = 1\n")]
    assert text.training.tokens.tolist() == encode_documents(training, tokenizer).tolist()
    assert isinstance(text.training.tokens, np.memmap)
    assert (text.training.files, text.training.bytes) == (2, 24)
    assert (text.validation.files, text.validation.bytes) == (1, 2)
    assert (text.origin, text.beginning) == ("mine", "def add(")


@pytest.mark.parametrize("length", [0, 5, 60, 130])
def test_a_torn_file_of_tokens_is_refused(folder, length):
    path = folder / "training.npy"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"training\.npy' is not a whole file of tokens"):
        open_corpus(folder)


def test_an_array_of_objects_is_never_loaded(tmp_path):
    np.save(tmp_path / "bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"bad\.npy"):
        open_tokens(tmp_path / "bad.npy")


def test_other_numbers_are_no_tokens(tmp_path):
    with pytest.raises(ValueError, match=r"tokens must be one row of uint16, got shape \(2,\)"):
        write_tokens(tmp_path / "a.npy", np.array([1, 2]))
    np.save(tmp_path / "b.npy", np.zeros((2, 2), dtype=np.uint16))
    with pytest.raises(ValueError, match=r"b\.npy must be one row of uint16, got shape \(2, 2\)"):
        open_tokens(tmp_path / "b.npy")


@pytest.mark.parametrize("facts", ["{", "[]", json.dumps({"origin": "x"})])
def test_facts_that_are_none_are_refused(folder, facts):
    (folder / "text.json").write_text(facts)
    with pytest.raises(ValueError, match=r"text\.json"):
        open_corpus(folder)


def test_prose_begins_with_its_own_words():
    documents = [
        Document("a.txt", "\n  \n"),
        Document("b.txt", "\n  Once upon a time there was\nit"),
    ]
    assert beginning_of(documents) == "Once upon a time the"
    assert beginning_of([Document("a.txt", "\n")]) == ""


def test_the_manual_has_its_topics_in_order():
    topics = documentation()
    names = [document.name for document in topics]
    assert names == sorted(names)
    assert {"lambda", "operator-summary"} <= set(names)
    assert sum(len(document.text) for document in topics) > 300_000
