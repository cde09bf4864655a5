"""What every test run shares: fixed surroundings, and lessons compared as they were built.

nbval runs each notebook and compares its outputs with the stored ones. As it comes it differs from
the build in two ways, mended here: it runs cells without history, so that a trailing ``;`` is not
honoured, and it takes what an Output widget has captured for the cell's own output. And it compares
text: the packed numbers of a view, whose last bit may differ between processors, are unpacked and
compared as numbers.
"""

import importlib.util
import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# The same examples on every run: what fails here fails everywhere.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

# Before torch is imported anywhere: two workers on two cores, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent
SECONDS_PER_LESSON = 60
SECONDS_OF = {"12": 150, "13": 150}
STATE = re.compile(r'(?<=<script type="application/json">).*?(?=</script>)', re.DOTALL)
CAPTURED = ("stream", "display_data", "execute_result", "clear_output")

collect_ignore = ["notebooks/build.py"]


def load_build() -> Any:
    """Return notebooks/build.py as a module."""
    spec = importlib.util.spec_from_file_location("lesson_build", ROOT / "notebooks" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def lesson_build() -> Any:
    """The build of the lessons, as a module."""
    return load_build()


@pytest.fixture(name="settle_numbers")
def settle_numbers_of_the_comparison() -> Any:
    """The comparison's treatment of packed numbers."""
    return settle_numbers


class Captures:
    """Follows the Output widgets of one kernel: which cells' outputs go to them just now."""

    def __init__(self) -> None:
        self.widgets: dict[str, str] = {}

    def hides(self, message: dict[str, Any]) -> bool:
        """Take one message in; return whether it is shown in a widget and not in the cell."""
        kind, content = message["msg_type"], message["content"]
        if kind in ("comm_open", "comm_msg"):
            self.follow(content["comm_id"], content["data"].get("state", {}))
        if kind not in CAPTURED or message["parent_header"].get("msg_id") not in self.captured():
            return False
        return content.get("name") != "stderr"

    def captured(self) -> set[str]:
        return {message_id for message_id in self.widgets.values() if message_id}

    def follow(self, comm: str, state: dict[str, Any]) -> None:
        if state.get("_model_name") == "OutputModel" or comm in self.widgets:
            self.widgets[comm] = state.get("msg_id", self.widgets.get(comm, ""))


def settle_numbers(page: str, stored: str) -> str:
    """Return the page with the stored state of a view wherever its own is equal within rounding."""
    new, old = STATE.findall(page), STATE.findall(stored)
    if len(new) != len(old):
        return page
    for mine, theirs in zip(new, old, strict=True):
        if mine != theirs and equal_states(json.loads(mine), json.loads(theirs)):
            page = page.replace(mine, theirs, 1)
    return page


def equal_states(one: Any, other: Any) -> bool:
    """Return whether two states differ by no more than the rounding of their numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return False
        if {"shape", "dtype", "data"} <= one.keys():
            return equal_numbers(one, other)
        return all(equal_states(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(equal_states(*pair) for pair in pairs)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    return type(one) is type(other) and bool(one == other)


def equal_numbers(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two packed arrays differ by no more than their coding rounds."""
    import numpy as np

    from zeta_edu.views import codec

    if (one["shape"], one["dtype"]) != (other["shape"], other["dtype"]):
        return False
    rounding = 1e-6 + 2 * max(one["error"], other["error"])
    first, second = codec.decode(one), codec.decode(other)
    return bool(np.allclose(first, second, rtol=1e-5, atol=rounding, equal_nan=True))


class TimeBudget(pytest.Item):
    """The last item of a lesson: its cells together took no longer than a learner should wait."""

    def runtest(self) -> None:
        limit = SECONDS_OF.get(self.path.stem[:2], SECONDS_PER_LESSON)
        spent = self.parent.seconds_spent  # type: ignore[union-attr]
        if spent > limit:
            pytest.fail(f"{self.path.name} ran for {spent:.0f} s; its budget is {limit} s")

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"{self.path.name}::time budget"


def mend_nbval() -> None:
    """Make nbval run a notebook as the build does."""
    from nbval import kernel, plugin

    start_kernel, collect = kernel.start_new_kernel, plugin.IPyNbFile.collect
    run_cell, compare = plugin.IPyNbCell.runtest, plugin.IPyNbCell.compare_outputs

    def start_in_the_build_environment(*arguments: Any, **options: Any) -> Any:
        return start_kernel(*arguments, env=load_build().kernel_environment(), **options)

    def execute_with_history(self: Any, source: str, allow_stdin: bool | None = None) -> Any:
        return self.kc.execute(
            source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
        )

    def message_not_captured(self: Any, timeout: float | None = None, stream: str = "iopub") -> Any:
        while True:
            message = self.kernel.get_message(stream, timeout=timeout)
            if not self.captures.hides(message):
                return message

    def collect_with_budget(self: Any) -> Any:
        self.captures, self.seconds_spent = Captures(), 0.0
        yield from collect(self)
        yield TimeBudget.from_parent(self, name="time budget")

    def run_timed(self: Any) -> None:
        start = time.perf_counter()
        try:
            run_cell(self)
        finally:
            self.parent.seconds_spent += time.perf_counter() - start

    def compare_numbers_as_numbers(self: Any, new: Any, stored: Any, skip: Any = None) -> bool:
        kind = "text/html"
        pages = [
            [one.data for one in outs if kind in one.get("data", {})] for outs in (new, stored)
        ]
        for mine, theirs in zip(*pages, strict=False):
            mine[kind] = settle_numbers(mine[kind], theirs[kind])
        return bool(compare(self, new, stored, skip))

    kernel.start_new_kernel = start_in_the_build_environment
    kernel.RunningKernel.execute_cell_input = execute_with_history
    plugin.IPyNbFile.get_kernel_message = message_not_captured
    plugin.IPyNbFile.collect = collect_with_budget
    plugin.IPyNbCell.runtest = run_timed
    plugin.IPyNbCell.compare_outputs = compare_numbers_as_numbers


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("nbval"):
        config.option.nbval_sanitize_with = str(ROOT / "tests" / "lessons" / "sanitize.cfg")
        mend_nbval()
