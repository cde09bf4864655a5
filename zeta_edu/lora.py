"""LoRA: a low-rank update beside a frozen projection; and where a block takes such modules."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeta_edu.checks import floating_tensor, input_of, number, positive_integer, probability
from zeta_edu.settings import SavedSettings

Finetune = Callable[[Tensor], Tensor] | None


class LoRA(SavedSettings):
    """A learned update of rank `rank`: x . A . B . alpha / rank. Zero at the start, as B is.

    The two thin products are taken one after the other; A . B is never multiplied out.

    Args:
        dim: features in.
        dim_out: features out.
        rank: inner features.
        alpha: strength of the update; `rank` when None, so that the factor is 1.
        dropout: probability that an input feature is dropped in training.

    Shapes:
        (..., dim) -> (..., dim_out); `A` (dim, rank), `B` (rank, dim_out)

    Raises:
        TypeError, ValueError: a size is not a positive integer, `alpha` not a finite number,
            `dropout` not a probability.

    Source: Hu et al. 2021, "LoRA" (arXiv:2106.09685), equation 3.

    >>> update = LoRA(8, 4, rank=2)
    >>> update(torch.randn(3, 8)).abs().max()
    tensor(0., grad_fn=<MaxBackward1>)
    """

    A: Tensor
    B: Tensor

    def __init__(
        self,
        dim: int,
        dim_out: int,
        rank: int = 8,
        alpha: float | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        rank = positive_integer("rank", rank)
        self.scale = number("alpha", rank if alpha is None else alpha) / rank
        self.dropout = nn.Dropout(probability("dropout", dropout))
        self.A = nn.Parameter(torch.empty(positive_integer("dim", dim), rank))
        self.B = nn.Parameter(torch.zeros(rank, positive_integer("dim_out", dim_out)))
        # The usual start of a linear layer, uniform within 1/sqrt(dim).
        nn.init.uniform_(self.A, -1 / math.sqrt(dim), 1 / math.sqrt(dim))

    def _settings(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim_out"]:
        """Return the update to add to the frozen projection of `x`."""
        input_of("x", x, self.A, "... dim", len(self.A))
        return (self.dropout(x) @ self.A) @ self.B * self.scale

    def factors(self) -> tuple[Float[Tensor, "dim rank"], Float[Tensor, "rank dim_out"]]:
        """Return two thin matrices whose product, times `scale`, is the update."""
        return self.A, self.B


class SmallLoRA(LoRA):
    """An update between fixed directions of the weight itself: x . A . R . B . alpha / rank.

    A and B are not learned: they hold the weight's first singular vectors, those in and those out,
    the latter times their singular values. Learned is the small matrix R between them alone, zero
    at the start: 64 numbers at rank 8, whatever the size of the weight.

    Args:
        weight: (dim_out, dim), the frozen weight that is updated.
        rank: inner features of the update, at most the smaller side of the weight.
        alpha: strength of the update; `rank` when None.
        dropout: probability that an input feature is dropped in training.

    Shapes:
        (..., dim) -> (..., dim_out); `R` (rank, rank)

    Raises:
        TypeError, ValueError: an argument is not of the kind above.

    Source: Bałazy et al. 2024, "LoRA-XS" (arXiv:2405.17604), section 3.

    >>> update = SmallLoRA(torch.randn(4, 8), rank=2)
    >>> [(name, tuple(p.shape)) for name, p in update.named_parameters()]
    [('R', (2, 2))]
    """

    def __init__(
        self,
        weight: Float[Tensor, "dim_out dim"],
        rank: int = 8,
        alpha: float | None = None,
        dropout: float = 0.0,
    ):
        dim_out, dim = floating_tensor("weight", weight, "dim_out dim").shape
        super().__init__(dim, dim_out, rank, alpha, dropout)
        if rank > min(dim_out, dim):
            raise ValueError(
                f"rank must be at most {min(dim_out, dim)}, the smaller side of the weight "
                f"{(dim_out, dim)}, got {rank}"
            )
        del self.A, self.B
        into, out = _first_directions(weight.detach(), rank)
        self.register_buffer("A", into)
        self.register_buffer("B", out)
        self.R = nn.Parameter(weight.new_zeros(rank, rank))

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim_out"]:
        """Return the update to add to the frozen projection of `x`."""
        input_of("x", x, self.R, "... dim", len(self.A))
        return ((self.dropout(x) @ self.A) @ self.R) @ self.B * self.scale

    def factors(self) -> tuple[Float[Tensor, "dim rank"], Float[Tensor, "rank dim_out"]]:
        """Return A . R, in at least float32, and B."""
        precise = torch.promote_types(self.A.dtype, torch.float32)
        return self.A.to(precise) @ self.R.to(precise), self.B


def _first_directions(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The first singular vectors, (dim, rank) and (rank, dim_out), the second times their values.

    In float64, and each pair with the sign that makes the largest entry of the first positive, so
    that another machine finds the same.
    """
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    into = right[:rank].T  # (dim, rank)
    signs = into.gather(0, into.abs().argmax(dim=0, keepdim=True)).sign()  # (1, rank)
    out = (left[:, :rank] * values[:rank] * signs).T
    return (into * signs).to(weight.dtype), out.to(weight.dtype)


