"""The attention view, still: one head large, with its tokens, beside all heads small."""

import textwrap
from typing import TYPE_CHECKING

import matplotlib
import matplotlib.patches
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure

from zeta_edu.views import style
from zeta_edu.views.tokens import drawable, visible

if TYPE_CHECKING:
    from zeta_edu.views.attention import AttentionView

NICE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
WIDTH, HEIGHT = 9.4, 5.6  # inches
MOST_LABELS = 48
MOST_CELLS = 512


def weight_top(weights: Float[np.ndarray, "queries keys"]) -> float:
    """Where the colours of a head end: a round number that at most one weight in 200 exceeds.

    The first token of a causal model can only look at itself; its weight of 1 would otherwise
    bleach all others.
    """
    percents = np.minimum(np.floor(weights[weights > 0] * 100), 100).astype(int)
    above = np.cumsum(np.bincount(percents, minlength=101)[::-1])
    percent = 100 - int((above <= 0.005 * percents.size).sum())
    return next((nice for nice in NICE if nice >= (percent + 1) / 100), 1.0)


def attention_figure(view: "AttentionView") -> Figure:
    """Draw an `AttentionView` with matplotlib; a head that stands alone takes all the room."""
    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor=style.LIGHT["page"])
    figure.set_layout_engine("none")  # whatever the notebook's settings are
    if 0 in view.weights.shape:
        figure.set_figheight(1.2)
        figure.text(0.5, 0.5, "Nothing to look at yet: the text has no tokens.", ha="center")
        return figure
    title = textwrap.wrap(drawable(view.title, 200), 84)
    figure.text(
        *_place(0.1, HEIGHT - 0.1),
        "\n".join(title),
        va="top",
        fontsize=14,
        weight="bold",
        parse_math=False,
    )
    # Laid out by hand: matplotlib's own layouts take as long as the drawing, and still cut labels.
    left, bottom = 0.4 + _longest(view.query_tokens or view.tokens), 0.4 + _longest(view.tokens)
    height = HEIGHT - 0.2 - 0.28 * len(title) - bottom
    width = WIDTH - left - 1.1 if view.alone else height
    large = figure.add_axes((*_place(left, bottom), *_place(width, height)))
    bar = figure.add_axes((*_place(left + width + 0.1, bottom + 0.2 * height), 0.014, 0.5))
    _draw_head(large, bar, view)
    if not view.alone:
        right = left + width + 1.35
        small = figure.add_axes((*_place(right, bottom), *_place(WIDTH - right - 0.1, height)))
        _draw_heads(small, view)
    return figure


def _place(across: float, up: float) -> tuple[float, float]:
    """Inches as shares of the figure."""
    return across / WIDTH, up / HEIGHT


def _letter(count: int) -> float:
    """The size, in points, of so many labels side by side."""
    return min(10.0, 290 / count)


def _longest(tokens: list[str]) -> float:
    """How many inches the labels of an axis need."""
    if len(tokens) > MOST_LABELS:
        return 0.45
    letters = max(len(drawable(visible(token))) for token in tokens)
    return 0.1 + letters * _letter(len(tokens)) * 0.61 / 72


def _draw_head(axes: Axes, bar: Axes, view: "AttentionView") -> None:
    weights = view.weights[view.layer, view.head]
    queries, keys = weights.shape
    top = weight_top(weights)
    # In units of tokens whatever the pooling, so that the ticks are token numbers.
    extent = (-0.5, keys - 0.5, queries - 0.5, -0.5)
    axes.imshow(
        _colours(_pooled(weights, MOST_CELLS), top),
        extent=extent,
        interpolation="nearest",
        aspect="auto",
    )
    _label(axes, view)
    axes.set_xlabel("keys: the tokens looked at", color=style.LIGHT["key_text"])
    axes.set_ylabel("queries: the tokens that look", color=style.LIGHT["query_text"])
    amount = ScalarMappable(Normalize(0, top), matplotlib.colormaps[style.MAP])
    scale = bar.figure.colorbar(amount, cax=bar, extend="max" if top < 1 else "neither")
    scale.set_label("share of a query's attention")
    scale.outline.set_edgecolor(style.LIGHT["line"])


