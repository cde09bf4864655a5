"""The xPos view, still: curves above, pairs and factors below."""

import math
import textwrap
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zeta_edu.views import style
from zeta_edu.views import xpos_data as data

if TYPE_CHECKING:
    from zeta_edu.views.xpos import XPosView

SAMPLES = 256
_BELOW: dict[str, Any] = {"fontsize": 9, "loc": "upper center", "bbox_to_anchor": (0.5, -0.24)}
WINDOW = 16  # scale bases that share an origin in the package


def xpos_figure(view: "XPosView") -> Figure:
    """Draw an `XPosView` with matplotlib."""
    with style.settings():
        figure = Figure(figsize=(8.8, 6.4))
        axes = figure.subplot_mosaic([["curves", "curves"], ["pairs", "factors"]])
        title = "\n".join(textwrap.wrap(view.title, 76))
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, weight="bold")
        _draw_curves(axes["curves"], view)
        _draw_pairs(axes["pairs"], view)
        _draw_factors(axes["factors"], view)
        return figure


def _draw_curves(axes: Axes, view: "XPosView") -> None:
    step = max(1, -(-view.length // SAMPLES))
    distances = torch.arange(0, view.length + 1, step, dtype=torch.float64)
    left = view.strengths(distances)
    ones = torch.ones_like(left)
    looks = ("rotation alone", ones, style.MASK, 0.8), ("xPos", left, style.OUTPUT, 2)
    for name, kept, colour, width in looks:
        in_step = data.curve("sum", distances, kept, view.base)
        most = data.curve("ceiling", distances, kept, view.base)
        axes.plot(distances, in_step, color=colour, lw=width, label=f"{name}, all pairs in step")
        axes.plot(distances, most, "--", color=colour, lw=width, label=f"{name}, most possible")
        if view.own is not None:
            at, products = view.own
            own = view.strengths(at) if name == "xPos" else torch.ones(len(at), view.dim // 2)
            averaged = data.model_curve(at, products[0], own, view.base)
            axes.plot(at, averaged, ".", color=colour, label=f"{name}, head 0 of the model")
    axes.set_xlim(0, view.length)
    axes.set(xlabel="distance between query and key, positions", ylabel="what is left")
    across = 2 if view.own is None else 3
    axes.legend(**_BELOW, ncols=across)


def _draw_pairs(axes: Axes, view: "XPosView") -> None:
    distances = torch.linspace(0, view.length, 129)
    groups = data.bands(view.strengths(distances))
    shades = matplotlib.colormaps[style.MAP](np.linspace(1, 0.45, len(groups)))
    turns = 2 * math.pi / data.frequencies(view.dim, view.base)
    names = [f"a turn in {turns[first]:,.0f} to {turns[last]:,.0f}" for (first, last), _ in groups]
    heights = [height.numpy() for _, height in groups]
    axes.stackplot(distances, heights[::-1], colors=shades, labels=names[::-1], linewidth=0)
    axes.set(xlabel="distance, positions", xlim=(0, view.length), ylim=(0, 1))
    axes.set_title("What pairs add to xPos's most", fontsize=12)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], **_BELOW, ncols=2)


def _draw_factors(axes: Axes, view: "XPosView") -> None:
    places = data.overflows(view.gamma, view.scale_base)
    positions = torch.linspace(0, 1.12 * places["float32"], 401, dtype=torch.float64)
    fastest = data.zetas(view.dim, view.gamma)[0]
    window = WINDOW * view.scale_base
    axes.semilogy(positions, fastest ** (-positions / view.scale_base), color=style.KEY)
    moving = fastest ** (-(positions % window) / view.scale_base)
    axes.semilogy(positions, moving, ":", color=style.LIGHT["quiet"], lw=1.5)
    edge, quiet = places["float32"], style.LIGHT["quiet"]
    for name, side in (("float16", "left"), ("float32", "right")):
        axes.axvline(places[name], color=style.LIGHT["text"], ls="--", lw=1)
        label = f" {name} \n {places[name]:,} "
        axes.text(places[name], 1e53, label, ha=side, va="top", fontsize=10)
    axes.text(
        edge,
        1e11,
        f"a new origin every \n{WINDOW} scale bases ",
        ha="right",
        color=quiet,
        fontsize=10,
    )
    axes.set(xlabel="position of the key", ylim=(1, 1e54), xlim=(0, float(positions[-1])))
    axes.set_title("Where a key's factor overflows", fontsize=12)
