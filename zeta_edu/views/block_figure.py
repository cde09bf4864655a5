"""The block view, still: the diagram with every shape, beside the range on every wire."""

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

from zeta_edu.views import style
from zeta_edu.views.block_words import TITLES

if TYPE_CHECKING:
    from zeta_edu.views.block import BlockView

WIDTH, HEIGHT = 9.6, 7.0  # inches
LETTERS = 7.5  # points
SMALL: dict[str, Any] = {"fontsize": LETTERS, "va": "center", "zorder": 5}


def block_figure(view: "BlockView") -> Figure:
    """Draw a `BlockView` with matplotlib."""
    with style.settings():
        if view.empty:
            figure = Figure(figsize=(WIDTH, 1.2))
            figure.set_layout_engine("none")
            figure.text(0.5, 0.5, "Nothing to look at yet: x holds no tokens.", ha="center")
            return figure
        figure = Figure(figsize=(WIDTH, HEIGHT))
        figure.set_layout_engine("none")
        title = "\n".join(textwrap.wrap(view.title, 88))
        figure.text(0.015, 0.985, title, va="top", fontsize=13, weight="bold")
        _draw_diagram(figure.add_axes((0.005, 0.005, 0.585, 0.925)), view)
        _draw_ranges(figure.add_axes((0.755, 0.085, 0.23, 0.80)), view)
    return figure


def _draw_diagram(axes: Axes, view: "BlockView") -> None:
    layout = view.layout
    axes.set(xlim=(0, layout["width"]), ylim=(layout["height"], 0))
    axes.set_axis_off()
    axes.set_aspect("equal")
    quiet = style.LIGHT["quiet"]
    x, y, width, height = layout["frame"]
    axes.add_patch(_box(x, y, width, height, "none", quiet, linestyle=(0, (4, 3))))
    axes.text(x + 12, y + 16, "TransformerBlock", color=quiet, weight="bold", **SMALL)
    x, y, width, height = layout["panel"]
    axes.add_patch(_box(x, y, width, height, style.LIGHT["line"], "none", zorder=1))
    axes.text(layout["wires"]["x"]["points"][0][0], 8, "x", ha="center", weight="bold", **SMALL)
    x, y = layout["wires"]["out"]["points"][-1]
    axes.text(x + 10, y - 2, "block(x); the model adds x back", color=quiet, **SMALL)
    for wire in layout["wires"].values():
        _draw_wire(axes, wire, tuple(view.wires[wire["name"]].shape))
    for segment in layout["bar"]["segments"]:
        place = (segment["x"], layout["bar"]["y"])
        colour = style.ROLES.get(segment["role"], quiet)
        edge = style.LIGHT["page"]
        size = (segment["width"], layout["bar"]["height"])
        axes.add_patch(Rectangle(place, *size, facecolor=colour, edgecolor=edge, zorder=3))
    for box in layout["boxes"]:
        _draw_box(axes, box)
    x, y, radius = layout["sum"]
    axes.add_patch(Circle((x, y), radius, facecolor="white", edgecolor=quiet, zorder=4))
    axes.text(x, y, "+", ha="center", weight="bold", **SMALL)


def _box(
    x: float, y: float, width: float, height: float, face: str, edge: str, **look: Any
) -> FancyBboxPatch:
    shape = "round,pad=0,rounding_size=6"
    look = {"zorder": 3, **look}
    return FancyBboxPatch(
        (x, y), width, height, boxstyle=shape, facecolor=face, edgecolor=edge, **look
    )


def _draw_box(axes: Axes, box: dict[str, Any]) -> None:
    x, y, width, height = (box[name] for name in ("x", "y", "width", "height"))
    quiet = style.LIGHT["quiet"]
    axes.add_patch(_box(x, y, width, height, style.LIGHT["panel"], quiet))
    axes.text(x + width / 2, y + height / 2, box["label"], ha="center", **SMALL)
    axes.add_patch(Circle((x + width, y), 9, facecolor="white", edgecolor=quiet, zorder=5))
    axes.text(
        x + width, y, box["lesson"], ha="center", color=quiet, weight="bold",
        **{**SMALL, "fontsize": 6, "zorder": 6},
    )  # fmt: skip


def _draw_wire(axes: Axes, wire: dict[str, Any], shape: tuple[int, ...]) -> None:
    colour = style.ROLES.get(wire["role"], style.LIGHT["quiet"])
    *_, before, end = points = wire["points"]
    axes.plot(*zip(*points, strict=True), color=colour, lw=1.3, zorder=2)
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.3, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=before, arrowprops=arrow, zorder=2)
    words = " × ".join(str(size) for size in shape)
    x, y = wire["label"]
    axes.text(x, y, words, color=style.LIGHT["text"], **SMALL)


def _draw_ranges(axes: Axes, view: "BlockView") -> None:
    """Each wire's least and largest number as a line, its rms on both sides of 0 as a bar."""
    names = list(view.wires)
    low, high, _, rms, _ = np.nan_to_num(view.statistics.table[0]).T
    rows = np.arange(len(names))
    roles = [view.layout["wires"][name]["role"] for name in names]
    colours = [style.ROLES.get(role, style.LIGHT["quiet"]) for role in roles]
    axes.barh(rows, 2 * rms, left=-rms, height=0.62, color=colours, label="−rms to rms")
    axes.hlines(rows, low, high, color=style.LIGHT["text"], lw=1, label="least to largest")
    for ends in (low, high):
        axes.plot(ends, rows, "|", color=style.LIGHT["text"], markersize=5)
    axes.set_yticks(rows, [TITLES[name] for name in names])
    axes.tick_params(labelsize=8, length=0)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel("value", fontsize=9)
    axes.set_title("least to largest (line) and rms (bar)", fontsize=9.5, x=-0.62)