class Adapters(SavedSettings, nn.ModuleDict):
    """The LoRA updates of one place by name; one is active or merged into the weight, or none."""

    def __init__(self) -> None:
        super().__init__()
        self.active: str | None = None
        self.merged: str | None = None

    def _settings(self) -> dict[str, Any]:
        return {"merged": self.merged}

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim_out"]:
        """Return the active adapter's update."""
        update: Tensor = self.active_lora()(x)
        return update

    def active_lora(self) -> LoRA:
        """Return the active adapter; there must be one."""
        lora = self[self.active or ""]
        assert isinstance(lora, LoRA)  # nothing else is ever put here
        return lora


class FinetuneModules(nn.Module):
    """The four places of a block where a module's output is added: q, k, v and o.

    Args:
        modules: (q, k, v, o), each callable or None; None for four times None.

    Raises:
        TypeError, ValueError: not exactly four, or one is neither callable nor None.
    """

    NAMES = ("q", "k", "v", "o")

    def __init__(self, modules: Sequence[Finetune] | None = None):
        super().__init__()
        expected = "finetune_modules must be (q, k, v, o), each a callable module or None"
        if modules is None:
            modules = (None, None, None, None)
        elif isinstance(modules, FinetuneModules):
            modules = [getattr(modules, name) for name in self.NAMES]
        if not isinstance(modules, list | tuple | nn.ModuleList):
            raise TypeError(f"{expected}, got {type(modules).__name__}")
        if len(modules) != 4:
            raise ValueError(f"{expected}, got {len(modules)} of them")
        for name, module in zip(self.NAMES, modules, strict=True):
            if module is not None and not callable(module):
                raise TypeError(f"{expected}, got {type(module).__name__} for {name}")
            setattr(self, name, module)

    def add(
        self, name: str, projected: Float[Tensor, "... out"], x: Float[Tensor, "... features"]
    ) -> Float[Tensor, "... out"]:
        """`projected` plus what the module at `name` makes of `x`.

        Raises:
            TypeError, ValueError: that is no tensor, or not of the shape of `projected`.
        """
        module = getattr(self, name)
        if module is None or (isinstance(module, Adapters) and module.active is None):
            return projected
        update = module(x)
        if not isinstance(update, Tensor):
            kind = type(update).__name__
            raise TypeError(
                f"finetune_modules: the module for {name} must give a tensor, got {kind}"
            )
        if update.shape != projected.shape:
            raise ValueError(
                f"finetune_modules: the module for {name} must map {tuple(x.shape)} to "
                f"{tuple(projected.shape)}, got {tuple(update.shape)}"
            )
        return projected + update.to(projected.dtype)
