"""The block view, outside the browser: its wires are what the block computes."""

import ast
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import nn

from zeta_edu import LoRA, TransformerBlock
from zeta_edu.recording import record_attention
from zeta_edu.views import block_view, codec, style
from zeta_edu.views.block_data import block_wires, rotated, statistics
from zeta_edu.views.block_words import PLACES, TITLES
from zeta_edu.views.parts import LESSONS, PARTS

BLOCKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no xPos": {"use_xpos": False},
    "qk norm": {"qk_rmsnorm": True, "kv_heads": 2},
    "flash": {"flash_attn": True, "kv_heads": 4},
    "not causal": {"causal": False},
    "windows": {"xpos_scale_base": 0.125},
    "dropout": {"attn_dropout": 0.5, "ff_dropout": 0.5},
}
every_block = pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS)


def make(**options: Any) -> TransformerBlock:
    torch.manual_seed(0)
    block = TransformerBlock(dim=12, dim_head=4, heads=4, **options).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.6)
    return block


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def tuned() -> TransformerBlock:
    adapters = [LoRA(12, out, rank=2) for out in (16, 4, 4)] + [LoRA(16, 12, rank=2)]
    return make(finetune_modules=adapters)


def padding() -> torch.Tensor:
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, :3] = False
    return mask


def submodules(block: TransformerBlock) -> dict[str, nn.Module]:
    return {
        "normed": block.norm,
        "fused": block.fused_attn_ff_proj,
        "swiglu": block.ff_out[0],
        "ff_out": block.ff_out,
    }


@every_block
@pytest.mark.parametrize("mask", [None, padding()], ids=["all kept", "padded"])
def test_the_two_halves_add_up_to_the_block_exactly(
    options: dict[str, Any], mask: torch.Tensor | None
) -> None:
    block, x = make(**options), randn(2, 7, 12)
    wires = block_wires(block, x, mask)
    out = block(x, mask)
    assert torch.equal(wires["attn_out"] + wires["ff_out"], out)
    assert torch.equal(wires["out"], out)


