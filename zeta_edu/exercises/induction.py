"""The exercises of lesson 12: two places back, one's own letter, a longer prefix, the rule."""

import torch
from torch import Tensor

from zeta_edu.exercises.exercise import Arguments, Exercise, Mistake
from zeta_edu.exercises.weights import causal_weights, even_weights

LESSON = "12 a model learns to copy"


# The letter two places before.


def _tables() -> list[Arguments]:
    return [
        {"weights": w}
        for w in (even_weights(3), causal_weights(2, 5, seed=1), causal_weights(3, 9, seed=2))
    ]


def _back(weights: Tensor, steps: int) -> Tensor:
    return weights.diagonal(offset=-steps, dim1=-2, dim2=-1)


TWO_BEFORE = Exercise(
    name="induction.two_before",
    inputs=_tables,
    solution=lambda weights: _back(weights, 2).mean(dim=-1),
    mistakes=(
        Mistake(
            "This is the letter one place before; the diagonal of two before is one further.",
            lambda weights: _back(weights, 1).mean(dim=-1),
        ),
        Mistake(
            "This looks two places ahead, above the diagonal, where a causal weight is 0.",
            lambda weights: _back(weights, -2).mean(dim=-1),
        ),
        Mistake(
            "The first two queries have no such letter and should not count in the mean.",
            lambda weights: _back(weights, 2).sum(dim=-1) / weights.shape[-1],
        ),
        Mistake(
            "This is a sum; divide by the number of queries that have such a letter.",
            lambda weights: _back(weights, 2).sum(dim=-1),
        ),
        Mistake(
            "The heads are averaged too; each should have a number of its own.",
            lambda weights: _back(weights, 2).mean(),
        ),
        Mistake(
            "This is the attention on the letter itself, the main diagonal.",
            lambda weights: _back(weights, 0).mean(dim=-1),
        ),
    ),
    hints=(
        "The weights on the letter before lie on the diagonal just below the main one.",
        "`weights.diagonal(offset=..., dim1=-2, dim2=-1)` takes one diagonal of every head.",
        "Below the main diagonal offsets are negative: −1 is one place before, −2 is two.",
    ),
    verified="right for one, two and three heads, the gradients too.",
)


# Earlier copies of the query's own letter.


def _tables_and_letters() -> list[Arguments]:
    return [
        {"weights": even_weights(3), "tokens": torch.tensor([4, 7, 4])},
        {"weights": causal_weights(2, 5, seed=3), "tokens": torch.tensor([1, 2, 1, 1, 3])},
        {"weights": causal_weights(3, 8, seed=4), "tokens": torch.tensor([5, 0, 5, 0, 0, 2, 5, 2])},
    ]


def _copies(tokens: Tensor, diagonal: int = -1) -> Tensor:
    return (tokens[:, None] == tokens).tril(diagonal)


def _attended(weights: Tensor, marks: Tensor) -> Tensor:
    """The mean attention on the marked keys, over the queries that have any: (head,)."""
    return (weights * marks).sum(dim=-1)[:, marks.any(dim=-1)].mean(dim=-1)


def _followers(tokens: Tensor) -> Tensor:
    marks = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    marks[:, 1:] = tokens[:, None] == tokens[:-1]
    return marks.tril()


SAME_LETTER = Exercise(
    name="induction.same_letter",
    inputs=_tables_and_letters,
    solution=lambda weights, tokens: _attended(weights, _copies(tokens)),
    mistakes=(
        Mistake(
            "The query's own place counts as a copy; leave the main diagonal out.",
            lambda weights, tokens: _attended(weights, _copies(tokens, 0)),
        ),
        Mistake(
            "The own place is left out of the sum, but the mean runs over all queries; take those "
            "that have an earlier copy.",
            lambda weights, tokens: (weights * _copies(tokens)).sum(dim=-1).mean(dim=-1),
        ),
        Mistake(
            "These are the keys after an earlier copy, prefix matching; asked are the copies.",
            lambda weights, tokens: _attended(weights, _followers(tokens)),
        ),
        Mistake(
            "This is the mean over the copies; a query's attention on all its copies is summed.",
            lambda weights, tokens: weights[:, _copies(tokens)].mean(dim=-1),
        ),
        Mistake(
            "These are the later copies; queries stand in rows, and earlier keys on their left.",
            lambda weights, tokens: _attended(weights, _copies(tokens).T),
        ),
        Mistake(
            "The heads are averaged too; each should have a number of its own.",
            lambda weights, tokens: _attended(weights, _copies(tokens)).mean(),
        ),
        Mistake(
            "This is a sum over the queries; take the mean over those that have an earlier copy.",
            lambda weights, tokens: (weights * _copies(tokens)).sum(dim=(-2, -1)),
        ),
    ),
    hints=(
        "`tokens[:, None] == tokens` is true where query and key are the same letter.",
        "`.tril(diagonal=-1)` keeps what lies below the main diagonal: the earlier ones.",
        "Sum weights times copies along the keys; take the mean over rows where any copy is.",
    ),
    verified="right with one copy and with several, the gradients too.",
)


