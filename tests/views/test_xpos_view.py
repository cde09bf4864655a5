"""The xPos view outside the browser: curves, overflow, a model's products, arguments, picture."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeta_edu.rotary import rotary_frequencies, rotate_queries_keys, xpos_zeta
from zeta_edu.views import codec, xpos_data, xpos_view
from zeta_edu.views.xpos_data import CURVES, DTYPES, curve, strengths

dims = st.integers(1, 40).map(lambda half: 2 * half)
gammas = st.floats(0.05, 5)
scale_bases = st.floats(16, 16_384)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@given(dims)
def test_frequencies_and_zetas_are_the_packages_at_its_constants(dim: int) -> None:
    torch.testing.assert_close(xpos_data.frequencies(dim, 10_000.0), rotary_frequencies(dim))
    torch.testing.assert_close(xpos_data.zetas(dim, 0.4), xpos_zeta(dim))


@given(dims, scale_bases, st.booleans())
def test_the_sum_is_the_packages_product_of_pairs_in_step(
    dim: int, scale_base: float, xpos: bool
) -> None:
    distances = torch.arange(0, 300, 7, dtype=torch.float64)
    ones = torch.ones(len(distances), dim, dtype=torch.float64)
    query, keys = rotate_queries_keys(
        ones[:1], ones, distances[-1:], distances, xpos, xpos_scale_base=scale_base
    )
    products = (query @ keys.T).flatten().flip(0) / dim
    left = strengths(distances, dim, 0.4, scale_base) if xpos else ones[:, ::2]
    torch.testing.assert_close(curve("sum", distances, left, 10_000.0), products)


@given(dims, gammas, scale_bases)
def test_every_curve_is_1_nearby_and_xpos_stays_under_its_ceiling(
    dim: int, gamma: float, scale_base: float
) -> None:
    distances = torch.arange(0, 4000, 37, dtype=torch.float64)
    left = strengths(distances, dim, gamma, scale_base)
    curves = {name: curve(name, distances, left, 10_000.0) for name in CURVES}
    for values in curves.values():
        torch.testing.assert_close(values[0].item(), 1.0)
    assert (curves["sum"].abs() <= curves["ceiling"] + 1e-12).all()
    assert (curves["ceiling"].diff() <= 0).all()
    groups = xpos_data.bands(left)
    torch.testing.assert_close(sum(height for _, height in groups), curves["ceiling"])
    assert [pair for (a, b), _ in groups for pair in range(a, b + 1)] == list(range(dim // 2))


@given(dims, gammas, scale_bases, st.integers(0, 2**20))
def test_no_product_exceeds_the_bound_by_parts(
    dim: int, gamma: float, scale_base: float, seed: int
) -> None:
    # Summation by parts with h = q conj(k) of each pair, and 0 after the last: the product is at
    # most the largest step of h times the sum of the sizes of the partial sums.
    q, k = (torch.view_as_complex(x) for x in randn(2, dim // 2, 2, seed=seed))
    h = torch.cat((q * k.conj(), torch.zeros(1, dtype=torch.complex128)))
    distances = torch.arange(0, 2000, 61, dtype=torch.float64)
    left = strengths(distances, dim, gamma, scale_base)
    angles = distances[:, None] * xpos_data.frequencies(dim, 10_000.0)
    products = (h[:-1] * torch.polar(left, angles)).real.sum(dim=1)
    partial_sums = curve("bound", distances, left, 10_000.0) * (dim // 2) * (dim // 2 + 1) / 2
    assert (products.abs() <= h.diff().abs().max() * partial_sums + 1e-9).all()


def test_some_query_and_key_reach_the_ceiling_at_any_distance() -> None:
    keys = randn(1, 32)
    keys /= torch.view_as_complex(keys.view(2, 16).T.contiguous()).abs().repeat(2)
    for distance in (3, 700):
        at = torch.tensor([distance]), torch.tensor([0])
        still = keys.clone()  # the query that has turned into the key when it gets there
        _, turned = rotate_queries_keys(still, still, at[1], -at[0], use_xpos=False)
        for xpos in (False, True):
            q, k = rotate_queries_keys(turned, keys, *at, xpos, 64)
            left = strengths(at[0].double(), 32, 0.4, 64) if xpos else torch.ones(1, 16)
            torch.testing.assert_close((q @ k.T).item() / 16, left.mean().item())


@given(gammas, scale_bases)
def test_the_factor_is_infinite_from_the_said_position_on_and_not_before(
    gamma: float, scale_base: float
) -> None:
    zeta = xpos_data.zetas(64, gamma)[0]
    for name, position in xpos_data.overflows(gamma, scale_base).items():
        around = torch.tensor([position - 1, position], dtype=torch.float64)
        factors = (zeta ** (-around / scale_base)).to(DTYPES[name])
        assert factors.isinf().tolist() == [False, True], name


@pytest.mark.parametrize("xpos", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 3])
def test_a_models_products_are_averaged_by_distance_as_rotated(xpos: bool, kv_heads: int) -> None:
    queries, keys = randn(3, 20, 8), randn(kv_heads, 20, 8, seed=1) + 0.5
    view = xpos_view(8, scale_base=16, queries=queries, keys=keys)
    assert view.own is not None
    distances, products = view.own
    places = torch.arange(20)
    q, k = rotate_queries_keys(queries, keys, places, places, xpos, 16)
    scores = q @ k.repeat_interleave(3 // kv_heads, dim=0).mT
    lengths = queries.norm(dim=-1).mean(1) * keys.norm(dim=-1).mean(1)
    left = view.strengths(distances) if xpos else torch.ones(20, 4, dtype=torch.float64)
    for distance in range(20):
        expected = scores.diagonal(-distance, 1, 2).mean(dim=1) / lengths
        for head in range(3):
            drawn = xpos_data.model_curve(distances, products[head], left, 10_000.0)
            torch.testing.assert_close(drawn[distance], expected[head])


def test_a_long_texts_products_stay_small_and_reach_its_end() -> None:
    queries = randn(2, 1500, 64)
    view = xpos_view(64, queries=queries, keys=queries[:1])
    assert view.own is not None
    distances, products = view.own
    assert (distances[0], distances[-1], len(distances)) == (0, 1499, 256)
    assert products.shape == (2, 256, 32, 2)
    assert view.state()["model"]["count"] == products[0].numel()
    decoded = codec.decode(view.state()["arrays"]["products"])
    np.testing.assert_allclose(decoded, products, rtol=1e-6)
    assert view.controls()["head"] == range(2)
    assert view.state()["start"]["head"] == 0


def test_queries_of_nothing_but_zeros_have_products_of_zero() -> None:
    view = xpos_view(4, queries=torch.zeros(1, 3, 4), keys=torch.ones(1, 3, 4))
    assert view.own is not None
    assert (view.own[1] == 0).all()
    assert view.figure()


def test_the_title_says_what_is_left_at_the_largest_distance() -> None:
    def told(**constants: Any) -> str:
        return xpos_view(**constants).title.replace("\u00a0", " ")

    assert "at most 26 % of a product at distance 2,048" in told()
    assert "at most 63 % of a product at distance 512" in told(length=512)
    assert "leaves less than 1 %" in told(scale_base=16, length=65_536)
    assert told(gamma=2.0) != told() != told(scale_base=64)
    assert "4,533 positions" in xpos_view().alt
    assert "averaged by distance" in xpos_view(2, queries=randn(1, 4, 2), keys=randn(1, 4, 2)).alt


def test_the_picture_shows_all_three_parts_and_the_model() -> None:
    plain = xpos_view().figure()
    labels = [axes.get_ylabel() for axes in plain.axes]
    assert labels == ["what is left", "", ""]
    legend = plain.axes[0].get_legend().get_texts()
    assert len(legend) == 4
    overlaid = xpos_view(8, queries=randn(2, 9, 8), keys=randn(2, 9, 8)).figure()
    named = [text.get_text() for text in overlaid.axes[0].get_legend().get_texts()]
    assert "xPos, head 0 of the model" in named
    curve_drawn = np.asarray(plain.axes[0].lines[3].get_ydata())
    assert curve_drawn[-1] == pytest.approx(xpos_view().most_left)


ONE = randn(1, 4, 64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dim": 3}, ValueError, "dim must be even, got 3"),
        ({"dim": 0}, ValueError, "dim must be a positive integer"),
        ({"dim": 8.0}, TypeError, "dim must be a positive integer"),
        ({"base": 1.0}, ValueError, "base must be from 10 to 1,000,000, got 1"),
        ({"base": "10"}, TypeError, "base must be a number"),
        ({"gamma": 0}, ValueError, "gamma must be above 0"),
        ({"gamma": 7}, ValueError, "gamma must be from 0.05 to 5, got 7"),
        ({"scale_base": float("nan")}, ValueError, "scale_base must be finite"),
        ({"scale_base": 1e9}, ValueError, "scale_base must be from 16 to 16,384"),
        ({"length": 8}, ValueError, "length must be from 16 to 65,536, got 8"),
        ({"length": 100.5}, TypeError, "length must be a positive integer"),
        ({"queries": ONE}, TypeError, "queries and keys go together, got no keys"),
        ({"keys": ONE}, TypeError, "queries and keys go together, got no queries"),
        ({"queries": ONE, "keys": [["a"]]}, TypeError, "keys must hold real numbers"),
        ({"queries": ONE[0], "keys": ONE}, ValueError, r"queries must be \(heads, positions, dim"),
        ({"queries": ONE, "keys": ONE, "dim": 8}, ValueError, "queries must be .* dim=8"),
        ({"queries": ONE, "keys": ONE[:, :0]}, ValueError, "keys must be .* and a position"),
        ({"queries": ONE, "keys": ONE[:, :3]}, ValueError, "keys must have the positions of quer"),
        ({"queries": ONE, "keys": ONE.expand(2, 4, 64)}, ValueError, "kv_heads that divide heads"),
        ({"queries": ONE, "keys": ONE / 0}, ValueError, "keys must be finite"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        xpos_view(**arguments)
