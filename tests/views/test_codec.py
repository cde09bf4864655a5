"""Numbers on their way to the browser come out as they went in, to the error that is stated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from zeta_edu.views import codec


def causal_weights(layers: int, heads: int, tokens: int, spread: float = 2.0) -> np.ndarray:
    scores = np.random.default_rng(0).standard_normal((layers, heads, tokens, tokens)) * spread
    scores = np.where(np.tri(tokens, dtype=bool), scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)))
def test_few_weights_come_back_within_the_stated_error(weights: np.ndarray) -> None:
    coded = codec.encode_weights(weights)
    assert coded["dtype"] == "float16"
    assert np.abs(codec.decode(coded) - weights).max() <= coded["error"]


@pytest.mark.parametrize(("layers", "heads", "tokens"), [(12, 8, 256), (1, 8, 600)])
def test_many_weights_come_back_within_the_stated_error(
    layers: int, heads: int, tokens: int
) -> None:
    weights = causal_weights(layers, heads, tokens)
    coded = codec.encode_weights(weights)
    assert coded["dtype"] == "uint8"
    assert np.abs(codec.decode(coded) - weights).max() <= coded["error"] <= 0.025


@pytest.mark.parametrize("tokens", [16, 600])
def test_only_an_exact_zero_comes_back_as_zero(tokens: int) -> None:
    weights = causal_weights(1, 1, tokens, spread=8.0)
    weights[0, 0, -1, :2] = [1e-12, 0.0]
    decoded = codec.decode(codec.encode_weights(weights))
    np.testing.assert_array_equal(decoded == 0, weights == 0)


@pytest.mark.parametrize("tokens", [16, 600])
def test_what_is_not_a_number_stays_so_and_alone(tokens: int) -> None:
    weights = causal_weights(1, 1, tokens)
    weights[0, 0, 3, 2] = np.nan
    decoded = codec.decode(codec.encode_weights(weights))
    assert np.argwhere(np.isnan(decoded)).tolist() == [[0, 0, 3, 2]]


def test_few_scores_come_back_exactly_with_their_masks() -> None:
    scores = np.random.default_rng(0).standard_normal((2, 2, 9, 9)).astype(np.float32) * 100
    scores[..., 4] = -np.inf
    scores[0, 0, 0, 0] = np.nan
    coded = codec.encode_scores(scores)
    assert coded["error"] == 0
    np.testing.assert_array_equal(codec.decode(coded), scores)


def test_many_scores_come_back_within_the_stated_error_with_their_masks() -> None:
    scores = np.random.default_rng(0).standard_normal((1, 1, 600, 600)).astype(np.float32) * 9
    scores[0, 0, :, 7] = -np.inf
    scores[0, 0, 5, 5] = np.nan
    coded = codec.encode_scores(scores)
    decoded = codec.decode(coded)
    finite = np.isfinite(scores)
    np.testing.assert_array_equal(np.isneginf(decoded), np.isneginf(scores))
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(scores))
    assert np.abs(decoded[finite] - scores[finite]).max() <= coded["error"] * 1.001


@pytest.mark.parametrize("filling", [0.0, -np.inf, np.nan])
def test_scores_of_one_kind_only_come_back(filling: float) -> None:
    scores = np.full((1, 1, 600, 600), filling, dtype=np.float32)
    np.testing.assert_array_equal(codec.decode(codec.encode_scores(scores)), scores)


def test_twelve_layers_of_eight_heads_over_256_tokens_fit_into_two_megabytes() -> None:
    for weights in (causal_weights(12, 8, 256, 1.0), causal_weights(12, 8, 256, 4.0)):
        assert len(codec.encode_weights(weights)["data"]) < 2_000_000


def test_coding_is_the_same_every_time() -> None:
    weights = causal_weights(2, 2, 300)
    assert codec.encode_weights(weights) == codec.encode_weights(weights.copy())
