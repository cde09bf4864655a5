"""rotate_queries_keys: any positions, any precision, against complex numbers in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.reference import pairs, positioned_products, zeta
from tests.strategies import drawn, explore
from zeta_edu.rotary import (
    rotate_queries_keys,
)

close = torch.testing.assert_close
CPU = torch.device("cpu")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


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


def test_what_is_widened_is_exact_in_the_wider_dtype():
    """Rounded once, at the end: not first to what came in."""
    q, k = drawn(2, 8).half(), drawn(4, 8).half()
    at_q, at_k = torch.tensor([0, 3_000]), torch.arange(4) * 900
    ours = rotate_queries_keys(q, k, at_q, at_k)
    exact = rotate_queries_keys(q.double(), k.double(), at_q, at_k)
    for mine, other in zip(ours, exact, strict=True):
        assert mine.dtype == torch.float32
        close(mine, other.float(), rtol=1e-7, atol=0)


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
