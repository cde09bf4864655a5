"""The block against its definition: every documented parameter means what it says."""

import inspect
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.reference import DEFAULTS, reference, reference_parts
from tests.strategies import block_options, explore, gradients, keep_masks, make_block
from zeta_edu import LoRA, TransformerBlock, record_attention

close = torch.testing.assert_close
SMALL = {"dim": 6, "dim_head": 4, "heads": 2}


def drawn(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_the_documented_example_works_as_written():
    block = TransformerBlock(dim=512, heads=8)
    assert block(torch.randn(1, 128, 512)).shape == (1, 128, 512)


def test_parameters_and_defaults_are_the_documented_ones_in_order():
    signature = inspect.signature(TransformerBlock)
    assert {name: p.default for name, p in signature.parameters.items()} == {
        "dim": inspect.Parameter.empty,
        "dim_head": 64,
        "causal": True,
        "heads": 8,
        "qk_rmsnorm": False,
        "qk_scale": 8,
        "ff_mult": 4,
        "attn_dropout": 0.0,
        "ff_dropout": 0.0,
        "use_xpos": True,
        "xpos_scale_base": 512,
        "flash_attn": False,
        "finetune_modules": None,
        "kv_heads": 1,
    }
    kinds = [p.kind for p in signature.parameters.values()]
    assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 13 + [
        inspect.Parameter.KEYWORD_ONLY
    ]
    forward = list(inspect.signature(TransformerBlock.forward).parameters)
    assert forward == ["self", "x", "mask", "finetune_modules", "cache"]


@explore(120)
@given(st.data())
def test_block_equals_its_definition(data: st.DataObject):
    options = data.draw(block_options(flash_attn=data.draw(st.booleans())))
    block = make_block(**options)
    batch, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    x = drawn(batch, n, options["dim"]).requires_grad_()
    mask = data.draw(keep_masks(batch, n))
    out = block(x, mask)
    options.pop("flash_attn")
    parameters = dict(block.named_parameters())
    expected = reference(parameters, x, mask, **options)
    close(out, expected, atol=1e-11, rtol=1e-10)
    into = [x, *parameters.values()]
    for ours, theirs in zip(gradients(out, *into), gradients(expected, *into), strict=True):
        close(ours, theirs, atol=1e-10, rtol=1e-9)


# A value for each parameter that changes what the block computes; the rest are as in the row.
TELLING: list[tuple[str, Any, dict[str, Any]]] = [
    ("dim_head", 6, {"heads": 1}),
    ("causal", False, SMALL),
    ("heads", 4, {"dim_head": 2, "kv_heads": 2}),
    ("qk_rmsnorm", True, SMALL),
    ("qk_scale", 3.5, {**SMALL, "qk_rmsnorm": True}),
    ("ff_mult", 2, SMALL),
    ("use_xpos", False, {**SMALL, "xpos_scale_base": 2}),
    ("xpos_scale_base", 3, SMALL),
    ("kv_heads", 2, SMALL),
]


@pytest.mark.parametrize(("name", "value", "rest"), TELLING, ids=[row[0] for row in TELLING])
@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
def test_parameter_means_what_its_definition_says(
    name: str, value: Any, rest: dict[str, Any], flash: bool
):
    options = {"dim": 6, **rest, name: value}
    block, x = make_block(flash_attn=flash, **options), drawn(2, 7, 6)
    close(block(x), reference(dict(block.named_parameters()), x, **options))
    usual = {**options, name: DEFAULTS[name]}
    try:
        ignored = reference(dict(block.named_parameters()), x, **usual)
    except (RuntimeError, ValueError):
        return  # with the default the weights would not even fit
    assert (block(x) - ignored).abs().max() > 1e-3


def test_defaults_are_those_of_the_definition():
    block, x = make_block(dim=5), drawn(1, 9, 5)
    close(block(x), reference(dict(block.named_parameters()), x))


def test_dim_is_the_size_of_input_and_output():
    for dim in (1, 3, 10):
        assert make_block(dim=dim, dim_head=2)(drawn(2, 3, dim)).shape == (2, 3, dim)


def test_parameter_shapes_follow_the_sizes():
    block = TransformerBlock(dim=6, dim_head=4, heads=6, kv_heads=2, ff_mult=3, qk_rmsnorm=True)
    shapes = {name: tuple(p.shape) for name, p in block.named_parameters()}
    assert shapes == {
        "q_scale": (4,),
        "k_scale": (4,),
        "norm.gamma": (6,),
        "fused_attn_ff_proj.weight": (24 + 8 + 8 + 36, 6),
        "attn_out.weight": (6, 24),
        "ff_out.2.weight": (6, 18),
    }
    assert set(block.state_dict()) == set(shapes)


def test_gains_start_at_one():
    block = TransformerBlock(dim=6, dim_head=4, qk_rmsnorm=True)
    for gain in (block.norm.gamma, block.q_scale, block.k_scale):
        assert bool((gain == 1).all())


def test_residual_is_left_to_the_caller():
    block = make_block(**SMALL)
    nn.init.zeros_(block.attn_out.weight)
    nn.init.zeros_(block.ff_out[2].weight)
    assert not block(drawn(1, 4, 6)).any()


def test_input_is_never_written_to():
    block, x = make_block(**SMALL), drawn(1, 4, 6)
    before = x.clone()
    with torch.no_grad():
        block(x)
    with torch.inference_mode():
        block(x)
    assert torch.equal(x, before)


# Dropout. With a single key its weight is 1: dropped it is 0, kept it is 1 / (1 - p).


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
def test_attn_dropout_drops_weights_in_training_and_scales_the_rest(flash: bool):
    options = {"dim": 4, "dim_head": 4, "heads": 1}
    block = make_block(**options, attn_dropout=0.25, flash_attn=flash)
    x = drawn(4_000, 1, 4)
    attention, feed_forward, _ = reference_parts(dict(block.named_parameters()), x, **options)
    torch.manual_seed(0)
    ratio = ((block(x) - feed_forward) / attention).mean(dim=-1)
    dropped = ratio.abs() < 1e-6
    close(ratio[~dropped], torch.full_like(ratio[~dropped], 4 / 3))
    assert 0.21 < dropped.double().mean() < 0.29
    block.eval()
    close(block(x), attention + feed_forward)


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
def test_attn_dropout_works_with_a_padding_mask(flash: bool):
    block = make_block(**SMALL, attn_dropout=0.5, flash_attn=flash)
    x, mask = drawn(2, 5, 6), torch.tensor([[False, True, True, True, True], [False] * 5])
    _, feed_forward, _ = reference_parts(dict(block.named_parameters()), x, **SMALL)
    out = block(x, mask) - feed_forward
    assert torch.isfinite(out).all()
    close(out[1], torch.zeros_like(out[1]))


def test_ff_dropout_drops_inner_features_in_training_and_scales_the_rest():
    block = make_block(dim=8, dim_head=2, heads=1, ff_mult=1, ff_dropout=0.25)
    with torch.no_grad():
        block.attn_out.weight.zero_()
        block.ff_out[2].weight.copy_(torch.eye(8))
    x = drawn(100, 8, 8)
    ratio = block(x)
    block.eval()
    ratio = ratio / block(x)
    dropped = ratio == 0
    close(ratio[~dropped], torch.full_like(ratio[~dropped], 4 / 3))
    assert 0.22 < dropped.double().mean() < 0.28


def test_without_dropout_training_and_evaluation_are_the_same():
    block, x = make_block(**SMALL), drawn(2, 5, 6)
    close(block.train()(x), block.eval()(x))


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
def test_flash_attn_decides_whether_the_fused_kernels_run(
    flash: bool, monkeypatch: pytest.MonkeyPatch
):
    calls = []
    fused = F.scaled_dot_product_attention

    def spy(*args: Any, **options: Any) -> Tensor:
        calls.append(args)
        return fused(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    make_block(**SMALL, flash_attn=flash)(drawn(1, 5, 6))
    assert len(calls) == flash


# Finetune modules: each output is added at its place.


def tuned_reference(block: TransformerBlock, x: Tensor, loras: list[LoRA | None]) -> Tensor:
    """The definition, with the low-rank updates multiplied into the weights."""
    p = {name: t.clone() for name, t in block.state_dict().items() if "finetune" not in name}
    dims = block.heads * block.dim_head, block.kv_heads * block.dim_head
    start = 0
    for rows, lora in zip((dims[0], dims[1], dims[1]), loras[:3], strict=True):
        if lora is not None:
            update = (lora.A @ lora.B).T * lora.scale
            p["fused_attn_ff_proj.weight"][start : start + rows] += update
        start += rows
    if loras[3] is not None:
        p["attn_out.weight"] += (loras[3].A @ loras[3].B).T * loras[3].scale
    return reference(p, x, dim_head=4, heads=2)


def four_loras(seed: int = 3) -> list[LoRA | None]:
    torch.manual_seed(seed)
    loras = [LoRA(6, 8, rank=2), LoRA(6, 4, rank=2), LoRA(6, 4, rank=2, alpha=5), LoRA(8, 6)]
    for lora in loras:
        nn.init.normal_(lora.B)
        lora.double()
    return loras


@pytest.mark.parametrize("which", [0, 1, 2, 3, None], ids=["q", "k", "v", "o", "all"])
def test_finetune_modules_are_added_where_they_belong(which: int | None):
    loras = four_loras()
    if which is not None:
        loras = [lora if i == which else None for i, lora in enumerate(loras)]
    x = drawn(2, 5, 6)
    plain = make_block(**SMALL)
    expected = tuned_reference(plain, x, loras)
    assert (plain(x) - expected).abs().max() > 1e-2
    close(plain(x, None, loras), expected)
    close(plain(x, finetune_modules=tuple(loras)), expected)
    close(make_block(**SMALL, finetune_modules=loras)(x), expected)


def test_finetune_modules_of_the_constructor_are_submodules():
    block = make_block(**SMALL, finetune_modules=four_loras())
    names = {name for name, _ in block.named_parameters() if name.startswith("finetune_modules")}
    assert names == {f"finetune_modules.{place}.{ab}" for place in "qkvo" for ab in "AB"}
    block(drawn(1, 3, 6)).sum().backward()
    assert all(block.get_parameter(name).grad is not None for name in names)


def test_finetune_modules_of_the_call_win():
    x, mine, others = drawn(2, 5, 6), four_loras(3), four_loras(4)
    block = make_block(**SMALL, finetune_modules=mine)
    plain = make_block(**SMALL)
    close(block(x, finetune_modules=others), tuned_reference(plain, x, others))
    close(block(x, finetune_modules=(None,) * 4), plain(x))
    close(block(x), tuned_reference(plain, x, mine))


def test_finetune_modules_may_be_any_callables():
    x, plain = drawn(1, 4, 6), make_block(**SMALL)
    widths: dict[str, tuple[int, ...]] = {}

    def note(name: str, width: int) -> Any:
        def module(given: Tensor) -> Tensor:
            widths[name] = tuple(given.shape)
            return given.new_zeros(*given.shape[:-1], width)

        return module

    modules = [note("q", 8), note("k", 4), nn.Linear(6, 4).double(), note("o", 6)]
    nn.init.zeros_(modules[2].weight)
    nn.init.zeros_(modules[2].bias)
    close(plain(x, finetune_modules=modules), plain(x))
    assert widths == {"q": (1, 4, 6), "k": (1, 4, 6), "o": (1, 4, 8)}


def test_query_key_and_value_modules_take_the_normed_input():
    block, seen = make_block(**SMALL), []
    x = drawn(1, 4, 6)

    def module(given: Tensor) -> Tensor:
        seen.append(given)
        return given.new_zeros(1, 4, 4)

    block(x, finetune_modules=(None, module, module, None))
    for normed in seen:
        close(normed, block.norm(x))


# Properties of the whole block.


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("batch", "n"), [(0, 3), (2, 0), (0, 0)])
def test_nothing_in_nothing_out(batch: int, n: int, causal: bool, flash: bool):
    block = make_block(**SMALL, causal=causal, flash_attn=flash, qk_rmsnorm=True)
    x = drawn(batch, n, 6).requires_grad_()
    for mask in (None, torch.ones(batch, n, dtype=torch.bool)):
        out = block(x, mask)
        assert out.shape == x.shape
        out.sum().backward()
        assert not any(p.grad is not None and p.grad.any() for p in block.parameters())
        with record_attention(block) as record:
            block(x, mask)
        assert record[0].shape == (batch, 2, n, n)


@explore(40)
@given(st.data())
def test_no_future_position_influences_a_past_one(data: st.DataObject):
    options = data.draw(block_options(causal=True, flash_attn=data.draw(st.booleans())))
    block, n = make_block(**options), data.draw(st.integers(2, 12))
    mask = data.draw(keep_masks(2, n))
    at = data.draw(st.integers(1, n - 1))
    x = drawn(2, n, options["dim"])
    changed = x.clone()
    changed[:, at:] = drawn(2, n - at, options["dim"], seed=2) * 30
    close(block(x, mask)[:, :at], block(changed, mask)[:, :at], atol=1e-12, rtol=1e-11)


@explore(20)
@given(st.data())
def test_without_causal_every_position_influences_every_other(data: st.DataObject):
    options = data.draw(block_options(causal=False, flash_attn=data.draw(st.booleans())))
    options["dim"] = max(options["dim"], 4)
    block = make_block(**options)
    x = drawn(1, 4, options["dim"]).requires_grad_()
    for position in range(4):
        (slope,) = gradients(block(x)[:, position], x)
        assert (slope.abs().sum(dim=-1) > 0).all()


def test_without_causal_a_distance_does_not_fade():
    for scale_base in (0.3, 512):
        block = make_block(**SMALL, causal=False, xpos_scale_base=scale_base)
        x = drawn(1, 6, 6)
        close(block(x), make_block(**SMALL, causal=False, use_xpos=False)(x))


@explore(40)
@given(st.data())
def test_rows_of_a_batch_are_independent(data: st.DataObject):
    options = data.draw(block_options(flash_attn=data.draw(st.booleans())))
    block, n = make_block(**options), data.draw(st.integers(1, 8))
    x, mask = drawn(3, n, options["dim"]), data.draw(keep_masks(3, n))
    together = block(x, mask)
    for row in range(3):
        alone = block(x[row : row + 1], None if mask is None else mask[row : row + 1])
        close(together[row : row + 1], alone, atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf])
