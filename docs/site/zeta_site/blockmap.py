"""The map of the block as a drawing whose parts are links, in the colours of the page's theme."""

import html
import io
import re
from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.figure import Figure

from zeta_edu.lessonmap import DOOR, block_map, block_map_text
from zeta_edu.views import style
from zeta_edu.views.parts import PARTS

# Where a page of the theme is dark: it has been told so, or it follows the reader's system.
DARK = """@media screen {{ body[data-theme="dark"] .block-map {{ {0} }} }}
@media screen and (prefers-color-scheme: dark) {{
body:not([data-theme="light"]) .block-map {{ {0} }} }}"""


def linked_map(pages: Mapping[str, tuple[str, str]]) -> str:
    """The map as SVG for the middle of a page.

    Args:
        pages: for the number of a lesson its title and the address of its page.
    """
    with style.settings(), mpl.rc_context({"svg.fonttype": "none"}):
        figure = block_map()
        drawn = svg(figure)
    inside = drawn.partition("<svg")[2].partition(">")[2].removesuffix("</svg>\n")
    width, height = 72 * figure.get_size_inches()
    space = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    text = html.escape(block_map_text(), quote=True)
    doors = "".join(door(figure, name, pages) for name in (*PARTS, "block"))
    return (
        f'<div class="block-map"><style>{palette()}</style>'
        f'<svg {space} viewBox="0 0 {width:g} {height:g}" role="group" aria-label="{text}">'
        f'<g aria-hidden="true">{themed(inside)}</g>{doors}</svg></div>'
    )


def svg(figure: Figure) -> str:
    """Draw a figure, the same on every run, with its measures in points."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def themed(drawing: str) -> str:
    """Let the style sheet say what the palette's colours are, for light and dark pages."""
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    for name, colour in style.LIGHT.items():
        drawing = re.sub(colour, f"var(--map-{name})", drawing, flags=re.I)
    return drawing


def palette() -> str:
    """What the names of colours mean, on a light page and on a dark one."""
    light, dark = (
        " ".join(f"--map-{name}: {colour};" for name, colour in colours.items())
        for colours in (style.LIGHT, style.DARK)
    )
    return f".block-map {{ {light} }} {DARK.format(dark)}"


def door(figure: Figure, name: str, pages: Mapping[str, tuple[str, str]]) -> str:
    """A link over a part; nothing where its lesson is not there."""
    axes = figure.axes[0]
    if name == "block":
        lesson, (x, y, width, height) = "11", (38.0, 57.8, 42.0, 4.8)
    else:
        _, lesson, x, y, width, height = PARTS[name]
    if lesson not in pages:
        return ""
    title, address = pages[lesson]
    scale = 72 / figure.dpi
    left, bottom = axes.transData.transform((x, y)) * scale
    right, top = axes.transData.transform((x + width + DOOR, y + height + DOOR)) * scale
    whole = figure.get_figheight() * 72
    label = html.escape(f"{name.replace('_', ' ')}: lesson {title}", quote=True)
    return (
        f'<a href="{html.escape(address)}" aria-label="{label}"><title>{label}</title>'
        f'<rect x="{left:.1f}" y="{whole - top:.1f}" width="{right - left:.1f}" '
        f'height="{top - bottom:.1f}" rx="4"/></a>'
    )
