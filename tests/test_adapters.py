"""Adapters on whole models: added, switched, merged and taken out again."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.strategies import drawn, gradients, make_block
from zeta_edu import LoRA, TransformerBlock
from zeta_edu.adapters import (
    add_lora,
    lora_names,
    merge_lora,
    unmerge_lora,
    use_lora,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

close = torch.testing.assert_close
SMALL = {"dim": 6, "dim_head": 4, "heads": 4, "kv_heads": 2}
TARGETS = ("q", "k", "v", "o")


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make_block(**SMALL, seed=seed) for seed in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def loras_of(model: nn.Module) -> list[LoRA]:
    return [part for part in model.modules() if isinstance(part, LoRA)]


def stir(model: nn.Module, name: str = "default", seed: int = 0) -> None:
    """Give the adapter of that name an effect."""
    torch.manual_seed(seed)
    for path, parameter in model.named_parameters():
        if path.endswith((f"{name}.B", f"{name}.R")):
            nn.init.normal_(parameter)


def multiplied_out(model: Stack, name: str = "default") -> Stack:
    """The same model without adapters, the updates of one added to its weights by hand."""
    plain = Stack()
    for block, theirs in zip(plain.layers, model.layers, strict=True):
        rows = block.fused_attn_ff_proj.weight.split(block.fused_dims)
        for target in TARGETS:
            place = getattr(theirs.finetune_modules, target)
            if place is not None and name in place:
                weight = block.attn_out.weight if target == "o" else rows["qkv".index(target)]
                lora = place[name]
                weight.data += (lora.A @ lora.B).detach().T * lora.scale
    return plain


def test_a_new_adapter_changes_nothing_and_is_all_that_learns():
    model, x = Stack(), drawn(2, 5, 6)
    before = model(x)
    assert add_lora(model, rank=3) is model
    close(model(x), before)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {
        f"layers.{i}.finetune_modules.{target}.default.{part}"
        for i in range(2)
        for target in TARGETS
        for part in "AB"
    }
    assert all(lora.A.dtype == torch.float64 for lora in loras_of(model))


@pytest.mark.parametrize("targets", [TARGETS, ("q", "v"), ["o"], ("k",)])
@pytest.mark.parametrize(("rank", "alpha"), [(8, None), (2, 5), (3, 0.5)])
def test_an_adapter_is_a_low_rank_update_of_its_targets(
    targets: Any, rank: int, alpha: float | None
):
    model, x = add_lora(Stack(), rank, alpha, targets), drawn(2, 5, 6)
    stir(model)
    assert {lora.A.shape[1] for lora in loras_of(model)} == {rank}
    assert {lora.scale for lora in loras_of(model)} == {1 if alpha is None else alpha / rank}
    assert len(loras_of(model)) == 2 * len(targets)
    expected = multiplied_out(model)(x)
    close(model(x), expected, atol=1e-11, rtol=1e-9)
    assert (expected - Stack()(x)).abs().max() > 1e-3


def test_defaults_are_rank_8_on_every_target():
    model = add_lora(Stack())
    assert len(loras_of(model)) == 8
    assert {(lora.A.shape[1], lora.scale, lora.dropout.p) for lora in loras_of(model)} == {
        (8, 1, 0)
    }
    assert {lora.dropout.p for lora in loras_of(add_lora(Stack(), dropout=0.25))} == {0.25}


def test_adapters_have_names_and_can_be_switched():
    model, x = add_lora(Stack(), name="one"), drawn(2, 5, 6)
    stir(model, "one")
    add_lora(model, rank=2, targets=("q",), name="two")
    stir(model, "two", seed=1)
    assert lora_names(model) == ["one", "two"]
    close(model(x), multiplied_out(model, "two")(x), atol=1e-11, rtol=1e-9)
    for name in ("one", "two", "one"):
        assert use_lora(model, name) is model
        close(model(x), multiplied_out(model, name)(x), atol=1e-11, rtol=1e-9)
        learning = {path for path, p in model.named_parameters() if p.requires_grad}
        assert learning
        assert all(f".{name}." in path for path in learning)
    use_lora(model, None)
    close(model(x), Stack()(x))
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
def test_merging_keeps_the_output_and_unmerging_the_weights(
    dtype: torch.dtype, tolerance: float, small: bool
):
    model = add_lora(Stack(), rank=2, small=small).to(dtype)
    x = drawn(2, 5, 6).to(dtype)
    stir(model)
    before, expected = copy.deepcopy(model.state_dict()), model(x)
    assert merge_lora(model) is model
    close(model(x), expected, atol=10 * tolerance, rtol=10 * tolerance)
    merged = model.layers[0].attn_out.weight
    assert (merged - before["layers.0.attn_out.weight"]).abs().max() > 0.1
    assert unmerge_lora(model) is model
    close(model(x), expected, atol=10 * tolerance, rtol=10 * tolerance)
    for name, tensor in model.state_dict().items():
        close(tensor, before[name], atol=tolerance, rtol=tolerance)


def test_a_merged_adapter_costs_nothing():
    def cost(model: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            model(drawn(2, 5, 6))
        return counter.get_total_flops()

    model = add_lora(Stack())
    with_adapter = cost(model)
    assert cost(merge_lora(model)) == cost(Stack()) < with_adapter
    assert cost(unmerge_lora(model)) == with_adapter
    assert cost(use_lora(model, None)) == cost(Stack())


def test_an_adapter_costs_its_two_thin_products_and_no_more():
    def cost(model: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            model(drawn(2, 5, 6))
        return counter.get_total_flops()

    plain = cost(Stack())
    for rank, targets in ((1, TARGETS), (3, ("q", "o")), (8, ("v",))):
        model = add_lora(Stack(), rank, targets=targets)
        widths = sum(sum(lora.A.shape) + sum(lora.B.shape) - 2 * rank for lora in loras_of(model))
        assert cost(model) - plain == 2 * (2 * 5) * rank * widths


def test_only_the_active_adapter_is_merged():
    model, x = add_lora(Stack(), name="one"), drawn(2, 5, 6)
    stir(model, "one")
    add_lora(model, name="two", targets=("v", "o"))
    stir(model, "two", seed=1)
    expected = model(x)
    close(merge_lora(model)(x), expected, atol=1e-11, rtol=1e-9)
    unmerge_lora(model)
    close(model(x), expected, atol=1e-11, rtol=1e-9)
    use_lora(model, "one")
    close(model(x), multiplied_out(model, "one")(x), atol=1e-11, rtol=1e-9)


def test_adapters_alone_can_be_saved_and_loaded():
    model, x = add_lora(Stack(), rank=2), drawn(2, 5, 6)
    stir(model)
    alone = {name: t for name, t in model.state_dict().items() if ".finetune_modules." in name}
    other = add_lora(Stack(), rank=2)
    missing = other.load_state_dict(alone, strict=False)
    assert not missing.unexpected_keys
    close(other(x), model(x))


def test_a_model_with_adapters_can_be_copied():
    model, x = add_lora(Stack(), rank=2), drawn(2, 5, 6)
    stir(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        close(other(x), model(x))
        close(merge_lora(other)(x), model(x), atol=1e-11, rtol=1e-9)


def test_adapters_follow_the_device_and_precision_of_their_block():
    with torch.device("meta"):
        block = TransformerBlock(**SMALL).to(torch.bfloat16)
    for lora in loras_of(add_lora(block)):
        assert lora.A.is_meta
        assert lora.A.dtype == lora.B.dtype == torch.bfloat16


def test_a_block_keeps_finetune_modules_of_its_own_beside_adapters():
    mine = LoRA(6, 16, rank=2).double()
    nn.init.normal_(mine.B)
    block, x = make_block(**SMALL, finetune_modules=(mine, None, None, None)), drawn(2, 5, 6)
    before = block(x)
    add_lora(block, targets=("k", "o"))
    close(block(x), before)
    close(block(x, None, (None,) * 4), make_block(**SMALL)(x))


def test_adapters_equal_pefts_also_merged():
    """Peft sees one fused projection: ours side by side are one of three times the rank."""
    rank, alpha = 2, 5
    block, x = add_lora(make_block(**SMALL), rank, alpha), drawn(2, 5, 6)
    stir(block)
    config = peft.LoraConfig(
        r=3 * rank,
        lora_alpha=3 * alpha,
        target_modules=["fused_attn_ff_proj", "attn_out"],
        rank_pattern={"attn_out": rank},
        alpha_pattern={"attn_out": alpha},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(make_block(**SMALL), config).double()
    places = block.finetune_modules
    fused, out = theirs.base_model.model.fused_attn_ff_proj, theirs.base_model.model.attn_out
    updates = [places.q["default"], places.k["default"], places.v["default"]]
    down = torch.cat([lora.A.T for lora in updates])
    up = torch.block_diag(*(lora.B.T for lora in updates))
    fused.lora_A["default"].weight.data = down.detach().clone()
    fused.lora_B["default"].weight.data.zero_()
    fused.lora_B["default"].weight.data[: len(up)] = up.detach()
    out.lora_A["default"].weight.data = places.o["default"].A.detach().T.clone()
    out.lora_B["default"].weight.data = places.o["default"].B.detach().T.clone()
    ours = block(x)
    close(ours, theirs(x), atol=1e-11, rtol=1e-9)
    mine = gradients(ours, places.o["default"].B)[0]
    other = gradients(theirs(x), out.lora_B["default"].weight)[0]
    close(mine, other.T, atol=1e-11, rtol=1e-9)
    merged, plain = merge_lora(block), theirs.merge_and_unload()
    for name in ("fused_attn_ff_proj.weight", "attn_out.weight"):
        close(merged.get_parameter(name), plain.get_parameter(name), atol=1e-12, rtol=1e-10)


def test_a_weight_that_is_computed_is_not_merged_into() -> None:
    block = add_lora(TransformerBlock(dim=16, dim_head=8, heads=2), targets=["q", "o"])
    torch.nn.utils.parametrizations.weight_norm(block.attn_out)
    projection = block.fused_attn_ff_proj.weight.clone()
    with pytest.raises(ValueError, match=r"attn_out\.weight must be a parameter to merge into"):
        merge_lora(block)
    assert block.fused_attn_ff_proj.weight.equal(projection)


@pytest.mark.parametrize(
    ("saved", "here", "complaint"),
    [
        ({}, {"alpha": 32}, r"default\.scale is 4\.0 here, 1\.0 in the state dict"),
        ({"merged": True}, {}, r"q\.merged is None here, 'default' in the state dict"),
        ({}, {"merged": True}, r"q\.merged is 'default' here, None in the state dict"),
    ],
)
def test_a_state_dict_that_means_another_update_is_refused(
    saved: dict[str, Any], here: dict[str, Any], complaint: str
) -> None:
    def adapted(alpha: int | None = None, merged: bool = False) -> TransformerBlock:
        block = add_lora(TransformerBlock(dim=16, dim_head=8, heads=2), alpha=alpha)
        return merge_lora(block) if merged else block

    with pytest.raises(RuntimeError, match=complaint):
        adapted(**here).load_state_dict(adapted(**saved).state_dict())
    adapted(**here).load_state_dict(adapted(**here).state_dict())