def test_a_sequence_that_is_not_a_number_stays_alone(causal: bool, flash: bool, worst: float):
    block = make_block(**SMALL, causal=causal, flash_attn=flash)
    x = drawn(3, 5, 6)
    clean = block(x)
    x[1, 2] = worst
    mask = torch.ones(3, 5, dtype=torch.bool)
    for out in (block(x), block(x, mask)):
        close(out[[0, 2]], clean[[0, 2]])
        assert out[1, 2].isnan().all()
        if causal:
            assert out[1, 2:].isnan().all()


@explore(60)
@given(st.data())
def test_padding_left_or_right_changes_nothing(data: st.DataObject):
    options = data.draw(block_options(flash_attn=data.draw(st.booleans())))
    block = make_block(**options)
    n, pad = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 6))
    left = data.draw(st.booleans())
    x, filler = drawn(2, n, options["dim"]), drawn(2, pad, options["dim"], seed=2) * 5
    padded = torch.cat((filler, x) if left else (x, filler), dim=1)
    mask = torch.ones(2, n + pad, dtype=torch.bool)
    here = slice(pad, None) if left else slice(0, n)
    mask[:] = False
    mask[:, here] = True
    close(block(padded, mask)[:, here], block(x), atol=1e-11, rtol=1e-10)


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_query_with_nothing_to_see_gets_nothing(flash: bool, causal: bool):
    block = make_block(**SMALL, flash_attn=flash, causal=causal)
    x = drawn(2, 5, 6).requires_grad_()
    mask = torch.tensor([[False, False, True, True, True], [False] * 5])
    _, feed_forward, _ = reference_parts(dict(block.named_parameters()), x, **SMALL)
    out = block(x, mask)
    close(out[1], feed_forward[1])
    if causal:
        close(out[0, :2], feed_forward[0, :2])
    for slope in gradients(out, x, *block.parameters()):
        assert torch.isfinite(slope).all()


