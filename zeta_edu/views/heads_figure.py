"""The heads view, still: the heads and what they read, above the two charts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from zeta_edu.views import style

if TYPE_CHECKING:
    from zeta_edu.views.heads import HeadsView, Sharing

WIDTH = 9.4  # inches
DIAGRAM = 2.5  # inches of height
MOST_NUMBERED = 32  # heads whose numbers still fit into their boxes
MOST_BARS = 8
ROWS = {"query": 2.5, "key": 0.72, "value": 0.0}  # where each row of boxes stands
BOX = 0.58  # its height
ROLES = {
    "query": "queries",
    "key": "keys",
    "value": "values",
    "output": "out, which joins the heads",
}
UNITS = {1e12: "TB", 1e9: "GB", 1e6: "MB", 1e3: "kB", 1: "bytes"}
SCALES = {1e9: "billion", 1e6: "million", 1e3: "thousand", 1: ""}


def heads_figure(view: "HeadsView") -> Figure:
    """Draw a `HeadsView` with matplotlib."""
    shown = sharings_shown(view)
    charts = 0.3 * len(shown)
    height = DIAGRAM + charts + 1.45
    with style.settings():
        figure = Figure(figsize=(WIDTH, height))
        figure.set_layout_engine("none")
        place: dict[str, Any] = {"y": 1 - 0.1 / height, "ha": "left", "va": "top"}
        figure.suptitle(view.title, x=0.012, fontsize=12.5, weight="bold", **place)
        above = (0.012, 1 - (DIAGRAM + 0.4) / height, 0.976, DIAGRAM / height)
        _draw_heads(figure.add_axes(above), view)
        left, right = (
            figure.add_axes((x, 0.45 / height, 0.26, charts / height)) for x in (0.14, 0.6)
        )
        _draw_sizes(left, right, view, shown)
        patches = [Patch(color=style.ROLES[role], label=name) for role, name in ROLES.items()]
        figure.legend(handles=patches, loc="lower left", ncols=4, fontsize=10)
    return figure


def sharings_shown(view: "HeadsView") -> list["Sharing"]:
    """The ways to share that get a bar: of many every second or third, and the opened one."""
    every = -(-len(view.sharings) // MOST_BARS)
    needed = (1, view.kv_heads)
    return [
        way
        for number, way in enumerate(view.sharings)
        if number % every == 0 or way.kv_heads in needed
    ]


def _draw_sizes(left: Axes, right: Axes, view: "HeadsView", shown: list["Sharing"]) -> None:
    layers = "one layer" if view.layers == 1 else f"{view.layers} layers"
    tokens = f"{view.context:,} token{'' if view.context == 1 else 's'}"
    width = f"{view.bytes_per_number} byte{'' if view.bytes_per_number == 1 else 's'} a number"
    left.set_title(f"cache of {tokens}, {layers}, {width}", x=-0.5, fontsize=11)
    right.set_title(f"parameters of attention, {layers}", x=-0.5, fontsize=11)
    opened = [way.kv_heads for way in shown].index(view.kv_heads)
    names = [_named(view.heads, way.kv_heads) for way in shown]
    factor = view.layers * view.bytes_per_number * view.context
    _draw_bars(left, [_times(way.cached, factor) for way in shown], names, opened, UNITS)
    counts = [_times(way.parameters, view.layers) for way in shown]
    _draw_bars(right, counts, names, opened, SCALES)


def _draw_heads(axes: Axes, view: "HeadsView") -> None:
    heads, kv_heads, group = view.heads, view.kv_heads, view.heads // view.kv_heads
    margin = 0.19 * heads  # as the picture is `heads` boxes wide
    axes.set(xlim=(-margin, heads + 0.02 * heads), ylim=(-0.65, 3.2))
    axes.set_axis_off()
    frame = Rectangle((-0.01 * heads, -0.12), 1.02 * heads, 1.54, ls=(0, (5, 4)))
    frame.set(facecolor=style.LIGHT["panel"], edgecolor=style.LIGHT["quiet"])
    axes.add_patch(frame)
    for query in range(heads):
        _box(axes, "query", query, query + 0.5, heads)
        middle = (query // group + 0.5) * group
        path = ((query + 0.5, ROWS["query"]), (query + 0.5, 1.95), (middle, 1.95), (middle, 1.42))
        axes.plot(*zip(*path, strict=True), color=style.LIGHT["quiet"], lw=1.2)
    for kv in range(kv_heads):
        for role in ("key", "value"):
            _box(axes, role, kv, (kv + 0.5) * group, heads)
    for role, count in (("query", heads), ("key", kv_heads), ("value", kv_heads)):
        words = f"{count} {role} head{'' if count == 1 else 's'}"
        ink, y = style.LIGHT[f"{role}_text"], ROWS[role] + BOX / 2
        axes.text(-margin, y, words, color=ink, va="center", fontsize=11, weight="bold")
    kept = f"kept in the cache, of each token: {kv_heads} × ({view.dim_head} + {view.dim_head})"
    axes.text(0, -0.25, f"{kept} numbers", va="top", fontsize=10, color=style.LIGHT["quiet"])


def _box(axes: Axes, role: str, number: int, middle: float, heads: int) -> None:
    colour, y = style.ROLES[role], ROWS[role]
    axes.add_patch(Rectangle((middle - 0.42, y), 0.84, BOX, facecolor=colour, alpha=0.18))
    axes.add_patch(Rectangle((middle - 0.42, y), 0.84, BOX, fill=False, edgecolor=colour))
    if heads <= MOST_NUMBERED:
        ink, size = style.LIGHT[f"{role}_text"], 11 if heads <= 16 else 8
        place: dict[str, Any] = {"ha": "center", "va": "center"}
        axes.text(middle, y + BOX / 2 - 0.02, str(number), color=ink, fontsize=size, **place)


def _draw_bars(
    axes: Axes,
    bars: list[dict[str, int]],
    names: list[str],
    opened: int,
    units: Mapping[float, str],
) -> None:
    """A bar for each way to share, its parts in their roles' colours, its sum behind it."""
    for place, parts in enumerate(bars):
        start, alpha = 0, 1.0 if place == opened else 0.42
        for role, count in parts.items():
            axes.barh(place, count, 0.62, start, color=style.ROLES[role], alpha=alpha)
            start += count
        weight = "bold" if place == opened else "normal"
        text = f"  {_worded(start, units)}"
        axes.text(start, place, text, va="center", fontsize=10, weight=weight)
    axes.set_yticks(range(len(names)), names, fontsize=10)
    axes.get_yticklabels()[opened].set_fontweight("bold")
    axes.set(ylim=(len(bars) - 0.5, -0.5), xticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _named(heads: int, kv_heads: int) -> str:
    if heads == 1:
        return "1"
    names = {heads: "multi-head  ", 1: "multi-query  "}
    return f"{names.get(kv_heads, '')}{kv_heads}"


def _times(parts: Mapping[str, int], factor: int) -> dict[str, int]:
    return {role: count * factor for role, count in parts.items()}


def _worded(count: int, units: Mapping[float, str]) -> str:
    """A number with three digits and a unit, as in 4.19 MB.

    Examples:
        >>> _worded(4194304, UNITS), _worded(512, SCALES)
        ('4.19 MB', '512')
    """
    scale, unit = next((size, unit) for size, unit in units.items() if count >= size or size == 1)
    return f"{count / scale:.3g} {unit}".strip()
