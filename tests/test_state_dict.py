"""State dicts hold the weights and nothing else, and load only where they fit."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.strategies import drawn, make_block, variants
from zeta_edu import TransformerBlock

close = torch.testing.assert_close
SMALL = {"dim": 8, "dim_head": 4, "heads": 4, "kv_heads": 2}


# torch.func


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
