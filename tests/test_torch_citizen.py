"""The block is at home in torch: compiled, exported, transformed, copied, shared, saved."""

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from tests.strategies import (
    block_options,
    drawn,
    explore,
    gradients,
    keep_masks,
    make_block,
    paths,
    variants,
)
from zeta_edu import LoRA, TransformerBlock, attention, masks, rotary, rotate_queries_keys

pytestmark = [  # torch's own affairs
    pytest.mark.filterwarnings(r"ignore:.torch\.jit\.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop because:UserWarning"),
]
close = torch.testing.assert_close
SMALL = {"dim": 8, "dim_head": 4, "heads": 4, "kv_heads": 2}


@pytest.fixture
def forget_tables() -> None:
    for tables in (masks._CAUSAL, masks._BIAS, rotary._ROTARY, rotary._DECAY):
        tables.clear()


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
        with torch.device("meta"):
            expected = block(x)
            q, k = rotate_queries_keys(
                x, x, torch.arange(5, device="cpu"), torch.zeros(5, device="cpu")
            )
        assert {t.device.type for t in (expected, q, k)} == {"cpu"}
    finally:
        torch.set_default_dtype(usual)
    close(block(x), expected)


@explore(40)
@given(st.data())
def test_the_way_of_tracers_gives_the_same(data: st.DataObject):
    """Under a tracer tables and masks are computed in place; here both ways see real tensors."""
    options = data.draw(block_options(flash_attn=data.draw(st.booleans())))
    block, n = make_block(**options), data.draw(st.integers(1, 9))
    x, mask = drawn(2, n, options["dim"]), data.draw(keep_masks(2, n))
    usual, cached = block(x, mask), block.new_cache(2)
    with pytest.MonkeyPatch.context() as patch:
        for module in (rotary, masks, attention):
            patch.setattr(module, "is_tracing", lambda: True)
        for module in (rotary, masks):
            patch.setattr(module, "power_of_two", None)  # which every kept table needs
        close(block(x, mask), usual, atol=1e-12, rtol=1e-10)
        if options["causal"]:
            cut = data.draw(st.integers(0, n))
            first = block(x[:, :cut], None if mask is None else mask[:, :cut], cache=cached)
            steps = torch.cat((first, block(x[:, cut:], mask, cache=cached)), dim=1)
            close(steps, usual, atol=1e-12, rtol=1e-10)


@paths
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tracers_see_one_device_and_the_same_precision(
    flash: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    for module in (rotary, masks, attention):
        monkeypatch.setattr(module, "is_tracing", lambda: True)
    block = TransformerBlock(**SMALL, flash_attn=flash).to("meta", dtype)
    assert block(torch.empty(2, 9, 8, device="meta", dtype=dtype)).dtype == dtype
    for device in ("cpu", "meta"):
        made = rotary.rotary_tables(2, 7, 4, torch.device(device), dtype)
        made += (rotary.key_decay(7, 3, 4, 512, torch.device(device), dtype),)
        assert {t.dtype for t in made} == {torch.float32}
        assert {t.device.type for t in made} == {device}
        assert masks.causal_mask(2, 5, torch.device(device)).device.type == device


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
