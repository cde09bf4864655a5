"""Saving and loading: what is kept, and what is refused."""

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from zeta_edu.lm import TransformerLM, load_model, load_pretrained, save_model


@pytest.fixture
def saved(model, tmp_path):
    """The folder of a saved model."""
    save_model(model, tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_model_loads_equal(model, saved):
    loaded, tokenizer = load_pretrained(saved)
    tokens = torch.tensor([tokenizer.encode("def add_name(first):")])
    assert loaded(tokens).equal(model(tokens))
    assert loaded.config == model.config
    assert loaded.tokenizer is tokenizer
    assert not loaded.training


def test_half_precision_halves_the_file_and_comes_back_in_float32(model, saved, tmp_path):
    save_model(model, tmp_path / "half", dtype=torch.float16)
    loaded = load_model(tmp_path / "half")
    sizes = [(path / "model.safetensors").stat().st_size for path in (saved, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    for name, parameter in loaded.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.equal(model.get_parameter(name).half().float())


def test_double_precision_comes_back_as_it_was(model, tmp_path):
    save_model(model.double(), tmp_path)
    loaded = load_model(tmp_path)
    assert all(loaded.get_parameter(name).equal(p) for name, p in model.named_parameters())


def test_loading_leaves_the_randomness_of_torch_alone(saved):
    state = torch.get_rng_state()
    load_model(saved)
    assert torch.get_rng_state().equal(state)


def test_a_loaded_model_can_be_trained(saved):
    model = load_model(saved).train()
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert model.embedding.weight.grad is not None


def test_a_model_without_tokenizer_loads_but_is_no_pretrained_one(model, tmp_path):
    model.tokenizer = None
    save_model(model, tmp_path)
    assert load_model(tmp_path).tokenizer is None
    with pytest.raises(ValueError, match=r"without a tokenizer: no tokenizer\.json"):
        load_pretrained(tmp_path)


def test_weights_that_are_not_finite_are_not_saved(model, saved):
    before = (saved / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.norm.gamma[3] = 1e6
    with pytest.raises(ValueError, match=r"'norm\.gamma' is not finite as torch\.float16"):
        save_model(model, saved, dtype=torch.float16)
    assert (saved / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["python-large", "no/such/folder", "../lm", ""])
def test_an_unknown_name_is_told_with_those_there_are(name, tmp_path, monkeypatch):
    monkeypatch.setattr("zeta_edu.lm.checkpoints.shipped_models", lambda: ["python-small"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=r"python-small|not a model's folder"):
        load_pretrained(name)


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not a model's folder: no config\.json"):
        load_model(tmp_path)


def edit_config(folder, **changes):
    description = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        place = description if key in ("format", "version", "extra") else description["model"]
        place[key] = value
    (folder / "config.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"format": "something else"}, "not the configuration"),
        ({"version": 2}, "version 2, not 1"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"flavour": "sweet"}, "unknown block option 'flavour'"),
        ({"dim": "wide"}, "dim must be"),
        ({"dim": -32}, "dim must be"),
        ({"depth": 10**9}, "depth 1000000000"),
        ({"dim": 10**12}, "shape|describe"),
        ({"dim": 10**30}, "shape|describe"),
        ({"num_tokens": 301}, "'embedding.weight' has shape"),
        ({"depth": 1}, "unknown tensor 'blocks.1"),
        ({"depth": 3}, "lacks 'blocks.2"),
        ({"qk_rmsnorm": True}, "lacks 'blocks.0.k_scale'"),
        ({"heads": 3.5}, "heads must be"),
        ({"use_xpos": "no"}, "use_xpos must be"),
        ({"finetune_modules": [1, 2, 3, 4]}, "unknown block option"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(saved, changes, fault):
    edit_config(saved, **changes)
    with pytest.raises(ValueError, match=rf"(config\.json|model\.safetensors).*({fault})"):
        load_model(saved)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": "x"', "[" * 100_000])
def test_a_configuration_that_is_none_is_refused(saved, content):
    (saved / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_model(saved)


def edit_weights(folder, name, change):
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = change(tensors[name])
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t[:-1].clone(), r"has shape \(31,\), not \(32,\)"),
        (lambda t: t[None], r"has shape \(1, 32\), not \(32,\)"),
        (lambda t: t.int(), r"torch\.int32, not real numbers"),
        (lambda t: t.to(torch.complex64), "not real numbers"),
        (lambda t: t.index_fill(0, torch.tensor([5]), float("nan")), "not finite"),
        (lambda t: t.index_fill(0, torch.tensor([5]), float("inf")), "not finite"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(saved, change, fault):
    edit_weights(saved, "norm.gamma", change)
    with pytest.raises(ValueError, match=rf"model\.safetensors.*'norm\.gamma' .*{fault}"):
        load_model(saved)


def torn(content, _):
    return content[: len(content) // 2]


def without_the_last_byte(content, _):
    return content[:-1]


def with_more_behind(content, _):
    return content + b"more"


def empty(*_):
    return b""


def header_beyond_the_end(content, _):
    return struct.pack("<Q", 2**60) + content[8:]


def header_that_is_no_json(content, _):
    return content[:8] + b"x" + content[9:]


def offsets_outside(content, _):
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    header["norm.gamma"]["data_offsets"] = [0, 10**12]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def a_pickle(_, folder):
    return pickle.dumps(Bomb(folder / "harm"))


DAMAGE = (
    torn,
    without_the_last_byte,
    with_more_behind,
    empty,
    header_beyond_the_end,
    header_that_is_no_json,
    offsets_outside,
    a_pickle,
)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_file_of_weights_is_refused(saved, damage):
    path = saved / "model.safetensors"
    path.write_bytes(damage(path.read_bytes(), saved))
    with pytest.raises(ValueError, match=r"model\.safetensors' is not a whole safetensors file"):
        load_model(saved)
    assert not (saved / "harm").exists()


def test_any_torn_file_of_weights_is_refused(saved):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            load_model(saved)


def test_a_tokenizer_of_another_size_is_refused(saved, text):
    from zeta_edu.lm import Tokenizer

    Tokenizer.train([text], vocab_size=299).save(saved / "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer\.json' has 299 ids, the model 300"):
        load_model(saved)


def test_nothing_but_the_model_s_files_is_left_behind(saved):
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]


def test_saving_again_replaces_the_model(model, saved):
    torch.manual_seed(9)
    other = TransformerLM(**model.config)
    other.tokenizer = model.tokenizer
    save_model(other, saved)
    assert load_model(saved).embedding.weight.equal(other.embedding.weight)