# A key whose two letters before are the query's two.


def _lines() -> list[Arguments]:
    lines = (
        [1, 2, 1, 2],
        [4, 4, 4, 4],
        [1, 2, 3, 1, 2],
        [2, 5, 2, 5, 2, 1, 2, 5],
        [1, 5, 1, 2, 1, 2, 1, 3, 1],
        [0, 1, 2, 0, 1, 3, 2, 0, 1, 2, 1, 0, 1],
    )
    return [{"tokens": torch.tensor(line)} for line in lines]


def _longer(tokens: Tensor, shift: int = 2, swapped: bool = False) -> Tensor:
    """Marks keys `shift` places after the start of a pair equal to the query's pair."""
    pairs = torch.stack((tokens[:-1], tokens[1:]), dim=-1)  # (n - 1, 2), each ends one later
    asked = pairs.flip(-1) if swapped else pairs
    same = (asked[:, None] == pairs).all(dim=-1)
    marks = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    marks[1:, shift:] = same[:, : len(tokens) - shift]
    return marks.tril()


def _either(tokens: Tensor) -> Tensor:
    """Marks keys where one of the two letters fits."""
    same = tokens[:, None] == tokens
    marks = torch.zeros_like(same)
    marks[1:, 2:] = same[1:, 1:-1] | same[:-1, :-2]
    return marks.tril()


def _unmasked(tokens: Tensor) -> Tensor:
    same = tokens[:, None] == tokens
    marks = torch.zeros_like(same)
    marks[1:, 2:] = same[1:, 1:-1] & same[:-1, :-2]
    return marks


LONGER = Exercise(
    name="induction.longer",
    inputs=_lines,
    solution=_longer,
    mistakes=(
        Mistake(
            "Only the letter just before the key is compared; the one before that belongs too.",
            _followers,
        ),
        Mistake(
            "The end of the earlier pair is marked; the key stands one place after it.",
            lambda tokens: _longer(tokens, shift=1),
        ),
        Mistake(
            "Later keys are marked as well; `.tril()` takes them out.",
            _unmasked,
        ),
        Mistake(
            "One letter of the two is enough here; both have to fit.",
            _either,
        ),
        Mistake(
            "The two letters are compared in the wrong order.",
            lambda tokens: _longer(tokens, swapped=True),
        ),
        Mistake(
            "Rows and columns are exchanged: queries stand in rows, keys in columns.",
            lambda tokens: _unmasked(tokens).T.tril(),
        ),
    ),
    hints=(
        "`same = tokens[:, None] == tokens` says which query and which key are the same letter.",
        "Query i, key j: same[i, j − 1] compares the last letters, same[i − 1, j − 2] the others.",
        "`marks[1:, 2:] = same[1:, 1:-1] & same[:-1, :-2]` puts both at their query and key.",
    ),
    verified="right where pairs repeat, overlap and differ in one letter.",
)


# The last follower, without a dictionary.


def _places(tokens: Tensor) -> Tensor:
    return torch.where(_followers(tokens), torch.arange(len(tokens)), -1).amax(dim=-1)


def _at(tokens: Tensor, places: Tensor, marks: Tensor) -> Tensor:
    return torch.where(marks.any(dim=-1), tokens[places], -1)


def _most_frequent(tokens: Tensor) -> Tensor:
    marks = _followers(tokens)
    counts = marks.long() @ torch.nn.functional.one_hot(tokens)
    return torch.where(marks.any(dim=-1), counts.argmax(dim=-1), -1)


RULE = Exercise(
    name="induction.rule",
    inputs=_lines,
    solution=lambda tokens: _at(tokens, _places(tokens), _followers(tokens)),
    mistakes=(
        Mistake(
            "These are places in the line; asked are the letters that stand there.",
            _places,
        ),
        Mistake(
            "The first follower is taken; the last one is asked for.",
            lambda tokens: _at(tokens, _followers(tokens).int().argmax(-1), _followers(tokens)),
        ),
        Mistake(
            "This is the commonest follower; the last one is asked for.",
            _most_frequent,
        ),
        Mistake(
            "The −1 is missing where the letter is new.",
            lambda tokens: tokens[_places(tokens)],
        ),
        Mistake(
            "This is the present letter itself, found again; asked is what came after it.",
            lambda tokens: _at(tokens, _places(tokens) - 1, _followers(tokens)),
        ),
        Mistake(
            "This looks ahead, at the letter that really comes; only what was read may count.",
            lambda tokens: torch.cat((tokens[1:], tokens.new_tensor([-1]))),
        ),
    ),
    hints=(
        "Make the table of followers: true where the letter before the key is the query's.",
        "Put each key's place where the table is true and −1 elsewhere; the largest is the last.",
        "`tokens[places]` are the letters there; `torch.where` puts −1 back where there is none.",
    ),
    verified="right for new letters, for several followers, and for a letter that follows itself.",
)

EXERCISES = (TWO_BEFORE, SAME_LETTER, LONGER, RULE)
