"""The attention view against BertViz and CircuitsVis, on the same tensors, in one browser.

    pip install -c constraints.txt -e ".[bench]"
    python -m benchmarks views      (or "views 2" for the first two sizes; the last takes minutes)

Measured: what has to reach the browser; the time from opening the page to the first picture; the
time from the choice of another layer to the next frame; and whether it draws with the network off.
BertViz loads its libraries from the network; they are taken from npm and served to it without
delay. CircuitsVis is asked for its offline form, which carries its script.
"""

import multiprocessing
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import report

SHAPES = ((2, 4, 16), (6, 8, 64), (12, 8, 256))
OPENINGS = 5
PATIENCE = 120  # seconds for one opening; a page that took longer is not opened again
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
# What BertViz asks the network for, and where npm has it.
LIBRARIES = {
    "require.js/2.3.6/require.min.js": ("requirejs@2.3.6", "require.js"),
    "d3/5.7.0/d3.min": ("d3@5.7.0", "dist/d3.min.js"),
    "jquery/2.0.0/jquery.min": ("jquery@2.1.4", "dist/jquery.min.js"),
}


class Tool(NamedTuple):
    """A way to show attention: how its page is made, when it has drawn, how a layer is chosen."""

    name: str
    make: Callable[[torch.Tensor, list[str]], str]
    drawn: str
    choose_layer: str


def ours(weights: torch.Tensor, tokens: list[str]) -> str:
    from zeta_edu.views import attention_view

    return attention_view(weights, tokens).html()


def bertviz(weights: torch.Tensor, tokens: list[str]) -> str:
    from bertviz import head_view

    made = head_view([layer[None] for layer in weights], tokens, html_action="return")
    return str(made.data)


def circuitsvis(weights: torch.Tensor, tokens: list[str]) -> str:
    from circuitsvis.attention import attention_heads

    made = attention_heads(attention=weights.flatten(0, 1), tokens=tokens)
    return f"<!DOCTYPE html><meta charset=utf-8><body>{made.local_src}"


TOOLS = (
    Tool(
        "zeta_edu",
        ours,
        "[...document.querySelectorAll('*')].some((node) => node.view?.firstDraw)",
        """(layer, heads) => {
            const { view } = [...document.querySelectorAll('*')].find((node) => node.view);
            const select = view.node.querySelector('.drop select');
            select.value = layer;
            select.dispatchEvent(new Event('change'));
        }""",
    ),
    Tool(
        "BertViz",
        bertviz,
        "document.querySelectorAll('#vis svg line, #vis svg rect').length > 0",
        """(layer, heads) => {
            const select = document.querySelector('#layer');
            select.value = layer;
            select.dispatchEvent(new Event('change'));
        }""",
    ),
    Tool(
        "CircuitsVis",
        circuitsvis,
        "document.querySelectorAll('canvas').length > 1",
        "(layer, heads) => document.querySelectorAll('h4')[layer * heads].parentElement.click()",
    ),
)

FIRST = """() => new Promise((done) => {
    const look = () => {
        const now = performance.now();
        if (DRAWN) done(now);
        else if (now > PATIENCE) done(null);
        else requestAnimationFrame(look);
    };
    look();
})"""
CHANGE = """async ([layer, heads]) => {
    const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    await frame();
    const began = performance.now();
    (CHOOSE)(layer, heads);
    await frame();
    return performance.now() - began;
}"""


def causal(layers: int, heads: int, tokens: int) -> torch.Tensor:
    scores = torch.randn(layers, heads, tokens, tokens, generator=torch.Generator().manual_seed(0))
    return scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf).softmax(-1)


def fetch_libraries(folder: Path) -> dict[str, str]:
    wanted = [package for package, _ in LIBRARIES.values()]
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder]
    subprocess.run([*command, *wanted], check=True, capture_output=True)
    return {
        address: (folder / "node_modules" / package.partition("@")[0] / path).read_text()
        for address, (package, path) in LIBRARIES.items()
    }


