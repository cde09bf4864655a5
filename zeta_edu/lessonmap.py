"""The map at the top of every lesson: the block, with the part in work lit.

Lessons are written on the parts they build, so the map doubles as a table of contents.
"""

from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

from zeta_edu.views import style
from zeta_edu.views.parts import PARTS, Part

DOOR = 1.9  # the radius of the disc with a lesson's number

_LANES = {"q": (48.5, style.QUERY), "k": (41, style.KEY), "v": (33, style.VALUE)}
_COLUMN = (82, 28.5, 15.5, 25)  # behind masks, attention and flash
_CENTRE = 89.75  # of that column
_SUMS = ((_CENTRE, 15), (_CENTRE, 3.5))  # of the two halves; with the residual
_FRAME = (4, 7.5, 95.5, 55)
_BEYOND = "a whole model:  12 copying   13 longer texts   14 reading it   15 speed"


def block_map(lit: Iterable[str] = ()) -> Figure:
    """Draw the block with some of its parts lit and each part's lesson on it.

    Args:
        lit: names of parts: keys of `PARTS`, or `"block"` for the frame.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: `lit` names a part that is not on the map.

    Examples:
        >>> block_map(lit=("attention", "masks")).axes[0].get_title(loc="left")
        'You are here: attention, masks'
    """
    lit = _known(lit)
    figure = Figure(figsize=(7.6, 5.0), dpi=style.CSS_DPI, layout="constrained")
    axes = figure.add_subplot(xlim=(-1, 101), ylim=(-4.5, 65), aspect="equal")
    axes.set_axis_off()
    axes.set_title(_title(lit), loc="left", fontsize=13, fontweight="bold")
    _draw_frame(axes, "block" in lit)
    _draw_wires(axes)
    for name, part in PARTS.items():
        _draw_part(axes, part, name in lit)
    return figure


def block_map_text(lit: Iterable[str] = ()) -> str:
    """Say in words what `block_map` draws, as alternative text.

    Args:
        lit: as for `block_map`.
    """
    lit = _known(lit)
    lighting = f"Lit: {', '.join(_name(name) for name in lit)}." if lit else "No part is lit."
    return (
        "Map of the transformer block. x goes through layer norm and one projection. Queries, "
        "keys and values go through heads, qk norm, rotary, the cache, xPos and attention with "
        "its masks, or flash, and then out, with LoRA on four of the products; beside them runs "
        "the feed-forward. Both are summed, and x is added. "
        f"Each part carries the number of its lesson. {lighting}"
    )


def show_block_map(lit: Iterable[str] = ()) -> None:
    """Display the map in a notebook, with its alternative text.

    Args:
        lit: as for `block_map`.
    """
    lit = _known(lit)
    style.show(block_map(lit), alt=block_map_text(lit))


def _known(lit: Iterable[str]) -> tuple[str, ...]:
    names = (lit,) if isinstance(lit, str) else tuple(lit)
    for name in names:
        if name not in PARTS and name != "block":
            raise ValueError(f"lit: no part is called {name!r}; known: block, {', '.join(PARTS)}")
    return names


def _title(lit: tuple[str, ...]) -> str:
    if not lit:
        return "The block, and the lesson that builds each part"
    return "You are here: " + ", ".join(_name(name) for name in lit)


def _name(part: str) -> str:
    if part == "block":
        return "the whole block"
    label = PARTS[part].label.replace("-\n", "").replace("\n", " ")
    return label.partition(" on ")[0].partition(":")[0]


def _draw_part(axes: Axes, part: Part, lit: bool) -> None:
    colours = style.LIGHT
    face = style.OUTPUT if lit else colours["panel"]
    edge = style.OUTPUT if lit else colours["quiet"]
    place = (part.x, part.y, part.width, part.height)
    axes.add_patch(_box(*place, facecolor=face, edgecolor=edge, lw=1.2, zorder=3))
    centre = (part.x + part.width / 2, part.y + part.height / 2)
    colour, weight = ("white", "bold") if lit else (colours["text"], "normal")
    axes.text(*centre, part.label, color=colour, weight=weight, **_TEXT)
    _draw_door(axes, part.x + part.width, part.y + part.height, part.lesson, lit)