@explore(12)
@given(st.data())
def test_derivatives_are_those_of_finite_differences(data: st.DataObject):
    options = data.draw(block_options(dim=3, ff_mult=1, flash_attn=data.draw(st.booleans())))
    block, n = make_block(**options), data.draw(st.integers(1, 4))
    mask = data.draw(keep_masks(1, n))
    names = [name for name, _ in block.named_parameters()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(block, given, (x, mask))

    inputs = drawn(1, n, 3).requires_grad_(), *block.parameters()
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@explore(25)
@given(data=st.data())
def test_half_precision_stays_close_to_float64(dtype: torch.dtype, data: st.DataObject):
    options = data.draw(block_options(flash_attn=data.draw(st.booleans())))
    options["qk_scale"] = 3
    block = make_block(**options, dtype=dtype)
    n = data.draw(st.integers(1, 12))
    x, mask = drawn(2, n, options["dim"]).to(dtype), data.draw(keep_masks(2, n))
    out = block(x, mask)
    assert out.dtype == dtype
    parts = reference_parts(dict(block.named_parameters()), x, mask, **options)
    error = (out.double() - parts[0] - parts[1]).norm()
    assert error <= 12 * torch.finfo(dtype).eps * (parts[0].norm() + parts[1].norm() + 0.1)
    for slope in gradients(out.float(), *block.parameters()):
        assert torch.isfinite(slope).all()
