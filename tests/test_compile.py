"""The block compiled and exported: the same numbers, and few graphs for many lengths."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from tests.strategies import drawn, gradients, make_block, paths, variants
from zeta_edu import LoRA, TransformerBlock
from zeta_edu.adapters import adapter_modules, add_lora

pytestmark = [  # torch's own affairs
    pytest.mark.filterwarnings(r"ignore:.torch\.jit\.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop because:UserWarning"),
]
close = torch.testing.assert_close
SMALL = {"dim": 8, "dim_head": 4, "heads": 4, "kv_heads": 2}


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled_with_counter(module: nn.Module) -> tuple[Any, CompileCounterWithBackend]:
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(module, backend=counter, fullgraph=True), counter


@pytest.mark.usefixtures("fresh_compiler")
@variants
def test_compiled_equals_eager_forward_and_backward(options: dict[str, Any]):
    block = make_block(**SMALL, **options)
    compiled, _ = compiled_with_counter(block)
    x, mask = drawn(2, 7, 8).requires_grad_(), torch.arange(7) >= torch.tensor([[0], [3]])
    for keep in (None, mask):
        ours, theirs = compiled(x, keep), block(x, keep)
        close(ours, theirs)
        pairs = zip(
            gradients(ours, x, *block.parameters(), again=False),
            gradients(theirs, x, *block.parameters()),
            strict=True,
        )
        for mine, other in pairs:
            close(mine, other)


@pytest.mark.usefixtures("fresh_compiler")
@paths
def test_lengths_share_their_compiled_graphs(flash: bool):
    block = make_block(**SMALL, flash_attn=flash)
    compiled, counter = compiled_with_counter(block)
    for n in range(4, 21):
        x = drawn(2, n, 8)
        out = compiled(x)
        close(out, block(x))
        gradients(out, *block.parameters(), again=False)
    assert counter.frame_count <= 2


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(("flash", "padded"), [(False, True), (True, False)])
def test_cached_decoding_shares_its_compiled_graphs(flash: bool, padded: bool):
    block = make_block(**SMALL, flash_attn=flash)
    compiled, counter = compiled_with_counter(block)
    x, cache = drawn(2, 24, 8), block.new_cache(2, max_length=24)
    mask = torch.arange(24) >= torch.tensor([[0], [2]])
    outs = []
    with torch.no_grad():
        for stop in (6, *range(7, 25)):
            step, keep = x[:, cache.length : stop], mask[:, :stop] if padded else None
            outs.append(compiled(step, keep, cache=cache))
            assert cache.length == stop
    close(torch.cat(outs, dim=1), block(x, mask if padded else None))
    assert counter.frame_count <= 4


@pytest.mark.usefixtures("fresh_compiler")
def test_finetune_modules_may_be_compiled_along():
    loras = tuple(LoRA(8, width, rank=2).double() for width in (16, 8, 8))
    loras = (*loras, LoRA(16, 8, rank=2).double())
    for lora in loras:
        nn.init.normal_(lora.B)
    x, block = drawn(1, 5, 8), make_block(**SMALL)
    tuned = make_block(**SMALL, finetune_modules=loras)
    close(compiled_with_counter(tuned)[0](x), tuned(x))
    close(compiled_with_counter(block)[0](x, None, loras), tuned(x))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_the_default_compiler_gives_the_same():
    block = make_block(torch.float32, **SMALL, flash_attn=True)
    x = drawn(2, 9, 8, dtype=torch.float32)
    ours, theirs = torch.compile(block, fullgraph=True)(x), block(x)
    close(ours, theirs, atol=1e-5, rtol=1e-5)
    pairs = zip(
        gradients(ours, *block.parameters(), again=False),
        gradients(theirs, *block.parameters()),
        strict=True,
    )
    for mine, other in pairs:
        close(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("fresh_compiler")
@variants
def test_exported_graph_serves_any_length(options: dict[str, Any]):
    block = make_block(**SMALL, **options)
    # A graph has so many parts as there are xPos windows: one serves 16 scale bases, 8,192 here.
    fixed = "xpos_scale_base" in options
    length = torch.export.Dim.AUTO if fixed else torch.export.Dim("n", min=2, max=8_192)
    batch = torch.export.Dim("batch", min=1, max=64)
    example = drawn(2, 9, 8), torch.ones(2, 9, dtype=torch.bool)
    shapes = {0: batch, 1: length}
    program = torch.export.export(block, example, dynamic_shapes=(shapes, shapes))
    for rows, n in ((2, 9), (5, 9)) if fixed else ((2, 9), (1, 2), (3, 17), (2, 60)):
        x, mask = drawn(rows, n, 8), torch.arange(n) >= torch.arange(rows)[:, None]
        close(program.module()(x, mask), block(x, mask))
    plain = torch.export.export(block, example[:1], dynamic_shapes=(shapes,))
    close(plain.module()(x), block(x))


def test_a_compiled_model_and_a_plain_one_name_their_places_alike() -> None:
    block = add_lora(TransformerBlock(dim=16, dim_head=8, heads=2))
    wrapped = torch.nn.Sequential(torch.compile(block))
    assert list(adapter_modules(wrapped, "default")) == ["0.q", "0.k", "0.v", "0.o"]
    assert list(adapter_modules(torch.compile(block), "default")) == ["q", "k", "v", "o"]
