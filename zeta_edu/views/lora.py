"""The LoRA view: a weight, its low-rank update, and what rank and alpha make of their sum."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import nn

from zeta_edu.checks import number
from zeta_edu.lora import LoRA
from zeta_edu.views import arguments, codec, style
from zeta_edu.views.display import Control, Span, View

MOST_FEATURES = 512
MOST_RANK = 64
MOST_SHOWN = 48  # singular values in a picture


class LoRAView(View):
    """A weight and its low-rank update. Made by `lora_view`, which explains the arguments."""

    modules = (
        "runtime.js",
        "frame.js",
        "controls.js",
        "words.js",
        "plot.js",
        "matrix.js",
        "singular.js",
        "lora.css",
        "lora.js",
    )

    def __init__(
        self,
        weight: Float[np.ndarray, "dim dim_out"],
        left: Float[np.ndarray, "dim rank"],
        right: Float[np.ndarray, "rank dim_out"],
        alpha: float,
    ) -> None:
        self.weight = weight
        self.rank = left.shape[1]
        self.alpha = alpha
        # The update as a sum of parts of rank 1, the largest first: A . B = U diag(s) V.
        u, s, v = np.linalg.svd(left @ right, full_matrices=False)
        self.parts = (u[:, : self.rank], s[: self.rank], v[: self.rank])

    def update(self, rank: int | None = None, alpha: float | None = None) -> np.ndarray:
        """The update, or the nearest one of a lower rank.

        Args:
            rank: how many of its parts of rank 1 are kept, the largest ones; all when None.
            alpha: its strength; the adapter's own when None.

        Returns:
            (dim, dim_out), the matrix that is added to the weight.
        """
        kept = self.rank if rank is None else rank
        factor = (self.alpha if alpha is None else alpha) / self.rank
        u, s, v = (part[:kept] if part.ndim == 1 else part for part in self.parts)
        return factor * (u[:, :kept] * s) @ v[:kept]

    @property
    def numbers(self) -> tuple[int, int]:
        """Numbers in the weight, and in the two thin matrices."""
        return self.weight.size, self.rank * sum(self.weight.shape)

    @property
    def title(self) -> str:
        """How much smaller the update is, in numbers to train and in size."""
        whole, trained = self.numbers
        shares = np.linalg.norm(self.update()) / (np.linalg.norm(self.weight) or 1.0)
        return (
            f"An update of rank {self.rank}: {100 * trained / whole:.0f}\u00a0% of the numbers, "
            f"{100 * shares:.0f}\u00a0% of the weight's size"
        )

    @property
    def alt(self) -> str:
        """The three matrices in words."""
        dim, dim_out = self.weight.shape
        return (
            f"Three matrices of {dim} by {dim_out} numbers: the weight, its low-rank update and "
            f"their sum; and their singular values, largest first. {self.title}."
        )

    def controls(self) -> dict[str, Control]:
        """Rank and alpha."""
        return {"rank": range(self.rank + 1), "alpha": self._alphas()}

    def _alphas(self) -> Span:
        return Span(0.0, 4 * abs(self.alpha) or 1.0)

    def state(self) -> dict[str, Any]:
        """The weight, the parts of the update, the weight's own singular values."""
        u, s, v = self.parts
        whole, trained = self.numbers
        arrays = {"weight": self.weight, "u": u, "s": s, "v": v}
        arrays["own"] = np.linalg.svd(self.weight, compute_uv=False)
        return {
            "kind": "lora",
            "rows": self.weight.shape[0],
            "columns": self.weight.shape[1],
            "rank": self.rank,
            "alpha": self.alpha,
            "high": self._alphas().high,
            "numbers": whole,
            "trained": trained,
            "arrays": {
                name: codec.encode_scores(array.astype(np.float32))
                for name, array in arrays.items()
            },
            "start": {"rank": self.rank, "alpha": abs(self.alpha)},
        }

    def figure(self) -> Figure:
        """The three matrices over the singular values."""
        update = self.update()
        most = np.abs(self.weight + update).max() or 1.0
        with style.settings():
            figure = Figure(figsize=(9.4, 5.6))
            figure.suptitle(self.title, x=0.01, ha="left", fontsize=14, fontweight="bold")
            halves: Any = figure.subfigures(2, 1, height_ratios=(1.2, 1))
            above, below = halves
            names = ("weight W", "update (α/r)·A·B", "sum")
            matrices = (self.weight, update, self.weight + update)
            pictures = list(zip(names, matrices, strict=True))
            for axes, (title, matrix) in zip(above.subplots(1, 3), pictures, strict=True):
                axes.imshow(matrix, cmap=style.MAP_SIGNED, vmin=-most, vmax=most, aspect="auto")
                axes.set(title=title, xlabel="features out", ylabel="features in")
                axes.set_xticks([])
                axes.set_yticks([])
            axes = below.subplots()
            looks = ((style.MASK, "o"), (style.OUTPUT, "s"), (style.QUERY, "x"))
            for (title, matrix), (colour, sign) in zip(pictures, looks, strict=True):
                values = np.linalg.svd(matrix, compute_uv=False)[:MOST_SHOWN]
                axes.plot(range(1, len(values) + 1), values, sign, color=colour, label=title, ms=5)
            axes.set(xlabel="singular value, largest first", ylabel="size")
            axes.legend(ncols=3)
        return figure


