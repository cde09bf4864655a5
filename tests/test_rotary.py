"""Positions: rotation and the xPos decay, near and far, in every precision."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import frequencies, pairs, zeta
from tests.strategies import drawn, explore
from zeta_edu import rotary
from zeta_edu.rotary import (
    apply_xpos,
    key_decay,
    power_of_two,
    rotary_frequencies,
    rotary_tables,
    rotate,
    table_dtype,
    xpos_window,
    xpos_zeta,
)

close = torch.testing.assert_close
CPU = torch.device("cpu")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


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
        keys = origin + ahead
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


def test_tables_that_just_suffice_are_not_built_again(monkeypatch: pytest.MonkeyPatch):
    rotary._ROTARY.clear()
    rotary._DECAY.clear()
    rotary_tables(0, 256, 6, CPU, torch.float32)
    key_decay(256, 128, 6, 512, CPU, torch.float32)
    monkeypatch.setattr(rotary, "_rotary_angles", None)
    monkeypatch.setattr(rotary, "_decay_factors", None)
    assert rotary_tables(255, 256, 6, CPU, torch.float32)[0].shape == (1, 3)
    assert key_decay(256, 128, 6, 512, CPU, torch.float32).shape == (256, 6)


def test_a_decay_table_reaches_as_far_back_as_the_origin_and_little_ahead():
    rotary._DECAY.clear()
    key_decay(100_001, 100_000, 4, 512, CPU, torch.float32)
    ((table, longest),) = rotary._DECAY.values()
    assert (len(table), longest) == (131_072 + 128, 131_072)


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_xpos_is_applied_in_the_tables_precision_and_returned_in_the_inputs(dtype: torch.dtype):
    q, k = drawn(1, 2, 5, 6).to(dtype), drawn(1, 1, 25, 6, seed=2).to(dtype)
    wide = apply_xpos(q.double(), k.double(), 20, 7)
    for ours, exact in zip(apply_xpos(q, k, 20, 7), wide, strict=True):
        assert ours.dtype == dtype
        close(ours, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


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
