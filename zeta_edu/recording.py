"""Recording the attention weights of any module made of blocks, flash or not."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, overload

import torch
from torch import Tensor, nn

from zeta_edu.attention import Attend


class AttentionRecord(Sequence[Tensor]):
    """Attention weights (batch, heads, queries, keys) in the order in which blocks ran.

    `record[0]` are the first ones. `record.names[i]` is the path, inside the recorded module, of
    the block that `record[i]` came from ("" when that module is itself the block).
    """

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.names: list[str] = []

    def __len__(self) -> int:
        return len(self.weights)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        return self.weights[index]


@contextmanager
def record_attention(module: nn.Module) -> Iterator[AttentionRecord]:
    """Collect the attention weights of every block inside `module` while the context is open.

    The weights are those before dropout, detached, in at least float32. Each row sums to 1, or is
    all 0 for a query that may see no key. Flash attention never has them: they are computed beside
    it, from the same queries and keys. Only calls from the thread that opened the context are
    recorded. Compiled modules run uncompiled meanwhile.

    Args:
        module: a `TransformerBlock`, a `TransformerLM`, or anything that contains them.

    Yields:
        An `AttentionRecord`, filled as blocks run.

    Raises:
        TypeError, ValueError: `module` is no module, or contains no block.

    Source: the weights are those of Vaswani et al. 2017 (arXiv:1706.03762), equation 1.

    >>> from zeta_edu import TransformerBlock
    >>> block = TransformerBlock(dim=16, dim_head=8, heads=2)
    >>> with record_attention(block) as record:
    ...     out = block(torch.randn(1, 5, 16))
    >>> record[0].shape, torch.allclose(record[0].sum(-1), torch.ones(1, 2, 5))
    (torch.Size([1, 2, 5, 5]), True)
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    cores = {name: part for name, part in module.named_modules() if isinstance(part, Attend)}
    if not cores:
        raise ValueError(f"module must contain a TransformerBlock, got {type(module).__name__}")
    record, thread = AttentionRecord(), threading.get_ident()

    def hook(name: str) -> Callable[[Any, tuple[Any, ...], Tensor], None]:
        def collect(core: Attend, inputs: tuple[Any, ...], _: Tensor) -> None:
            if threading.get_ident() == thread:
                queries, keys, _values, mask = inputs
                with torch.no_grad():
                    record.weights.append(core.weights(queries, keys, mask))
                record.names.append(_block_path(name))

        return collect

    handles = [core.register_forward_hook(hook(name)) for name, core in cores.items()]
    try:
        with uncompiled():
            yield record
    finally:
        for handle in handles:
            handle.remove()


def uncompiled() -> AbstractContextManager[Any]:
    """A context in which compiled modules run as written: compiled ones would pass hooks by."""
    # Nothing is compiled where dynamo is not loaded, and loading it takes a second.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _block_path(core: str) -> str:
    """The path of the block that a core is in, as if nothing were compiled."""
    return ".".join(part for part in core.split(".")[:-1] if part != "_orig_mod")