def measure(
    tool: str, page: Path, libraries: dict[str, str], shape: tuple[int, int, int]
) -> tuple[float, list[float]]:
    """Open a page once; return milliseconds to the first picture and of changes of layer."""
    from playwright.sync_api import sync_playwright

    chosen = next(one for one in TOOLS if one.name == tool)
    look = FIRST.replace("DRAWN", chosen.drawn).replace("PATIENCE", str(1000 * PATIENCE))
    change = CHANGE.replace("CHOOSE", chosen.choose_layer)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        shown = browser.new_page(viewport={"width": 1200, "height": 900})
        shown.route("http*://**/*", lambda route: serve(route, libraries))
        shown.goto(page.as_uri(), wait_until="commit", timeout=1000 * PATIENCE)
        first = shown.evaluate(look)
        if first is None:
            raise TimeoutError
        layers = range(1, min(shape[0], 4))
        changes = [shown.evaluate(change, [layer, shape[1]]) for layer in layers]
        browser.close()
    return first, changes


def opened(*arguments: Any) -> tuple[float, list[float]] | None:
    """Measure once, in a process of its own: a page that keeps the browser busy cannot be stopped.

    None where the page does not draw in time, or brings the browser down.
    """
    pool = multiprocessing.get_context("spawn").Pool(1)
    try:
        return pool.apply_async(measure, arguments).get(PATIENCE)
    except Exception as error:
        print(f"{arguments[0]}: {type(error).__name__}", flush=True)
        return None
    finally:
        pool.terminate()


def measured(
    pages: dict[str, Path], libraries: dict[str, str], shape: tuple[int, int, int]
) -> dict[str, list[str]]:
    """The two medians of each tool in words; the tools take turns."""
    firsts: dict[str, list[float]] = {name: [] for name in pages}
    changes: dict[str, list[float]] = {name: [] for name in pages}
    left_out: set[str] = set()
    for _ in range(OPENINGS):
        for name, page in pages.items():
            if name in left_out:
                continue
            once = opened(name, page, libraries, shape)
            if once is None:
                left_out.add(name)
            else:
                firsts[name].append(once[0])
                changes[name].extend(once[1])
    return {
        name: [
            f"{statistics.median(t):.0f}" if t else "none" for t in (firsts[name], changes[name])
        ]
        for name in pages
    }


def serve(route: Any, libraries: dict[str, str]) -> None:
    for address, text in libraries.items():
        if address in route.request.url:
            route.fulfill(body=text, content_type="text/javascript")
            return
    route.abort()


def draws_offline(tool: Tool, page: Path) -> str:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        shown = browser.new_page()
        shown.route("http*://**/*", lambda route: route.abort())
        shown.goto(page.as_uri())
        shown.wait_for_timeout(3000)
        drawn = shown.evaluate(tool.drawn)
        browser.close()
    return "yes" if drawn else "no"


def compare(folder: Path, libraries: dict[str, str], sizes_wanted: int) -> list[list[str]]:
    rows = []
    for shape in SHAPES[:sizes_wanted]:
        weights, words = causal(*shape), [f"t{i}" for i in range(shape[2])]
        pages = {tool.name: folder / f"{tool.name}.html" for tool in TOOLS}
        for tool in TOOLS:
            pages[tool.name].write_text(tool.make(weights, words), encoding="utf-8")
        times = measured(pages, libraries, shape)
        for tool in TOOLS:
            page = pages[tool.name]
            needed = [text for address, text in libraries.items() if address in page.read_text()]
            size = page.stat().st_size + sum(map(len, needed))
            row = [" × ".join(map(str, shape)), tool.name, f"{size / 1e6:.2f}", *times[tool.name]]
            rows.append([*row, draws_offline(tool, page) if shape == SHAPES[0] else "–"])
            print("  ".join(rows[-1]), flush=True)
    return rows


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = int(arguments[0]) if arguments else len(SHAPES)
        rows = compare(folder, fetch_libraries(folder), wanted)
    head = ["layers × heads × tokens", "", "needed, MB", "first picture, ms", "another layer, ms"]
    said = report.circumstances(
        " ".join(["python -m benchmarks views", *arguments]), ["torch", "bertviz", "circuitsvis"]
    )
    text = f"## Views\n\n{report.table([*head, 'draws offline'], rows)}\n\n{said} {NOTE}"
    report.write("views", text)


NOTE = (
    f"Medians of {OPENINGS} openings in headless Chromium, in which the tools take turns; none, "
    f"where an opening and three changes of layer took more than {PATIENCE} s. The size is all "
    "that has to reach the browser: BertViz's `head_view` with require.js, d3 and jQuery, which it "
    "loads from the network and which are served to it here without delay; CircuitsVis' "
    "`attention_heads`, all layers' heads in one, in its offline form. Whether a page draws "
    "offline was tried with the smallest."
)
