"""The mask view outside the browser: what it computes, says and refuses."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from zeta_edu.attention import attention_weights
from zeta_edu.masks import visible_keys
from zeta_edu.views import codec, mask_view, style
from zeta_edu.views.mask import MOST_KEYS

CPU = torch.device("cpu")
TOKENS = ["def", " add", "(", "a", ",", " b", "):", "\n    "]

CAUSAL = "Each token sees itself and the tokens before it"
CACHED = "Each of 3 new tokens sees the cache, itself, and the new ones before it"
LAST = "A single new token comes last, so causality hides nothing from it"


def scores_of(queries: int = 8, keys: int = 8) -> torch.Tensor:
    return 2 * torch.randn(queries, keys, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("causal", "padding", "side", "past"),
    list(product((True, False), (0, 3, 7), ("left", "right"), (0, 5, 7))),
)
def test_it_masks_and_weighs_as_attention_does(
    causal: bool, padding: int, side: str, past: int
) -> None:
    view = mask_view(scores_of(), causal=causal, padding=padding, padding_side=side, past=past)
    keep = torch.arange(8) >= padding if side == "left" else torch.arange(8) < 8 - padding
    seen, weights = view.masked()
    expected = visible_keys(8 - past, 8, CPU, keep[None], causal).expand(8 - past, 8)
    np.testing.assert_array_equal(seen, expected)
    # Any queries and keys with these scores: here the keys are an orthogonal matrix.
    keys = torch.linalg.qr(scores_of().double()).Q
    queries = scores_of()[past:].double() @ keys
    same = attention_weights(
        queries[None, None], keys[None, None], mask=keep[None], causal=causal, scale=1.0
    )
    np.testing.assert_allclose(weights, same[0, 0], atol=1e-12)


def test_the_state_holds_the_raw_scores_and_the_controls() -> None:
    view = mask_view(scores_of(), tokens=TOKENS, padding=2, past=1)
    state = view.state()
    assert state["shape"] == [8, 8]
    assert state["labels"][:2] == ["def", "·add"]
    assert state["start"] == {"causal": True, "padding": 2, "padding_side": "left", "past": 1}
    np.testing.assert_array_equal(codec.decode(state["arrays"]["scores"]), scores_of())


def test_fewer_queries_than_keys_come_after_a_cache() -> None:
    view = mask_view(scores_of(3, 8))
    assert view.start["past"] == 5
    assert view.controls()["past"] == range(5, 8)
    seen, _ = view.masked()
    assert seen.sum(axis=1).tolist() == [6, 7, 8]
    assert mask_view(scores_of(3, 8), past=6).new_scores.shape == (2, 8)


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({}, f"{CAUSAL}: 36 of 64 cells are open"),
        ({"causal": False}, "Every token sees every token: 64 of 64 cells are open"),
        ({"padding": 1}, f"{CAUSAL}, except the padded one: 1 query can see nothing"),
        ({"padding": 3}, f"{CAUSAL}, except the 3 padded ones: 3 queries can see nothing"),
        (
            {"padding": 3, "padding_side": "right"},
            f"{CAUSAL}, except the 3 padded ones: 30 of 64 cells are open",
        ),
        ({"past": 5}, f"{CACHED}: 21 of 24 cells are open"),
        ({"past": 7}, f"{LAST}: 8 of 8 cells are open"),
        ({"past": 7, "causal": False}, "The new token sees every token: 8 of 8 cells are open"),
        ({"past": 6, "causal": False}, "New tokens see every token: 16 of 16 cells are open"),
    ],
)
def test_the_title_says_who_sees_whom(options: dict[str, Any], title: str) -> None:
    view = mask_view(scores_of(), **options)
    assert view.title == title
    assert view.alt.endswith(f"{title}.")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scores": torch.zeros(3)}, ValueError, r"scores must be \(queries, keys\)"),
        ({"scores": torch.zeros(3, 2)}, ValueError, "scores must have a key for every query"),
        ({"scores": torch.full((2, 2), -torch.inf)}, ValueError, "scores must be finite"),
        ({"scores": torch.zeros(2, MOST_KEYS + 1)}, ValueError, "scores must have at most 64"),
        ({"scores": "abc"}, TypeError, "scores must hold real numbers"),
        ({"causal": 1}, TypeError, "causal must be True or False"),
        ({"padding": 8}, ValueError, "padding must be in 0 to 7, got 8"),
        ({"padding": -1}, ValueError, "padding must be in 0 to 7, got -1"),
        ({"padding": 1.5}, TypeError, "padding must be an int, got float"),
        ({"padding": True}, TypeError, "padding must be an int, got bool"),
        ({"padding_side": "top"}, ValueError, "padding_side must be"),
        ({"past": 8}, ValueError, "past must be in 0 to 7, got 8"),
        ({"past": 2, "scores": torch.zeros(3, 8)}, ValueError, "past must be in 5 to 7, got 2"),
        ({"tokens": TOKENS[:3]}, ValueError, "tokens must have 8 entries"),
        ({"tokens": "abcdefgh"}, TypeError, "tokens must be a list of str"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        mask_view(options.pop("scores", scores_of()), **options)


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (40, 40), (2, MOST_KEYS)])
def test_any_size_has_a_figure(shape: tuple[int, int]) -> None:
    view = mask_view(torch.zeros(shape), padding=min(1, shape[1] - 1))
    assert style.picture(view.figure()).startswith(b"\x89PNG")


def test_no_scores_are_said_to_be_none() -> None:
    view = mask_view(torch.zeros(0, 0))
    assert view.state()["empty"] == "Nothing to look at yet: there are no scores."
    assert style.picture(view.figure()).startswith(b"\x89PNG")
    assert "nothing to look at" in view.alt


def test_the_figure_writes_scores_mask_weights_and_sums() -> None:
    figure = mask_view(scores_of(), padding=1).figure()
    scores, mask, weights = figure.axes
    assert [text.get_text() for text in scores.texts[:2]] == ["−2.3", "−2.3"]
    assert [text.get_text() for text in mask.texts[8:11]] == ["−∞", "0", "−∞"]
    assert [text.get_text() for text in weights.texts[8:11]] == ["0", "1.00", "0"]
    sums = [label.get_text() for label in weights.get_yticklabels()]
    assert sums == ["0", "1", "1", "1", "1", "1", "1", "1"]
    assert scores.get_xticklabels()[0].get_text() == "[pad]"