@every_block
def test_wires_that_are_computed_again_are_what_the_block_hands_on(options: dict[str, Any]) -> None:
    block, x = make(**options), randn(2, 7, 12)
    heard: dict[str, Any] = {}
    for name, module in {**submodules(block), "attend": block.attend, "o": block.attn_out}.items():
        module.register_forward_hook(
            lambda _, inputs, output, name=name: heard.__setitem__(name, (inputs, output))
        )
    block(x)
    block_heard = dict(heard)
    wires = block_wires(block, x)
    for name in submodules(block):
        assert torch.equal(wires[name], block_heard[name][1]), name
    queries, keys, values, _ = block_heard["attend"][0]
    for name, tensor in (("q_rotated", queries), ("k_rotated", keys), ("v_heads", values)):
        assert torch.equal(wires[name], tensor), name
    for ours, theirs in zip(rotated(block, wires), (queries, keys), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(wires["merged"], block_heard["o"][0][0])
    assert torch.equal(wires["attn_out"], block_heard["o"][1])
    assert torch.equal(
        torch.cat([wires[name] for name in ("q", "k", "v", "ff")], -1), wires["fused"]
    )


@every_block
@pytest.mark.parametrize("mask", [None, padding()], ids=["all kept", "padded"])
def test_the_weights_are_the_recorded_ones_and_the_softmax_of_the_scores(
    options: dict[str, Any], mask: torch.Tensor | None
) -> None:
    block, x = make(**options), randn(2, 7, 12)
    wires = block_wires(block, x, mask)
    with record_attention(block) as record:
        block(x, mask)
    assert torch.equal(wires["weights"], record[0])
    softmax = wires["scores"].double().softmax(-1).nan_to_num(0.0).float()
    torch.testing.assert_close(wires["weights"], softmax, rtol=1e-4, atol=1e-5)


def test_adapters_have_wires_of_their_own_and_reach_the_sum() -> None:
    block, x = tuned(), randn(1, 5, 12)
    wires = block_wires(block, x)
    torch.testing.assert_close(
        wires["k_tuned"] - wires["k"], block.finetune_modules.k(wires["normed"])
    )
    assert not torch.equal(wires["attn_out"], block.attn_out(wires["merged"]))
    assert torch.equal(wires["attn_out"] + wires["ff_out"], block(x))
    assert {"part:lora", "q_tuned"} <= set(block_view(block, x).places)


def test_looking_leaves_the_block_as_it_was() -> None:
    block = make(attn_dropout=0.5).train()
    block.ff_out.eval()
    modes = [module.training for module in block.modules()]
    block_wires(block, randn(1, 3, 12))
    assert [module.training for module in block.modules()] == modes
    assert not any(module._forward_hooks for module in block.modules())
    assert all(parameter.grad is None for parameter in block.parameters())


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**31))
def test_statistics_are_those_of_torch(n: int, batch: int, seed: int) -> None:
    x = torch.randn(batch, n, 12, generator=torch.Generator().manual_seed(seed))
    table, bins, by_token = statistics({"x": x})
    wide = x.double().reshape(batch, -1)
    expected = [wide.amin(1), wide.amax(1), wide.mean(1), wide.square().mean(1).sqrt()]
    np.testing.assert_allclose(table[:, 0, :4].T, torch.stack(expected), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(by_token[:, 0], x.double().square().mean(-1).sqrt(), rtol=1e-12)
    np.testing.assert_allclose(bins.sum(-1), 1.0)


def test_masked_scores_are_left_out_and_broken_numbers_counted() -> None:
    block, x = make(), randn(1, 4, 12)
    wires = block_wires(block, x)
    seen = wires["scores"][wires["scores"] > -torch.inf]
    assert len(seen) == 4 * 10
    row = dict(zip(wires, statistics(wires).table[0], strict=True))["scores"]
    np.testing.assert_allclose(row[:3], [seen.min(), seen.max(), seen.mean()], rtol=1e-6)
    assert row[4] == 0
    x[0, 2, 3] = torch.nan
    view = block_view(block, x)
    assert view.findings[0]["normed"] == "x, normed: 12 numbers are not finite"
    assert style.picture(view.figure())


@every_block
def test_the_state_carries_the_statistics_of_every_wire(options: dict[str, Any]) -> None:
    view = block_view(make(**options), randn(2, 7, 12))
    state = view.state()
    names = [wire["name"] for wire in state["wires"]]
    assert sorted(names) == sorted(wire["name"] for wire in state["layout"]["wires"])
    assert sorted(names) == sorted(view.wires)
    assert [tuple(wire["shape"]) for wire in state["wires"]] == [
        tuple(tensor.shape) for tensor in view.wires.values()
    ]
    table = codec.decode(state["arrays"]["table"])
    np.testing.assert_allclose(table, view.statistics.table, rtol=1e-6, atol=1e-7)
    assert set(state["findings"][0]) == set(view.controls()["place"])


def test_shapes_are_said_with_the_names_of_their_axes() -> None:
    state = block_view(make(kv_heads=2), randn(2, 7, 12)).state()
    words = {wire["name"]: wire["words"] for wire in state["wires"]}
    assert words["k_heads"] == "batch 2, kv_heads 2, n 7, dim_head 4"
    assert words["weights"] == "batch 2, heads 4, query 7, key 7"
    assert words["ff"] == "batch 2, n 7, value+gate 96"


@pytest.mark.parametrize("name", PLACES)
def test_every_part_names_a_lesson_and_a_source_that_exist(name: str) -> None:
    (part, file, function, gives), _ = PLACES[name]
    assert PARTS[part].lesson in LESSONS
    assert set(gives.split()) <= set(TITLES)
    source = Path(str(files("zeta_edu") / file)).read_text("utf-8")
    if file == "block.py" and "." not in function:
        assert hasattr(make(), function)
        return
    scope: list[ast.stmt] = ast.parse(source).body
    for word in function.split("."):
        found = [node for node in scope if getattr(node, "name", None) == word]
        assert found, f"{file} has no {function}"
        scope = getattr(found[0], "body", [])


def test_the_map_and_the_view_name_the_same_lessons() -> None:
    assert {part.lesson for part in PARTS.values()} <= set(LESSONS)


def test_the_title_compares_the_two_halves() -> None:
    block, x = make(), randn(1, 5, 12)
    with torch.no_grad():
        block.attn_out.weight.mul_(1e-3)
    view = block_view(block, x)
    assert view.title.startswith("The feed-forward writes")
    rms = view.wires["attn_out"].square().mean().sqrt()
    assert f"against {rms:.3g}" in view.title
    with torch.no_grad():
        block.ff_out[2].weight.zero_()
    assert block_view(block, x).title.startswith("Feed-forward and attention write rms 0")


def test_absent_parts_are_named() -> None:
    said = {one["title"] for one in block_view(make(), randn(1, 3, 12)).absent}
    assert said == {"LoRA", "qk norm", "the KV cache", "flash attention"}
    said = {one["title"] for one in block_view(make(causal=False), randn(1, 3, 12)).absent}
    assert "xPos" in said


@pytest.mark.parametrize("shape", [(1, 0, 12), (0, 3, 12)])
def test_no_tokens_is_a_sentence(shape: tuple[int, ...]) -> None:
    view = block_view(make(), torch.zeros(shape))
    assert view.state()["empty"] == "Nothing to look at yet: x holds no tokens."
    assert isinstance(view.figure(), Figure)
    assert view.title


@pytest.mark.parametrize(
    ("x", "options", "error", "match"),
    [
        ([[1.0]], {}, TypeError, "x must be a tensor"),
        (torch.zeros(1, 3, 5), {}, ValueError, r"x must be \(batch, n, dim=12\)"),
        (torch.zeros(12), {}, ValueError, r"x must be \(batch, n, dim=12\)"),
        (torch.zeros(1, 3, 12).double(), {}, TypeError, r"x must be torch\.float32"),
        (torch.zeros(1, 3, 12), {"mask": torch.ones(1, 3)}, TypeError, "mask must be"),
        (torch.zeros(1, 3, 12), {"tokens": "abc"}, TypeError, "tokens must be"),
        (torch.zeros(1, 3, 12), {"tokens": list("ab")}, ValueError, "tokens must have 3"),
        (torch.zeros(2, 3, 12), {"tokens": [list("abc")]}, ValueError, "each of 2 sequences"),
        (torch.zeros(2, 3, 12), {"tokens": 7}, TypeError, "tokens must be a list of lists"),
        (torch.zeros(2, 2, 12), {"tokens": [["a", "b"], ["c"]]}, ValueError, r"tokens\[1\]"),
    ],
)
def test_bad_arguments_are_refused_by_name(
    x: Any, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        block_view(make(), x, **options)


def test_another_module_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="block must be a TransformerBlock, got Linear"):
        block_view(nn.Linear(2, 2), torch.zeros(1, 1, 2))  # type: ignore[arg-type]


def test_one_sequence_may_come_without_its_batch() -> None:
    view = block_view(make(), randn(3, 12), tokens=list("abc"))
    assert view.shape == (1, 3, 12)
    batch = block_view(make(), randn(2, 2, 12), tokens=[["a", " b"], ["c", "d"]])
    assert batch.state()["tokens"] == [["a", "·b"], ["c", "d"]]


def test_the_figure_shows_every_part_and_every_shape() -> None:
    view = block_view(make(qk_rmsnorm=True), randn(2, 7, 12))
    diagram, ranges = view.figure().axes
    words = [text.get_text() for text in diagram.texts]
    assert {box["label"] for box in view.layout["boxes"]} <= set(words)
    assert words.count("2 × 4 × 7 × 4") == 3
    assert len(ranges.get_yticks()) == len(view.wires)
