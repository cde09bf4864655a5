"""Text to learn from: documents, their split into training and validation, and token batches.

Nothing is downloaded. The default text is the source of Python's own standard library, which
everyone who runs this has.
"""

import hashlib
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

# Folders of the standard library that are not library code, or are another copy of it.
_LEFT_OUT_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "_vendor"}
)
# Tables of data that happen to be written in Python.
_LEFT_OUT_FILES = ("encodings/*.py", "pydoc_data/topics.py", "html/entities.py")
_NOT_TEXT_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_LARGEST_FILE = 8 * 2**20


class Document(NamedTuple):
    """One text and the name it is known by."""

    name: str
    text: str


@runtime_checkable
class Encoder(Protocol):
    """What this module needs of a tokenizer."""

    start: int

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""

    def __len__(self) -> int:
        """Return the number of different ids."""


def python_source() -> list[Document]:
    """Return the source files of Python's standard library, sorted by name.

    Left out are installed packages, tests, and tables of data written as Python (encodings,
    HTML entities, help topics). A file that its declared encoding cannot read is left out too.

    Returns:
        Documents named by their path in the library, such as `json/decoder.py`. Which
        files there are depends on the version of Python, and on the system's packaging of it.

    Example:
        >>> names = [document.name for document in python_source()]
        >>> "dataclasses.py" in names
        True
        >>> names == sorted(names)
        True
    """
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    for name in sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py")):
        if _is_library_code(PurePath(name)):
            text = _read_source(root / name)
            if text:
                documents.append(Document(name, text))
    return documents


def documentation() -> list[Document]:
    """Return the topics of Python's own manual that come with every Python, sorted by name.

    They are what `help("topic")` shows: prose about the language, with examples.

    Returns:
        Documents named by their topic.

    Raises:
        ImportError: this Python was packaged without them.

    Example:
        >>> topics = {document.name: document.text for document in documentation()}
        >>> "lambda" in topics["lambda"]
        True
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ImportError("this Python comes without its help topics (pydoc_data)") from None
    return [Document(name, topics[name]) for name in sorted(topics)]


def _is_library_code(path: PurePath) -> bool:
    if _LEFT_OUT_FOLDERS.intersection(path.parts[:-1]):
        return False
    return not any(path.match(pattern) for pattern in _LEFT_OUT_FILES)


def _read_source(path: Path) -> str:
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError, OSError):
        return ""


def read_texts(path: str | Path, leave_out: str | Path | None = None) -> list[Document]:
    """Read a text file, or every text file in a folder and the folders below it.

    A file is text when it is UTF-8 without null characters. In a folder, whatever is not text
    is passed over, and so are hidden files and folders, empty files, files over 8 MiB, virtual
    environments, and the folders of models.

    Args:
        path: a file or a folder.
        leave_out: a folder that is passed over too, such as the one that results go to.

    Returns:
        Documents sorted by name; a name is the path below `path`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: `path` is a file that is not text, or a folder without any text.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder at text path {str(path)!r}")
    if path.is_file():
        text = _read_text(path)
        if not text:
            raise ValueError(f"{str(path)!r} is not a text: it is empty or not UTF-8")
        return [Document(path.name, text)]
    left_out = None if leave_out is None else Path(leave_out).resolve()
    documents = [
        Document(file.relative_to(path).as_posix(), text)
        for file in sorted(_visible_files(path, left_out))
        if (text := _read_text(file))
    ]
    if not documents:
        raise ValueError(f"no text files in folder {str(path)!r}")
    return sorted(documents)


