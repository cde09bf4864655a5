"""Finetune modules of a block: each output is added at its place."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.reference import reference
from tests.strategies import drawn, make_block
from zeta_edu import LoRA, TransformerBlock

close = torch.testing.assert_close
SMALL = {"dim": 6, "dim_head": 4, "heads": 2}


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
