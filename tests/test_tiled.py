"""Tiled attention is attention, exactly, whatever the tiles; and holds no row of weights."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.strategies import drawn
from zeta_edu.attention import attention_weights, regular_attention
from zeta_edu.tiled import online_softmax, tiled_attention, tiles

close = torch.testing.assert_close


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Tensor], dict[str, Any]]:
    batch, kv_heads, group = (draw(st.integers(1, 2)) for _ in range(3))
    queries, past, dim_head = draw(st.integers(1, 9)), draw(st.integers(0, 5)), 4
    causal = draw(st.booleans())
    keys = queries + past if causal else draw(st.integers(1, 9))
    shapes = [(kv_heads * group, queries), (kv_heads, keys), (kv_heads, keys)]
    inputs = [
        drawn(batch, *shape, dim_head, seed=seed).requires_grad_()
        for seed, shape in enumerate(shapes)
    ]
    options = {
        "causal": causal,
        "scale": draw(st.sampled_from([None, 0.3, 4.0])),
        "query_tile": draw(st.integers(1, 10)),
        "key_tile": draw(st.integers(1, 10)),
    }
    return inputs, options


def with_gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return [out, *torch.autograd.grad(out.sin().sum(), inputs)]


@given(situations())
def test_tiled_equals_regular_with_any_tiles_outputs_and_gradients(
    situation: tuple[list[Tensor], dict[str, Any]],
) -> None:
    inputs, options = situation
    ours = with_gradients(tiled_attention(*inputs, **options)[0], inputs)
    reference = {name: options[name] for name in ("causal", "scale")}
    theirs = with_gradients(regular_attention(*inputs, **reference), inputs)
    for one, other in zip(ours, theirs, strict=True):
        close(one, other, rtol=1e-12, atol=1e-12)


@given(situations())
def test_rows_of_weights_come_back_from_the_log_sum_exp(
    situation: tuple[list[Tensor], dict[str, Any]],
) -> None:
    (queries, keys, values), options = situation
    _, log_sum_exp = tiled_attention(queries, keys, values, **options)
    reference = {name: options[name] for name in ("causal", "scale")}
    weights = attention_weights(queries, keys, **reference)
    scale = 0.5 if options["scale"] is None else options["scale"]
    group = queries.shape[1] // keys.shape[1]
    scores = scale * queries @ keys.repeat_interleave(group, dim=1).mT
    again = (scores - log_sum_exp[..., None]).exp()
    close(again * (weights > 0), weights, rtol=1e-11, atol=1e-12)


def test_gradcheck() -> None:
    inputs = [drawn(1, 2, n, 3, seed=n).requires_grad_() for n in (3, 4)]
    inputs.append(drawn(1, 2, 4, 2, seed=9).requires_grad_())

    def function(*qkv: Tensor) -> Tensor:
        return tiled_attention(*qkv, causal=True, query_tile=2, key_tile=3)[0]

    assert torch.autograd.gradcheck(function, inputs)


def test_large_scores_neither_overflow_nor_vanish() -> None:
    queries = torch.tensor([[[[1000.0, 0.0]]]])
    keys = torch.tensor([[[[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0]]]])
    values = torch.tensor([[[[1.0], [2.0], [3.0]]]])
    out, log_sum_exp = tiled_attention(queries, keys, values, scale=1.0, key_tile=1)
    close(out, torch.tensor([[[[3.0]]]]))
    close(log_sum_exp, torch.tensor([[[2000.0]]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    inputs = [drawn(1, 2, 40, 8, seed=seed).to(dtype) for seed in range(3)]
    out, log_sum_exp = tiled_attention(*inputs, causal=True, query_tile=16, key_tile=16)
    exact = regular_attention(*(t.float() for t in inputs), causal=True)
    assert out.dtype is dtype
    assert log_sum_exp.dtype is torch.float32
    close(out, exact.to(dtype))


def test_tiles_that_causality_hides_are_never_computed() -> None:
    queries, keys, values = (drawn(8, 4, seed=seed) for seed in range(3))
    seen = [
        (s.rows.start, s.columns.start) for s in online_softmax(queries, keys, values, 2, 2, True)
    ]
    assert seen == [(row, column) for row in (0, 2, 4, 6) for column in range(0, row + 1, 2)]


def test_after_every_tile_stands_attention_over_the_keys_so_far() -> None:
    queries, keys, values = (drawn(5, 4, seed=seed) for seed in range(3))
    for step in online_softmax(queries, keys, values, 2, 3, False):
        scores = queries[step.rows] @ keys[: step.columns.stop].T
        close(step.mixed / step.total, scores.softmax(-1) @ values[: step.columns.stop])
        close(step.maximum, scores.amax(-1, keepdim=True))
        close(step.total.log() + step.maximum, scores.logsumexp(-1, keepdim=True))


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor holds that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


def test_no_tensor_is_larger_than_inputs_and_tile() -> None:
    inputs = [drawn(1, 1, 512, 4, seed=seed).requires_grad_() for seed in range(3)]
    with Largest() as largest:
        out, _ = tiled_attention(*inputs, query_tile=32, key_tile=32)
        out.sum().backward()
    assert largest.numbers == max(512 * 4, 32 * 32) < 512 * 512


def test_no_queries_give_no_output() -> None:
    empty, full = torch.zeros(1, 1, 0, 4), torch.zeros(1, 1, 3, 4)
    out, log_sum_exp = tiled_attention(empty, full, full)
    assert out.shape == (1, 1, 0, 4)
    assert log_sum_exp.shape == (1, 1, 0)


def test_the_last_tile_is_shorter() -> None:
    lengths = [part.stop - part.start for part in tiles(10, 4)]
    assert lengths == [4, 4, 2]
    assert math.fsum(lengths) == 10


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"queries": [1.0]}, TypeError, "queries must be a floating-point tensor"),
        ({"keys": torch.ones(1, 2, 3, 4, dtype=torch.int64)}, TypeError, "keys must be"),
        ({"values": torch.ones(2, 3, 4)}, ValueError, r"values must be .* got shape \(2, 3, 4\)"),
        ({"values": torch.ones(1, 2, 2, 4)}, ValueError, "keys and values must share"),
        ({"queries": torch.ones(1, 2, 3, 5)}, ValueError, "queries and keys must share"),
        ({"queries": torch.ones(1, 3, 3, 4)}, ValueError, "keys must have heads that divide 3"),
        ({"queries": torch.ones(1, 2, 4, 4), "causal": True}, ValueError, "4 queries, 3 keys"),
        ({"causal": 1}, TypeError, "causal must be True or False, got 1"),
        ({"query_tile": 0}, ValueError, "query_tile must be a positive integer, got 0"),
        ({"key_tile": 2.0}, TypeError, "key_tile must be a positive integer, got 2.0"),
        ({"scale": math.nan}, ValueError, "scale must be finite"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    change: dict[str, Any], error: type[Exception], match: str
) -> None:
    right = {name: torch.ones(1, 2, 3, 4) for name in ("queries", "keys", "values")}
    with pytest.raises(error, match=match):
        tiled_attention(**(right | change))


def test_without_any_key_there_is_nothing_to_mix() -> None:
    empty = torch.ones(1, 1, 0, 4)
    with pytest.raises(ValueError, match="keys must hold at least one key"):
        tiled_attention(torch.ones(1, 1, 2, 4), empty, empty)