def _visible_files(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink() and entry.name not in _NOT_TEXT_FOLDERS:
            # A virtual environment is a folder of other people's text, a model's of nobody's.
            made = (entry / name for name in ("pyvenv.cfg", "training-state.safetensors"))
            if entry.resolve() != leave_out and not any(file.exists() for file in made):
                yield from _visible_files(entry, leave_out)
        elif entry.is_file() and entry.stat().st_size <= _LARGEST_FILE:
            yield entry


def _read_text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except (UnicodeDecodeError, OSError):
        return ""
    return "" if "\0" in text else text


def split_documents(
    documents: Sequence[Document], validation: float = 0.05
) -> tuple[list[Document], list[Document]]:
    """Split documents by a hash of their names into a training and a validation part.

    A document falls on the same side whatever other documents there are, so a validation file
    stays one when the corpus grows. Neither part is ever empty: of a single document, the last
    part of the text validates.

    Args:
        documents: at least one.
        validation: the share of documents to hold out, above 0 and below 1.

    Returns:
        The training documents and the validation documents, each in the given order.

    Raises:
        ValueError: no documents, or a share outside (0, 1).

    Example:
        >>> train, held_out = split_documents([Document(f"{i}.py", "pass") for i in range(100)])
        >>> len(train) + len(held_out)
        100
    """
    if not documents:
        raise ValueError("documents is empty: there is nothing to split")
    if not 0 < validation < 1:
        raise ValueError(f"validation must lie between 0 and 1, got {validation}")
    if len(documents) == 1:
        name, text = documents[0]
        cut = len(text) - max(1, int(len(text) * validation))
        return [Document(name, text[:cut])], [Document(name, text[cut:])]
    order = sorted(documents, key=lambda document: _position(document.name))
    count = sum(_position(document.name) < validation for document in documents)
    count = min(max(count, 1), len(documents) - 1)
    held_out = {document.name for document in order[:count]}
    return (
        [document for document in documents if document.name not in held_out],
        [document for document in documents if document.name in held_out],
    )


def _position(name: str) -> float:
    """Where a name falls between 0 and 1: the same on every machine, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def encode_documents(documents: Sequence[Document], tokenizer: Encoder) -> np.ndarray:
    """Encode documents into one array, with the tokenizer's start id before each.

    Args:
        documents: the texts.
        tokenizer: its ids must fit 16 bits.

    Returns:
        The ids as a one-dimensional uint16 array.

    Raises:
        ValueError: the tokenizer has more than 65,536 ids.
    """
    if len(tokenizer) > 2**16:
        raise ValueError(f"tokenizer has {len(tokenizer)} ids; at most {2**16} fit 16 bits")
    ids: list[int] = []
    for document in documents:
        ids.append(tokenizer.start)
        ids.extend(tokenizer.encode(document.text))
    return np.array(ids, dtype=np.uint16)


class TokenWindows:
    """Random windows of a token array, each batch a function of the seed and the step alone.

    Because a batch needs no memory of the batches before it, training that stops and resumes,
    or that is spread over several processes, sees the same windows.

    Args:
        tokens: a one-dimensional array of ids; a memory-mapped one is read window by window.
        batch_size: windows in a batch.
        length: tokens that the model reads in each window.
        seed: any integer from 0 up.

    Raises:
        ValueError: the array is not one-dimensional or too short for one window.

    Example:
        >>> windows = TokenWindows(np.arange(100), batch_size=2, length=8, seed=0)
        >>> inputs, targets = windows.batch(step=5)
        >>> bool((inputs + 1 == targets).all())
        True
    """

    def __init__(self, tokens: np.ndarray, batch_size: int, length: int, seed: int = 0) -> None:
        if tokens.ndim != 1:
            raise ValueError(f"tokens must have one dimension, got shape {tokens.shape}")
        if len(tokens) <= length:
            raise ValueError(
                f"the text has {len(tokens)} tokens; a window of length {length} needs at least "
                f"{length + 1}"
            )
        self.tokens = tokens
        self.batch_size = batch_size
        self.length = length
        self.seed = seed

    def batch(self, step: int) -> tuple[Int[Tensor, "batch n"], Int[Tensor, "batch n"]]:
        """Return the inputs of a step and its targets, the same windows one token later."""
        random = np.random.default_rng([self.seed, step])
        starts = random.integers(0, len(self.tokens) - self.length, self.batch_size)
        return cut_windows(self.tokens, starts, self.length)


def cut_windows(
    tokens: np.ndarray, starts: Sequence[int] | np.ndarray, length: int
) -> tuple[Int[Tensor, "batch n"], Int[Tensor, "batch n"]]:
    """Cut windows out of a token array: the inputs, and the targets one token later."""
    rows = np.empty((len(starts), length + 1), dtype=np.int64)
    for row, start in zip(rows, starts, strict=True):
        row[:] = tokens[start : start + length + 1]
    windows = torch.from_numpy(rows)
    return windows[:, :-1], windows[:, 1:]