def _label(axes: Axes, view: "AttentionView") -> None:
    for axis, tokens in ((axes.xaxis, view.tokens), (axes.yaxis, view.query_tokens or view.tokens)):
        if len(tokens) > MOST_LABELS:
            continue
        axis.set_ticks(range(len(tokens)), [drawable(visible(token)) for token in tokens])
        for text in axis.get_ticklabels():
            text.set(fontsize=_letter(len(tokens)), fontfamily="DejaVu Sans Mono")
            text.set_parse_math(False)
    if len(view.tokens) <= MOST_LABELS:
        axes.tick_params(axis="x", labelrotation=90)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(style.LIGHT["line"])


def _draw_heads(axes: Axes, view: "AttentionView") -> None:
    layers, heads = view.weights.shape[:2]
    side = max(16, min(48, 384 // max(layers, heads)))
    gap = max(2, side // 8)
    step = side + gap
    sheet = np.ones((layers * step - gap, heads * step - gap, 4))
    for layer, head in np.ndindex(layers, heads):
        weights = view.weights[layer, head]
        tile = _stretched(_pooled(weights, side), side)
        top, left = layer * step, head * step
        sheet[top : top + side, left : left + side] = _colours(tile, weight_top(weights))
    axes.imshow(sheet, interpolation="nearest")
    frame = matplotlib.patches.Rectangle(
        (view.head * step - 1, view.layer * step - 1),
        side + 1,
        side + 1,
        fill=False,
        edgecolor=style.QUERY,
        linewidth=2,
        clip_on=False,
    )
    axes.add_patch(frame)
    middles = np.arange(max(layers, heads)) * step + side / 2
    axes.set_xticks(middles[:heads], [str(head) for head in range(heads)])
    axes.set_yticks(middles[:layers], [str(layer) for layer in range(layers)])
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    shared = view.kv_heads or heads
    if shared < heads:
        _draw_brackets(axes, shared, heads // shared, step, gap)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_brackets(axes: Axes, shared: int, group: int, step: int, gap: int) -> None:
    """Lines over the heads that read the same key/value head."""
    for kv in range(shared):
        left, right = kv * group * step, (kv + 1) * group * step - gap - 1
        across, up = [left, left, right, right], [-gap, -2 * gap, -2 * gap, -gap]
        axes.plot(across, up, color=style.KEY, lw=2, clip_on=False)
    axes.text(0, -3 * gap, "sharing keys and values", color=style.LIGHT["key_text"], fontsize=9)


def _colours(weights: Float[np.ndarray, "rows columns"], top: float) -> np.ndarray:
    """Colours (rows, columns, 4): nothing seen is the panel's grey, NaN a colour of its own."""
    colours = np.array(matplotlib.colormaps[style.MAP](np.ma.masked_invalid(weights) / top))
    colours[weights == 0] = (*to_rgb(style.LIGHT["blank"]), 1.0)
    return colours


def _pooled(
    weights: Float[np.ndarray, "queries keys"], most: int
) -> Float[np.ndarray, "rows columns"]:
    """The largest weight in each tile, at most `most` tiles on a side; NaN wins."""
    tiles = [min(size, most) for size in weights.shape]
    top, left = (np.arange(n) * size // n for n, size in zip(tiles, weights.shape, strict=True))
    return np.maximum.reduceat(np.maximum.reduceat(weights, top, axis=0), left, axis=1)


def _stretched(weights: Float[np.ndarray, "rows columns"], side: int) -> np.ndarray:
    rows, columns = (np.arange(side) * size // side for size in weights.shape)
    return weights[rows][:, columns]
