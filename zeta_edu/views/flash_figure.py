"""The flash attention view, still: three moments of it side by side."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from zeta_edu.views import style
from zeta_edu.views.tokens import drawable, visible

if TYPE_CHECKING:
    from zeta_edu.views.flash import FlashView

MOST_LABELS = 24


def flash_figure(view: "FlashView") -> Figure:
    """Draw the scores after the first tile, half way and at the end."""
    last = len(view.trace.rows) - 1
    moments = sorted({0, last // 2, last})
    with style.settings():
        figure = Figure(figsize=(9.4, 3.9))
        figure.suptitle(view.title, x=0.01, ha="left", fontsize=14, fontweight="bold")
        for axes, step in zip(
            figure.subplots(1, len(moments), squeeze=False)[0], moments, strict=True
        ):
            _draw_moment(axes, view, step)
    return figure


def _draw_moment(axes: Axes, view: "FlashView", step: int) -> None:
    scores = view.trace.scores
    done = np.zeros(scores.shape, dtype=bool)
    for (top, bottom), (left, right) in zip(
        view.trace.rows[: step + 1], view.trace.columns[: step + 1], strict=True
    ):
        done[top:bottom, left:right] = True
    shown = np.ma.masked_where(~done | np.isinf(scores), scores)
    finite = scores[np.isfinite(scores)]
    colours = matplotlib.colormaps[style.MAP].with_extremes(bad=style.LIGHT["blank"])
    axes.imshow(shown, colours, vmin=finite.min(), vmax=finite.max(), aspect="auto")
    axes.locator_params(integer=True)
    for top, bottom, left, right in view.trace.skipped:
        _box(axes, (top, bottom), (left, right), fill=False, hatch="///", ec=style.MASK, lw=0)
    now = view.trace.rows[step], view.trace.columns[step]
    _box(axes, *now, fill=False, ec=style.OUTPUT, lw=3)
    axes.set_title(f"tile {step + 1} of {len(view.trace.rows)}")
    axes.set_xlabel("keys", color=style.LIGHT["key_text"])
    axes.set_ylabel("queries", color=style.LIGHT["query_text"])
    keys = scores.shape[1]
    if keys <= MOST_LABELS and not view.numbered:
        names = [drawable(visible(token)) for token in view.tokens]
        axes.set_xticks(range(keys), names, rotation=90, fontsize=9, parse_math=False)


def _box(axes: Axes, rows: Iterable[int], columns: Iterable[int], **look: Any) -> None:
    (top, bottom), (left, right) = rows, columns
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **look))
