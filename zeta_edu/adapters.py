"""LoRA adapters on whole models: add, switch, merge into the weights and out again."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor, nn

from zeta_edu.block import TransformerBlock
from zeta_edu.checks import flag
from zeta_edu.lora import Adapters, FinetuneModules, LoRA, SmallLoRA

Model = TypeVar("Model", bound=nn.Module)


def add_lora(
    model: Model,
    rank: int = 8,
    alpha: float | None = None,
    targets: Sequence[str] = FinetuneModules.NAMES,
    *,
    dropout: float = 0.0,
    name: str = "default",
    small: bool = False,
) -> Model:
    """Give every block of a model a new adapter, and leave nothing else trainable.

    Args:
        model: a `TransformerBlock`, or anything that contains some; changed in place.
        rank: inner features of the updates.
        alpha: strength of the updates; `rank` when None.
        targets: which of "q", "k", "v" and "o" are updated.
        dropout: probability that an input feature of an update is dropped in training.
        name: of the adapter. The new one becomes the active one.
        small: learn only a (rank, rank) matrix for each target, as `SmallLoRA` does.

    Returns:
        The same model.

    Raises:
        TypeError, ValueError: an argument is not of the kind above, the name is taken, a block
            has a finetune module of another kind there, or an adapter is merged.

    Source: Hu et al. 2021, "LoRA" (arXiv:2106.09685), section 4.

    >>> block = add_lora(TransformerBlock(dim=16, dim_head=8, heads=2), rank=2)
    >>> sum(p.numel() for p in block.parameters() if p.requires_grad)
    224
    """
    targets, blocks = check_targets(targets), _blocks(model).values()
    _check_free(model, targets, name)
    flag("small", small)
    weights = [_target_weight(block, target) for block in blocks for target in targets]
    loras = [_new_lora(weight, small, rank, alpha, dropout) for weight in weights]
    for (block, target), lora in zip(product(blocks, targets), loras, strict=True):
        if getattr(block.finetune_modules, target) is None:
            setattr(block.finetune_modules, target, Adapters())
        getattr(block.finetune_modules, target)[name] = lora.train(block.training)
    model.requires_grad_(False)
    return use_lora(model, name)


def lora_names(model: nn.Module) -> list[str]:
    """Return the names of a model's adapters, sorted."""
    return sorted({name for _, _, place in _places(model) for name in place})


def lora_places(model: nn.Module, targets: Sequence[str]) -> dict[str, Tensor]:
    """Return the paths in a model where adapters may be, with the weight (out, in) there."""
    return {
        f"{path}.{target}".removeprefix("."): _target_weight(block, target)
        for path, block in _blocks(model).items()
        for target in targets
    }


def adapter_modules(model: nn.Module, name: str) -> dict[str, LoRA]:
    """Return the modules of the adapter of that name, by paths as in `lora_places`."""
    return {
        f"{path}.{target}".removeprefix("."): lora
        for path, block in _blocks(model).items()
        for target in FinetuneModules.NAMES
        if isinstance(place := getattr(block.finetune_modules, target), Adapters)
        and isinstance(lora := dict(place.items()).get(name), LoRA)
    }


def use_lora(model: Model, name: str | None) -> Model:
    """Switch to the adapter of that name, or with None to the model without any.

    The active adapter is trainable, the others are not.

    Args:
        model: one that `add_lora` has given adapters; changed in place.
        name: of the adapter, or None.

    Returns:
        The same model.

    Raises:
        ValueError: the model has no adapter of that name, or one is merged.

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1, where tasks take turns on one model.

    >>> block = add_lora(TransformerBlock(dim=16, dim_head=8, heads=2), name="poems")
    >>> block = use_lora(add_lora(block, name="prose"), "poems")
    >>> block.finetune_modules.q.active, lora_names(block)
    ('poems', ['poems', 'prose'])
    """
    places = list(_places(model))
    names = lora_names(model)
    if name is not None and name not in names:
        raise ValueError(f"name must be None or one of the adapters {names}, got {name!r}")
    for _, _, place in places:
        if place.merged is not None:
            raise ValueError(f"adapter {place.merged!r} is merged: call unmerge_lora first")
        place.active = name if name is not None and name in place else None
        for known, lora in place.items():
            lora.requires_grad_(known == name)
    return model


def merge_lora(model: Model) -> Model:
    """Add the active adapter's updates to the weights; the output stays, and costs nothing more.

    Args:
        model: changed in place: W becomes W + (A . B)^T . alpha / rank, in at least float32.

    Returns:
        The same model.

    Raises:
        ValueError: no adapter is active, one is merged already, or a weight is computed from others
            (by a parametrization, or pruning), so that nothing can be added to it.

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1, "No Additional Inference Latency".

    >>> block = add_lora(TransformerBlock(dim=16, dim_head=8, heads=2))
    >>> _ = torch.nn.init.normal_(block.finetune_modules.q.default.B)
    >>> x = torch.randn(1, 5, 16)
    >>> before, after = block(x), merge_lora(block)(x)
    >>> torch.allclose(before, after, atol=1e-5)
    True
    """
    active = [entry for entry in _places(model) if entry[2].active is not None]
    if not active:
        raise ValueError("model must have an active adapter to merge: see add_lora and use_lora")
    for block, target, _ in active:
        _check_own_weight(block, target)
    for block, target, place in active:
        _shift(block, target, place, +1)
        place.merged, place.active = place.active, None
    return model


