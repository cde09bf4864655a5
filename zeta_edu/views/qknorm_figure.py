"""The view of query-key normalisation, still: the logits, and the entropy as activations grow."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zeta_edu.views import style
from zeta_edu.views.qknorm_data import BARS, SCALES, histogram, in_words, measure, reach

if TYPE_CHECKING:
    from zeta_edu.views.qknorm import QKNormView

WIDTH, HEIGHT = 9.4, 4.4  # inches
LINES = ((False, style.KEY, "--", "without normalisation"), (True, style.QUERY, "-", "with"))


def qknorm_figure(view: "QKNormView") -> Figure:
    """Draw a `QKNormView` with matplotlib."""
    with style.settings():
        if view.empty:
            figure = Figure(figsize=(WIDTH, 1.2))
            figure.text(0.5, 0.5, view.state()["empty"], ha="center")
            return figure
        figure = Figure(figsize=(WIDTH, HEIGHT))
        figure.suptitle("\n".join(textwrap.wrap(view.title, 76)), weight="bold", fontsize=14)
        left, right = figure.subplots(1, 2)
        _draw_logits(left, view)
        _draw_entropies(right, view)
        return figure


def _draw_logits(axes: Axes, view: "QKNormView") -> None:
    """Both histograms at the opening scale, one on the other, with the bound between them."""
    bound = view.qk_scale * view.vectors.gain
    end = reach(bound)
    edges = np.linspace(-end, end, BARS + 1)
    edges = np.concatenate([[2 * edges[0] - edges[1]], edges, [2 * edges[-1] - edges[-2]]])
    for normalise, colour, line, name in LINES:
        seen = measure(view.vectors, view.activations, normalise, view.qk_scale)
        shares = 100 * histogram(seen.logits, end)
        axes.stairs(shares, edges, color=colour, fill=normalise, alpha=0.35 if normalise else 1)
        axes.plot([], [], line if normalise else "-", color=colour, label=name)
    for side in (-1, 1):
        axes.axvline(side * bound, color=style.LIGHT["quiet"], ls=":")
    axes.set_xticks([-end, -end / 2, 0, end / 2, end])
    axes.set(xlabel=f"logit (beyond ±{in_words(end)} in the last bars)", xlim=(edges[0], edges[-1]))
    axes.set(
        ylabel="share of logits, %", title=f"logits, activations ×{in_words(view.activations)}"
    )
    axes.text(bound, axes.get_ylim()[1], f"±{in_words(bound)}", ha="right", va="top", fontsize=10)


def _draw_entropies(axes: Axes, view: "QKNormView") -> None:
    """The mean over the heads as lines, each head as thin ones."""
    for normalise, colour, line, name in LINES:
        rows = [measure(view.vectors, scale, normalise, view.qk_scale) for scale in SCALES]
        axes.semilogx(SCALES, [seen.entropies for seen in rows], color=colour, lw=0.8, alpha=0.4)
        axes.semilogx(SCALES, [seen.entropy for seen in rows], line, color=colour, label=name)
    uniform = view.vectors.uniform
    axes.axhline(uniform, color=style.LIGHT["quiet"], ls=":")
    axes.text(SCALES[0], uniform, " uniform", va="bottom", fontsize=10, color=style.LIGHT["quiet"])
    axes.axvline(view.activations, color=style.LIGHT["line"], zorder=0)
    axes.set(title="entropy of attention", xlabel="activations ×", ylabel="bits")
    axes.set_ylim(0, 1.12 * uniform or 1)
    axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.minorticks_off()
    axes.legend(loc="center right" if uniform else None, fontsize=11)
