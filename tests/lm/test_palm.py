"""PaLM checkpoints as palm-rlhf-pytorch writes them become the same model here."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.lm.palm_models import SIZES, directly, saved, trained
from zeta_edu.lm import palm
from zeta_edu.lm.palm import load_palm

close = torch.testing.assert_close
TOKENS = torch.randint(0, 50, (2, 40), generator=torch.Generator().manual_seed(0))


OPTIONS = [
    {},
    {"qk_rmsnorm": True},
    {"causal": False},
    {"rotary_xpos_scale_base": 20},
    {"heads": 1, "ff_mult": 2},
    {"depth": 1, "dim_head": 32},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ", ".join(o) or "usual")
@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
def test_logits_are_equal(tmp_path: Path, options: dict[str, Any], flash: bool):
    theirs = trained(**options)
    known = {"causal": options.get("causal", True)}
    known["xpos_scale_base"] = options.get("rotary_xpos_scale_base", 512)
    ours = load_palm(saved(theirs, tmp_path / "palm.pt"), flash_attn=flash, **known)
    assert not ours.training
    with torch.no_grad():
        close(ours(TOKENS), theirs(TOKENS), atol=2e-4, rtol=1e-4)


def test_gradients_are_equal(tmp_path: Path):
    theirs = trained()
    ours = load_palm(saved(theirs, tmp_path / "palm.pt"))
    ours(TOKENS).square().mean().backward()
    theirs(TOKENS).square().mean().backward()
    close(ours.embedding.weight.grad, theirs.token_emb.weight.grad, atol=1e-3, rtol=1e-3)
    close(ours.blocks[0].norm.gamma.grad, theirs.layers[0].fn.norm.gamma.grad, atol=1e-3, rtol=1e-3)


def test_sizes_are_read_off_the_file(tmp_path: Path):
    ours = load_palm(saved(trained(ff_mult=3, qk_rmsnorm=True), tmp_path / "palm.pt"))
    expected = {**SIZES, "ff_mult": 3, "qk_rmsnorm": True, "kv_heads": 1, "qk_scale": 8**-0.5}
    assert {name: ours.config[name] for name in expected} == expected


PUBLIC = {"150m": (768, 12), "410m": (1024, 24), "1b": (2048, 16), "2b": (2560, 24)}


@pytest.mark.parametrize(("dim", "depth"), PUBLIC.values(), ids=PUBLIC)
def test_sizes_of_the_public_files_are_read_off(
    tmp_path: Path, dim: int, depth: int, monkeypatch: pytest.MonkeyPatch
):
    """Each matrix is one number stretched, so that two billion of them fit into a small file."""
    monkeypatch.setattr(palm, "check_tensors", lambda *_: None)  # it would look at each of them
    fused = 8 * 128 + 2 * 128 + 2 * 4 * dim
    zero = torch.zeros(1, 1)
    tensors = {"token_emb.weight": zero.expand(50_304, dim), "norm.gamma": torch.rand(dim) + 0.5}
    for i in range(depth):
        tensors |= {
            f"layers.{i}.fn.norm.gamma": torch.rand(dim) + 0.5,
            f"layers.{i}.fn.fused_attn_ff_proj.weight": zero.expand(fused, dim),
            f"layers.{i}.fn.attn_out.weight": zero.expand(dim, 8 * 128),
            f"layers.{i}.fn.ff_out.2.weight": zero.expand(dim, 4 * dim),
        }
    torch.save(tensors, tmp_path / "palm.pt")
    ours = load_palm(tmp_path / "palm.pt")
    expected = {"num_tokens": 50_304, "dim": dim, "depth": depth, "dim_head": 128, "heads": 8}
    expected |= {"ff_mult": 4, "qk_rmsnorm": False, "kv_heads": 1, "causal": True, "use_xpos": True}
    assert {name: ours.config[name] for name in expected} == expected
    close(ours.norm.gamma.data, tensors["norm.gamma"], rtol=0, atol=0)


def test_what_the_file_cannot_tell_is_an_argument(tmp_path: Path):
    path = saved(trained(qk_rmsnorm=True), tmp_path / "palm.pt")
    ours = load_palm(
        path, causal=False, use_xpos=False, xpos_scale_base=64, qk_scale=5, flash_attn=True
    )
    told = {"causal": False, "use_xpos": False, "xpos_scale_base": 64, "qk_scale": 5}
    told["flash_attn"] = True
    assert {name: ours.config[name] for name in told} == told
    assert load_palm(path, dtype=torch.float64).norm.gamma.dtype == torch.float64


def test_a_model_trained_without_xpos_is_read_without(tmp_path: Path):
    theirs = trained()
    for layer in theirs.layers:
        layer.fn.rotary_emb.use_xpos = False
    ours = load_palm(saved(theirs, tmp_path / "palm.pt"), use_xpos=False)
    with torch.no_grad():
        close(ours(TOKENS), theirs(TOKENS), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["auto", "direct"])
def test_gains_stored_directly_are_taken_as_they_are(tmp_path: Path, norm: str):
    theirs = trained()
    path = saved(theirs, tmp_path / "palm.pt", directly)
    with torch.no_grad():
        close(load_palm(path, norm)(TOKENS), theirs(TOKENS), atol=2e-4, rtol=1e-4)


def test_the_reading_given_is_the_reading_taken(tmp_path: Path):
    path = saved(trained(), tmp_path / "palm.pt")
    gains = torch.load(path)["norm.gamma"]
    close(load_palm(path, "direct").norm.gamma.data, gains)
    close(load_palm(path, "offset").norm.gamma.data, gains + 1)


def set_gains(mean: float, std: float) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        torch.manual_seed(1)
        for name in tensors:
            if name.endswith("gamma"):
                tensors[name] = torch.randn(16) * std + mean

    return change


@pytest.mark.parametrize(
    ("mean", "std", "offset"),
    [
        (0.0, 0.0, True),  # untrained, stored minus 1
        (1.0, 0.0, False),  # untrained, stored as it is
        (-0.3, 0.2, True),
        (-0.7, 0.1, True),  # gains around 0.3
        (0.9, 0.2, False),
        (2.0, 0.5, False),
        (0.1, 0.3, True),
    ],
)
def test_auto_judges_by_all_gains_together(tmp_path: Path, mean: float, std: float, offset: bool):
    path = saved(trained(), tmp_path / "palm.pt", set_gains(mean, std))
    stored = torch.load(path)["norm.gamma"]
    close(load_palm(path).norm.gamma.data, stored + offset)


def test_one_layer_of_small_gains_misleads_nobody(tmp_path: Path):
    def change(tensors: dict[str, Tensor]) -> None:
        set_gains(1.0, 0.1)(tensors)
        tensors["layers.0.fn.norm.gamma"] = torch.full((16,), 0.2)

    path = saved(trained(), tmp_path / "palm.pt", change)
    close(load_palm(path).blocks[0].norm.gamma.data, torch.full((16,), 0.2))


def test_auto_refuses_when_neither_reading_fits(tmp_path: Path):
    def change(tensors: dict[str, Tensor]) -> None:
        set_gains(1.2, 0.2)(tensors)
        tensors["norm.gamma"][:3] = -1.0

    path = saved(trained(), tmp_path / "palm.pt", change)
    with pytest.raises(ValueError, match=r"norm='auto' cannot tell.*neither fit"):
        load_palm(path)


@pytest.mark.parametrize(("mean", "std"), [(0.4, 0.05), (0.3, 0.02)])
def test_auto_refuses_when_both_readings_fit(tmp_path: Path, mean: float, std: float):
    path = saved(trained(), tmp_path / "palm.pt", set_gains(mean, std))
    with pytest.raises(ValueError, match=r"norm='auto' cannot tell.*'direct'.*'offset'"):
        load_palm(path)
    for norm in ("direct", "offset"):
        load_palm(path, norm)


def test_1_is_added_before_a_gain_is_narrowed(tmp_path: Path):
    path = saved(trained(), tmp_path / "palm.pt")
    stored = torch.load(path)["norm.gamma"]
    ours = load_palm(path, "offset", dtype=torch.bfloat16).norm.gamma.data
    close(ours, (stored + 1).bfloat16(), rtol=0, atol=0)
    assert not torch.equal(ours, stored.bfloat16() + 1)


def test_a_narrow_gain_is_widened_before_1_is_added(tmp_path: Path):
    def change(tensors: dict[str, Tensor]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].bfloat16()
        tensors["to_logits.weight"] = tensors["token_emb.weight"]

    path = saved(trained(), tmp_path / "palm.pt", change)
    stored = torch.load(path)["norm.gamma"]
    assert stored.dtype == torch.bfloat16
    close(load_palm(path, "offset").norm.gamma.data, stored.float() + 1, rtol=0, atol=0)


def test_tables_in_the_file_are_ignored(tmp_path: Path):
    def change(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.endswith(("inv_freq", "emb.scale"))]:
            tensors[name] = torch.full((3,), torch.nan)
        tensors["layers.0.fn.mask"] = torch.ones(4, 4)
        tensors["layers.0.fn.pos_emb"] = torch.ones(4, 4)

    theirs = trained()
    ours = load_palm(saved(theirs, tmp_path / "palm.pt", change))
    with torch.no_grad():
        close(ours(TOKENS), theirs(TOKENS), atol=2e-4, rtol=1e-4)


def test_the_model_can_be_trained_and_decoded(tmp_path: Path):
    ours = load_palm(saved(trained(), tmp_path / "palm.pt"))
    assert all(p.requires_grad and not p.is_meta for p in ours.parameters())
    with torch.no_grad():
        cache = ours.new_cache(2)
        steps = [ours(TOKENS[:, i : i + 1], cache=cache) for i in range(6)]
        close(torch.cat(steps, 1), ours(TOKENS[:, :6]), atol=1e-4, rtol=1e-4)


MEASURE = """
import resource, sys, torch
from zeta_edu.lm import palm
from zeta_edu.lm.palm import load_palm
torch.load(sys.argv[2], weights_only=True)  # what loading anything costs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_palm(sys.argv[1], "direct")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in Linux's unit")
def test_a_model_of_the_150m_shape_needs_little_more_memory_than_its_file(tmp_path: Path):
    dim, heads, dim_head = 768, 8, 128
    fused = heads * dim_head + 2 * dim_head + 2 * 4 * dim
    tensors = {"token_emb.weight": torch.zeros(50_304, dim), "norm.gamma": torch.ones(dim)}
    for i in range(12):
        tensors |= {
            f"layers.{i}.fn.norm.gamma": torch.ones(dim),
            f"layers.{i}.fn.fused_attn_ff_proj.weight": torch.zeros(fused, dim),
            f"layers.{i}.fn.attn_out.weight": torch.zeros(dim, heads * dim_head),
            f"layers.{i}.fn.ff_out.2.weight": torch.zeros(dim, 4 * dim),
        }
    path, small = tmp_path / "150m.pt", tmp_path / "small.pt"
    torch.save(tensors, path)
    torch.save({"norm.gamma": torch.ones(4)}, small)
    command = [sys.executable, "-c", MEASURE, str(path), str(small)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1.3 * path.stat().st_size
