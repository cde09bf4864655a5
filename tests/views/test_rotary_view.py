"""The rotary view outside the browser: what it takes, what it refuses, what it says."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from zeta_edu.rotary import rotary_frequencies, rotate_queries_keys
from zeta_edu.views import RotaryView, codec, rotary_view
from zeta_edu.views.rotary_data import HALF_SPLIT, INTERLEAVED, frequencies, hands, pairs, products

VECTORS = torch.randn(6, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
evens = st.integers(1, 16).map(lambda half: 2 * half)


def torch_product(query: torch.Tensor, key: torch.Tensor, m: int, n: int) -> float:
    places = torch.tensor([m]), torch.tensor([n])
    turned = rotate_queries_keys(query[None], key[None], *places, use_xpos=False)
    return float((turned[0] * turned[1]).sum())


@given(evens, st.floats(1.5, 1e7))
def test_frequencies_are_powers_of_the_base(dim: int, base: float) -> None:
    assert_allclose(frequencies(dim, base), base ** (-np.arange(0, dim, 2) / dim), rtol=1e-12)


def test_at_the_usual_base_they_are_the_packages_own() -> None:
    assert_allclose(frequencies(64, 10_000.0), rotary_frequencies(64), rtol=1e-15)


@given(evens)
def test_every_feature_is_in_one_pair_whatever_the_pairing(dim: int) -> None:
    for pairing in (HALF_SPLIT, INTERLEAVED):
        assert sorted(pairs(dim, pairing).ravel().tolist()) == list(range(dim))


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 99))
def test_the_product_is_that_of_the_package_wherever_the_two_stand(
    m: int, n: int, seed: int
) -> None:
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed)).double()
    seen = products(query.numpy(), key.numpy(), np.array([m - n]), 10_000.0, HALF_SPLIT)
    assert_allclose(seen, torch_product(query, key, m, n), atol=1e-6)


def test_interleaved_pairs_are_half_split_pairs_of_the_permuted_vector() -> None:
    vector, positions = VECTORS[0].numpy(), np.arange(5.0)
    permuted = np.concatenate([vector[0::2], vector[1::2]])
    assert_allclose(
        hands(vector, positions, 10_000.0, INTERLEAVED),
        hands(permuted, positions, 10_000.0, HALF_SPLIT),
    )


def test_it_opens_with_the_product_of_the_package_in_its_title() -> None:
    view = rotary_view(queries=VECTORS[:2], keys=VECTORS[2:])
    product = torch_product(VECTORS[0], VECTORS[2], view.m, view.n)
    assert_allclose(view.product, product, rtol=1e-12)
    assert f"{product:.4g}".replace("-", "−") in view.title
    assert "4 clocks" in view.alt


def test_the_state_holds_the_vectors_as_they_came() -> None:
    state = rotary_view(queries=VECTORS[:2], keys=VECTORS[2:], base=500, length=9).state()
    assert_allclose(codec.decode(state["arrays"]["queries"]), VECTORS[:2], rtol=1e-6)
    assert_allclose(codec.decode(state["arrays"]["keys"]), VECTORS[2:], rtol=1e-6)
    assert state["start"]["base"] == 500
    assert state["length"] == 9


def test_without_vectors_every_hand_is_upright_and_as_long_as_the_others() -> None:
    view = rotary_view(8)
    upright = hands(view.queries[0], np.zeros(1), view.base, HALF_SPLIT)[0]
    assert upright.tolist() == [[1, 0]] * 4


@pytest.mark.parametrize("alone", ["queries", "keys"])
def test_queries_or_keys_alone_stand_for_both(alone: str) -> None:
    view = rotary_view(**{alone: VECTORS[0]})
    assert view.queries.shape == view.keys.shape == (1, 8)
    assert_allclose(view.queries, view.keys)


@pytest.mark.parametrize("length", [1, 2, 5, 16, 17, 128, 2**20])
def test_any_length_opens_inside_its_positions(length: int) -> None:
    view = rotary_view(16, length=length)
    assert 0 <= view.n <= view.m < length
    json.dumps(view.state(), allow_nan=False)


@pytest.mark.parametrize(("dim", "length"), [(2, 1), (34, 128), (256, 2**20)])
def test_any_size_has_a_figure(dim: int, length: int) -> None:
    view = rotary_view(dim, length=length)
    figure = view.figure()
    assert figure.get_figheight() <= 7
    assert figure.get_suptitle() == view.title


def test_one_position_apart_is_said_in_the_singular() -> None:
    assert "1 position after" in rotary_view(8, length=2).title
    assert "at one position" in rotary_view(8, length=1).title


def test_a_base_beyond_the_sliders_ends_stretches_them() -> None:
    assert rotary_view(8, base=5e8).controls()["base"].high == 5e8  # type: ignore[union-attr]
    assert rotary_view(8, base=2).controls()["base"].low == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"dim": 7}, ValueError, "dim must be even and at most 256, got 7"),
        ({"dim": 258}, ValueError, "dim must be even"),
        ({"dim": 0}, ValueError, "dim must be a positive integer"),
        ({"dim": 8.0}, TypeError, "dim must be a positive integer"),
        ({"base": 1}, ValueError, "base must be above 1, got 1"),
        ({"base": "10"}, TypeError, "base must be a number"),
        ({"base": float("inf")}, ValueError, "base must be finite"),
        ({"length": 0}, ValueError, "length must be a positive integer"),
        ({"length": 2**21}, ValueError, "length must be at most 1,048,576"),
        ({"dim": 16, "queries": VECTORS}, ValueError, "queries must have 16 features each, got 8"),
        ({"queries": VECTORS, "keys": VECTORS[:, :4]}, ValueError, "keys must have 8 features"),
        ({"queries": VECTORS[None, None, None, :2, None]}, ValueError, "queries must be"),
        ({"queries": VECTORS[:0]}, ValueError, "queries must hold at least one vector"),
        ({"keys": VECTORS[:, :3]}, ValueError, "keys must hold at least one vector of an even"),
        ({"keys": VECTORS * torch.nan}, ValueError, "keys must be finite, got nan"),
        ({"keys": torch.zeros(1000, 256)}, ValueError, "keys must hold at most 131,072 numbers"),
        ({"queries": "abc"}, TypeError, "queries must hold real numbers"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        rotary_view(**arguments)


def test_the_class_is_what_the_function_returns() -> None:
    assert isinstance(rotary_view(), RotaryView)