def lora_view(weight: Any, adapter: Any, *, alpha: float | None = None) -> LoRAView:
    """Look at a weight, its low-rank update and their sum, and move rank and alpha.

    The rank is lowered by dropping the smallest parts of the update: what stays is the nearest
    update of that rank (Eckart and Young 1936).

    Args:
        weight: (dim, dim_out), as in `x @ weight`; or an `nn.Linear`, which holds it transposed.
        adapter: a `LoRA`, or its two matrices: A (dim, rank) and B (rank, dim_out).
        alpha: the update's strength, in `alpha / rank`; the adapter's own when None, or `rank`
            where only the matrices are given.

    Returns:
        A view to display, save or make live.

    Raises:
        TypeError, ValueError: an argument is not of the kind above, the shapes do not fit, or
            there are more than 512 features on a side or a rank above 64.

    Source: Hu et al. 2021, "LoRA" (arXiv:2106.09685), equation 3; singular values of updates in
        its section 7.

    >>> import torch
    >>> adapter = LoRA(6, 5, rank=2)
    >>> lora_view(torch.ones(6, 5), adapter).numbers
    (30, 22)
    """
    if isinstance(weight, nn.Linear):
        weight = weight.weight.mT
    matrix = arguments.numbers("weight", weight, "dim dim_out")
    left, right, own = _matrices(adapter)
    rank = left.shape[1]
    if right.shape[0] != rank or matrix.shape != (left.shape[0], right.shape[1]):
        shapes = f"weight {matrix.shape}, A {left.shape}, B {right.shape}"
        raise ValueError(
            f"adapter must map (dim, rank) . (rank, dim_out) like weight, got {shapes}"
        )
    if 0 in matrix.shape or max(matrix.shape) > MOST_FEATURES:
        raise ValueError(
            f"weight must have 1 to {MOST_FEATURES} features a side, got {matrix.shape}"
        )
    if not 1 <= rank <= min(MOST_RANK, *matrix.shape):
        most = min(MOST_RANK, *matrix.shape)
        raise ValueError(f"adapter must have a rank from 1 to {most}, got {rank}")
    for name, part in (("weight", matrix), ("A", left), ("B", right)):
        if not np.isfinite(part).all():
            raise ValueError(f"{name} must be finite, got {part[~np.isfinite(part)][0]}")
    strength = own if alpha is None else number("alpha", alpha)
    return LoRAView(matrix, left, right, strength)


def _matrices(adapter: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """A, B and alpha of an adapter."""
    if isinstance(adapter, LoRA):
        a, b = (arguments.numbers("adapter", part, "in out") for part in adapter.factors())
        return a, b, adapter.scale * a.shape[1]
    if not isinstance(adapter, tuple | list) or len(adapter) != 2:
        kind = type(adapter).__name__
        raise TypeError(f"adapter must be a LoRA or the pair (A, B), got {kind}")
    a = arguments.numbers("A", adapter[0], "dim rank")
    b = arguments.numbers("B", adapter[1], "rank dim_out")
    return a, b, float(a.shape[1])
