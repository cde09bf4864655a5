"""What a head does, in one sentence: the finding that a picture of it is titled with."""

from collections.abc import Sequence
from string import punctuation
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from zeta_edu.views.tokens import visible

CLEAR = 0.35  # the share of attention from which on a pattern is called the head's habit,
LIFT = 2.0  # if it is also so many times what an even head would give
NEAR = 5  # a head is called near-sighted by what it gives to so many of the newest tokens


class Finding(NamedTuple):
    """A head's habit: the sentence after its name and a colon, and how much there is to see."""

    sentence: str
    interest: float


def findings(
    weights: Float[np.ndarray, "layers heads queries keys"],
    tokens: Sequence[str],
    self_attention: bool,
) -> list[list[Finding]]:
    r"""Describe every head by the habit that takes the largest share of its attention.

    Args:
        weights: attention weights; each query's row sums to 1, or to 0.
        tokens: the keys' text.
        self_attention: whether the queries are the same tokens as the keys.

    Returns:
        One `Finding` per layer and head.

    Examples:
        >>> before = np.eye(6, k=-1, dtype=np.float32)[None, None]
        >>> findings(before, list("abcdef"), True)[0][0].sentence
        '100\xa0% of the attention goes to the token just before'
    """
    habits = _habits(tokens) if self_attention and len(tokens) > 3 else {}
    return [[_describe(head, tokens, habits) for head in layer] for layer in weights]


def _habits(tokens: Sequence[str]) -> dict[str, tuple[Bool[np.ndarray, "tokens tokens"], float]]:
    """Where each habit would put its attention, and how interesting the habit is."""
    count = len(tokens)
    # A part of a character has no text of its own: two of them need not be the same token.
    names = [token if "\ufffd" not in token else f"{token}{i}" for i, token in enumerate(tokens)]
    _, kinds = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    copies = np.tril(kinds[:, None] == kinds[None, :], k=-1)
    after_copies = np.zeros_like(copies)
    after_copies[:, 1:] = copies[:, :-1]
    after_copies &= np.tri(count, k=-1, dtype=bool)
    first = np.zeros((count, count), dtype=bool)
    first[2:, 0] = True
    breaks = np.array(["\n" in token for token in tokens])
    signs = np.array(
        [set(token.strip()) <= set(punctuation) and token.strip() != "" for token in tokens]
    )
    anywhere = np.ones((count, 1), dtype=bool)
    again = "a token that has come before gives {} of its attention to "
    puts = "{} of the attention goes to "
    return {
        again + "what followed it then": (after_copies, 1.6),
        again + "its earlier copies": (copies, 1.3),
        puts + "the token two before": (np.eye(count, k=-2, dtype=bool), 1.1),
        puts + "the token just before": (np.eye(count, k=-1, dtype=bool), 1.0),
        puts + "the token just after": (np.eye(count, k=1, dtype=bool), 1.0),
        puts + "line breaks": (anywhere & breaks, 0.9),
        puts + "brackets and other signs": (anywhere & signs, 0.9),
        puts + "the token itself": (np.eye(count, dtype=bool), 0.6),
        puts + "the first token": (first, 0.5),
    }


def _describe(
    head: Float[np.ndarray, "queries keys"],
    tokens: Sequence[str],
    habits: dict[str, tuple[Bool[np.ndarray, "tokens tokens"], float]],
) -> Finding:
    if np.isnan(head).any():
        return Finding("some weights are not numbers", 0.0)
    if not head.any():
        return Finding("no attention goes to anything", 0.0)
    # Without any habit all seen tokens would get the same; a causal head does not see the future.
    causal = not np.triu(head, k=1).any()
    seen = np.tri(*head.shape, dtype=np.bool_) if causal else np.ones(head.shape, dtype=np.bool_)
    even = seen / seen.sum(axis=1, keepdims=True)
    best, share, interest = "", 0.0, 0.0
    for name, (where, weight) in habits.items():
        given, expected = _share(head, where & seen), _share(even, where & seen)
        # Of two clear habits the rarer one tells more: copies are also often the first token.
        if given >= max(CLEAR, LIFT * expected) and weight * (given - expected) > interest:
            best, share, interest = name, given, weight * (given - expected)
    if best:
        return Finding(best.format(_percent(share)), interest)
    return _favourite(head, tokens, bool(habits))


def _share(head: Float[np.ndarray, "queries keys"], where: Bool[np.ndarray, "q k"]) -> float:
    """The mean weight on the places of a habit, over the queries that have such places."""
    # The first queries of a causal model have next to no choice: they prove no habit.
    rows = where.any(axis=1) & (np.arange(len(head)) >= 2)
    if rows.sum() < 3:
        return 0.0
    return float((head * where)[rows].sum(axis=1).mean())


def _favourite(
    head: Float[np.ndarray, "queries keys"], tokens: Sequence[str], self_attention: bool
) -> Finding:
    received = head.mean(axis=0)
    best = int(received.argmax())
    if received[best] >= CLEAR and head.shape[1] > 1:
        sentence = f"{_percent(received[best])} of the attention goes to “{_short(tokens[best])}”"
        return Finding(sentence, 0.5 * float(received[best]))
    safe = np.where(head > 0, head, 1.0)
    looking = head.sum(axis=1) > 0
    spread = np.exp(-(safe * np.log(safe)).sum(axis=1))[looking]
    fewest, number, most = (
        max(1, round(float(n))) for n in (spread.min(), spread.mean(), spread.max())
    )
    if most == 1:
        return Finding("each query looks at one token", 0.3)
    sentence = f"each query spreads its attention over about {number} tokens"
    if fewest != most:
        sentence = (
            f"queries spread their attention over {fewest} to {most} tokens, {number} on average"
        )
    age = np.arange(head.shape[0])[:, None] - np.arange(head.shape[1])
    near = _share(head, (age >= 0) & (age < NEAR))
    if self_attention and near >= 0.6 and len(head) > 3 * NEAR:
        sentence += f", {_percent(near)} of it on the {NEAR} newest"
    return Finding(sentence, 0.2 / number)


def _short(token: str) -> str:
    seen = visible(token)
    return seen if len(seen) <= 24 else f"{seen[:23]}…"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"
