"""A head is described by what it does: each habit, drawn by hand, is called by its name."""

import numpy as np
import pytest

from zeta_edu.views.patterns import findings

TOKENS = ["def", " f", "(", "x", ")", ":", "\n", "return", " f", "(", "x", ")", "\n"]
COUNT = len(TOKENS)


def described(weights: np.ndarray, tokens: list[str] = TOKENS, same: bool = True) -> str:
    return findings(weights[None, None].astype(np.float32), tokens, same)[0][0].sentence


def looking_at(place: dict[int, int]) -> np.ndarray:
    weights = np.tri(COUNT) / np.arange(1, COUNT + 1)[:, None]
    for query, key in place.items():
        weights[query] = np.eye(COUNT)[key]
    return weights


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.eye(COUNT), "token itself"),
        (np.eye(COUNT, k=-1), "token just before"),
        (np.eye(COUNT, k=-2), "token two before"),
        (np.eye(COUNT, k=1), "token just after"),
        (np.eye(COUNT)[[0] * COUNT], "first token"),
        (looking_at({8: 1, 9: 2, 10: 3, 11: 4, 12: 6}), "its earlier copies"),
        (looking_at({8: 2, 9: 3, 10: 4, 11: 5, 12: 7}), "what followed it then"),
        (np.eye(COUNT)[[9] * COUNT], "brackets and other signs"),
        (np.eye(COUNT)[[6] * COUNT] * np.tri(COUNT)[:, [6]], "line breaks"),
    ],
)
def test_a_habit_is_called_by_its_name(weights: np.ndarray, words: str) -> None:
    assert words in described(weights)
    assert "100\N{NO-BREAK SPACE}%" in described(weights)


def test_the_share_is_the_mean_over_the_queries_that_have_a_choice() -> None:
    weights = 0.7 * np.eye(COUNT, k=-1) + 0.3 * np.eye(COUNT)
    assert described(weights).startswith("70\N{NO-BREAK SPACE}%")


def test_an_even_head_spreads_over_as_many_tokens_as_it_sees() -> None:
    assert "over about 13 tokens" in described(np.full((COUNT, COUNT), 1 / COUNT))


def test_queries_that_spread_unalike_are_given_their_range() -> None:
    weights = np.full((COUNT, COUNT), 1 / COUNT)
    weights[::2] = np.repeat([[1 / 3, 0]], [3, COUNT - 3], axis=1)
    assert described(weights) == "queries spread their attention over 3 to 13 tokens, 8 on average"


def test_an_even_head_has_no_habit_even_where_most_tokens_are_signs() -> None:
    even = np.tri(COUNT) / np.arange(1, COUNT + 1)[:, None]
    assert described(even, list("(((((((()))))")).startswith("queries spread")


def test_a_head_that_looks_near_is_said_to() -> None:
    near = np.tri(30) - np.tri(30, k=-4)
    sentence = described(near / near.sum(axis=1, keepdims=True), [f"t{i}" for i in range(30)])
    assert sentence.startswith(
        "queries spread their attention over 1 to 4 tokens, 4 on average, 100"
    )
    assert sentence.endswith("of it on the 5 newest")


def test_without_the_same_tokens_no_place_is_before_or_after() -> None:
    sentence = described(np.eye(COUNT)[[4] * COUNT], same=False)
    assert sentence == "100\N{NO-BREAK SPACE}% of the attention goes to “)”"


def test_a_head_with_nothing_or_with_what_is_no_number_says_so() -> None:
    assert "no attention" in described(np.zeros((COUNT, COUNT)))
    assert "not numbers" in described(np.full((COUNT, COUNT), np.nan))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_text_too_short_for_habits_is_still_described(count: int) -> None:
    weights = np.tri(count) / np.arange(1, count + 1)[:, None]
    assert described(weights, TOKENS[:count])


def test_parts_of_characters_are_no_copies_of_each_other() -> None:
    tokens = ["a", "b", *["\ufffd"] * 4]
    copies = np.tril(np.ones((6, 6), dtype=np.float32), k=-1) + np.eye(6, dtype=np.float32)
    copies[:, :2] = 0
    copies[:2, 0] = 1
    sentence = findings(copies[None, None] / copies.sum(axis=1, keepdims=True), tokens, True)[0][0]
    assert "copies" not in sentence.sentence
