"""PaLM checkpoints as palm-rlhf-pytorch writes them become the same model here."""

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zeta_edu.lm.palm import load_palm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from palm_rlhf_pytorch import PaLM

close = torch.testing.assert_close
SIZES = {"num_tokens": 50, "dim": 16, "depth": 3, "dim_head": 8, "heads": 4}
TOKENS = torch.randint(0, 50, (2, 40), generator=torch.Generator().manual_seed(0))


def trained(**options: Any) -> PaLM:
    """A PaLM whose gains look trained: around 1, spread, some small."""
    torch.manual_seed(0)
    model = PaLM(**{**SIZES, **options})
    nn.init.normal_(model.token_emb.weight)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.normal_(parameter, mean=-0.1, std=0.3)
        elif name.endswith("scale"):
            nn.init.normal_(parameter, mean=1, std=0.2)
    return model.eval()


def saved(
    model: PaLM, path: Path, change: Callable[[dict[str, Tensor]], Any] | None = None
) -> Path:
    tensors = model.state_dict()
    if change is not None:
        change(tensors)
    torch.save(tensors, path)
    return path


def directly(tensors: dict[str, Tensor]) -> None:
    """Store gains as releases before 0.2.4 do."""
    for name in tensors:
        if name.endswith("gamma"):
            tensors[name] = tensors[name] + 1


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


def test_what_the_file_cannot_tell_is_an_argument(tmp_path: Path):
    path = saved(trained(qk_rmsnorm=True), tmp_path / "palm.pt")
    ours = load_palm(
        path, causal=False, use_xpos=False, xpos_scale_base=64, qk_scale=5, flash_attn=True
    )
    told = {"causal": False, "use_xpos": False, "xpos_scale_base": 64, "qk_scale": 5}
    told["flash_attn"] = True
    assert {name: ours.config[name] for name in told} == told
    assert load_palm(path, dtype=torch.float64).norm.gamma.dtype == torch.float64


def test_releases_before_xpos_are_read_without(tmp_path: Path):
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


@pytest.mark.parametrize(("mean", "std"), [(0.4, 0.05), (0.3, 0.02)])
def test_auto_refuses_when_both_readings_fit(tmp_path: Path, mean: float, std: float):
    path = saved(trained(), tmp_path / "palm.pt", set_gains(mean, std))
    with pytest.raises(ValueError, match=r"norm='auto' cannot tell.*'direct'.*'offset'"):
        load_palm(path)
    for norm in ("direct", "offset"):
        load_palm(path, norm)


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


def without(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.pop(name)


def having(name: str, tensor: Any) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.__setitem__(name, tensor)


BAD_FILES: list[tuple[Callable[[dict[str, Tensor]], Any], str]] = [
    (without("token_emb.weight"), r"lacks a matrix 'token_emb\.weight'"),
    (without("layers.0.fn.attn_out.weight"), r"lacks a matrix 'layers\.0\.fn\.attn_out\.weight'"),
    (without("layers.1.fn.norm.gamma"), r"lacks 'layers\.1\.fn\.norm\.gamma'"),
    (without("norm.gamma"), r"lacks 'norm\.gamma'"),
    (having("layers.0.fn.cross.weight", torch.ones(2)), r"unknown tensor 'layers\.0\.fn\.cross"),
    (having("finetune_modules.a.0.0.A", torch.ones(2, 2)), "unknown tensor 'finetune_modules"),
    (having("norm.beta", torch.ones(16)), r"a bias 'norm\.beta' that is not 0"),
    (having("to_logits.weight", torch.ones(50, 16)), "logits that are not tied"),
    (having("layers.0.fn.ff_out.2.weight", torch.ones(16, 63)), "shapes that fit no PaLM"),
    (having("token_emb.weight", torch.ones(50)), r"lacks a matrix 'token_emb\.weight'"),
    (having("layers.2.fn.attn_out.weight", torch.ones(3, 3)), r"layers\.2\.fn\.attn_out\.weight"),
    (having("step", 3), "holds more than named tensors"),
]


@pytest.mark.parametrize(("change", "message"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_a_foreign_file_is_refused_with_a_sentence(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], message: str
):
    path = saved(trained(), tmp_path / "palm.pt", change)
    with pytest.raises(ValueError, match=message) as caught:
        load_palm(path)
    assert str(path) in str(caught.value)


def test_releases_with_encoder_and_decoder_are_refused_with_a_sentence(tmp_path: Path):
    path = tmp_path / "palm.pt"
    torch.save({"encoder.token_emb.weight": torch.ones(5, 4)}, path)
    with pytest.raises(ValueError, match=r"around 0\.0\.60, which had an encoder and a decoder"):
        load_palm(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04 torn", b"\x80\x02}q\x00."]
)
def test_a_torn_file_is_refused_with_a_sentence(tmp_path: Path, content: bytes):
    path = tmp_path / "palm.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_palm(path)


def test_half_a_file_is_refused_with_a_sentence(tmp_path: Path):
    path = saved(trained(), tmp_path / "palm.pt")
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 10, 100):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="not a whole file of tensors"):
            load_palm(path)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"token_emb.weight": Hostile()}, tmp_path / "palm.pt")
    with pytest.raises(ValueError, match="not a whole file of tensors"):
        load_palm(tmp_path / "palm.pt")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"norm": "old"}, ValueError, r"norm must be .*got 'old'"),
        ({"norm": None}, ValueError, r"norm must be .*got None"),
        (
            {"dtype": torch.int64},
            TypeError,
            r"dtype must be a floating-point dtype, got torch\.int64",
        ),
        ({"causal": 1}, TypeError, "causal must be True or False, got 1"),
        ({"use_xpos": None}, TypeError, "use_xpos must be True or False, got None"),
        ({"xpos_scale_base": 0}, ValueError, "xpos_scale_base must be above 0, got 0"),
        ({"flash_attn": "yes"}, TypeError, "flash_attn must be True or False, got 'yes'"),
        ({"qk_scale": -1}, ValueError, "qk_scale must be above 0, got -1"),
    ],
)
def test_bad_arguments_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
):
    path = saved(trained(qk_rmsnorm=True), tmp_path / "palm.pt")
    with pytest.raises(error, match=message):
        load_palm(path, **options)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_palm(tmp_path / "nowhere.pt")


MEASURE = """
import resource, sys, torch
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
