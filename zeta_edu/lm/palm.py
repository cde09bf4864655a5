"""Loading checkpoints of palm-rlhf-pytorch's PaLM, whose block this package's block is.

Its releases differ. Up to 0.0.35 there was no xPos; those around 0.0.60 had an encoder and a
decoder; up to 0.2.0 the logits were taken before the last norm. None of these is the model made
here. Before 0.2.4 a gain was stored as it is, since then minus 1.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeta_edu.checks import existing_file, flag, positive_number
from zeta_edu.lm.checkpoints import check_tensors
from zeta_edu.lm.model import TransformerLM

# What a checkpoint holds besides weights: tables, which are made anew, and a bias of zeros.
_TABLES = re.compile(r"(.*\.)?(inv_freq|rotary_emb\.scale|pos_emb|pos_emb_scale|mask)")
_BLOCK = ("norm.gamma", "fused_attn_ff_proj.weight", "attn_out.weight", "ff_out.2.weight")
_SCALES = ("q_scale", "k_scale")


def load_palm(
    path: str | Path,
    norm: str = "auto",
    *,
    causal: bool = True,
    use_xpos: bool = True,
    xpos_scale_base: float = 512,
    qk_scale: float | None = None,
    flash_attn: bool = False,
    dtype: torch.dtype = torch.float32,
) -> TransformerLM:
    """Read a PaLM that palm-rlhf-pytorch saved with `torch.save(model.state_dict(), path)`.

    The sizes are read off the shapes. What no shape shows has to be known. Nothing in the file
    is executed.

    Args:
        path: the file.
        norm: how it stores the gains of its norms: "direct" as they are (releases before 0.2.4,
            and so the public files of May 2023), "offset" minus 1 (releases since), "auto" to
            judge by the values of all gains together.
        causal: as the model was trained.
        use_xpos: as the model was trained.
        xpos_scale_base: as the model was trained.
        qk_scale: factor of the logits of a model with q_scale and k_scale; dim_head ** -0.5 when
            None, as in releases since 0.1.0.
        flash_attn: whether the model made of it uses torch's fused kernels.
        dtype: of the model's weights; 1 is added to a gain in at least float32.

    Returns:
        The model on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: there is no file.
        TypeError: an argument is of the wrong kind.
        ValueError: the file is no such checkpoint, or of a release whose model was another one,
            or `norm` is "auto" and both readings fit.

    Source: palm-rlhf-pytorch on the Python package index, its module `palm`.

    >>> import tempfile
    >>> shapes = {"fused_attn_ff_proj": (96, 8), "attn_out": (8, 16), "ff_out.2": (8, 32)}
    >>> state = {f"layers.0.fn.{name}.weight": torch.zeros(s) for name, s in shapes.items()}
    >>> state |= {"layers.0.fn.norm.gamma": torch.ones(8), "norm.gamma": torch.ones(8)}
    >>> state |= {"token_emb.weight": torch.zeros(50, 8)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(state, f"{folder}/palm.pt")
    ...     config = load_palm(f"{folder}/palm.pt").config
    >>> config["heads"], config["dim_head"], config["ff_mult"]
    (2, 8, 4)
    """
    if norm not in ("auto", "direct", "offset"):
        raise ValueError(f"norm must be 'auto', 'direct' or 'offset', got {norm!r}")
    if dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        raise TypeError(f"dtype must be a floating-point dtype, got {dtype!r}")
    path = existing_file("path", path)
    tensors = _read(path)
    config = _config(tensors, path)
    names = _names(config["depth"], config["qk_rmsnorm"])
    tensors = _weights(tensors, names, path)
    offset = _gains_are_offset(tensors, norm, path)
    if config["qk_rmsnorm"]:
        scale = config["dim_head"] ** -0.5 if qk_scale is None else qk_scale
        config["qk_scale"] = positive_number("qk_scale", scale)
    config |= {"causal": flag("causal", causal), "use_xpos": flag("use_xpos", use_xpos)}
    config |= {"xpos_scale_base": positive_number("xpos_scale_base", xpos_scale_base)}
    with torch.device("meta"):  # the file's own tensors become the weights: no second copy
        model = TransformerLM(**config, flash_attn=flag("flash_attn", flash_attn))
    expected = {names[ours]: tensor for ours, tensor in model.state_dict().items()}
    check_tensors({names[ours]: t for ours, t in tensors.items()}, expected, path)
    _check_last_norm(tensors, path)
    for name, tensor in tensors.items():
        if offset and name.endswith("gamma"):
            tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32)) + 1
        tensors[name] = tensor.to(dtype)
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(True).eval()


def _read(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors, and nothing else, and leave out what is no weight."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways, each of them this one
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{str(path)!r} is not a whole file of tensors: {reason}") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise ValueError(f"{str(path)!r} is not a state dict: it holds more than named tensors")
    _check_release(tensors.keys(), path)
    return {name: tensor for name, tensor in tensors.items() if not _TABLES.fullmatch(name)}


def _check_release(names: Iterable[str], path: Path) -> None:
    """Refuse files of releases that can be told from their names, and whose model was another."""
    parts = {part for name in names for part in name.split(".")}
    if parts & {"encoder", "decoder", "to_cross_attn_key_values"}:
        raise ValueError(
            f"{str(path)!r} is of the releases of palm-rlhf-pytorch around 0.0.60, which had an "
            "encoder and a decoder"
        )
    if "inv_freq" in parts and "scale" not in parts:  # both are stored since there is xPos
        raise ValueError(
            f"{str(path)!r} is of a release of palm-rlhf-pytorch up to 0.0.35, which had no xPos "
            "and took the logits before the last norm"
        )


def _config(tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """Read the sizes of the model off the shapes of its tensors."""
    first = "layers.0.fn."
    names = ("fused_attn_ff_proj.weight", "attn_out.weight", "ff_out.2.weight")
    needed = ("token_emb.weight", *(first + name for name in names))
    for name in needed:
        if name not in tensors or tensors[name].ndim != 2:
            raise ValueError(
                f"{str(path)!r} lacks a matrix {name!r}: it is no PaLM of palm-rlhf-pytorch"
            )
    embedding, fused, attn_out, ff_out = (tensors[name].shape for name in needed)
    dim_head, odd = divmod(fused[0] - attn_out[1] - 2 * ff_out[1], 2)
    if odd or dim_head < 1 or attn_out[1] % dim_head or ff_out[1] % embedding[1]:
        shapes = ", ".join(str(tuple(tensors[name].shape)) for name in needed)
        raise ValueError(f"{str(path)!r} has shapes that fit no PaLM: {shapes}")
    layers = {int(found[1]) for name in tensors if (found := re.match(r"layers\.(\d+)\.", name))}
    return {
        "num_tokens": embedding[0],
        "dim": embedding[1],
        "depth": max(layers) + 1,
        "dim_head": dim_head,
        "heads": attn_out[1] // dim_head,
        "ff_mult": ff_out[1] // embedding[1],
        "qk_rmsnorm": first + "q_scale" in tensors,
    }


def _weights(tensors: dict[str, Tensor], names: dict[str, str], path: Path) -> dict[str, Tensor]:
    """Return each weight under this package's name, and refuse what is left over."""
    left = dict(tensors)
    logits = left.pop("to_logits.weight", None)
    if logits is not None and not torch.equal(logits, left["token_emb.weight"]):
        raise ValueError(f"{str(path)!r} has logits that are not tied to the embedding")
    for name in [name for name in left if name.endswith("norm.beta")]:
        if left.pop(name).any():
            raise ValueError(f"{str(path)!r} has a bias {name!r} that is not 0")
    missing = sorted(set(names.values()) - left.keys())
    unknown = sorted(left.keys() - set(names.values()))
    if missing or unknown:
        faults = [f"lacks {_some(missing)}"] if missing else []
        faults += [f"has unknown tensors {_some(unknown)}"] if unknown else []
        raise ValueError(
            f"{str(path)!r} {' and '.join(faults)}: it is no plain PaLM of palm-rlhf-pytorch"
        )
    return {ours: left[theirs] for ours, theirs in names.items()}


def _some(names: list[str]) -> str:
    """Name the first few."""
    more = [f"{len(names) - 3} more"] if len(names) > 3 else []
    return ", ".join([repr(name) for name in names[:3]] + more)


def _names(depth: int, with_scales: bool) -> dict[str, str]:
    """Return this package's names of a model's weights, and the file's names for them."""
    names = {"embedding.weight": "token_emb.weight", "norm.gamma": "norm.gamma"}
    for i in range(depth):
        for name in _BLOCK + _SCALES if with_scales else _BLOCK:
            names[f"blocks.{i}.{name}"] = f"layers.{i}.fn.{name}"
    return names


def _check_last_norm(tensors: dict[str, Tensor], path: Path) -> None:
    """Refuse a model whose last norm was never used, and so alone kept the gain it started with."""
    learned = {n for n, t in tensors.items() if n.endswith("gamma") and (t != t[0]).any()}
    if learned and "norm.gamma" not in learned:
        raise ValueError(
            f"{str(path)!r} has a last norm that learned nothing: releases of palm-rlhf-pytorch up "
            "to 0.2.0 took the logits before it, and this model takes them after"
        )


def _gains_are_offset(tensors: dict[str, Tensor], norm: str, path: Path) -> bool:
    """Whether 1 must be added to the gains.

    Gains rest at 1 and hardly ever turn negative. Read as they are, they fit when next to none is
    negative and their median is not 0. Read as gain minus 1, they fit when their median is not far
    above 0. One layer alone can mislead: trained gains below 0.5 exist.
    """
    if norm != "auto":
        return norm == "offset"
    gains = torch.cat([t.float() for name, t in tensors.items() if name.endswith("gamma")])
    negative, median = (gains < 0).float().mean().item(), gains.median().item()
    direct, offset = negative < 0.02 and median > 0.1, median < 0.6
    if direct == offset:
        which = "both" if direct else "neither"
        raise ValueError(
            f"norm='auto' cannot tell how {str(path)!r} stores its gains (median {median:.2f}, "
            f"{negative:.0%} negative: {which} fit): give 'direct' for releases of "
            "palm-rlhf-pytorch before 0.2.4, 'offset' since"
        )
    return offset
