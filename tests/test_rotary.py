"""Positions: rotation and the xPos decay, near and far, in every precision."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.reference import frequencies, pairs, positioned_products, zeta
from tests.strategies import explore
from zeta_edu import rotary
from zeta_edu.rotary import (
    apply_xpos,
    key_decay,
    power_of_two,
    rotary_frequencies,
    rotary_tables,
    rotate,
    rotate_queries_keys,
    table_dtype,
    xpos_window,
    xpos_zeta,
)

close = torch.testing.assert_close
CPU = torch.device("cpu")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def drawn(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dim_head", [2, 4, 10, 128])
def test_frequencies_and_zetas_follow_the_papers(dim_head: int):
    close(rotary_frequencies(dim_head), frequencies(dim_head), rtol=1e-15, atol=0)
    close(xpos_zeta(dim_head), zeta(dim_head), rtol=1e-15, atol=0)
    assert rotary_frequencies(dim_head)[0] == 1
    close(xpos_zeta(dim_head)[0].item(), 2 / 7)
    assert (xpos_zeta(dim_head) < 1).all()


@explore(30)
@given(half=st.integers(1, 6), n=st.integers(0, 5), seed=st.integers(0, 99))
def test_rotation_is_multiplication_by_a_complex_number(half: int, n: int, seed: int):
    x, angles = drawn(2, n, 2 * half, seed=seed), drawn(n, half, seed=seed + 1) * 9
    turned = rotate(x, angles.cos(), angles.sin())
    close(pairs(turned), pairs(x) * torch.polar(torch.ones_like(angles), angles))
    close(turned.norm(dim=-1), x.norm(dim=-1))


def test_rotation_is_computed_in_the_tables_precision_and_returned_in_the_inputs():
    x, angles = drawn(3, 8, dtype=torch.bfloat16), drawn(3, 4, dtype=torch.float32)
    turned = rotate(x, angles.cos(), angles.sin())
    assert turned.dtype == torch.bfloat16
    close(turned, rotate(x.double(), angles.cos(), angles.sin()).to(torch.bfloat16))


# The tables.


@pytest.mark.parametrize("dtype", DTYPES)
def test_tables_are_at_least_float32(dtype: torch.dtype):
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert table_dtype(dtype) == expected
    for table in rotary_tables(3, 9, 4, CPU, dtype):
        assert table.dtype == expected
    assert key_decay(9, 3, 4, 512, CPU, dtype).dtype == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_angles_are_exact_far_along(dtype: torch.dtype):
    """Rotary frequencies in bfloat16, or angles in float32, lose the position."""
    cos, sin = rotary_tables(99_000, 99_100, 64, CPU, dtype)
    angles = torch.arange(99_000, 99_100).double()[:, None] * frequencies(64)
    close(cos.double(), angles.cos(), atol=1e-7, rtol=0)
    close(sin.double(), angles.sin(), atol=1e-7, rtol=0)


@explore(30)
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 300)), min_size=1, max_size=6))
def test_rotary_tables_are_the_same_whatever_was_asked_before(spans: list[tuple[int, int]]):
    rotary._ROTARY.clear()
    for start, count in spans:
        cos, sin = rotary_tables(start, start + count, 6, CPU, torch.float32)
        angles = torch.arange(start, start + count).double()[:, None] * frequencies(6)
        close(cos, angles.cos().float(), atol=1e-7, rtol=0)
        close(sin, angles.sin().float(), atol=1e-7, rtol=0)
        assert cos.shape == (count, 3)


@explore(40)
@given(
    st.lists(st.tuples(st.integers(0, 600), st.integers(1, 300)), min_size=1, max_size=6),
    st.sampled_from((7, 512)),
)
def test_decay_tables_are_the_same_whatever_was_asked_before(
    asked: list[tuple[int, int]], scale_base: float
):
    rotary._DECAY.clear()
    for origin, ahead in asked:
        keys = origin + min(ahead, 20)
        distance = (origin - torch.arange(keys)).double()[:, None]
        decay = key_decay(keys, origin, 4, scale_base, CPU, torch.float64)
        close(decay, (zeta(4) ** (distance / scale_base)).repeat(1, 2), rtol=1e-12, atol=1e-300)


def test_tables_of_different_blocks_are_kept_apart():
    for dim_head in (2, 8):
        for scale_base in (5, 50):
            for dtype in (torch.float32, torch.float64):
                decay = key_decay(9, 4, dim_head, scale_base, CPU, dtype)
                distance = (4 - torch.arange(9)).double()[:, None]
                expected = (zeta(dim_head) ** (distance / scale_base)).repeat(1, 2)
                close(decay, expected.to(dtype))
                cos, _ = rotary_tables(0, 9, dim_head, CPU, dtype)
                assert cos.shape == (9, dim_head // 2)
                assert cos.dtype == decay.dtype == dtype


def test_tables_are_built_once(monkeypatch: pytest.MonkeyPatch):
    rotary_tables(0, 5000, 6, CPU, torch.float32)
    key_decay(5000, 4000, 6, 512, CPU, torch.float32)
    monkeypatch.setattr(rotary, "_rotary_angles", None)
    monkeypatch.setattr(rotary, "_decay_factors", None)
    rotary_tables(1000, 5000, 6, CPU, torch.float32)
    key_decay(4500, 3900, 6, 512, CPU, torch.float32)


def test_tables_made_in_inference_mode_serve_training():
    rotary._ROTARY.clear()
    rotary._DECAY.clear()
    with torch.inference_mode():
        tables = (
            *rotary_tables(0, 9, 4, CPU, torch.float32),
            key_decay(9, 4, 4, 9, CPU, torch.float32),
        )
    assert not any(table.is_inference() for table in tables)
    assert not any(table.requires_grad for table in tables)


@pytest.mark.parametrize(
    ("length", "power"), [(0, 128), (1, 128), (128, 128), (129, 256), (256, 256), (1000, 1024)]
)
def test_tables_grow_by_powers_of_two(length: int, power: int):
    assert power_of_two(length) == power


# xPos within a window of queries.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale_base", [0.01, 0.3, 1, 7, 512, 10_000])
def test_no_factor_inside_a_window_can_overflow(scale_base: float, dtype: torch.dtype):
    window = xpos_window(scale_base, dtype)
    assert window >= 1
    largest = (7 / 2) ** ((window - 1) / scale_base) if window > 1 else 1
    room = 16 if dtype == torch.float16 else 2.0**64
    assert largest * room < torch.finfo(dtype).max


def test_a_window_is_long_enough_to_be_cheap():
    assert xpos_window(512, torch.float32) == xpos_window(512, torch.bfloat16) == 8192
    assert xpos_window(512, torch.float16) == 1024


@explore(40)
@given(
    first=st.integers(0, 400),
    count=st.integers(1, 30),
    scale_base=st.sampled_from((2, 7, 512)),
)
def test_xpos_in_a_window_depends_on_the_distance_only(first: int, count: int, scale_base: float):
    count = min(count, xpos_window(scale_base, torch.float64))
    q, k = drawn(1, 2, count, 6), drawn(1, 1, first + count, 6, seed=2)
    ours_q, ours_k = apply_xpos(q, k, first, scale_base)
    distance = first + torch.arange(count)[:, None] - torch.arange(first + count)
    factor = (zeta(6) ** (distance[..., None].double() / scale_base)).repeat(1, 1, 2)
    factor = torch.where(distance[..., None] >= 0, factor, 0)
    expected = torch.einsum("bhid,bhjd,ijd->bhij", q, k.expand(-1, 2, -1, -1), factor)
    past = distance >= 0
    close((ours_q @ ours_k.mT)[..., past], expected[..., past], atol=1e-11, rtol=1e-9)


# rotate_queries_keys: any positions, any precision, against complex numbers in float64.


def assert_products_are_exact(
    q: Tensor, k: Tensor, at_q: Tensor, at_k: Tensor, scale_base: float | None
) -> None:
    """Products of the returned vectors equal the definition, within rounding of each pair."""
    base = 512 if scale_base is None else scale_base
    ours_q, ours_k = rotate_queries_keys(q, k, at_q, at_k, scale_base is not None, base)
    assert ours_q.dtype == ours_k.dtype
    assert torch.isfinite(ours_q).all()
    assert torch.isfinite(ours_k).all()
    past = at_k[None, :] <= at_q[:, None]
    ours = ours_q.double() @ ours_k.double().mT
    exact = positioned_products(q, k, at_q, at_k, scale_base)
    # Rounding of a pair is relative to that pair's own faded magnitude, so nothing that the
    # definition leaves standing may vanish; the last term is what a dtype cannot resolve at all.
    fade = torch.ones(q.shape[-1] // 2).double()
    distance = (at_q[:, None] - at_k[None, :]).double().clamp(min=0)[..., None]
    if scale_base is not None:
        fade = zeta(q.shape[-1]) ** (distance / scale_base)
    size = torch.einsum(
        "mi,ni,mni->mn", pairs(q).abs(), pairs(k).abs(), fade.expand(*past.shape, -1)
    )
    kind = torch.finfo(q.dtype)
    least = 16 * kind.smallest_normal * kind.eps * q.double().norm() * max(1, k.double().norm())
    # Angles and factors are correct to float64; at 100,000 positions that is 1e-11 rad.
    tolerance = (6 * kind.eps + 1e-10) * size + least
    assert ((ours - exact).abs() <= tolerance)[past].all()


@pytest.mark.parametrize("dtype", DTYPES)
@explore(60)
@given(data=st.data())
def test_products_depend_on_the_difference_of_positions_only(
    dtype: torch.dtype, data: st.DataObject
):
    half = data.draw(st.integers(1, 8))
    scale_base = data.draw(st.sampled_from((None, 3, 64, 512)))
    offset = data.draw(st.sampled_from((0, 1, 1_000, 36_001, 99_000, 1_000_000)))
    span = data.draw(st.sampled_from((1, 50, 700, 3_000)))
    if scale_base == 3:
        span = min(span, 700)
    reach = data.draw(st.sampled_from((0, 30, 5_000, 36_000)))
    count = data.draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9999)))
    at_q = offset + torch.randint(0, span, (count,), generator=generator)
    at_k = offset + torch.randint(-reach, span, (7,), generator=generator)
    q, k = drawn(count, 2 * half, seed=3).to(dtype), drawn(7, 2 * half, seed=4).to(dtype)
    assert_products_are_exact(q, k, at_q, at_k, scale_base)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0, 4_500, 36_000, 99_000])
def test_moving_everything_along_changes_nothing(dtype: torch.dtype, offset: int):
    q, k = drawn(9, 64).to(dtype), drawn(9, 64, seed=2).to(dtype)
    here, there = torch.arange(9), torch.arange(9) + offset
    near_q, near_k = rotate_queries_keys(q, k, here, here)
    far_q, far_k = rotate_queries_keys(q, k, there, there)
    near, far = near_q.double() @ near_k.double().mT, far_q.double() @ far_k.double().mT
    assert (near - far).abs().max() <= 30 * (torch.finfo(dtype).eps + 1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_hundred_thousand_positions_at_once(dtype: torch.dtype):
    """The original overflows float16 past 4,500 positions from its origin, float32 past 36,000."""
    at = torch.tensor([0, 1, 4_500, 36_000, 36_001, 50_000, 77_777, 99_998, 99_999])
    q, k = drawn(9, 32).to(dtype), drawn(9, 32, seed=2).to(dtype)
    assert_products_are_exact(q, k, at, at, 512)
    for i in range(9):  # one query against all keys, as a decoding step has it
        assert_products_are_exact(q[i : i + 1], k, at[i : i + 1], at, 512)


def test_a_faded_product_is_not_zeroed():
    """Two features fade to (2/7) ** (d / 512): after 36,000 positions to 6e-39."""
    q = k = torch.ones(1, 2)
    at = torch.tensor([99_000])
    for distance in (10_000, 30_000):
        ours_q, ours_k = rotate_queries_keys(q, k, at, at - distance)
        exact = positioned_products(q, k, at, at - distance, 512)
        close(ours_q.double() @ ours_k.double().mT, exact, rtol=1e-5, atol=0)


def test_the_result_keeps_the_dtype_it_came_in_where_that_can_hold_it():
    for dtype in DTYPES:
        q, k = drawn(3, 8).to(dtype), drawn(4, 8).to(dtype)
        at_q, at_k = torch.tensor([0, 500, 1_000]), torch.arange(4)
        for use_xpos in (True, False):
            assert rotate_queries_keys(q, k, at_q, at_k, use_xpos)[0].dtype == dtype
            assert rotate_queries_keys(q, k, at_q, at_k, use_xpos)[1].dtype == dtype
        widest = rotate_queries_keys(q, k, at_q * 100, at_k)[0].dtype
        assert widest == torch.promote_types(dtype, torch.float64)
        assert rotate_queries_keys(q, k, at_q * 100, at_k, False)[0].dtype == dtype
    mixed = rotate_queries_keys(drawn(3, 8).half(), drawn(4, 8).float(), at_q, at_k)
    assert [x.dtype for x in mixed] == [torch.float32] * 2
    middle = rotate_queries_keys(drawn(3, 8).half(), drawn(4, 8).half(), at_q * 5, at_k)
    assert [x.dtype for x in middle] == [torch.float32] * 2


def test_keys_after_the_last_query_do_not_overflow():
    q, k = drawn(1, 8).half(), drawn(2, 8).half()
    _, ours = rotate_queries_keys(q, k, torch.tensor([5]), torch.tensor([6, 90_000]))
    assert torch.isfinite(ours).all()
    close(ours.double().norm(dim=-1), k.double().norm(dim=-1), rtol=1e-3, atol=0)


def test_positions_may_differ_by_sequence_and_need_not_be_whole():
    q, k = drawn(2, 3, 4, 6), drawn(2, 1, 5, 6, seed=2)
    at_q, at_k = drawn(2, 1, 4).abs() * 9 + 9, drawn(2, 1, 5, seed=2).abs() * 9
    ours_q, ours_k = rotate_queries_keys(q, k, at_q, at_k, True, 40)
    for row in range(2):
        exact = positioned_products(
            q[row], k[row].expand(3, -1, -1), at_q[row, 0], at_k[row, 0], 40
        )
        past = at_k[row, 0][None] <= at_q[row, 0][:, None]
        close((ours_q @ ours_k.mT)[row][:, past], exact[:, past], rtol=1e-9, atol=1e-11)


def test_defaults_are_xpos_with_a_scale_base_of_512():
    q, k, at = drawn(6, 8), drawn(6, 8, seed=2), torch.arange(6) * 100
    for mine, explicit in zip(
        rotate_queries_keys(q, k, at, at), rotate_queries_keys(q, k, at, at, True, 512), strict=True
    ):
        assert torch.equal(mine, explicit)
    exact = positioned_products(q, k, at, at, 512)
    ours_q, ours_k = rotate_queries_keys(q, k, at, at)
    past = torch.ones(6, 6, dtype=torch.bool).tril()
    close((ours_q @ ours_k.mT)[past], exact[past])


def test_without_xpos_vectors_keep_their_length():
    q, k, at = drawn(6, 8), drawn(6, 8, seed=2), torch.arange(6) * 1_000
    for mine, x in zip(rotate_queries_keys(q, k, at, at, False), (q, k), strict=True):
        close(mine.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("use_xpos", [True, False])
def test_no_queries_or_no_keys_give_none_back(use_xpos: bool):
    none, some, at = torch.zeros(0, 4), torch.zeros(3, 4), torch.arange(3)
    q, k = rotate_queries_keys(none, some, at[:0], at, use_xpos)
    assert (q.shape, k.shape) == ((0, 4), (3, 4))
    q, k = rotate_queries_keys(some, none, at, at[:0], use_xpos)
    assert (q.shape, k.shape) == ((3, 4), (0, 4))


def test_gradients_flow_through_positions_given_by_hand():
    q, k = drawn(3, 4).requires_grad_(), drawn(3, 4, seed=2).requires_grad_()

    def products(q: Tensor, k: Tensor) -> Tensor:
        ours_q, ours_k = rotate_queries_keys(q, k, torch.arange(3), torch.arange(3), True, 9)
        return ours_q @ ours_k.mT

    assert torch.autograd.gradcheck(products, (q, k))


@pytest.mark.parametrize(
    ("scale_base", "far", "too_far"), [(512, 280_000, 290_000), (1, 550, 570), (0.01, 5, 6)]
)
def test_queries_too_far_apart_for_float64_are_refused(scale_base: float, far: int, too_far: int):
    q, k, start = drawn(2, 4), drawn(1, 4), torch.tensor([0])
    ours = rotate_queries_keys(q, k, torch.tensor([0, far]), start, True, scale_base)
    assert all(torch.isfinite(x).all() for x in ours)
    with pytest.raises(ValueError, match=r"query_positions span [\d,]+ positions.*several parts"):
        rotate_queries_keys(q, k, torch.tensor([0, too_far]), start, True, scale_base)
