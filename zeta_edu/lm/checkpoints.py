"""Saving and loading: weights as safetensors, the shape as JSON, the tokenizer beside them.

Loading reads numbers and names and executes nothing. Every file is checked before a model is
made of it.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from zeta_edu.files import read_json, write_atomically, write_json
from zeta_edu.lm import parallel
from zeta_edu.lm.model import TransformerLM
from zeta_edu.lm.tokenizer import Tokenizer

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
FORMAT = "zeta_edu.TransformerLM"
SHIPPED = Path(__file__).parent / "shipped"


def save_model(
    model: TransformerLM,
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model's folder: `model.safetensors`, `config.json`, `tokenizer.json`.

    Under `torchrun` every process must call; the first one writes.

    Args:
        model: the model.
        folder: made when it is not there; files of the same names are replaced.
        tokenizer: the model's own when not given, and none when it has none.
        dtype: of the stored weights, such as `torch.float16` to halve the file; their own
            when not given.

    Raises:
        ValueError: a weight is not finite, in itself or once in `dtype`.
    """
    folder = Path(folder)
    tokenizer = tokenizer or model.tokenizer
    tensors = {
        name: parallel.whole(tensor.detach()).to("cpu", dtype or tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    if not parallel.is_first():
        return
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"weight {name!r} is not finite as {tensor.dtype}; nothing was saved")
    folder.mkdir(parents=True, exist_ok=True)
    description = {"format": FORMAT, "version": 1, "model": model.config}
    if tokenizer is not None:
        tokenizer.save(folder / TOKENIZER)
    write_atomically(folder / WEIGHTS, safetensors_bytes(tensors, {"format": "pt"}))
    write_json(folder / CONFIG, description)


def load_model(folder: str | Path) -> TransformerLM:
    """Read a model that `save_model` wrote; its tokenizer, if there, is attached.

    Args:
        folder: the model's folder.

    Returns:
        The model on the CPU, in float32 (float64 if stored so), in evaluation mode.

    Raises:
        FileNotFoundError: the folder or one of its files is not there.
        ValueError: a file is damaged or of another kind; the message names it and the fault.
    """
    folder = Path(folder)
    for file in (folder / CONFIG, folder / WEIGHTS):
        if not file.is_file():
            raise FileNotFoundError(f"{str(folder)!r} is not a model's folder: no {file.name}")
    tensors = read_tensors(folder / WEIGHTS)[0]
    model = _empty_model(folder / CONFIG, tensors, folder / WEIGHTS)
    precision = torch.promote_types(tensors["embedding.weight"].dtype, torch.float32)
    model.to(precision).load_state_dict(tensors)
    if (folder / TOKENIZER).is_file():
        model.tokenizer = _fitting_tokenizer(folder / TOKENIZER, model)
    return model.eval()


def load_pretrained(name_or_path: str | Path) -> tuple[TransformerLM, Tokenizer]:
    """Return a trained model and its tokenizer.

    Args:
        name_or_path: the name of a model that comes with the package, such as
            `"python-small"`, or the folder of one's own.

    Returns:
        The model, in evaluation mode and with the tokenizer as `model.tokenizer`, and the
        tokenizer.

    Raises:
        ValueError: no such name or folder, or a damaged file.

    >>> model, tokenizer = load_pretrained("python-small")
    >>> len(model.blocks), len(tokenizer)
    (6, 2048)
    """
    folder = SHIPPED / str(name_or_path)
    if str(name_or_path) not in shipped_models():
        folder = Path(name_or_path)
    if not folder.is_dir():
        raise ValueError(
            f"no model named {str(name_or_path)!r}: it is neither a folder nor one of those "
            f"shipped ({', '.join(shipped_models()) or 'none'})"
        )
    model = load_model(folder)
    if model.tokenizer is None:
        raise ValueError(f"{str(folder)!r} holds a model without a tokenizer: no {TOKENIZER}")
    return model, model.tokenizer


def shipped_models() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(config.parent.name for config in SHIPPED.glob(f"*/{CONFIG}"))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file whole: its tensors, and the texts stored with them.

    Raises:
        ValueError: the file is not one, or is cut short.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # A copy: the file may be replaced while its pages are still mapped.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is not a whole safetensors file: {error}") from None


def _empty_model(config: Path, tensors: dict[str, Tensor], weights: Path) -> TransformerLM:
    """Make the model that the configuration describes, once the weights are seen to fit it."""
    options = _read_config(config)
    depth = options.get("depth")
    if isinstance(depth, int) and depth > len(tensors):
        raise ValueError(f"{str(config)!r} gives depth {depth}: more than {weights.name} holds")
    try:
        # On the meta device no memory is taken, whatever sizes the file claims.
        with torch.device("meta"):
            expected = TransformerLM(**options).state_dict()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{str(config)!r} does not describe a model: {error}") from None
    check_tensors(tensors, expected, weights)
    # Its first weights are drawn and then replaced: not at the cost of the caller's seed.
    with torch.random.fork_rng(devices=[]):
        return TransformerLM(**options)


def _read_config(path: Path) -> dict[str, Any]:
    description = read_json(path)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} is not the configuration of a {FORMAT}")
    if description.get("version") != 1:
        raise ValueError(f"{str(path)!r} has version {description.get('version')!r}, not 1")
    unknown = sorted(description.keys() - {"format", "version", "model"})
    if unknown:
        raise ValueError(f"{str(path)!r} has an unknown key {unknown[0]!r}")
    if not isinstance(description.get("model"), dict):
        raise ValueError(f"{str(path)!r} has no object under 'model'")
    return description["model"]


def check_tensors(tensors: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Compare tensors from a file with those expected: names, shapes, kind and finiteness.

    Raises:
        ValueError: they differ; the message names the file and the first tensor at fault.
    """
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        fault = f"lacks {missing[0]!r}" if missing else f"has an unknown tensor {unknown[0]!r}"
        raise ValueError(f"{str(path)!r} {fault}")
    for name, tensor in tensors.items():
        wanted = expected[name]
        if tensor.shape != wanted.shape:
            raise ValueError(
                f"{str(path)!r}: {name!r} has shape {tuple(tensor.shape)}, "
                f"not {tuple(wanted.shape)}"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{str(path)!r}: {name!r} holds {tensor.dtype}, not real numbers")
        if not tensor.isfinite().all():
            raise ValueError(f"{str(path)!r}: {name!r} holds values that are not finite")


def _fitting_tokenizer(path: Path, model: TransformerLM) -> Tokenizer:
    tokenizer = Tokenizer.load(path)
    if len(tokenizer) != model.config["num_tokens"]:
        raise ValueError(
            f"{str(path)!r} has {len(tokenizer)} ids, the model {model.config['num_tokens']}"
        )
    return tokenizer
