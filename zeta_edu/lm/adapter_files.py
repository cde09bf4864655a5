"""LoRA adapters as files of their own: a few kilobytes beside a model they can be put back on."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from zeta_edu.adapters import (
    Model,
    adapter_modules,
    add_lora,
    check_targets,
    lora_names,
    lora_places,
)
from zeta_edu.checks import existing_file, flag, floating_dtype, number
from zeta_edu.files import write_atomically
from zeta_edu.lm import parallel
from zeta_edu.lm.checkpoints import check_tensors, read_tensors
from zeta_edu.lora import LoRA, SmallLoRA

FORMAT = "zeta_edu.LoRA"
ADAPTER = "adapter.safetensors"  # its name in a folder of its own


def save_lora(
    model: nn.Module,
    path: str | Path,
    name: str = "default",
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write one adapter of a model to a safetensors file, and nothing of the model itself.

    Args:
        model: a `TransformerBlock`, a `TransformerLM`, or anything that contains blocks.
        path: the file; one that is there is replaced.
        name: of the adapter.
        dtype: of the stored numbers, such as `torch.float16` to halve the file; their own when
            not given.

    Raises:
        TypeError: `model` is no module, or `dtype` no dtype of real numbers.
        ValueError: the model has no adapter of that name, or a number in it is not finite, in
            itself or once in `dtype`.

    Source: the factors A and B of Hu et al. 2021, LoRA (arXiv:2106.09685), section 4.1.

    >>> import tempfile
    >>> from zeta_edu import TransformerBlock
    >>> block = add_lora(TransformerBlock(dim=16, dim_head=8, heads=2), rank=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_lora(block, f"{folder}/poems.safetensors")
    ...     Path(f"{folder}/poems.safetensors").stat().st_size < 3000
    True
    """
    if dtype is not None:
        floating_dtype("dtype", dtype)
    loras = adapter_modules(model, name)
    if not loras:
        raise ValueError(f"name must be one of the adapters {lora_names(model)}, got {name!r}")
    tensors = {
        f"{place}.{part}": parallel.whole(learned.detach()).cpu().contiguous()
        for place, lora in loras.items()
        for part, learned in lora.named_parameters()
    }
    if not parallel.is_first():
        return
    tensors = {place: tensor.to(dtype or tensor.dtype) for place, tensor in tensors.items()}
    for place, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"adapter {name!r} is not finite at {place!r}; nothing was saved")
    lora = next(iter(loras.values()))
    settings: dict[str, Any] = {
        "alpha": lora.scale * lora.A.shape[1],
        "dropout": lora.dropout.p,
        "targets": sorted({place.rpartition(".")[2] for place in loras}, key="qkvo".index),
    }
    if isinstance(lora, SmallLoRA):
        settings |= {"small": True, "strength": _strength(lora)}
    texts = {"format": FORMAT, "adapter": json.dumps(settings)}
    write_atomically(path, safetensors_bytes(tensors, texts))


def load_lora(model: Model, path: str | Path, name: str = "default") -> Model:
    """Add the adapter in a file to a model of the shape it was made for, and make it active.

    Args:
        model: changed in place; nothing but the adapter is trainable afterwards.
        path: a file that `save_lora` wrote, or the folder of one that is `adapter.safetensors`.
        name: that the adapter gets; a new one.

    Returns:
        The same model.

    Raises:
        FileNotFoundError: there is no file.
        TypeError: `model` is no module, or `path` neither a string nor a path.
        ValueError: the file is damaged, no adapter, or one for a model of another shape (a small
            one: with other weights); the model has an adapter of that name.

    Source: the factors A and B of Hu et al. 2021, LoRA (arXiv:2106.09685), section 4.1.

    >>> import tempfile
    >>> from zeta_edu import TransformerBlock
    >>> tuned, fresh = (TransformerBlock(dim=16, dim_head=8, heads=2) for _ in range(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_lora(add_lora(tuned, rank=2), f"{folder}/poems.safetensors")
    ...     lora_names(load_lora(fresh, f"{folder}/poems.safetensors", "poems"))
    ['poems']
    """
    folder = isinstance(path, str | Path) and Path(path).is_dir()
    path = existing_file("path", Path(path) / ADAPTER if folder else path)
    tensors, texts = read_tensors(path)
    settings = _settings(texts, path)
    last = ".R" if settings["small"] else ".A"
    ranks = {t.shape[1] for place, t in tensors.items() if place.endswith(last) and t.ndim == 2}
    if len(ranks) != 1:
        raise ValueError(f"{str(path)!r} must hold updates of one rank, got {sorted(ranks)}")
    rank, strength = ranks.pop(), settings.pop("strength")
    check_tensors(tensors, _expected(model, settings, rank), path)
    if settings["small"] and not _fits(lora_places(model, settings["targets"]), rank, strength):
        raise ValueError(f"{str(path)!r} was made for a model with other weights")
    add_lora(model, rank, name=name, **settings)
    with torch.no_grad():
        for place, lora in adapter_modules(model, name).items():
            for part, learned in lora.named_parameters():
                learned.copy_(tensors[f"{place}.{part}"])
    return model


def _settings(texts: dict[str, str], path: Path) -> dict[str, Any]:
    """Read what the tensors do not show, and refuse what no adapter can have."""
    if texts.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} is not the file of a LoRA adapter")
    try:
        settings = json.loads(texts["adapter"])
        LoRA(1, 1, 1, settings["alpha"], settings["dropout"])
        check_targets(settings["targets"])
        small = flag("small", settings.get("small", False))
        strength = number("strength", settings["strength"]) if small else 0.0
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} describes no adapter: {error!r}") from None
    known = {name: settings[name] for name in ("alpha", "dropout", "targets")}
    return known | {"small": small, "strength": strength}


def _expected(model: nn.Module, settings: dict[str, Any], rank: int) -> dict[str, Tensor]:
    """Return empty tensors of the names and shapes that an adapter of this model has."""
    expected = {}
    for place, weight in lora_places(model, settings["targets"]).items():
        dim_out, dim = weight.shape
        shapes = {"A": (dim, rank), "B": (rank, dim_out)}
        for part, shape in {"R": (rank, rank)}.items() if settings["small"] else shapes.items():
            expected[f"{place}.{part}"] = torch.empty(shape, device="meta")
    return expected


def _fits(weights: dict[str, Tensor], rank: int, strength: float) -> bool:
    """Whether a small adapter is for these weights, by the first of them."""
    if not 0 < rank <= min(min(weight.shape) for weight in weights.values()):
        return False
    there = _strength(SmallLoRA(next(iter(weights.values())), rank))
    return math.isclose(strength, there, rel_tol=1e-3)


def _strength(lora: SmallLoRA) -> float:
    """The norm of the weight's first directions: between others, R means nothing."""
    return float(f"{lora.B.double().norm().item():.5g}")