def unmerge_lora(model: Model) -> Model:
    """Take the merged adapter's updates out of the weights again, exact within rounding.

    Args:
        model: one on which `merge_lora` was called; changed in place.

    Returns:
        The same model, the adapter active again.

    Raises:
        ValueError: no adapter is merged.

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1, where the update is subtracted again.

    >>> block = add_lora(TransformerBlock(dim=16, dim_head=8, heads=2))
    >>> unmerge_lora(merge_lora(block)).finetune_modules.q.active
    'default'
    """
    merged = [entry for entry in _places(model) if entry[2].merged is not None]
    if not merged:
        raise ValueError("model must have a merged adapter to unmerge: see merge_lora")
    for block, target, place in merged:
        place.merged, place.active = None, place.merged
        _shift(block, target, place, -1)
    return model


def _check_own_weight(block: TransformerBlock, target: str) -> None:
    name = "attn_out" if target == "o" else "fused_attn_ff_proj"
    if "weight" not in dict(getattr(block, name).named_parameters(recurse=False)):
        raise ValueError(
            f"{name}.weight must be a parameter to merge into, and it is computed from others; "
            "first make it one, for example with torch.nn.utils.parametrize.remove_parametrizations"
        )


@torch.no_grad()
def _shift(block: TransformerBlock, target: str, place: Adapters, sign: int) -> None:
    """Add `sign` times the active update of a place to the rows of the weight that it updates."""
    lora, weight = place.active_lora(), _target_weight(block, target)
    precise = torch.promote_types(weight.dtype, torch.float32)
    thin, wide = (factor.to(precise) for factor in lora.factors())
    update = (thin @ wide).T * lora.scale
    weight.copy_(weight.to(precise) + sign * update)


def _new_lora(weight: Tensor, small: bool, rank: int, alpha: float | None, dropout: float) -> LoRA:
    dim_out, dim = weight.shape
    if small:
        lora: LoRA = SmallLoRA(weight, rank, alpha, dropout)
    else:
        lora = LoRA(dim, dim_out, rank, alpha, dropout)
    return lora.to(weight.device, weight.dtype)


def _target_weight(block: TransformerBlock, target: str) -> Tensor:
    """Return the weight that a target updates, (out, in): a view of it for q, k and v."""
    if target == "o":
        return block.attn_out.weight
    rows = block.fused_attn_ff_proj.weight.split(block.fused_dims)
    return rows["qkv".index(target)]


def _blocks(model: nn.Module) -> dict[str, TransformerBlock]:
    """Every block of a model by its path, or say why there is none."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    blocks = {  # by the same path whether torch.compile has wrapped a part or not
        ".".join(part for part in path.split(".") if part != "_orig_mod"): module
        for path, module in model.named_modules()
        if isinstance(module, TransformerBlock)
    }
    if not blocks:
        raise ValueError(f"model must contain a TransformerBlock, got {type(model).__name__}")
    return blocks


def _places(model: nn.Module) -> Iterator[tuple[TransformerBlock, str, Adapters]]:
    """Every place in a model that has adapters."""
    for block in _blocks(model).values():
        for target in FinetuneModules.NAMES:
            place = getattr(block.finetune_modules, target)
            if isinstance(place, Adapters):
                yield block, target, place


def check_targets(targets: Sequence[str]) -> tuple[str, ...]:
    """Return `targets` as a tuple of some of "q", "k", "v" and "o", or raise an error."""
    allowed = f"some of {FinetuneModules.NAMES}, each once"
    if isinstance(targets, str) or not isinstance(targets, Sequence):
        raise TypeError(f"targets must be a sequence, {allowed}, got {targets!r}")
    chosen = tuple(targets)
    if not chosen or len(set(chosen)) < len(chosen) or set(chosen) - set(FinetuneModules.NAMES):
        raise ValueError(f"targets must be {allowed}, got {chosen}")
    return chosen


def _check_free(model: nn.Module, targets: Sequence[str], name: str) -> None:
    if not isinstance(name, str) or not name.isidentifier() or hasattr(Adapters(), name):
        raise ValueError(f"name must be an identifier that torch does not use, got {name!r}")
    if name in lora_names(model):
        raise ValueError(f"name must be a new one, got {name!r}, which the model has")
    for _, _, place in _places(model):
        if place.merged is not None:
            raise ValueError(f"adapter {place.merged!r} is merged: call unmerge_lora first")
    for block in _blocks(model).values():
        for target in targets:
            place = getattr(block.finetune_modules, target)
            if not isinstance(place, Adapters | None):
                kind = type(place).__name__
                raise ValueError(f"targets must be free, but a block has a {kind} for {target!r}")
