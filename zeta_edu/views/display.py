"""The one pipeline of all views: a live picture in a notebook, a page, a file, a widget."""

import base64
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from matplotlib.figure import Figure

from zeta_edu.files import write_atomically
from zeta_edu.views import bundle, style


@dataclass(frozen=True)
class Span:
    """The values of a control that moves without steps: every number from `low` to `high`."""

    low: float
    high: float


Control = range | Span | tuple[str | bool, ...]
"""What a control can be set to: whole numbers, numbers, or one of a few names or truth values."""


class View(ABC):
    """A picture that moves. Displayed in a notebook it is alive, and stays so without a kernel.

    A view prepares its numbers in Python and hands them to an ES module. What is displayed holds
    the numbers, the module, and a still picture with its text for readers without scripts.
    """

    modules: ClassVar[tuple[str, ...]]
    """The files of `js/` that draw this view, each after those it needs."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything the browser draws from, as JSON would hold it.

        "kind" is the view's name, "start" the values of its controls, "arrays" the coded numbers,
        and "empty", when it is not None, a sentence to show in place of a picture.
        """

    @abstractmethod
    def figure(self) -> Figure:
        """The same picture, still, as a matplotlib figure."""

    @abstractmethod
    def controls(self) -> dict[str, Control]:
        """What can be set, by name, and to which values."""

    @property
    @abstractmethod
    def title(self) -> str:
        """One line that says what is to be seen."""

    @property
    @abstractmethod
    def alt(self) -> str:
        """What the still picture shows, in words."""

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, str], dict[str, Any]]:
        figure = self.figure()
        png, width = style.picture(figure), style.css_width(figure)
        data = {
            "text/html": bundle.fragment(
                self.modules, self.state(), style.image_tag(png, self.alt, width)
            ),
            "image/png": base64.b64encode(png).decode("ascii"),
            "text/plain": f"{type(self).__name__}: {self.alt}",
        }
        return data, {"image/png": {"alt": self.alt, "width": width}}

    def html(self) -> str:
        """The view as one HTML page that needs nothing else: no network, no kernel."""
        return bundle.page(self.title, self._repr_mimebundle_()[0]["text/html"])

    def save(self, path: str | Path) -> Path:
        """Write the view to a file.

        Args:
            path: ends in `.html` (a page, alive), `.png` or `.svg` (the still picture).

        Returns:
            The path written to.

        Raises:
            ValueError: another ending.
        """
        path = Path(path)
        if path.suffix == ".html":
            content = self.html().encode()
        elif path.suffix == ".png":
            content = style.picture(self.figure())
        elif path.suffix == ".svg":
            content = style.drawing(self.figure())
        else:
            raise ValueError(f"path must end in .html, .png or .svg, got {str(path)!r}")
        write_atomically(path, content)
        return path

    def live(self) -> Any:
        """The view as an anywidget, whose controls are traits to read, set and link.

        Returns:
            An `anywidget.AnyWidget` with one trait for each of `controls()`.

        Raises:
            ImportError: anywidget is not installed.
        """
        import anywidget
        import traitlets

        start = self.state()["start"]
        traits: dict[str, Any] = {
            "_esm": bundle.script(self.modules),
            "state": traitlets.Dict(self.state()).tag(sync=True),
        }
        for name, allowed in self.controls().items():
            traits[name] = _trait(allowed, start[name]).tag(sync=True)
        return type(f"Live{type(self).__name__}", (anywidget.AnyWidget,), traits)()


def _trait(allowed: Control, start: Any) -> Any:
    """A trait that refuses what its control cannot be set to."""
    import traitlets

    if isinstance(allowed, range):
        return traitlets.Int(start, min=allowed.start, max=max(allowed.stop - 1, allowed.start))
    if isinstance(allowed, Span):
        return traitlets.Float(start, min=allowed.low, max=allowed.high)
    return traitlets.Enum(allowed, default_value=start)
