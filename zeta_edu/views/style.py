"""One colour language for every view and every figure of the lessons.

A query is blue, a key vermilion, a value green, an output purple, everywhere. Amounts are
drawn in the viridis colours, darker for more on a light page and brighter for more on a dark
one, so that what matters always stands away from the page.
"""

import base64
import html
import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's colour-blind-safe colours; each has a contrast of 3 or more on white and on
# near-black, so the same hex serves both themes; small writing takes the "_text" tones below.
QUERY = "#0072B2"
KEY = "#D55E00"
VALUE = "#009E73"
OUTPUT = "#B85C96"
MASK = "#858B94"
NOT_A_NUMBER = "#E4002B"

ROLES: Mapping[str, str] = {
    "query": QUERY,
    "key": KEY,
    "value": VALUE,
    "output": OUTPUT,
    "mask": MASK,
    "not_a_number": NOT_A_NUMBER,
}

LIGHT: Mapping[str, str] = {
    "page": "#FFFFFF",
    "panel": "#F4F5F7",
    "blank": "#ECEEF1",
    "line": "#D5D9DF",
    "text": "#1B1F24",
    "quiet": "#59616B",
    "query_text": "#00629A",
    "key_text": "#B24A00",
    "value_text": "#00734F",
    "output_text": "#964272",
}
DARK: Mapping[str, str] = {
    "page": "#16191D",
    "panel": "#23272D",
    "blank": "#0B0D0F",
    "line": "#3F4650",
    "text": "#E9ECEF",
    "quiet": "#A4ACB6",
    "query_text": "#5BB8EE",
    "key_text": "#FF9D52",
    "value_text": "#3CC79B",
    "output_text": "#DE8FC2",
}

# viridis, sampled; its ends are blended towards the page so that "little" fades into it.
_VIRIDIS = (
    "#440154",
    "#472D7B",
    "#3B528B",
    "#2C728E",
    "#21918C",
    "#28AE80",
    "#5EC962",
    "#ADDC30",
    "#FDE725",
)
_FADE_LIGHT = (0.93, 0.45, 0.10)
_FADE_DARK = (0.72, 0.25)

CSS_DPI = 96  # a figure of one inch is shown 96 CSS pixels wide
MAP = "zeta"
MAP_DARK = "zeta_dark"
MAP_SIGNED = "zeta_signed"


def _blend(colour: str, page: str, share: float) -> str:
    mixed = (1 - share) * np.array(to_rgb(colour)) + share * np.array(to_rgb(page))
    return to_hex(tuple(mixed)).upper()


def _fading(colours: tuple[str, ...], page: str, shares: tuple[float, ...]) -> tuple[str, ...]:
    faded = tuple(
        _blend(colour, page, share) for colour, share in zip(colours, shares, strict=False)
    )
    return faded + colours[len(shares) :]


STOPS_LIGHT = _fading(_VIRIDIS[::-1], LIGHT["page"], _FADE_LIGHT)
STOPS_DARK = _fading(_VIRIDIS, DARK["page"], _FADE_DARK)

# For numbers of both signs: from brown below zero through the page's colour to teal above it.
_BELOW = ("#6B3E07", "#A8671C", "#D9AE6C")
_ABOVE = ("#77BFB4", "#2C8C81", "#01564C")
SIGNED_LIGHT = (*_BELOW, LIGHT["page"], *_ABOVE)
SIGNED_DARK = (*_BELOW[::-1], DARK["page"], *_ABOVE[::-1])


def _register(name: str, stops: tuple[str, ...]) -> None:
    colours = LinearSegmentedColormap.from_list(name, stops).with_extremes(bad=NOT_A_NUMBER)
    matplotlib.colormaps.register(colours, name=name, force=True)


_register(MAP, STOPS_LIGHT)
_register(MAP_DARK, STOPS_DARK)
_register(MAP_SIGNED, SIGNED_LIGHT)


SETTINGS: dict[Any, Any] = {
    "figure.figsize": (7.0, 3.6),
    "figure.dpi": CSS_DPI,
    "savefig.dpi": 2 * CSS_DPI,
    "figure.constrained_layout.use": True,
    "figure.facecolor": LIGHT["page"],
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": LIGHT["text"],
    "axes.edgecolor": LIGHT["quiet"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=[QUERY, KEY, VALUE, OUTPUT, MASK]),
    "grid.color": LIGHT["line"],
    "lines.linewidth": 2.0,
    "image.cmap": MAP,
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "svg.hashsalt": "zeta_edu",
}
"""matplotlib's settings for every figure of the project."""


def use() -> None:
    """Set matplotlib up for the lessons: readable in a narrow column and on a projector.

    Changes `matplotlib.rcParams`, for figures made afterwards.

    Examples:
        >>> use()
        >>> matplotlib.rcParams["image.cmap"] == MAP
        True
    """
    matplotlib.rcParams.update(SETTINGS)


def settings() -> AbstractContextManager[None]:
    """The same settings inside a `with`, for what draws without changing the caller's."""
    return matplotlib.rc_context(SETTINGS)


def picture(figure: Figure) -> bytes:
    """Draw a figure as PNG at twice the size of the screen, the same bytes on every run.

    Args:
        figure: a matplotlib figure, of any backend.

    Returns:
        The PNG file's bytes.
    """
    dpi, shown_on = figure.dpi, figure.canvas
    # Drawn on a canvas of its own: savefig would draw it twice.
    canvas = FigureCanvasAgg(figure)
    try:
        figure.set_dpi(2 * CSS_DPI)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    finally:
        figure.set_dpi(dpi)
        figure.set_canvas(shown_on)
    buffer = io.BytesIO()
    # A palette of 256 colours is all a figure needs, at a third of the size in a notebook.
    image.quantize(256).save(buffer, format="png")
    return buffer.getvalue()


def drawing(figure: Figure) -> bytes:
    """Draw a figure as SVG, the same bytes on every run.

    Args:
        figure: a matplotlib figure, of any backend.

    Returns:
        The SVG file's bytes.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "zeta_edu"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def css_width(figure: Figure) -> int:
    """The width at which a figure is shown, in CSS pixels."""
    return round(figure.get_figwidth() * CSS_DPI)


def image_tag(png: bytes, alt: str, width: int) -> str:
    """An HTML image that carries its own bytes and its text, and never outgrows the page."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<img alt="{html.escape(alt, quote=True)}" width="{width}" '
        f'src="data:image/png;base64,{data}" style="max-width:100%;height:auto">'
    )


def show(figure: Figure, *, alt: str) -> None:
    """Display a matplotlib figure in a notebook together with its alternative text.

    Args:
        figure: the figure; it is closed, so that it is not displayed a second time.
        alt: what the picture shows, in words, for those who cannot see it.

    Raises:
        TypeError: `figure` is not a matplotlib figure, or `alt` not a str.
        ValueError: `alt` is blank.
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"figure must be a matplotlib Figure, got {type(figure).__name__}")
    if not isinstance(alt, str):
        raise TypeError(f"alt must be a str that describes the figure, got {type(alt).__name__}")
    if not alt.strip():
        raise ValueError("alt is blank; say in words what the figure shows")
    # Only a notebook needs these two; the views work without them.
    import matplotlib.pyplot as plt
    from IPython.display import display

    png, width = picture(figure), css_width(figure)
    bundle = {
        "text/html": image_tag(png, alt, width),
        "image/png": base64.b64encode(png).decode("ascii"),
        "text/plain": alt,
    }
    display(bundle, metadata={"image/png": {"alt": alt, "width": width}}, raw=True)
    plt.close(figure)
