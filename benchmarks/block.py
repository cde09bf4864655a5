"""The block against the floor under it and against the blocks of other packages.

    python -m benchmarks block                  every size: about two hours
    python -m benchmarks block 512              those of one dim
    python -m benchmarks block 512 float32      and one precision: a quarter of an hour

Forward (inference mode) and forward + backward, in float32 and bfloat16, in processor time of one
thread; and the peak of the memory that tensors take. Every figure is a multiple of the floor: the
same matrix products and attention, nothing else, by the faster of torch's fused kernel and plain
products. A cell is left out where its floor alone takes more than five seconds: on processors that
do not have bfloat16 it is emulated, and takes minutes.
"""

import gc
import itertools
import time
import warnings

import torch
from torch import nn

from benchmarks import charts, report
from benchmarks.measuring import Times, Work, interleave, peak_bytes, pin
from benchmarks.peers import FLOORS, OURS, PACKAGES, PEERS

DIMS = (512, 768)
LENGTHS = (128, 512, 2048, 4096)
DTYPES = (torch.float32, torch.bfloat16)
MODES = ("forward", "forward + backward")
CANDIDATES = FLOORS | OURS | PEERS
MEMORY_AT = 2048
LONGEST = 5.0  # seconds a floor may take
PICTURE = (
    "Time against length in multiples of the floor, forward and forward + backward, {}: "
    "the block, regular and flash, beside the layers of other packages."
)
LEFT_OUT = f"–: left out, because the floor alone takes more than {LONGEST:.0f} s."


def modules(dim: int, dtype: torch.dtype) -> dict[str, nn.Module]:
    """One of each, in training mode where only dropout, which is 0, would tell."""
    made = {}
    for name, make in CANDIDATES.items():
        torch.manual_seed(0)
        made[name] = make(dim).to(dtype)
    return made


def work(module: nn.Module, x: torch.Tensor, mode: str) -> Work:
    if mode == "forward":

        def once() -> object:
            with torch.inference_mode():
                return module(x)

    else:
        gradient = torch.ones_like(x)
        x = x.clone().requires_grad_()

        def once() -> object:
            module(x).backward(gradient)
            module.zero_grad()  # here, so that each run begins and ends with no gradient kept
            x.grad = None
            return None

    return once


def floor_of(times: dict[str, Times]) -> Times:
    return min((times[name] for name in FLOORS), key=lambda t: t.median)


def cell(dim: int, dtype: torch.dtype, mode: str, n: int) -> dict[str, Times]:
    """Times of all candidates at one size; none where it would take too long."""
    x = torch.randn(1, n, dim, generator=torch.Generator().manual_seed(0)).to(dtype)
    todo = {name: work(module, x, mode) for name, module in modules(dim, dtype).items()}
    alone = seconds(todo["floor, flash"])
    if alone > LONGEST:
        return {}
    times = interleave(todo, seconds=10.0, least=7 if alone < 1 else 5)
    gc.collect()
    return times


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def seconds(once: Work) -> float:
    start = time.process_time()
    once()
    return time.process_time() - start


def timed(dim: int, dtype: torch.dtype, mode: str) -> list[dict[str, Times]]:
    cells: list[dict[str, Times]] = []
    for n in LENGTHS:
        cells.append(cell(dim, dtype, mode, n) if not cells or cells[-1] else {})
        shown = {name: t.over(floor_of(cells[-1])) for name, t in cells[-1].items()}
        print(dim, dtype, mode, n, shown, flush=True)
    return cells


def rows_of(cells: list[dict[str, Times]]) -> list[list[str]]:
    """The rows of a table, a column a length, and how far the quartiles of each cell spread."""
    floors = [floor_of(times) if times else None for times in cells]
    rows = [["floor, ms", *(f"{1000 * f.median:.1f}" if f else "–" for f in floors)]]
    for name in CANDIDATES:
        ratios = (c[name].over(f) if f else "–" for c, f in zip(cells, floors, strict=True))
        rows.append([name, *ratios])
    return [*rows, ["half of the runs lie within", *map(spread, cells)]]


def spread(times: dict[str, Times]) -> str:
    """Between the quartiles of the candidate in the middle, in parts of its median."""
    parts = sorted((t.high - t.low) / t.median for t in times.values())
    return f"{parts[len(parts) // 2]:.1%}" if parts else "–"


def ratios(cells: list[dict[str, Times]]) -> dict[str, list[float]]:
    there = [c for c in cells if c]
    names = [name for name in CANDIDATES if name not in FLOORS]
    return {n: [c[n].median / floor_of(c).median for c in there] for n in names}


def weighed(dim: int, dtype: torch.dtype) -> str:
    """A table of the peak memory at one length, in multiples of the floor's."""
    columns: dict[str, dict[str, float]] = {}
    for mode in MODES:
        x = torch.randn(1, MEMORY_AT, dim).to(dtype)
        todo = {name: work(module, x, mode) for name, module in modules(dim, dtype).items()}
        if seconds(todo["floor, flash"]) < LONGEST:
            peaks = {name: peak_bytes(once) for name, once in todo.items()}
            columns[mode] = {name: peak / peaks["floor, flash"] for name, peak in peaks.items()}
            print("memory", dim, dtype, mode, columns[mode], flush=True)
    head = [f"peak memory, dim {dim}, {short(dtype)}, n = {MEMORY_AT}", *columns]
    return report.table(
        head, [[name, *(f"{c[name]:.2f}" for c in columns.values())] for name in CANDIDATES]
    )


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")  # of the peers
    pinned = pin()
    dims = [int(a) for a in arguments if a.isdecimal()] or DIMS
    dtypes = [dtype for dtype in DTYPES if short(dtype) in arguments] or DTYPES
    for dtype, dim in itertools.product(dtypes, dims):
        measured(dim, dtype, pinned)


def measured(dim: int, dtype: torch.dtype, pinned: str) -> None:
    """Measure and write, table by table: whoever stops it has what is done so far."""
    title = f"dim {dim}, {short(dtype)}"
    said = report.circumstances(f"python -m benchmarks block {dim} {short(dtype)}", PACKAGES)
    note = f"{said} Processor time, {pinned}; multiples of the faster floor. {LEFT_OUT}"
    picture = f"![{PICTURE.format(short(dtype))}](block-{dim}-{short(dtype)}.png)"
    memory, tables, panels = weighed(dim, dtype), [], {}
    for mode in MODES:
        cells = timed(dim, dtype, mode)
        if any(cells):
            panels[f"{title}, {mode}"] = ratios(cells)
            charts.ratios(f"block-{dim}-{short(dtype)}", LENGTHS, panels)
            head = [f"{title}, {mode}", *(f"n = {n}" for n in LENGTHS)]
            tables.append(report.table(head, rows_of(cells)))
        parts = [f"## The block, {title}", *([picture] if tables else []), *tables, memory, note]
        report.write(f"block {dim} {short(dtype)}", "\n\n".join(parts))
