"""Pictures of a benchmark's figures, beside benchmarks/README.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zeta_edu.views import style

FOLDER = Path(__file__).resolve().parent
COLOURS = (style.OUTPUT, style.QUERY, style.KEY, style.VALUE)
OTHERS = ("o", "s", "^", "v", "D", "P", "X")


class Curve(NamedTuple):
    """One thing measured at growing sizes."""

    name: str
    sizes: Sequence[int]
    values: Sequence[float]


def curves(name: str, panels: Mapping[str, Sequence[Curve]]) -> None:
    """Draw each panel's curves on logarithmic axes."""
    figure = Figure(figsize=(4.6 * len(panels), 3.8), dpi=130, layout="constrained")
    for axes, (title, drawn) in zip(side_by_side(figure, panels), panels.items(), strict=True):
        for curve, colour, marker in zip(drawn, COLOURS, OTHERS, strict=False):
            axes.plot(
                curve.sizes, curve.values, marker=marker, ms=4, color=colour, label=curve.name
            )
        axes.set(title=title, yscale="log", xlabel="positions")
        finish(axes, max((curve.sizes for curve in drawn), key=len))
    save(figure, name)


def ratios(
    name: str, lengths: Sequence[int], panels: Mapping[str, Mapping[str, Sequence[float]]]
) -> None:
    """Draw multiples of the floor against length: ours thick, peers thin."""
    figure = Figure(figsize=(5.2 * len(panels), 4.2), dpi=130, layout="constrained")
    for axes, (title, drawn) in zip(side_by_side(figure, panels), panels.items(), strict=True):
        ours = iter(COLOURS)
        for (candidate, values), marker in zip(drawn.items(), OTHERS * 2, strict=False):
            mine = candidate.startswith("zeta_edu")
            look = {"lw": 2.4, "color": next(ours)} if mine else {"lw": 1.0, "color": "0.55"}
            axes.plot(lengths[: len(values)], values, marker=marker, ms=4, label=candidate, **look)
        axes.axhline(1, color="black", lw=0.8)
        axes.set(title=title, xlabel="positions", ylabel="multiples of the floor's time")
        finish(axes, lengths)
    save(figure, name)


def side_by_side(figure: Figure, panels: Mapping[str, object]) -> list[Axes]:
    return list(figure.subplots(1, len(panels), squeeze=False).flat)


def finish(axes: Axes, ticks: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(ticks), [f"{tick:,}" for tick in ticks])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


def save(figure: Figure, name: str) -> None:
    figure.savefig(FOLDER / f"{name}.png", metadata={"Software": None})
