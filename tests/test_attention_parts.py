"""Long sequences are attended to a few queries at a time: the same numbers in bounded memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.attention_inputs import queries_keys_values, spy_on_the_kernels
from tests.strategies import gradients
from zeta_edu import attention
from zeta_edu.attention import Attend

close = torch.testing.assert_close


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("past", [0, 5])
def test_parts_give_what_the_whole_gives(
    flash: bool, padded: bool, causal: bool, past: int, monkeypatch: pytest.MonkeyPatch
):
    core = Attend(0.7, causal, 0.0, flash, 512 if causal else None)
    q, k, v = queries_keys_values(2, 4, 2, 150, 150 + past, 4)
    mask = torch.arange(150 + past) >= torch.tensor([[0], [7]]) if padded else None
    whole = core(q, k, v, mask)
    weights, slopes = core.weights(q, k, mask), gradients(whole, q, k, v)
    monkeypatch.setattr(attention, "REGULAR_ROWS", 7)
    monkeypatch.setattr(attention, "BIAS_ROWS", 40)
    monkeypatch.setattr(attention, "MASK_ENTRIES", 2 * 70 * (150 + past))
    parts = core(q, k, v, mask)
    close(parts, whole, atol=1e-12, rtol=1e-10)
    close(core.weights(q, k, mask), weights, atol=1e-12, rtol=1e-10)
    for slope, other in zip(gradients(parts, q, k, v), slopes, strict=True):
        close(slope, other, atol=1e-11, rtol=1e-10)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many queries and keys each part has, noted while attention works."""
    noted: list[tuple[int, int]] = []

    def noting(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def spy(queries: Tensor, keys: Tensor, values: Tensor, **options: Any) -> Tensor:
            noted.append((queries.shape[2], keys.shape[2]))
            return original(queries, keys, values, **options)

        return spy

    for name in ("regular_attention", "flash_attention"):
        monkeypatch.setattr(attention, name, noting(getattr(attention, name)))
    return noted


def test_parts_bound_the_scores_and_the_masks_in_memory(
    sizes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attention, "REGULAR_ROWS", 10)
    monkeypatch.setattr(attention, "MASK_ENTRIES", 2 * 70 * 100)
    q, k, v = queries_keys_values(2, 2, 1, 100, 100, 2)
    Attend(1.0, True, 0.0, False, None)(q, k, v)
    assert sizes == [(10, keys) for keys in range(10, 101, 10)]
    sizes.clear()
    Attend(1.0, True, 0.0, True, None)(q, k, v, torch.ones(2, 100, dtype=torch.bool))
    assert sizes == [(70, 70), (30, 100)]


def test_regular_attention_writes_out_128_rows_of_scores_at_once(sizes: list[tuple[int, int]]):
    q, k, v = queries_keys_values(1, 1, 1, 300, 300, 2)
    with torch.no_grad():
        Attend(1.0, True, 0.0, False, None)(q, k, v)
    assert sizes == [(128, 128), (128, 256), (44, 300)]


def test_masks_for_flash_attention_have_16_million_entries_at_most(sizes: list[tuple[int, int]]):
    q, k, v = queries_keys_values(1, 1, 1, 200, 100_000, 2)
    with torch.no_grad():
        Attend(1.0, True, 0.0, True, None)(q, k, v, torch.ones(1, 100_000, dtype=torch.bool))
    assert sizes == [(167, 99_967), (33, 100_000)]
    assert 167 * 100_000 <= 2**24 < 168 * 100_000


def test_flash_attention_takes_64_queries_at_once_however_many_keys_there_are(
    sizes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attention, "MASK_ENTRIES", 1)
    q, k, v = queries_keys_values(1, 1, 1, 100, 100, 2)
    Attend(1.0, True, 0.0, True, None)(q, k, v, torch.ones(1, 100, dtype=torch.bool))
    assert sizes == [(64, 64), (36, 100)]


def test_flash_takes_256_queries_at_once_after_a_first_window_and_with_a_cache(
    sizes: list[tuple[int, int]],
):
    q, k, v = queries_keys_values(1, 2, 1, 600, 600, 2)
    Attend(1.0, True, 0.0, True, 20)(q, k, v)  # windows of 16 * 20
    assert sizes == [(320, 320), (256, 576), (24, 600)]
    sizes.clear()
    Attend(1.0, True, 0.0, True, 512)(q[:, :, -300:], k, v)
    assert sizes == [(256, 556), (44, 600)]


def test_parts_of_flash_share_one_mask(monkeypatch: pytest.MonkeyPatch):
    given = spy_on_the_kernels(monkeypatch)
    q, k, v = queries_keys_values(1, 2, 1, 900, 1000, 2)
    Attend(1.0, True, 0.0, True, None)(q, k, v)
    masks = [options["attn_mask"] for options in given]
    assert [mask.shape for mask in masks] == [(256, 356), (256, 612), (256, 868), (132, 1000)]
    assert len({mask.untyped_storage().data_ptr() for mask in masks[1:]}) <= 2  # it grows once
    again = spy_on_the_kernels(monkeypatch)
    Attend(1.0, True, 0.0, True, None)(q, k, v)
    assert len({options["attn_mask"].untyped_storage().data_ptr() for options in again}) == 1


def test_flash_without_a_mask_needs_no_mask(monkeypatch: pytest.MonkeyPatch):
    given = spy_on_the_kernels(monkeypatch)
    q, k, v = queries_keys_values(1, 2, 1, 100, 100, 2)
    monkeypatch.setattr(attention, "MASK_ENTRIES", 1)
    Attend(1.0, True, 0.0, True, None)(q, k, v)
    Attend(1.0, True, 0.0, True, 512)(q, k, v)
    Attend(1.0, False, 0.0, True, None)(q, k, v)
    assert [options.get("is_causal", False) for options in given] == [True, True, False]
    assert all(options.get("attn_mask") is None for options in given)