_TEXT: dict[str, Any] = {
    "ha": "center",
    "va": "center",
    "fontsize": 10,
    "zorder": 4,
    "linespacing": 1.1,
}


def _box(x: float, y: float, width: float, height: float, **look: Any) -> FancyBboxPatch:
    return FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=1.2", **look)


def _draw_door(axes: Axes, x: float, y: float, lesson: str, lit: bool) -> None:
    """The number of a lesson, in a disc on a box's corner."""
    edge = style.OUTPUT if lit else style.LIGHT["quiet"]
    axes.add_patch(Circle((x, y), DOOR, facecolor="white", edgecolor=edge, lw=1.2, zorder=5))
    axes.text(
        x, y - 0.1, lesson, color=edge, weight="bold", **{**_TEXT, "fontsize": 8, "zorder": 6}
    )


def _draw_frame(axes: Axes, lit: bool) -> None:
    x, y, _, height = _FRAME
    edge = style.OUTPUT if lit else style.LIGHT["quiet"]
    look: dict[str, Any] = {
        "edgecolor": edge,
        "lw": 2.4 if lit else 1.2,
        "linestyle": (0, (4, 3)),
        "zorder": 1,
    }
    axes.add_patch(_box(*_FRAME, facecolor="none", **look))
    axes.add_patch(_box(*_COLUMN, facecolor=style.LIGHT["line"], edgecolor="none", zorder=2))
    axes.text(59, y + height - 2.6, "TransformerBlock", color=edge, weight="bold", **_TEXT)
    _draw_door(axes, x, y + height, "11", lit)
    axes.text(50, -2.5, _BEYOND, color=style.LIGHT["quiet"], **_TEXT)


def _draw_wires(axes: Axes) -> None:
    quiet, middle = style.LIGHT["quiet"], 31.5
    axes.text(0, middle, "x", weight="bold", **_TEXT)
    _wire(axes, [(1.5, middle), (6, middle)])
    _wire(axes, [(14.5, middle), (18, middle)])
    for name, (y, colour) in _LANES.items():
        _wire(axes, [(27.5, y), (33, y)], colour)
        _wire(axes, [(41.5, y), (82, y)], colour)
        axes.text(30.2, y + 2, name, color=colour, weight="bold", **_TEXT)
    _wire(axes, [(22.75, 55), (22.75, 52)])
    _wire(axes, [(42, 56.2), (98.5, 56.2), (98.5, 23), (95.5, 23)])  # LoRA's fourth matrix, out
    _wire(axes, [(_CENTRE, 28.5), (_CENTRE, 25.5)], style.OUTPUT)
    _wire(axes, [(_CENTRE, 20.5), (_CENTRE, 16.9)])
    _wire(axes, [(27.5, 15), (41, 15)])
    _wire(axes, [(67, 15), (_CENTRE - 1.9, 15)])
    _wire(axes, [(_CENTRE, 13.1), (_CENTRE, 5.4)])
    _wire(axes, [(2.5, middle), (2.5, 3.5), (_CENTRE - 1.9, 3.5)])
    _wire(axes, [(_CENTRE + 1.9, 3.5), (99, 3.5)])
    axes.text(46, 5.2, "the residual: the model adds x back", color=quiet, **_TEXT)
    for x, y in _SUMS:
        axes.text(x, y, "+", weight="bold", **_TEXT)
        axes.add_patch(Circle((x, y), 1.9, facecolor="white", edgecolor=quiet, zorder=3))


def _wire(axes: Axes, points: list[tuple[float, float]], colour: str | None = None) -> None:
    """A line through points with an arrow at its end."""
    colour = colour or style.LIGHT["quiet"]
    *_, before, end = points
    axes.plot(*zip(*points[:-1], end, strict=True), color=colour, lw=1.4, zorder=2)
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=before, arrowprops=arrow, zorder=2)
