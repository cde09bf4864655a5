"""The mask view, still: scores, mask and weights side by side, and the sums of the rows."""

import textwrap
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from zeta_edu.views import style
from zeta_edu.views.tokens import drawable, visible

if TYPE_CHECKING:
    from zeta_edu.views.mask import MaskView

WIDTH = 9.4  # inches
LETTER = 0.078  # inches
MOST_LABELS = 32
MOST_NUMBERS = 10  # columns of cells that have room for a number
PADDING = "[pad]"


def mask_figure(view: "MaskView") -> Figure:
    """Draw a `MaskView` with matplotlib, at the values its controls start with."""
    with style.settings():
        if not view.scores.size:
            figure = Figure(figsize=(WIDTH, 1.2))
            figure.text(0.5, 0.5, "Nothing to look at yet: there are no scores.", ha="center")
            return figure
        scores = view.new_scores
        queries, keys = scores.shape
        seen, weights = view.masked()
        title, names = textwrap.wrap(view.title, 80), labels(view)
        beside = max(len(name) for name in names) * LETTER if keys <= MOST_LABELS else 0.3
        side = (WIDTH - 1.2 - beside) / 3  # of a square table
        height = 0.85 + 0.27 * len(title) + beside + side * queries / keys
        figure = Figure(figsize=(WIDTH, height))
        figure.suptitle("\n".join(title), x=0.01, ha="left", weight="bold", fontsize=14)
        panels = figure.subplots(1, 3)
        reach = float(np.abs(scores).max()) or 1.0
        signed = matplotlib.colormaps[style.MAP_SIGNED]((scores / reach + 1) / 2)
        amounts = matplotlib.colormaps[style.MAP](weights)
        added = [["0" if shown else "−∞" for shown in row] for row in seen]
        shares = np.where(seen, written(weights, 2), "0")
        _table(panels[0], names, "scores", signed, written(scores, 1))
        _table(panels[1], names, "+ mask", np.ones((*seen.shape, 4)), np.array(added), ~seen)
        _table(panels[2], names, "softmax: weights", amounts, shares, ~seen)
        for axes in panels:
            axes.set_xlabel("keys", color=style.LIGHT["key_text"])
        panels[0].set_ylabel("queries", color=style.LIGHT["query_text"])
        panels[1].set_yticks([])
        _sums(panels[2], weights.sum(axis=1))
        return figure


def written(numbers: np.ndarray, places: int) -> np.ndarray:
    """The numbers of a table as text, with a real minus sign.

    >>> written(np.array([[-0.25]]), 2).tolist()
    [['−0.25']]
    """
    return np.vectorize(lambda number: f"{number:.{places}f}".replace("-", "−"))(numbers)


def labels(view: "MaskView") -> list[str]:
    """The text of each key, and a sign for those that are padding."""
    padding, side = view.start["padding"], view.start["padding_side"]
    keys = len(view.tokens)
    padded = range(padding) if side == "left" else range(keys - padding, keys)
    names = [drawable(visible(token)) for token in view.tokens]
    return [PADDING if place in padded else name for place, name in enumerate(names)]


def _table(
    axes: Axes,
    names: list[str],
    title: str,
    colours: np.ndarray,
    numbers: np.ndarray,
    hidden: Bool[np.ndarray, "queries keys"] | None = None,
) -> None:
    rows, columns = colours.shape[:2]
    colours = colours.copy()
    if hidden is not None:
        colours[hidden] = (*to_rgb(style.LIGHT["blank"]), 1.0)
    axes.imshow(colours, aspect="equal")
    axes.set_title(title, fontsize=12)
    if hidden is not None and columns <= MOST_LABELS:
        _hatch(axes, hidden)
    if columns <= MOST_NUMBERS:
        for (row, column), _ in np.ndenumerate(colours[..., 0]):
            dark = colours[row, column, :3] @ (0.299, 0.587, 0.114) < 0.55
            ink = "white" if dark else style.LIGHT["text"]
            text = str(numbers[row, column])
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
    _label(axes, names, rows, columns)


def _sums(axes: Axes, sums: np.ndarray) -> None:
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("sum of the row")
    rows = range(len(sums)) if len(sums) <= MOST_LABELS else []
    axes.set_yticks(rows, [f"{sums[row]:.0f}" for row in rows])


def _hatch(axes: Axes, hidden: Bool[np.ndarray, "queries keys"]) -> None:
    for row, cells in enumerate(hidden):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], cells, [False]))))
        for left, right in edges.reshape(-1, 2):
            axes.barh(
                row,
                right - left,
                height=1,
                left=left - 0.5,
                fill=False,
                hatch="////",
                edgecolor=style.MASK,
                linewidth=0,
            )


def _label(axes: Axes, names: list[str], rows: int, columns: int) -> None:
    if len(names) <= MOST_LABELS:
        axes.set_xticks(range(columns), names[:columns], rotation=90)
        axes.set_yticks(range(rows), names[len(names) - rows :])
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set(fontsize=9, fontfamily="DejaVu Sans Mono")
        text.set_parse_math(False)
    axes.tick_params(length=0)
    axes.spines[:].set_color(style.LIGHT["line"])
    axes.spines[:].set_visible(True)
