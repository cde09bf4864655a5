"""The block is at home in torch: compiled, exported, transformed, copied, shared, saved."""

import copy
import io
import pickle
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from tests.strategies import gradients, make_block
from zeta_edu import LoRA, TransformerBlock, attention, rotary

pytestmark = [  # torch's own affairs
    pytest.mark.filterwarnings(r"ignore:.torch\.jit\.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop because:UserWarning"),
]
close = torch.testing.assert_close
SMALL = {"dim": 8, "dim_head": 4, "heads": 4, "kv_heads": 2}
VARIANTS = {
    "regular": {},
    "flash": {"flash_attn": True},
    "qk_rmsnorm": {"qk_rmsnorm": True},
    "not causal": {"causal": False},
    "several windows": {"xpos_scale_base": 0.4},
}
variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
paths = pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])


def drawn(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def forget_tables() -> None:
    for tables in (attention._CAUSAL, rotary._ROTARY, rotary._DECAY):
        tables.clear()


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled_with_counter(module: nn.Module) -> tuple[Any, CompileCounterWithBackend]:
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(module, backend=counter, fullgraph=True), counter


# torch.compile


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
    example = drawn(2, 9, 8), torch.ones(2, 9, dtype=torch.bool)
    lengths = {1: torch.export.Dim.AUTO}
    program = torch.export.export(block, example, dynamic_shapes=(lengths, lengths))
    # Several windows are several parts in the graph, and tie it to their number.
    for n in (9,) if "xpos_scale_base" in options else (2, 17, 60):
        x, mask = drawn(2, n, 8), torch.arange(n) >= torch.tensor([[0], [3]])
        close(program.module()(x, mask), block(x, mask))


# torch.func


@variants
def test_functional_transforms_see_through(options: dict[str, Any]):
    block, x = make_block(**SMALL, **options), drawn(3, 5, 8)
    parameters = {name: p.detach() for name, p in block.named_parameters()}

    def loss(given: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(block, given, (one[None],)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for name, slope in each.items():
        for row in range(3):
            alone = block(x[row : row + 1]).square().sum()
            close(slope[row], torch.autograd.grad(alone, block.get_parameter(name))[0])


def test_an_ensemble_runs_as_one():
    blocks = [make_block(**SMALL, seed=seed) for seed in range(3)]
    parameters, buffers = stack_module_state(blocks)
    x, base = drawn(2, 5, 8), copy.deepcopy(blocks[0]).to("meta")

    def call(given: dict[str, Tensor], held: dict[str, Tensor]) -> Tensor:
        return functional_call(base, (given, held), (x,))

    together = vmap(call)(parameters, buffers)
    for row, block in enumerate(blocks):
        close(together[row], block(x))


def test_forward_mode_derivatives_agree_with_backward():
    block, x, along = make_block(**SMALL), drawn(1, 5, 8), drawn(1, 5, 8, seed=2)
    _, slope = jvp(block, (x,), (along,))
    x.requires_grad_()
    weights = drawn(1, 5, 8, seed=3)
    (back,) = torch.autograd.grad((block(x) * weights).sum(), x)
    close((slope * weights).sum(), (back * along).sum())


def test_second_derivatives_are_right():
    block = make_block(dim=3, dim_head=2, heads=1, ff_mult=1)
    assert torch.autograd.gradgradcheck(block, drawn(1, 3, 3).requires_grad_(), fast_mode=True)


@paths
def test_checkpointing_gives_the_same_gradients(flash: bool):
    block, x = make_block(**SMALL, flash_attn=flash), drawn(2, 6, 8).requires_grad_()
    ours = checkpoint(block, x, use_reentrant=False)
    for mine, other in zip(
        gradients(ours, x, *block.parameters()),
        gradients(block(x), x, *block.parameters()),
        strict=True,
    ):
        close(mine, other)


@paths
@pytest.mark.parametrize("qk_rmsnorm", [False, True])
def test_autocast_computes_narrow_and_trains_wide(flash: bool, qk_rmsnorm: bool):
    block = make_block(torch.float32, **SMALL, flash_attn=flash, qk_rmsnorm=qk_rmsnorm, qk_scale=2)
    x = drawn(2, 9, 8, dtype=torch.float32)
    exact = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = block(x)
        narrow = block(x.bfloat16())
    assert out.dtype == narrow.dtype == torch.bfloat16
    assert (out - exact).norm() < 0.02 * exact.norm()
    assert (narrow - exact).norm() < 0.03 * exact.norm()
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in block.parameters())


# Copies, devices, threads.


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
@variants
def test_a_used_block_can_be_copied(twin: Any, options: dict[str, Any]):
    loras = LoRA(8, 16).double(), None, None, None
    block, x = make_block(**SMALL, **options, finetune_modules=loras), drawn(1, 5, 8)
    block(x).sum().backward()
    other = twin(block)
    close(other(x), block(x))
    with torch.no_grad():
        other.norm.gamma.zero_()
    assert block(x).any()


@pytest.mark.usefixtures("forget_tables")
@variants
def test_a_block_may_be_made_without_memory_and_filled_later(options: dict[str, Any]):
    filled = make_block(**SMALL, **options)
    with torch.device("meta"):
        block = TransformerBlock(**SMALL, **options).double()
    assert all(p.is_meta for p in block.parameters())
    mask = torch.ones(2, 5, dtype=torch.bool, device="meta")
    for keep in (None, mask):
        out = block(torch.empty(2, 5, 8, dtype=torch.float64, device="meta"), keep)
        assert out.is_meta
        assert out.shape == (2, 5, 8)
    cache = block.new_cache(2)
    block(torch.empty(2, 5, 8, dtype=torch.float64, device="meta"), cache=cache)
    assert cache.length == 5
    block.to_empty(device="cpu").load_state_dict(filled.state_dict())
    x = drawn(2, 5, 8)
    close(block(x), filled(x))


@pytest.mark.usefixtures("forget_tables")
@paths
def test_a_block_made_under_a_default_dtype_and_device_works(flash: bool):
    usual = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        block, x = TransformerBlock(**SMALL, flash_attn=flash), drawn(1, 5, 8)
        expected = block(x)
        with torch.device("meta"):
            close(block(x), expected)
    finally:
        torch.set_default_dtype(usual)
    close(block(x), expected)


@paths
def test_shapes_can_be_tried_with_fake_tensors_before_and_after_a_real_run(flash: bool):
    for _ in range(2):
        with FakeTensorMode():
            fake = TransformerBlock(**SMALL, flash_attn=flash, xpos_scale_base=0.4)
            out = fake(torch.randn(2, 300, 8), torch.ones(2, 300, dtype=torch.bool))
            assert out.shape == (2, 300, 8)
        block, x = make_block(**SMALL, flash_attn=flash, xpos_scale_base=0.4), drawn(2, 300, 8)
        assert torch.isfinite(block(x)).all()


@pytest.mark.usefixtures("forget_tables")
@paths
def test_threads_may_share_one_block(flash: bool):
    block = make_block(**SMALL, flash_attn=flash, xpos_scale_base=2)
    inputs = [drawn(1, 20 + 45 * i, 8, seed=i) for i in range(8)]
    outs: dict[int, Tensor] = {}
    start = threading.Barrier(8)

    def work(i: int) -> None:
        start.wait(timeout=20)
        for _ in range(3):
            outs[i] = block(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, x in enumerate(inputs):
        close(outs[i], block(x))


@pytest.mark.usefixtures("forget_tables")
@variants
def test_training_works_after_inference_mode(options: dict[str, Any]):
    """Tables made under inference mode make the original's next training step fail."""
    block, x = make_block(**SMALL, **options), drawn(1, 9, 8)
    with torch.inference_mode():
        expected = block(x)
    out = block(x)
    out.sum().backward()
    close(out, expected)


def test_one_block_may_change_its_precision():
    block, x = make_block(**SMALL), drawn(1, 40, 8)
    exact = block(x)
    close(block.float()(x.float()), exact.float(), atol=1e-5, rtol=1e-5)
    half = block.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.double() - exact).norm() < 0.05 * exact.norm()
    again = block.double()(x)
    assert (again - exact).norm() < 0.05 * exact.norm()


# State dicts.


@variants
def test_state_dict_is_the_same_whatever_ran(options: dict[str, Any]):
    block, x = make_block(**SMALL, **options), drawn(2, 300, 8)
    before = copy.deepcopy(block.state_dict())
    assert not list(block.buffers())
    block(x)
    block.eval()(x, torch.ones(2, 300, dtype=torch.bool), cache=block.new_cache(2))
    after = block.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    expected = ["norm.gamma", "fused_attn_ff_proj.weight", "attn_out.weight", "ff_out.2.weight"]
    scales = ["q_scale", "k_scale"] if "qk_rmsnorm" in options else []
    assert sorted(after) == sorted(expected + scales)
    assert list(make_block(**SMALL, **{**options, "flash_attn": True}).state_dict()) == list(after)


MISMATCHES = [
    ({"causal": False}, "causal is True here, False in the state dict"),
    ({"xpos_scale_base": 64}, "xpos_scale_base is 512 here, 64 in the state dict"),
    ({"use_xpos": False}, "xpos_scale_base is 512 here, None in the state dict"),
    ({"heads": 2, "dim_head": 8, "kv_heads": 1}, "heads is 4 here, 2 in the state dict"),
]


@pytest.mark.parametrize(("options", "message"), MISMATCHES)
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("through_a_file", [True, False])
def test_weights_of_a_block_that_computes_otherwise_are_refused(
    options: dict[str, Any], message: str, strict: bool, through_a_file: bool
):
    model = nn.ModuleDict({"inner": TransformerBlock(**SMALL)})
    weights = nn.ModuleDict({"inner": TransformerBlock(**{**SMALL, **options})}).state_dict()
    if through_a_file:
        file = io.BytesIO()
        torch.save(weights, file)
        file.seek(0)
        weights = torch.load(file, weights_only=True)
    with pytest.raises(RuntimeError, match=f"inner.{message}"):
        model.load_state_dict(weights, strict=strict)


def test_weights_of_another_qk_scale_are_refused():
    weights = TransformerBlock(**SMALL, qk_rmsnorm=True, qk_scale=4).state_dict()
    with pytest.raises(RuntimeError, match="scale is 8 here, 4 in the state dict"):
        TransformerBlock(**SMALL, qk_rmsnorm=True).load_state_dict(weights)


def test_weights_load_where_they_fit():
    block, x = make_block(**SMALL), drawn(1, 5, 8)
    plain: dict[str, Tensor] = {}
    block.state_dict(destination=plain)
    for weights in (block.state_dict(), plain, dict(block.named_parameters())):
        for flash in (False, True):
            other = TransformerBlock(**SMALL, flash_attn=flash, attn_dropout=0.1).double().eval()
            other.load_state_dict(weights)
            close(other(x), block(x))
