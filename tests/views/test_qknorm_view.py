"""The view of query-key normalisation outside the browser: numbers, refusals, words, figure."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeta_edu.attention import attention_weights
from zeta_edu.norm import l2_normalise
from zeta_edu.views import codec, qknorm_view, style
from zeta_edu.views.qknorm_data import SCALES, finding, histogram, measure, reach


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


QUERIES, KEYS = drawn(4, 6, 8), drawn(2, 9, 8, seed=1)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_weights_and_entropies_are_those_of_the_packages_attention(
    normalise: bool, causal: bool
) -> None:
    q_scale, k_scale = 1 + drawn(8, seed=2) / 4, 1 + drawn(8, seed=3) / 4
    view = qknorm_view(QUERIES, KEYS, causal=causal, q_scale=q_scale, k_scale=k_scale)
    seen = measure(view.vectors, 3.0, normalise, 5.0)
    queries, keys = 3 * QUERIES.double(), 3 * KEYS.double()
    if normalise:
        queries = l2_normalise(queries, q_scale.double())
        keys = l2_normalise(keys, k_scale.double())
    scale = 5.0 if normalise else None
    (weights,) = attention_weights(queries[None], keys[None], causal=causal, scale=scale)
    torch.testing.assert_close(seen.weights, weights)
    torch.testing.assert_close(seen.logits.softmax(-1), weights)
    bits = -(weights * weights.clamp(min=1e-300).log2()).sum(-1).mean(-1)
    torch.testing.assert_close(seen.entropies, bits)


@given(st.integers(0, 99), st.floats(0.1, 100), st.floats(0.1, 64))
def test_no_logit_passes_the_bound_with_normalisation(
    seed: int, activations: float, qk_scale: float
) -> None:
    scales = {"q_scale": drawn(4, seed=seed + 1), "k_scale": drawn(4, seed=seed + 2)}
    vectors = qknorm_view(drawn(2, 5, 4, seed=seed), drawn(1, 5, 4), **scales).vectors
    largest = measure(vectors, activations, True, qk_scale).largest
    assert largest <= qk_scale * vectors.gain * (1 + 1e-12)


def test_the_bound_is_reached_by_vectors_along_the_largest_scale() -> None:
    along = torch.tensor([[[0.0, 1.0, 0.0]]])
    scales = {"q_scale": [1.0, 3.0, 1.0], "k_scale": [1.0, 2.0, 4.0]}
    vectors = qknorm_view(along, along, **scales).vectors
    assert vectors.gain == 6
    assert measure(vectors, 1.0, True, 8.0).largest == pytest.approx(48)


def test_growing_activations_square_the_logits_without_and_change_nothing_with_normalisation() -> (
    None
):
    vectors = qknorm_view(QUERIES, KEYS).vectors
    small, large = (measure(vectors, times, False, 8.0) for times in (1.0, 10.0))
    torch.testing.assert_close(large.logits, 100 * small.logits)
    assert large.entropy < 0.2 < 2 < small.entropy
    small, large = (measure(vectors, times, True, 8.0) for times in (0.1, 100.0))
    torch.testing.assert_close(large.logits, small.logits)


def test_with_normalisation_and_without_its_scale_attention_is_all_but_uniform() -> None:
    vectors = qknorm_view(drawn(2, 16, 64), drawn(2, 16, 64, seed=1)).vectors
    assert finding(vectors, 1.0, True, 1.0).endswith("attention is all but uniform")
    assert measure(vectors, 1.0, True, 1.0).entropy > 0.98 * vectors.uniform
    assert measure(vectors, 1.0, True, 16.0).entropy < 0.8 * vectors.uniform


def test_the_largest_entropy_counts_only_the_keys_that_a_query_may_see() -> None:
    zeros = torch.zeros(1, 4, 2)
    view = qknorm_view(zeros, zeros, causal=True)
    seen = measure(view.vectors, 1.0, True, 8.0)
    assert view.vectors.uniform == pytest.approx(math.log2(1 * 2 * 3 * 4) / 4)
    assert seen.entropy == pytest.approx(view.vectors.uniform)
    assert qknorm_view(zeros, zeros).vectors.uniform == 2


def test_the_histogram_counts_every_logit_that_is_seen_once() -> None:
    logits = torch.tensor([-torch.inf, -99.0, -10.0, -0.01, 0.0, 9.99, 10.0, 5000.0])
    shares = histogram(logits, 10.0)
    assert shares.sum() == pytest.approx(1)
    assert [round(7 * share) for share in shares[[0, 1, 20, 21, 40, 41]]] == [1, 1, 1, 1, 1, 2]


@given(st.floats(0.01, 1e6))
def test_the_bound_lies_inside_the_picture_at_first(bound: float) -> None:
    assert max(10, 1.249 * bound) <= reach(bound) <= max(10, 3.2 * bound)


def test_the_state_holds_queries_and_keys_without_rounding() -> None:
    state = qknorm_view(QUERIES, KEYS.double(), qk_scale=16, causal=True).state()
    for name, vectors in (("queries", QUERIES), ("keys", KEYS)):
        assert state[name] == list(vectors.shape)
        assert torch.equal(torch.from_numpy(codec.decode(state["arrays"][name])), vectors)
    assert state["causal"] is True
    assert state["start"] == {"activations": 1, "normalise": True, "qk_scale": 16, "head": 0}


def test_a_batch_of_one_numpy_and_half_precision_are_taken() -> None:
    whole = qknorm_view(QUERIES, KEYS).state()
    assert qknorm_view(QUERIES[None], KEYS[None].numpy()).state() == whole
    half = qknorm_view(QUERIES.half(), KEYS.bfloat16())
    assert torch.equal(half.vectors.keys, KEYS.bfloat16().double())


def test_a_scale_beyond_the_slider_widens_it() -> None:
    assert qknorm_view(QUERIES, KEYS, qk_scale=0.5).controls()["qk_scale"].low == 0.5
    assert qknorm_view(QUERIES, KEYS, qk_scale=100).controls()["qk_scale"].high == 100


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"queries": "abc"}, TypeError, "queries must"),
        ({"queries": torch.zeros(6, 8)}, ValueError, r"queries must be \(heads, queries, dim_head"),
        ({"queries": QUERIES + torch.nan}, ValueError, "queries must be finite"),
        ({"keys": 1e300 * KEYS.double()}, ValueError, "keys must be finite"),
        ({"keys": drawn(2, 9, 7)}, ValueError, "keys must have the queries' dim_head=8, got 7"),
        ({"keys": drawn(3, 9, 8)}, ValueError, "keys must have heads that divide .* 4, got 3"),
        ({"keys": drawn(2, 5, 8), "causal": True}, ValueError, "causal needs a key for every"),
        ({"queries": torch.zeros(4, 9000, 8)}, ValueError, "queries must hold at most 131,072"),
        (
            {"queries": torch.zeros(2, 1000, 8), "keys": torch.zeros(2, 1000, 8)},
            ValueError,
            "at most 524,288 logits, got 2 heads × 1000 × 1000",
        ),
        ({"q_scale": torch.ones(7)}, ValueError, "q_scale must have dim_head=8 entries, got 7"),
        ({"k_scale": [math.inf] * 8}, ValueError, "k_scale must be finite"),
        ({"qk_scale": 0}, ValueError, "qk_scale must be above 0"),
        ({"qk_scale": "8"}, TypeError, "qk_scale must be a number"),
        ({"activations": 1000}, ValueError, "activations must be from 0.1 to 100, got 1000"),
        ({"normalise": 1}, TypeError, "normalise must be True or False"),
        ({"causal": None}, TypeError, "causal must be True or False"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        qknorm_view(**{"queries": QUERIES, "keys": KEYS, **changes})


@pytest.mark.parametrize("shapes", [((2, 0, 4), (2, 3, 4)), ((2, 3, 4), (2, 0, 4))])
def test_without_queries_or_keys_it_says_so(shapes: tuple[tuple[int, ...], ...]) -> None:
    view = qknorm_view(*map(torch.zeros, shapes))
    assert "no queries or no keys" in view.state()["empty"]
    assert view.alt.endswith("nothing to look at yet.")
    assert style.picture(view.figure())


@pytest.mark.parametrize(
    ("opening", "title"),
    [
        ({}, "With normalisation no logit leaves ±8, however large the activations: attention s"),
        ({"qk_scale": 1}, "With normalisation no logit leaves ±1, however large the activations: "),
        ({"normalise": False}, "Without normalisation logits grow with the square of the activat"),
        (
            {"normalise": False, "activations": 100},
            "Without normalisation activations ×100 make logits ×10,000: attention falls onto one",
        ),
    ],
)
def test_the_title_says_what_the_view_opens_on(opening: dict[str, Any], title: str) -> None:
    assert qknorm_view(QUERIES, KEYS, **opening).title.startswith(title)


def test_the_words_for_readers_without_the_picture_compare_both_ends() -> None:
    alt = qknorm_view(QUERIES, QUERIES).alt
    assert "4 heads, 6 queries and 6 keys of 8 features" in alt
    assert "if over 1 key without normalisation, and as if over " in alt


def test_the_figure_shows_the_curves_that_were_measured() -> None:
    view = qknorm_view(QUERIES, KEYS)
    logits, entropies = view.figure().axes
    lines = [line for line in entropies.lines if line.get_label().startswith("with")]
    for line, normalise in zip(lines, (False, True), strict=True):
        expected = [measure(view.vectors, scale, normalise, 8.0).entropy for scale in SCALES]
        torch.testing.assert_close(torch.tensor(line.get_ydata()), torch.tensor(expected).double())
    assert logits.get_xlabel().startswith("logit")
    assert entropies.get_ylabel() == "bits"


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (3, 2, 4)])
def test_vectors_of_any_size_even_of_zeros_have_a_figure(shape: tuple[int, ...]) -> None:
    for filling in (0.0, 1.0):
        view = qknorm_view(torch.full(shape, filling), torch.full(shape, filling))
        assert style.picture(view.figure())
        assert math.isfinite(view.state()["reach"])
