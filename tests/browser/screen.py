"""A page in the browser, and the views on it, read through what they report as drawn."""

from pathlib import Path
from typing import Any

FIND = "[...document.querySelectorAll('*')].filter((node) => node.view)"


class Screen:
    """One page: `views()` are the views on it, `errors` what its scripts threw."""

    def __init__(
        self, browser: Any, where: str | Path, width: int = 1000, height: int = 900, **options: Any
    ) -> None:
        self.errors: list[str] = []
        self.refused: list[str] = []
        dark = options.pop("dark", False)
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            **options,
        )
        self.context.route("**/*", self.guard)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(where if isinstance(where, str) else where.as_uri())

    def guard(self, route: Any) -> None:
        url = route.request.url
        if url.startswith(("file:", "http://127.0.0.1:", "data:", "blob:")):
            route.continue_()
        else:
            self.refused.append(url)
            route.abort()

    def wait_for_views(self, count: int = 1) -> list["ViewOnScreen"]:
        """The views of the page, once so many of them have drawn themselves."""
        self.page.wait_for_function(f"() => {FIND}.length >= {count}", timeout=60_000)
        return [ViewOnScreen(self.page, index) for index in range(count)]

    def kernel(self) -> str | None:
        """The id of the kernel of the notebook shown in JupyterLab, if it has one."""
        path = "window.jupyterapp.shell.currentWidget.context.sessionContext.session?.kernel?.id"
        return self.page.evaluate(f"() => {path} ?? null")

    def close(self) -> None:
        self.context.close()


class ViewOnScreen:
    """The index-th view of a page."""

    def __init__(self, page: Any, index: int) -> None:
        self.page = page
        self.host = page.evaluate_handle(f"(index) => {FIND}[index]", index).as_element()

    def report(self) -> dict[str, Any]:
        return self.host.evaluate("(host) => host.view.report()")

    def wait_until_dark(self, dark: bool) -> None:
        code = "([host, dark]) => host.view.report().dark === dark"
        self.page.wait_for_function(code, arg=[self.host, dark], timeout=5_000)

    def matrix(self) -> list[list[float]]:
        """What the large map shows: a row for each of its rows of tiles."""
        drawn = self.report()
        values, columns = drawn["values"], drawn["columns"]
        return [values[i : i + columns] for i in range(0, len(values), columns)]

    def part(self, selector: str, index: int = 0) -> Any:
        """An element of the view, by CSS selector."""
        return self.host.evaluate_handle(
            "(host, [selector, index]) => host.shadowRoot.querySelectorAll(selector)[index]",
            [selector, index],
        ).as_element()

    def text(self, selector: str, index: int = 0) -> str:
        return self.part(selector, index).inner_text()

    def choose(self, name: str, value: str) -> None:
        """Click one of the radio buttons, as a mouse does."""
        self.part(f'input[name="{name}"][value="{value}"]').click()

    def pick(self, which: int, value: int) -> None:
        """Choose from a drop-down list: the 0th is the layer, the 1st the head."""
        self.part(".drop select", which).select_option(str(value))

    def control(self, name: str, inside: str = "") -> Any:
        """A control of the view by its name, or an element inside it."""
        return self.part(f'[data-control="{name}"] {inside}'.strip())

    def slide(self, name: str, value: float) -> None:
        """Set a slider; one over a logarithm takes the logarithm."""
        self.control(name, "input[type=range]").fill(str(value))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def cell(self, query: int, key: int) -> dict[str, float]:
        """Where in the map's canvas the middle of a cell lies."""
        drawn = self.report()
        plot, window = drawn["plot"], drawn["window"]
        return {
            "x": plot["left"] + (key - window["k0"] + 0.5) * plot["cell"],
            "y": plot["top"] + (query - window["q0"] + 0.5) * plot["height"],
        }

    def cell_on_page(self, query: int, key: int) -> tuple[float, float]:
        box, cell = self.part(".map canvas").bounding_box(), self.cell(query, key)
        return box["x"] + cell["x"], box["y"] + cell["y"]

    def hover_cell(self, query: int, key: int) -> None:
        self.part(".map canvas").hover(position=self.cell(query, key))

    def click_cell(self, query: int, key: int) -> None:
        self.part(".map canvas").click(position=self.cell(query, key))

    def pixel(self, query: int, key: int) -> list[int]:
        """The colour that the map has in the middle of a cell, [red, green, blue]."""
        cell = self.cell(query, key)
        code = """(canvas, [x, y]) => Array.from(canvas.getContext("2d").getImageData(
            x * devicePixelRatio, y * devicePixelRatio, 1, 1).data).slice(0, 3)"""
        return self.part(".map canvas").evaluate(code, [cell["x"], cell["y"]])
