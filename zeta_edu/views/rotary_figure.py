"""The rotary view, still: clocks, the map of their angles, and the product against the distance."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Wedge
from matplotlib.ticker import MaxNLocator

from zeta_edu.views import style
from zeta_edu.views.rotary_data import HALF_SPLIT, frequencies, hands, pairs, products

if TYPE_CHECKING:
    from zeta_edu.views.rotary import RotaryView

WIDTH = 9.4  # inches
MOST_IN_A_ROW, MOST_WORDED = 8, 16
MOST_COLUMNS = 512
REACH = 128


def rotary_figure(view: "RotaryView") -> Figure:
    """Draw a `RotaryView` with matplotlib, with the controls where they start."""
    half = view.dim // 2
    worded = half <= MOST_WORDED
    across = min(half, MOST_IN_A_ROW if worded else 2 * MOST_IN_A_ROW)
    rows = -(-half // across)
    tall = (1.35 if worded else 0.5) * rows + 0.3
    with style.settings():
        figure = Figure(figsize=(WIDTH, min(7.0, tall + 3.3)))
        figure.suptitle(view.title, x=0.01, ha="left", fontsize=14, weight="bold")
        top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(tall, 2.9))[:, 0]
        _draw_clocks(top.subplots(rows, across, squeeze=False), view, worded)
        _explain(top, worded)
        left, right = bottom.subplots(1, 2)
        _draw_angles(left, view)
        _draw_curve(right, view)
    return figure


def _draw_clocks(grid: np.ndarray, view: "RotaryView", worded: bool) -> None:
    start = (np.array([view.m]), np.array([view.n]))
    vectors = (view.queries[0], view.keys[0])
    query, key = (
        hands(vector, at, view.base, HALF_SPLIT)[0]
        for vector, at in zip(vectors, start, strict=True)
    )
    longest = max(np.linalg.norm(query, axis=1).max(), np.linalg.norm(key, axis=1).max()) or 1.0
    speeds, members = frequencies(view.dim, view.base), pairs(view.dim, HALF_SPLIT)
    for i, axes in enumerate(grid.flat):
        axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal")
        axes.set_axis_off()
        if i >= len(query):
            continue
        _draw_clock(axes, query[i] / longest, key[i] / longest, 2.0 if worded else 1.2)
        if worded:
            first, second = members[i]
            axes.set_title(f"features {first}, {second}", loc="center", fontsize=9, weight="normal")
            text = f"{speeds[i]:.3g} rad\n{query[i] @ key[i]:+.3g}".replace("-", "−")
            axes.text(0, -1.15, text, ha="center", va="top", fontsize=9)


def _draw_clock(
    axes: Axes, query: Float[np.ndarray, "2"], key: Float[np.ndarray, "2"], width: float
) -> None:
    """One pair: the first feature points up, the second to the right."""
    light = style.LIGHT
    axes.add_patch(Circle((0, 0), 1, facecolor=light["panel"], edgecolor=light["line"]))
    if query.any() and key.any():
        ends = [np.degrees(np.arctan2(first, second)) for first, second in (query, key)]
        turn = (ends[0] - ends[1] + 180) % 360 - 180
        colour = colormaps[style.MAP_SIGNED]((1 + np.cos(np.radians(turn))) / 2)
        low, high = sorted((ends[1], ends[1] + turn))
        axes.add_patch(Wedge((0, 0), 0.62, low, high, facecolor=colour, edgecolor=light["quiet"]))
    look: dict[str, Any] = {"solid_capstyle": "round", "clip_on": False}
    axes.plot((0, key[1]), (0, key[0]), color=style.KEY, lw=2.4 * width, **look)
    axes.plot((0, query[1]), (0, query[0]), color=style.QUERY, lw=width, **look)


def _explain(part: SubFigure, worded: bool) -> None:
    """What the hands are, and the numbers below them."""
    below = "below: turn per position, share of q·k" if worded else ""
    named = {"query at m": style.QUERY, "key at n": style.KEY, below: "none"}
    entries = [Line2D([], [], color=colour, lw=3) for colour in named.values()]
    part.legend(entries, list(named), fontsize=10, loc="outside lower left", ncols=3)


def _draw_angles(axes: Axes, view: "RotaryView") -> None:
    columns = min(view.length, MOST_COLUMNS)
    edges = np.arange(columns + 1) * view.length // columns
    speeds = frequencies(view.dim, view.base)[:, None]
    counts = np.diff(edges)
    # The mean of a run of cosines, as the browser has it.
    spread = np.sin(counts * speeds / 2) / (counts * np.sin(speeds / 2))
    cosines = np.cos((edges[:-1] + (counts - 1) / 2) * speeds) * spread
    extent = (-0.5, view.length - 0.5, len(speeds) - 0.5, -0.5)
    image = axes.imshow(
        cosines, aspect="auto", extent=extent, cmap=style.MAP_SIGNED, vmin=-1, vmax=1
    )
    for name, at, colour, side in (
        ("n ", view.n, style.KEY, "right"),
        (" m", view.m, style.QUERY, "left"),
    ):
        axes.axvline(at, color=colour)
        above = axes.get_xaxis_transform()
        axes.text(at, 1.02, name, color=colour, weight="bold", ha=side, transform=above)
    axes.set_title("cos of each pair's angle\n", fontsize=12)
    axes.set(xlabel="position", ylabel="pair")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.figure.colorbar(image, ax=axes, ticks=(-1, 0, 1), pad=0.02)


def _draw_curve(axes: Axes, view: "RotaryView") -> None:
    reach = min(view.length - 1, REACH)
    distances = np.arange(-reach, reach + 1)
    query, key = view.queries[0], view.keys[0]
    axes.plot(
        distances,
        products(query, key, distances, view.base, HALF_SPLIT),
        color=style.LIGHT["text"],
        lw=1.5,
    )
    axes.axvline(view.m - view.n, color=style.LIGHT["quiet"], ls=":", lw=1.5)
    axes.plot(view.m - view.n, view.product, "o", color=style.LIGHT["text"])
    axes.set_title("q·k at each distance\n", fontsize=12)
    axes.set(xlabel="m − n, positions", ylabel="q·k")
