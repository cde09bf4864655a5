"""Switching heads off, to see what a model does without them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zeta_edu.attention import Attend
from zeta_edu.block import TransformerBlock
from zeta_edu.recording import uncompiled


@contextmanager
def ablate(module: nn.Module, layer: int, head: int | Iterable[int]) -> Iterator[None]:
    """Run a model with one head, or several of a layer, switched off while the context is open.

    What the head has mixed is set to zero before the output projection; all else is as it was,
    whether attention is regular or flash, cached or not. Contexts may be nested. Compiled modules
    run uncompiled meanwhile.

    Args:
        module: a `TransformerBlock`, a `TransformerLM`, or anything that contains them.
        layer: which block, counted in the order of the module's parts; negative from the end.
        head: which head of it, or several; negative from the end.

    Raises:
        TypeError, ValueError: `module` is no module or contains no block; there is no such layer
            or head.

    Source: the effect of removing single heads: Michel, Levy and Neubig 2019 (arXiv:1905.10650),
        section 2.

    >>> from zeta_edu import TransformerBlock
    >>> block = TransformerBlock(dim=16, dim_head=8, heads=2)
    >>> x = torch.randn(1, 5, 16)
    >>> with ablate(block, layer=0, head=1):
    ...     without = block(x)
    >>> torch.allclose(without, block(x))
    False
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    blocks = [part for part in module.modules() if isinstance(part, TransformerBlock)]
    if not blocks:
        raise ValueError(f"module must contain a TransformerBlock, got {type(module).__name__}")
    block = blocks[_index("layer", layer, len(blocks))]
    silent = torch.zeros(block.heads, 1, 1, dtype=torch.bool)
    for one in head if isinstance(head, Iterable) and not isinstance(head, str) else [head]:
        silent[_index("head", one, block.heads)] = True

    def silence(_: Attend, __: tuple[Any, ...], mixed: Tensor) -> Tensor:
        return mixed.masked_fill(silent.to(mixed.device), 0.0)  # (batch, heads, query, dim_head)

    handle = block.attend.register_forward_hook(silence)
    try:
        with uncompiled():
            yield
    finally:
        handle.remove()


def _index(name: str, value: Any, count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if not -count <= value < count:
        raise ValueError(f"{name} must be in 0 to {count - 1}, got {value}")
    return value % count
