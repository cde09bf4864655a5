"""Builds the lessons: percent source in, executed notebook out, the same bytes every time.

    python notebooks/build.py               every lesson
    python notebooks/build.py 01 gallery    the named ones
    python notebooks/build.py --check       build, write nothing, and say what would change
    python notebooks/build.py --no-run      keep the outputs, for changed words or a new address

A cell that raises without the tag ``raises-exception``, or that writes to stderr, stops the build.
"""

import argparse
import copy
import hashlib
import os
import re
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import zmq
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent
SOURCES = NOTEBOOKS / "source"
PROJECT = NOTEBOOKS.parent / "pyproject.toml"
CELL_TIMEOUT = 150
FOLDED = {"solution", "remove-cell"}  # tags of code that is folded away

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

COLAB = "https://colab.research.google.com/github/{repository}/blob/main/notebooks/{lesson}.ipynb"
BINDER = "https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/notebooks/{lesson}.ipynb"
ELSEWHERE = f"\n\nOpen it in [Colab]({COLAB}) or in [Binder]({BINDER})."
IN_COLAB = """\
# In Colab this installs what the lesson needs; elsewhere it does nothing.
import sys

if "google.colab" in sys.modules:
    wanted = "zeta-edu[colab] @ git+https://github.com/{repository}"
    get_ipython().run_line_magic("pip", f"install -q '{{wanted}}'")
"""


class BuildError(Exception):
    """A lesson that must not be written as it is; the message says which cell and why."""


def kernel_environment() -> dict[str, str]:
    """Return the environment that lessons run in, here and in the tests.

    One thread, so that sums are added in the same order on every machine; a fixed hash seed;
    no foreign matplotlib backend or IPython profile, which would change what a cell shows.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment |= {"PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false"}
    environment["IPYTHONDIR"] = str(Path(tempfile.gettempdir()) / "zeta_edu_ipython")
    environment.pop("MPLBACKEND", None)
    return environment


def find_sources(names: Iterable[str] = ()) -> list[Path]:
    """Return the sources of the named lessons, or of all, in order.

    Args:
        names: "01", "01-attention" or a path to the source.

    Raises:
        BuildError: a name fits no source.
    """
    sources = sorted(SOURCES.glob("*.py"))
    chosen = []
    for name in names:
        stem = Path(name).stem
        found = [source for source in sources if source.stem == stem]
        found = found or [source for source in sources if source.stem.startswith(f"{stem}-")]
        if not found:
            raise BuildError(f"no lesson {name!r}; there are {[s.stem for s in sources]}")
        chosen += found
    return chosen or sources


def read_source(path: Path) -> NotebookNode:
    """Return the notebook that a percent source describes, not executed, with ids that stay."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = NotebookNode(copy.deepcopy(METADATA))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    if repository := public_repository():
        open_elsewhere(notebook, path.stem, repository)
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        tags: list[str] = cell.metadata.get("tags", [])
        cell.metadata = NotebookNode({"tags": list(tags)} if tags else {})
        if FOLDED.intersection(tags) and cell.cell_type == "code":
            cell.metadata.jupyter = {"source_hidden": True}
        # From the text, not the place: an inserted cell leaves the other ids as they were.
        name = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[name] += 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"
    return notebook


def public_repository() -> str | None:
    """Return "owner/name" on GitHub, where pyproject.toml names it."""
    if not PROJECT.exists():
        return None
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    address: str | None = project.get("urls", {}).get("Repository")
    return address and address.removeprefix("https://github.com/")


def open_elsewhere(notebook: NotebookNode, lesson: str, repository: str) -> None:
    """Add, in place, the links to Colab and Binder, and the cell that installs in Colab."""
    notebook.cells[0].source += ELSEWHERE.format(lesson=lesson, repository=repository)
    cell = nbformat.v4.new_code_cell(IN_COLAB.format(repository=repository).rstrip("\n"))
    cell.metadata.tags = ["remove-cell"]  # it is not on the site, nor on exported pages
    notebook.cells.insert(1, cell)


def keep_outputs(notebook: NotebookNode, stored: NotebookNode) -> NotebookNode:
    """Return the notebook as a run would leave it, with the outputs of an earlier run.

    Raises:
        BuildError: code other than the cell for Colab differs from the code that ran.
    """
    notebook = copy.deepcopy(notebook)
    cells, earlier = list(lesson_code(notebook)), list(lesson_code(stored))
    if [cell.source for cell in cells] != [cell.source for cell in earlier]:
        raise BuildError("the code has changed since it ran: build it without --no-run")
    for cell, ran in zip(cells, earlier, strict=True):
        cell.outputs = ran.outputs
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    return notebook


