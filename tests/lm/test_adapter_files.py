"""Adapters in files of their own, put back on the model they were made for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zeta_edu import (
    TransformerBlock,
    TransformerLM,
    add_lora,
    load_lora,
    merge_lora,
    save_lora,
    use_lora,
)

close = torch.testing.assert_close
TOKENS = torch.tensor([[1, 2, 3, 4]])


def language_model(seed: int = 0, **options: Any) -> TransformerLM:
    torch.manual_seed(seed)
    sizes = {"dim": 16, "depth": 2, "heads": 2, "dim_head": 8, **options}
    return TransformerLM(50, **sizes).eval()


def adapted(name: str = "default", seed: int = 1, **options: Any) -> TransformerLM:
    model = add_lora(language_model(), name=name, **{"rank": 2, "alpha": 5, **options})
    torch.manual_seed(seed)
    for path, parameter in model.named_parameters():
        if path.endswith((".B", ".R")):
            nn.init.normal_(parameter)
    return model


OPTIONS = [{}, {"targets": ("q", "v")}, {"rank": 3, "alpha": None}, {"small": True}]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_saved_adapter_comes_back_whole(tmp_path: Path, options: dict[str, Any]):
    model, path = adapted(dropout=0.25, **options), tmp_path / "mine.safetensors"
    save_lora(model, path)
    other = language_model()
    assert load_lora(other, path) is other
    close(other(TOKENS), model(TOKENS))
    assert (other(TOKENS) - language_model()(TOKENS)).abs().max() > 1e-2
    kept = {name for name, p in other.named_parameters() if p.requires_grad}
    assert kept == {name for name, p in model.named_parameters() if p.requires_grad}
    dropouts = {p.dropout.p for p in other.modules() if isinstance(getattr(p, "A", None), Tensor)}
    assert dropouts == {0.25}


def test_a_file_holds_the_adapter_alone(tmp_path: Path):
    model, path = adapted(), tmp_path / "mine.safetensors"
    save_lora(model, path)
    assert len(load_file(path)) == 2 * 4 * 2
    numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert path.stat().st_size < 4 * numbers + 4_000
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]


def test_a_small_adapter_is_a_small_file(tmp_path: Path):
    wide = language_model(dim=192, depth=6, dim_head=32, heads=6)
    save_lora(add_lora(wide, rank=8, small=True), tmp_path / "small", dtype=torch.float16)
    assert (tmp_path / "small").stat().st_size < 6_000
    merged = merge_lora(adapted(small=True))
    save_lora(merged, tmp_path / "merged")
    close(load_lora(language_model(), tmp_path / "merged")(TOKENS), merged(TOKENS))


def test_a_small_adapter_for_other_weights_is_refused(tmp_path: Path):
    save_lora(adapted(small=True), tmp_path / "mine")
    other = language_model(seed=5)
    names = list(other.state_dict())
    with pytest.raises(ValueError, match="mine' was made for a model with other weights"):
        load_lora(other, tmp_path / "mine")
    assert list(other.state_dict()) == names
    too_wide = {f"blocks.{i}.{place}.R": torch.ones(9, 9) for i in range(2) for place in "qkvo"}
    rewritten(tmp_path / "mine", too_wide)  # its keys have 8 features
    with pytest.raises(ValueError, match="mine' was made for a model with other weights"):
        load_lora(language_model(), tmp_path / "mine")
    for changed in ({"small": True, "strength": "much"}, {"small": 1}, {"small": True}):
        rewritten(tmp_path / "mine", {}, adapter=described(**changed))
        with pytest.raises(ValueError, match="describes no adapter"):
            load_lora(language_model(), tmp_path / "mine")


def test_several_adapters_are_saved_by_name(tmp_path: Path):
    model = add_lora(adapted("one"), name="two", targets=("o",))
    for name in ("one", "two"):
        save_lora(model, tmp_path / name, name)
    other = load_lora(load_lora(language_model(), tmp_path / "one", "first"), tmp_path / "two")
    use_lora(other, "first")
    close(other(TOKENS), use_lora(model, "one")(TOKENS))
    use_lora(other, "default")
    close(other(TOKENS), use_lora(model, "two")(TOKENS))


def test_a_block_alone_may_have_adapters_too(tmp_path: Path):
    block = add_lora(TransformerBlock(8, 4, heads=2), rank=2)
    nn.init.normal_(block.finetune_modules.q["default"].B)
    save_lora(block, tmp_path / "mine")
    assert "q.A" in load_file(tmp_path / "mine")
    other = TransformerBlock(8, 4, heads=2)
    other.load_state_dict({n: p for n, p in block.state_dict().items() if "finetune" not in n})
    x = torch.randn(1, 3, 8)
    close(load_lora(other, tmp_path / "mine")(x), block(x))


def test_a_merged_adapter_can_still_be_saved(tmp_path: Path):
    model = adapted()
    expected = model(TOKENS)
    save_lora(merge_lora(model), tmp_path / "mine")
    close(load_lora(language_model(), tmp_path / "mine")(TOKENS), expected)


def test_a_narrow_adapter_loads_into_a_wide_model(tmp_path: Path):
    model = adapted().bfloat16()
    save_lora(model, tmp_path / "mine")
    other = load_lora(language_model(), tmp_path / "mine")
    assert {p.dtype for p in other.parameters()} == {torch.float32}


def test_what_is_not_there_is_not_saved(tmp_path: Path):
    with pytest.raises(ValueError, match=r"name must be one of the adapters \[\], got 'default'"):
        save_lora(language_model(), tmp_path / "mine")
    with pytest.raises(ValueError, match=r"\['default'\], got 'other'"):
        save_lora(adapted(), tmp_path / "mine", "other")
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        save_lora("python-small", tmp_path / "mine")
    model = adapted()
    with torch.no_grad():
        model.blocks[1].finetune_modules.k["default"].A[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"not finite at 'blocks\.1\.k\.A'; nothing was saved"):
        save_lora(model, tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def rewritten(path: Path, tensors: dict[str, Tensor | None], **texts: str | None) -> None:
    with safe_open(path, "pt") as file:
        old = file.metadata()
    kept = {**load_file(path), **tensors}
    meta = {**old, **texts}
    save_file(
        {name: t for name, t in kept.items() if t is not None},
        path,
        {name: text for name, text in meta.items() if text is not None},
    )


def described(**changed: Any) -> str:
    return json.dumps({"alpha": 5.0, "dropout": 0.0, "targets": ["q", "k", "v", "o"], **changed})


BAD_FILES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"format": "other"}, "is not the file of a LoRA adapter"),
    ({}, {"format": None}, "is not the file of a LoRA adapter"),
    ({}, {"adapter": None}, "describes no adapter"),
    ({}, {"adapter": "{"}, "describes no adapter"),
    ({}, {"adapter": "[" * 100_000}, "describes no adapter"),
    ({}, {"adapter": "3"}, "describes no adapter"),
    ({}, {"adapter": described(alpha="big")}, "describes no adapter"),
    ({}, {"adapter": described(dropout=1)}, "describes no adapter"),
    ({}, {"adapter": described(targets=["up"])}, "describes no adapter"),
    ({}, {"adapter": described(targets=[["q"]])}, "describes no adapter"),
    ({}, {"adapter": described(targets=["q"])}, "blocks"),
    ({"blocks.0.q.A": torch.ones(16, 3)}, {}, r"one rank, got \[2, 3\]"),
    ({"blocks.0.q.A": torch.tensor(1.0)}, {}, r"blocks\.0\.q\.A"),
    ({"blocks.0.q.B": torch.ones(2, 5)}, {}, r"blocks\.0\.q\.B"),
    ({"blocks.0.q.A": None}, {}, r"blocks\.0\.q\.A"),
    ({"blocks.7.q.B": torch.ones(2, 16)}, {}, r"blocks\.7\.q\.B"),
]


@pytest.mark.parametrize(("tensors", "texts", "message"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_a_foreign_file_is_refused_with_a_sentence(
    tmp_path: Path, tensors: dict[str, Any], texts: dict[str, Any], message: str
):
    path, model = tmp_path / "mine", language_model()
    save_lora(adapted(), path)
    rewritten(path, tensors, **texts)
    names = list(model.state_dict())
    with pytest.raises(ValueError, match=message) as caught:
        load_lora(model, path)
    assert str(path) in str(caught.value)
    assert list(model.state_dict()) == names
    assert all(p.requires_grad for p in model.parameters())


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path):
    save_lora(adapted(), tmp_path / "mine")
    for options in ({"dim": 24}, {"depth": 1}, {"depth": 3}, {"heads": 4}):
        with pytest.raises(ValueError, match="mine"):
            load_lora(language_model(**options), tmp_path / "mine")


def test_a_torn_or_missing_file_is_refused(tmp_path: Path):
    path = tmp_path / "mine"
    with pytest.raises(FileNotFoundError, match="mine"):
        load_lora(language_model(), path)
    save_lora(adapted(), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="mine"):
        load_lora(language_model(), path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, "float16"])
def test_numbers_are_not_stored_as_what_cannot_hold_them(tmp_path: Path, dtype: Any):
    with pytest.raises(TypeError, match="dtype must be a floating-point dtype, got"):
        save_lora(adapted(), tmp_path / "mine.safetensors", dtype=dtype)
    assert not list(tmp_path.iterdir())
