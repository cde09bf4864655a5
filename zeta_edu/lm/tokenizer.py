"""Text to token ids and back: byte-level byte-pair encoding, cut for Python source."""

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zeta_edu.files import read_json, write_atomically

START = "<|start|>"

# Where merges may not cross, tried in this order: newlines with the indentation after them;
# a name, one digit or a run of punctuation, each with at most one space before it; a run of
# spaces up to the last one; whatever whitespace is left.
PIECES = (
    r"\n+ *"
    r"| ?[\p{L}\p{M}_]+"
    r"| ?\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}_]+"
    r"|[^\S\n]+(?!\S)"
    r"|\s"
)


class Tokenizer:
    """A byte-pair tokenizer: any text becomes ids, and the ids give back that very text.

    Id 0 is `<|start|>`, which stands before every document. It has no spelling: the same
    characters in a text are encoded as plain text.

    Args:
        vocabulary: the id of each token; tokens are spelled in the 256 printable characters
            that stand for bytes.
        merges: pairs of tokens that become one, in the order in which they were learned.

    Raises:
        ImportError: the `tokenizers` package is not installed.
        ValueError: the vocabulary or the merges are not whole.

    Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword
    Units", 2016, section 3.2; over bytes as in Radford et al., "Language Models are
    Unsupervised Multitask Learners", 2019, section 2.2.

    Example:
        >>> tokenizer = Tokenizer.train(["def add(a, b): return a + b"] * 8, vocab_size=280)
        >>> tokenizer.decode(tokenizer.encode("naïve → 変数"))
        'naïve → 変数'
        >>> tokenizer.pieces(tokenizer.encode("def add("))
        ['def', ' add', '(']
    """

    start = 0

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[Sequence[str]]) -> None:
        _check_vocabulary(vocabulary)
        _check_merges(merges, vocabulary)
        package = _import_tokenizers()
        pairs = [(left, right) for left, right in merges]
        self._engine = _engine(package, package.models.BPE(vocabulary, pairs))
        spelling = {number: token for token, number in vocabulary.items()}
        byte_of = {character: byte for byte, character in enumerate(_byte_characters())}
        self._bytes = [
            b"" if number == self.start else bytes(byte_of[c] for c in spelling[number])
            for number in range(len(vocabulary))
        ]

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 2048) -> "Tokenizer":
        """Learn the merges from texts.

        Args:
            texts: the text to learn from; the same texts give the same tokenizer.
            vocab_size: number of ids, at least 257 (the bytes and `<|start|>`). A small text
                may offer fewer merges, and then gives fewer ids.

        Returns:
            The tokenizer.

        Raises:
            ImportError: the `tokenizers` package is not installed.
            ValueError: `vocab_size` is below 257 or above 65,536.
        """
        if not 257 <= vocab_size <= 2**16:
            raise ValueError(f"vocab_size must lie between 257 and {2**16}, got {vocab_size}")
        package = _import_tokenizers()
        engine = _engine(package, package.models.BPE())
        trainer = package.trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[START],
            initial_alphabet=_byte_characters(),
            show_progress=False,
        )
        engine.train_from_iterator(texts, trainer)
        # Made anew from vocabulary and merges, because a registered special token would be
        # found inside a user's text. Unregistered, it is an id that no text can spell.
        model = json.loads(engine.to_str())["model"]
        return cls(model["vocab"], model["merges"])

    @classmethod
    def of_bytes(cls) -> "Tokenizer":
        """Return the tokenizer without merges: the id of a byte is the byte plus 1.

        >>> Tokenizer.of_bytes().encode("ab")
        [98, 99]
        """
        bytes_of = {character: byte + 1 for byte, character in enumerate(_byte_characters())}
        return cls({START: cls.start, **bytes_of}, [])

    def __len__(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text.

        Raises:
            TypeError: `text` is not a string.
            ValueError: `text` holds half a surrogate pair, which no encoding of text allows.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, got {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"text cannot be encoded: lone surrogate at character {error.start}"
            ) from None
        return self._engine.encode(text).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become the replacement character."""
        return b"".join(self._bytes[i] for i in self._checked_ids(ids)).decode("utf-8", "replace")

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return the text of each id, for display; joined, they are the decoded text.

        A character spread over several ids is given to the last of them. The start id, which
        has no text, is shown by its name.
        """
        ids = self._checked_ids(ids)
        texts = list(self.decode_each(ids))
        return [START if i == self.start else text for i, text in zip(ids, texts, strict=False)]

    def decode_each(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield the text that each id completes, while the ids arrive.

        After the last id comes one more string: what was left of an unfinished character.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for i in ids:
            yield decoder.decode(self._bytes[i])
        yield decoder.decode(b"", final=True)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file that the `tokenizers` package reads too."""
        write_atomically(path, self._engine.to_str().encode())

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer that `save` wrote.

        Raises:
            FileNotFoundError: there is no file.
            ValueError: the file is not a tokenizer of this kind; the message says why.
        """
        description = read_json(path)
        try:
            return cls(*_learned(description))
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is not a tokenizer file: {error}") from None

    def _checked_ids(self, ids: Iterable[int]) -> Sequence[int]:
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < len(self._bytes):
                raise ValueError(f"ids must lie between 0 and {len(self) - 1}, got {i}")
        return ids


def _import_tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            "the tokenizers package is missing; install it with: pip install 'zeta-edu[train]'"
        ) from None
    return tokenizers


def _byte_characters() -> list[str]:
    """Return the printable character that stands for each byte in the vocabulary.

    Printable Latin-1 bytes stand for themselves; the others, in order, for 256 and up.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _engine(package: Any, model: Any) -> Any:
    """Put a byte-pair model behind the cutting of text into pieces."""
    engine = package.Tokenizer(model)
    split = package.pre_tokenizers.Split(package.Regex(PIECES), behavior="isolated")
    byte_level = package.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer = package.pre_tokenizers.Sequence([split, byte_level])
    engine.decoder = package.decoders.ByteLevel()
    return engine


def _learned(description: Any) -> tuple[Any, Any]:
    """Return vocabulary and merges from a file; the rest of it is code's business, not data's."""
    try:
        pieces = description["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
        learned = description["model"]["vocab"], description["model"]["merges"]
    except (KeyError, IndexError, TypeError):
        raise ValueError("it does not describe a byte-pair tokenizer") from None
    if pieces != PIECES:
        raise ValueError("it cuts text into other pieces")
    return learned


def _check_vocabulary(vocabulary: Any) -> None:
    if not isinstance(vocabulary, dict) or vocabulary.get(START) != 0:
        raise ValueError(f"the vocabulary does not begin with {START}")
    if not all(type(number) is int for number in vocabulary.values()):
        raise ValueError("the vocabulary has ids that are not whole numbers")
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError("the ids do not count from 0 without gaps")
    spelled = vocabulary.keys() - {START}
    if not set(_byte_characters()).issuperset("".join(spelled)) or "" in spelled:
        raise ValueError("the tokens are not spelled in byte characters")
    if not spelled >= set(_byte_characters()):
        raise ValueError("the vocabulary lacks some of the 256 bytes")


def _check_merges(merges: Any, vocabulary: dict[str, int]) -> None:
    if not isinstance(merges, list):
        raise ValueError("the merges are not a list")
    for pair in merges:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"the merge {pair!r} is not a pair")
        if not all(isinstance(token, str) and token in vocabulary for token in pair):
            raise ValueError(f"the merge {pair!r} is of tokens not in the vocabulary")
        if "".join(pair) not in vocabulary or START in pair:
            raise ValueError(f"the merge {pair!r} makes no token of the vocabulary")