def lesson_code(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """Yield the code cells of the lesson itself, without the one that installs in Colab."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and not cell.source.startswith(IN_COLAB.splitlines()[0]):
            yield cell


def execute(notebook: NotebookNode, folder: Path = NOTEBOOKS) -> NotebookNode:
    """Return the notebook with the outputs of a run from a fresh kernel in `folder`.

    Raises:
        BuildError: a cell raised without saying so, or wrote to stderr.
    """
    notebook = copy.deepcopy(notebook)
    client: Any = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=True,  # read by settle_outputs, then dropped
        extra_arguments=["--log-level=ERROR"],
        on_notebook_start=lambda **_: look_after_sending(client.kc.shell_channel),
    )
    try:
        client.execute(env=kernel_environment())
    except CellExecutionError as error:
        raise BuildError(str(error)) from None
    settle_outputs(notebook)
    return notebook


def look_after_sending(channel: Any) -> None:
    """Have a kernel's channel look for a message each time that one was sent.

    While a cell runs, nbclient sends what the Output widgets hold. zeromq takes notice of a reply
    that came just before and tells nobody: the build would wait for it up to the time limit.
    """
    send = channel.send

    def send_and_look(message: dict[str, Any]) -> None:
        send(message)
        channel.socket.get(zmq.EVENTS)

    channel.send = send_and_look


def settle_outputs(notebook: NotebookNode) -> None:
    """Make stored outputs the same on every run, in place, and refuse those that must not be.

    Widgets live only as long as their kernel: each is replaced by the picture it first showed.
    Of a wanted error only the last line stays, since the rest names files of this machine.

    Raises:
        BuildError: a cell wrote to stderr, or a widget's function raised.
    """
    widgets = notebook.metadata.get("widgets")
    states = widgets[WIDGET_STATE]["state"] if widgets else {}
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                raise BuildError(f"cell {number} writes to stderr:\n{output.text}")
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
            if "data" in output and WIDGET_VIEW in output.data:
                model = output.data.pop(WIDGET_VIEW)["model_id"]
                replace_widget(output, captured_outputs(states, model), number)
    notebook.metadata = NotebookNode(copy.deepcopy(METADATA))


def captured_outputs(states: dict[str, NotebookNode], model: str) -> list[NotebookNode]:
    """Return what the Output widgets inside a widget hold, in order."""
    state = states[model]["state"] if model in states else NotebookNode()
    found = list(state.get("outputs", []))
    for child in state.get("children", []):
        found += captured_outputs(states, child.removeprefix("IPY_MODEL_"))
    return found


def replace_widget(output: NotebookNode, captured: list[NotebookNode], number: int) -> None:
    """Give the output of a widget the first picture that the widget showed."""
    for inner in captured:
        if inner["output_type"] == "error" or inner.get("name") == "stderr":
            text = inner.get("evalue") or inner.get("text")
            raise BuildError(f"cell {number}: the function of the widget fails: {text}")
    for inner in captured:
        if "image/png" in inner.get("data", {}):
            output.data["image/png"] = inner["data"]["image/png"]
            output.metadata = NotebookNode(inner.get("metadata", {}))
            return


def to_text(notebook: NotebookNode) -> str:
    """Return the file's text: keys sorted, one final newline."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1, sort_keys=True).rstrip("\n") + "\n"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)


def build(source: Path, target: Path, check: bool = False, run: bool = True) -> bool:
    """Build one lesson; return whether its notebook is, or would be, changed.

    Raises:
        BuildError: a cell may not be written as it is; without a run, there are no outputs to keep.
    """
    old = target.read_text(encoding="utf-8") if target.exists() else None
    if run:
        notebook = execute(read_source(source), target.parent)
    elif old is None:
        raise BuildError("it never ran: build it without --no-run")
    else:
        notebook = keep_outputs(read_source(source), nbformat.reads(old, as_version=4))
    text = to_text(notebook)
    if text != old and not check:
        write(target, text)
    return text != old


def main(argv: list[str] | None = None) -> int:
    """Build the lessons named on the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Build notebooks/*.ipynb from notebooks/source.")
    parser.add_argument("lessons", nargs="*", help='such as "01" or "01-attention"; all if none')
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if one would change")
    parser.add_argument("--no-run", action="store_true", help="keep the outputs of the last run")
    arguments = parser.parse_args(argv)
    changed = 0
    try:
        for source in find_sources(arguments.lessons):
            start = time.perf_counter()
            print(f"{source.stem:<28}", end="", flush=True)
            target = NOTEBOOKS / f"{source.stem}.ipynb"
            differs = build(source, target, arguments.check, run=not arguments.no_run)
            changed += differs
            verdict = ("differs" if arguments.check else "written") if differs else "unchanged"
            print(f"{time.perf_counter() - start:6.1f} s  {verdict}")
    except BuildError as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        print(f"\nnot built: {plain}", file=sys.stderr)
        return 2
    return 1 if arguments.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
