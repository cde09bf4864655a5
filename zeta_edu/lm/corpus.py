"""A text made ready for training: split, encoded, and kept in files that are mapped, not read.

The files stay beside the checkpoint. A training that goes on reads them, and so does every
process of several: what has happened to the text meanwhile does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zeta_edu.files import read_json, write_atomically, write_json
from zeta_edu.lm.data import Document, encode_documents, split_documents
from zeta_edu.lm.tokenizer import Tokenizer

FOLDER, FACTS = "tokens", "text.json"
PARTS = ("training", "validation")


@dataclass(frozen=True)
class Part:
    """One side of the split: its tokens, and of how many files and bytes they are."""

    tokens: np.ndarray
    files: int
    bytes: int


@dataclass(frozen=True)
class Corpus:
    """A text to train on and one to validate on.

    `origin` says in a word where the text is from, `beginning` is something to begin with in the
    manner of it.
    """

    training: Part
    validation: Part
    origin: str
    beginning: str


def write_corpus(
    folder: str | Path,
    origin: str,
    training: Sequence[Document],
    validation: Sequence[Document],
    tokenizer: Tokenizer,
) -> None:
    """Encode both sides of a split text and write them to a folder.

    Args:
        folder: made when it is not there.
        origin: where the text is from.
        training: the documents to train on.
        validation: those to validate on.
        tokenizer: that encodes them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"origin": origin, "beginning": beginning_of(training)}
    for name, documents in zip(PARTS, (training, validation), strict=True):
        write_tokens(folder / f"{name}.npy", encode_documents(documents, tokenizer))
        size = sum(len(document.text.encode()) for document in documents)
        facts[name] = {"files": len(documents), "bytes": size}
    write_json(folder / FACTS, facts)


def open_corpus(folder: str | Path) -> Corpus:
    """Open what `write_corpus` wrote; the tokens stay on the disk until they are needed.

    Raises:
        FileNotFoundError, ValueError: a file is not there, or damaged.
    """
    folder = Path(folder)
    facts = read_json(folder / FACTS)
    try:
        training, validation = (
            Part(open_tokens(folder / f"{name}.npy"), facts[name]["files"], facts[name]["bytes"])
            for name in PARTS
        )
        return Corpus(training, validation, facts["origin"], facts["beginning"])
    except (KeyError, TypeError):
        raise ValueError(f"{str(folder / FACTS)!r} does not describe a text") from None


def write_tokens(path: str | Path, tokens: np.ndarray) -> None:
    """Write ids to a `.npy` file, whole or not at all.

    Raises:
        ValueError: the array is not one-dimensional, or of other numbers than uint16.
    """
    from io import BytesIO

    _check_tokens("tokens", tokens)
    content = BytesIO()
    np.save(content, tokens, allow_pickle=False)
    write_atomically(path, content.getvalue())


def open_tokens(path: str | Path) -> np.ndarray:
    """Map a file of ids into memory: what is read of it is loaded, and no more.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file is not one of ids, or is cut short.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tokens(f"{folder}/ids.npy", np.array([5, 6, 7], dtype=np.uint16))
    ...     open_tokens(f"{folder}/ids.npy").tolist()
    [5, 6, 7]
    """
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{str(path)!r} is not a whole file of tokens: {error}") from None
    _check_tokens(str(path), tokens)
    return tokens


def _check_tokens(name: str, tokens: np.ndarray) -> None:
    if tokens.ndim != 1 or tokens.dtype != np.uint16:
        raise ValueError(
            f"{name} must be one row of uint16, got shape {tokens.shape} of {tokens.dtype}"
        )


def beginning_of(documents: Sequence[Document]) -> str:
    """Return a few characters to begin with: of Python a function, of other text a line."""
    if any(document.name.endswith(".py") for document in documents):
        return "def add("
    lines = (line.strip() for document in documents for line in document.text.splitlines())
    # A shell would take one that begins with a dash for an option.
    return next((line for line in lines if line and line[0] != "-"), "")[:20]


def split_and_learn(
    documents: Sequence[Document], vocabulary: int
) -> tuple[list[Document], list[Document], Tokenizer]:
    """Split a text and learn a tokenizer from its training part.

    Args:
        documents: the text.
        vocabulary: ids of the tokenizer.

    Returns:
        The training documents, the validation documents, the tokenizer.
    """
    training, validation = split_documents(documents)
    tokenizer = Tokenizer.train((document.text for document in training), vocabulary)
    return training, validation, tokenizer
