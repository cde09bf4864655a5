"""The cache view, still: the weights by step, and what they cost."""

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from zeta_edu.views import style
from zeta_edu.views.attention_figure import weight_top
from zeta_edu.views.tokens import drawable, visible

if TYPE_CHECKING:
    from zeta_edu.views.cache import CacheView

MOST_LABELS = 32


def cache_figure(view: "CacheView") -> Figure:
    """Draw the last step: its row of weights, the work of all steps, the bytes held."""
    with style.settings():
        figure = Figure(figsize=(9.4, 4.4))
        figure.suptitle(view.title, x=0.01, ha="left", fontsize=14, fontweight="bold")
        halves: Any = figure.subfigures(1, 2, width_ratios=(1.15, 1))
        left, right = halves
        _draw_weights(left.subplots(), view)
        above, below = right.subplots(2, 1, sharex=True)
        _draw_work(above, view)
        _draw_bytes(below, view)
    return figure


def _draw_weights(axes: Axes, view: "CacheView") -> None:
    weights = view.trace.weights[0]
    hidden = np.triu(np.ones_like(weights, dtype=bool), k=1)
    colours = matplotlib.colormaps[style.MAP].with_extremes(bad=style.LIGHT["blank"])
    axes.imshow(np.ma.masked_where(hidden, weights), colours, vmin=0, vmax=weight_top(weights))
    n = len(weights)
    axes.add_patch(Rectangle((-0.5, n - 1.5), n, 1, fill=False, ec=style.QUERY, lw=2.5))
    axes.set_title("weights: the last step is one row", fontsize=12)
    axes.set_xlabel("keys: all but the last from the cache", color=style.LIGHT["key_text"])
    axes.set_ylabel("queries", color=style.LIGHT["query_text"])
    if n <= MOST_LABELS:
        names = [drawable(visible(token)) for token in view.tokens]
        size = min(10.0, 240 / n)
        axes.set_xticks(range(n), names, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(n), names, fontsize=size, parse_math=False)


def _draw_work(axes: Axes, view: "CacheView") -> None:
    ends = view.trace.ends
    steps = list(zip([0, *ends], ends, strict=False))
    axes.plot(
        ends, [view.costs.whole(end) for end in ends], "--", color=style.MASK, label="without cache"
    )
    axes.plot(ends, [view.costs.cached(*step) for step in steps], color=style.QUERY, label="with")
    axes.set(ylabel="multiplications", ylim=(0, None))
    axes.set_title("work of each step", fontsize=12)
    axes.legend(fontsize=10)


def _draw_bytes(axes: Axes, view: "CacheView") -> None:
    ends = view.trace.ends
    for (name, size), line in zip(view.costs.others.items(), ("--", ":"), strict=False):
        axes.plot(ends, [size * end for end in ends], line, color=style.MASK, label=name)
    mine = f"this block ({view.kv_heads} key head{'s' if view.kv_heads > 1 else ''})"
    axes.plot(ends, [view.costs.bytes_per_token * end for end in ends], color=style.KEY, label=mine)
    most = max([view.costs.bytes_per_token, *view.costs.others.values()]) * ends[-1]
    axes.set(xlabel="tokens read", ylabel="bytes", ylim=(0, 1.9 * most))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("held in the cache", fontsize=12)
    axes.legend(loc="upper left", fontsize=10)
