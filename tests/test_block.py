"""The block against its definition: every documented parameter means what it says."""

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.reference import DEFAULTS, reference, reference_parts
from tests.strategies import block_options, drawn, explore, gradients, keep_masks, make_block
from zeta_edu import TransformerBlock

close = torch.testing.assert_close
SMALL = {"dim": 6, "dim_head": 4, "heads": 2}


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
