"""Files that are no PaLM of a release that can be loaded are refused, each with a sentence."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.lm.palm_models import directly, saved, trained
from zeta_edu.lm.palm import load_palm


def without(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.pop(name)


def having(name: str, tensor: Any) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.__setitem__(name, tensor)


BAD_FILES: list[tuple[Callable[[dict[str, Tensor]], Any], str]] = [
    (without("token_emb.weight"), r"lacks a matrix 'token_emb\.weight'"),
    (without("layers.0.fn.attn_out.weight"), r"lacks a matrix 'layers\.0\.fn\.attn_out\.weight'"),
    (without("layers.1.fn.norm.gamma"), r"lacks 'layers\.1\.fn\.norm\.gamma'"),
    (without("norm.gamma"), r"lacks 'norm\.gamma'"),
    (having("layers.0.fn.cross.weight", torch.ones(2)), r"unknown tensors 'layers\.0\.fn\.cross"),
    (having("finetune_modules.a.0.0.A", torch.ones(2, 2)), "unknown tensors 'finetune_modules"),
    (having("norm.gamma", torch.ones(16, dtype=torch.int64)), r"'norm\.gamma' holds torch\.int64"),
    (
        having("norm.gamma", torch.full((16,), torch.inf)),
        r"'norm\.gamma' holds values that are not",
    ),
    (having(0, torch.ones(2)), "holds more than named tensors"),
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


def renamed(old: str, new: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.__setitem__(new, tensors.pop(old))


def test_missing_and_unknown_tensors_are_all_counted_and_the_first_named(tmp_path: Path):
    def change(tensors: dict[str, Tensor]) -> None:
        for i in range(1, 3):
            for part in ("norm.gamma", "attn_out.weight"):
                renamed(f"layers.{i}.fn.{part}", f"layers.{i}.fn.my_{part}")(tensors)

    lacks = "lacks 'layers.1.fn.attn_out.weight', 'layers.1.fn.norm.gamma', "
    lacks += "'layers.2.fn.attn_out.weight', 1 more and has unknown tensors "
    with pytest.raises(ValueError, match=re.escape(lacks + "'layers.1.fn.my_attn_out.weight', ")):
        load_palm(saved(trained(), tmp_path / "palm.pt", change))


# Releases whose model was another one. Their names are those that the releases themselves write.


@pytest.mark.parametrize("use_xpos", [True, False])
def test_releases_without_xpos_are_refused_with_a_sentence(tmp_path: Path, use_xpos: bool):
    def change(tensors: dict[str, Tensor]) -> None:
        directly(tensors)
        for name in [name for name in tensors if name.endswith("rotary_emb.scale")]:
            del tensors[name]

    path = saved(trained(), tmp_path / "palm.pt", change)
    with pytest.raises(ValueError, match=r"up to 0\.0\.35, which had no xPos"):
        load_palm(path, use_xpos=use_xpos)


@pytest.mark.parametrize(
    "name",
    [
        "encoder.token_emb.weight",
        "decoder.layers.0.1.fn.norm.gamma",
        "to_cross_attn_key_values.weight",
    ],
)
def test_releases_with_encoder_and_decoder_are_refused_with_a_sentence(tmp_path: Path, name: str):
    path = tmp_path / "palm.pt"
    torch.save({name: torch.ones(5, 4)}, path)
    with pytest.raises(ValueError, match=r"around 0\.0\.60, which had an encoder and a decoder"):
        load_palm(path)


@pytest.mark.parametrize("norm", ["auto", "direct"])
def test_releases_whose_logits_skip_the_last_norm_are_refused(tmp_path: Path, norm: str):
    """Its gain then learns nothing, however much the others do."""

    def change(tensors: dict[str, Tensor]) -> None:
        directly(tensors)
        tensors["norm.gamma"] = torch.ones(16)

    path = saved(trained(), tmp_path / "palm.pt", change)
    with pytest.raises(ValueError, match=r"last norm that learned nothing.*up to 0\.2\.0"):
        load_palm(path, norm)


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
    for path in (tmp_path / "nowhere.pt", str(tmp_path)):
        with pytest.raises(FileNotFoundError, match=f"path must be a file, got '{path}'"):
            load_palm(path)
    for value in (None, 3, b"palm.pt"):
        with pytest.raises(TypeError, match=f"path must be the path of a file, got {value!r}"):
            load_palm(value)
