"""Recorded weights are those the block mixed its values by."""

import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.reference import reference_parts
from tests.strategies import block_options, drawn, explore, keep_masks, make_block
from zeta_edu import TransformerBlock, record_attention

close = torch.testing.assert_close
SMALL = {"dim": 6, "dim_head": 4, "heads": 2}


class Stack(nn.Module):
    def __init__(self, *blocks: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


@explore(80)
@given(st.data())
def test_weights_are_those_of_the_definition(data: st.DataObject):
    options = data.draw(block_options())
    block = make_block(**options, flash_attn=data.draw(st.booleans()))
    n = data.draw(st.integers(1, 12))
    x, mask = drawn(2, n, options["dim"]), data.draw(keep_masks(2, n))
    with record_attention(block) as record:
        out = block(x, mask)
    close(out, block(x, mask))
    (weights,) = record
    _, _, expected = reference_parts(dict(block.named_parameters()), x, mask, **options)
    close(weights, expected, atol=1e-12, rtol=1e-9)
    assert not weights.requires_grad
    sums = weights.sum(dim=-1)
    close(sums, (expected.detach().sum(dim=-1) > 0.5).double())


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
def test_weights_of_a_cached_step_cover_the_past(flash: bool):
    block, x = make_block(**SMALL, flash_attn=flash, xpos_scale_base=0.4), drawn(2, 9, 6)
    with record_attention(block) as whole:
        block(x)
    cache = block.new_cache(2)
    with record_attention(block) as record:
        block(x[:, :4], cache=cache)
        block(x[:, 4:8], cache=cache)
        block(x[:, 8:], cache=cache)
    assert [tuple(w.shape) for w in record] == [(2, 2, 4, 4), (2, 2, 4, 8), (2, 2, 1, 9)]
    close(record[1], whole[0][:, :, 4:8, :8])
    close(record[2], whole[0][:, :, 8:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_at_least_float32_and_their_rows_sum_to_one(dtype: torch.dtype):
    block = make_block(dtype, **SMALL)
    with record_attention(block) as record:
        block(drawn(1, 30, 6).to(dtype))
    assert record[0].dtype == torch.float32
    close(record[0].sum(dim=-1), torch.ones(1, 2, 30), atol=1e-6, rtol=0)


def test_weights_are_those_before_dropout():
    block, x = make_block(**SMALL, attn_dropout=0.5), drawn(1, 8, 6)
    with record_attention(block) as record:
        block(x)
        block.eval()(x)
    close(record[0], record[1])
    close(record[0].sum(dim=-1), torch.ones(1, 2, 8).double())


def test_recording_leaves_the_output_and_the_gradients_alone():
    block, x = make_block(**SMALL), drawn(1, 8, 6)
    expected = torch.autograd.grad(block(x).sum(), block.fused_attn_ff_proj.weight)
    with record_attention(block):
        out = block(x)
    assert torch.equal(out, block(x))
    close(torch.autograd.grad(out.sum(), block.fused_attn_ff_proj.weight), expected)


def test_every_block_inside_is_recorded_in_the_order_they_ran():
    first, second = make_block(**SMALL), make_block(**SMALL, seed=1, flash_attn=True)
    model = nn.Sequential(Stack(second, first), nn.Identity())
    x = drawn(1, 5, 6)
    with record_attention(model) as record:
        model(x)
        first(x)
    assert len(record) == 3
    assert record.names == ["0.layers.0", "0.layers.1", "0.layers.1"]
    with record_attention(second) as alone:
        second(x)
    close(record[0], alone[0])
    assert alone.names == [""]
    with record_attention(first) as alone:
        first(x)
    close(record[2], alone[0])
    assert [w.shape for w in record[1:]] == [(1, 2, 5, 5)] * 2
    assert list(record)[-1] is record[-1]


def test_a_block_that_runs_twice_is_recorded_twice():
    block, x = make_block(**SMALL), drawn(1, 5, 6)
    with record_attention(Stack(block, block)) as record:
        Stack(block, block)(x)
    assert record.names == ["layers.0", "layers.0"]
    assert not torch.equal(record[0], record[1])


def test_only_calls_inside_the_context_are_recorded():
    block, x = make_block(**SMALL), drawn(1, 5, 6)
    block(x)
    with record_attention(block) as record:
        assert len(record) == 0
    block(x)
    assert len(record) == 0
    assert not block.attend._forward_hooks


def test_an_exception_ends_the_recording():
    block, x = make_block(**SMALL), drawn(1, 5, 6)
    with pytest.raises(ValueError, match="dim=6"), record_attention(block):
        block(drawn(1, 5, 7))
    with record_attention(block) as record:
        block(x)
    assert len(record) == 1
    assert not block.attend._forward_hooks


def test_recordings_may_be_nested_and_overlap():
    block, x = make_block(**SMALL), drawn(1, 5, 6)
    with record_attention(block) as outer:
        block(x)
        with record_attention(block) as inner:
            block(x)
        block(x)
    assert (len(outer), len(inner)) == (3, 1)


def test_other_threads_are_not_recorded():
    block, x = make_block(**SMALL), drawn(1, 5, 6)
    outs: list[Tensor] = []
    with record_attention(block) as record:
        block(x)
        thread = threading.Thread(target=lambda: outs.append(block(x)))
        thread.start()
        thread.join()
    assert len(record) == 1
    close(outs[0], block(x))


def test_two_threads_record_each_their_own():
    block, records = make_block(**SMALL), {}
    inside = threading.Barrier(2)

    def work(n: int) -> None:
        with record_attention(block) as record:
            inside.wait(timeout=20)
            block(drawn(1, n, 6))
            inside.wait(timeout=20)
        records[n] = record

    threads = [threading.Thread(target=work, args=(n,)) for n in (3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: [tuple(w.shape) for w in record] for n, record in records.items()} == {
        3: [(1, 2, 3, 3)],
        7: [(1, 2, 7, 7)],
    }


def test_state_dict_and_pickle_know_nothing_of_a_recording():
    block = make_block(**SMALL)
    before = list(block.state_dict())
    with record_attention(block):
        block(drawn(1, 5, 6))
        assert list(block.state_dict()) == before


@pytest.mark.parametrize("which", ["block", "compiled"])
def test_a_compiled_block_is_recorded(which: str):
    block: Any = TransformerBlock(**SMALL)
    compiled: Any = torch.compile(block, backend="eager")
    x = drawn(1, 5, 6, dtype=torch.float32)
    compiled(x)
    with record_attention(block if which == "block" else compiled) as record:
        out = compiled(x)
    close(out, block(x))
    assert len(record) == 1
    assert record.names == [""]
    compiled(x)
    assert len(record) == 1


def test_names_are_those_of_the_model_before_it_was_compiled():
    model = Stack(torch.compile(TransformerBlock(**SMALL), backend="eager"))
    with record_attention(model) as record:
        model(drawn(1, 5, 6, dtype=torch.float32))
    assert record.names == ["layers.0"]
