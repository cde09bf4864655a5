"""The block view: what flows through a `TransformerBlock`, on every wire."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from zeta_edu.block import TransformerBlock
from zeta_edu.checks import keep_mask
from zeta_edu.views import arguments, codec
from zeta_edu.views.block_data import block_wires, statistics
from zeta_edu.views.block_figure import block_figure
from zeta_edu.views.block_layout import block_layout
from zeta_edu.views.block_words import TITLES, explained, findings, shape_in_words
from zeta_edu.views.display import Control, View
from zeta_edu.views.parts import LESSONS, PARTS
from zeta_edu.views.tokens import visible

OPENING = "part:sum"


class BlockView(View):
    """A block as a diagram of its parts. Made by `block_view`, which explains the arguments."""

    modules = (
        "runtime.js",
        "words.js",
        "controls.js",
        "plot.js",
        "frame.js",
        "block.css",
        "block_diagram.js",
        "block_panel.js",
        "block.js",
    )

    def __init__(
        self,
        block: TransformerBlock,
        x: Float[Tensor, "batch n dim"],
        mask: Bool[Tensor, "batch n"] | None,
        tokens: list[list[str]],
    ) -> None:
        self.shape = tuple(x.shape)
        self.tokens = tokens
        self.layout = block_layout(block)
        self.explained = explained(block)
        self.absent = _absent(block)
        # In the order of the computation, and of the keyboard: each part after what it takes.
        self.parts = [box["name"] for box in self.layout["boxes"]]
        self.parts.insert(self.parts.index("projection") + 1, "split")
        self.parts.append("sum")
        self.places = (*(f"part:{name}" for name in self.parts), *self.layout["wires"])
        self.wires = {} if self.empty else block_wires(block, x, mask)
        if not self.empty:
            self.statistics = statistics(self.wires)
            self.findings = [self._findings(block, at) for at in range(self.shape[0])]

    def _findings(self, block: TransformerBlock, sequence: int) -> dict[str, str]:
        table = dict(zip(self.wires, self.statistics.table[sequence], strict=True))
        found = findings(block, self.wires, table, sequence)
        return {place: found[place] for place in self.places}

    @property
    def empty(self) -> bool:
        """Whether there is no token to follow."""
        return 0 in self.shape

    @property
    def title(self) -> str:
        """Which half of the block writes more, for the first sequence."""
        return "Nothing flows through the block yet" if self.empty else self.findings[0][OPENING]

    @property
    def alt(self) -> str:
        """What the diagram shows, and its finding."""
        batch, n, dim = self.shape
        if self.empty:
            return "Diagram of a transformer block: nothing to look at yet."
        labels = ", ".join(box["label"] for box in self.layout["boxes"])
        return (
            f"Diagram of a transformer block from x, shape {batch} × {n} × {dim}, to its output, "
            f"with the shape and range of every wire. Its parts: {labels}, sum. {self.title}."
        )

    def controls(self) -> dict[str, Control]:
        """The sequence of the batch, the part or wire picked, and what stands on the wires."""
        numbers = ("range", "rms")
        return {"sequence": range(self.shape[0]), "place": self.places, "numbers": numbers}

    def state(self) -> dict[str, Any]:
        """The layout, every part and wire in words, and the statistics, coded."""
        start = {"sequence": 0, "place": OPENING, "numbers": "range"}
        state: dict[str, Any] = {"kind": "block", "empty": None, "start": start}
        if self.empty:
            return state | {"empty": "Nothing to look at yet: x holds no tokens."}
        arrays = {
            name: codec.encode_scores(array.astype(np.float32))
            for name, array in self.statistics._asdict().items()
        }
        return state | {
            "shape": list(self.shape),
            "tokens": [[visible(token) for token in line] for line in self.tokens],
            "layout": self.layout | {"wires": list(self.layout["wires"].values())},
            "wires": [_wire(name, wire) for name, wire in self.wires.items()],
            "parts": [_part(name, self.explained[name]) for name in self.parts],
            "absent": self.absent,
            "findings": self.findings,
            "arrays": arrays,
        }

    def figure(self) -> Figure:
        """The diagram, beside the range of the numbers on every wire."""
        return block_figure(self)


def block_view(
    block: TransformerBlock,
    x: Float[Tensor, "batch n dim"],
    *,
    mask: Bool[Tensor, "batch n"] | None = None,
    tokens: Sequence[str] | Sequence[Sequence[str]] | None = None,
) -> BlockView:
    """Look at what flows through a block: the shape and the range of the numbers on every wire.

    The block runs once, without dropout and gradients, and is left as it was.

    Args:
        block: the block; with its own fine-tuning modules, if it has any.
        x: (batch, n, dim), or (n, dim) for one sequence.
        mask: (batch, n), bool, True where a key is kept.
        tokens: a str for each position of `x`; for a batch of several, a list of them for each
            sequence. Without any, positions are numbered.

    Returns:
        The view: display it, or call `save`, `live`, `figure` or `state` on it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or shape; it is named.

    Source:
        The parallel block: PaLM (arXiv:2204.02311), section 2.

    Examples:
        >>> import torch
        >>> block = TransformerBlock(dim=32, dim_head=8, heads=4)
        >>> view = block_view(block, torch.randn(1, 8, 32))
        >>> view.wires["q_heads"].shape, view.wires["fused"].shape
        (torch.Size([1, 4, 8, 8]), torch.Size([1, 8, 304]))
    """
    if not isinstance(block, TransformerBlock):
        raise TypeError(f"block must be a TransformerBlock, got {type(block).__name__}")
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor (batch, n, dim), got {type(x).__name__}")
    x = x.detach()[None] if x.ndim == 2 else x.detach()
    if x.ndim != 3 or x.shape[2] != block.dim:
        shape = tuple(x.shape)
        raise ValueError(f"x must be (batch, n, dim={block.dim}), got shape {shape}")
    batch, n, _ = x.shape
    if mask is not None:
        mask = keep_mask("mask", mask, batch, n)
    return BlockView(block, x, mask, _tokens(tokens, batch, n))


def _tokens(tokens: Any, batch: int, n: int) -> list[list[str]]:
    if batch == 1 or tokens is None:
        listed = isinstance(tokens, Sequence) and not isinstance(tokens, str)
        nested = listed and len(tokens) == 1 and not isinstance(tokens[0], str)
        return [arguments.names("tokens", tokens[0] if nested else tokens, n)] * batch
    if isinstance(tokens, str) or not isinstance(tokens, Sequence):
        raise TypeError(f"tokens must be a list of lists of str, got {type(tokens).__name__}")
    if len(tokens) != batch:
        raise ValueError(
            f"tokens must have a list for each of {batch} sequences, got {len(tokens)}"
        )
    return [arguments.names(f"tokens[{at}]", line, n) for at, line in enumerate(tokens)]


def _wire(name: str, wire: Tensor) -> dict[str, Any]:
    shape = tuple(wire.shape)
    words = shape_in_words(name, shape)
    return {"name": name, "title": TITLES[name], "shape": list(shape), "words": words}


def _part(name: str, part: Any) -> dict[str, Any]:
    return {"name": name, "lesson_title": LESSONS[part.lesson], **part._asdict()}


def _absent(block: TransformerBlock) -> list[dict[str, str]]:
    """The parts of the map that this block, or this run of it, does without."""
    names = ("q", "k", "v", "o")
    without = {
        "lora": all(getattr(block.finetune_modules, name) is None for name in names),
        "qk_norm": not block.qk_rmsnorm,
        "xpos": block.attend.xpos_scale_base is None,
        "cache": True,
        "flash": not block.attend.flash,
    }
    return [
        {"title": LESSONS[PARTS[name].lesson], "lesson": PARTS[name].lesson}
        for name, missing in without.items()
        if missing
    ]
