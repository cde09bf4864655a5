"""Long sequences are attended to a few queries at a time: the same numbers in bounded memory."""

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
    original = attention.visible_keys

    def spy(queries: int, keys: int, *rest: Any) -> Tensor | None:
        noted.append((queries, keys))
        return original(queries, keys, *rest)

    monkeypatch.setattr(attention, "visible_keys", spy)
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


def test_flash_without_a_mask_needs_no_mask(monkeypatch: pytest.MonkeyPatch):
    given = spy_on_the_kernels(monkeypatch)
    q, k, v = queries_keys_values(1, 2, 1, 100, 100, 2)
    monkeypatch.setattr(attention, "MASK_ENTRIES", 1)
    Attend(1.0, True, 0.0, True, None)(q, k, v)
    Attend(1.0, True, 0.0, True, 512)(q, k, v)
    Attend(1.0, False, 0.0, True, None)(q, k, v)
    assert [options.get("is_causal", False) for options in given] == [True, True, False]
    assert all(options.get("attn_mask") is None for options in given)
