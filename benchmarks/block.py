"""The block against the floor under it and against the blocks of other packages.

    python -m benchmarks block              every size: about half an hour
    python -m benchmarks block 512          those of one dim

Forward (inference mode) and forward + backward, in float32 and bfloat16, in processor time of one
thread; and the peak of the memory that tensors take. Every figure is a multiple of the floor: the
same matrix products and attention, nothing else, by the faster of torch's fused kernel and plain
products.
"""

import gc
import itertools
import warnings

import torch
from torch import nn

from benchmarks import report
from benchmarks.measuring import Times, Work, interleave, peak_bytes, pin
from benchmarks.peers import FLOORS, OURS, PACKAGES, PEERS

DIMS = (512, 768)
LENGTHS = (128, 512, 2048, 4096)
DTYPES = (torch.float32, torch.bfloat16)
MODES = ("forward", "forward + backward")
CANDIDATES = FLOORS | OURS | PEERS
MEMORY_AT = 2048


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
            module.zero_grad()
            x.grad = None
            module(x).backward(gradient)
            return None

    return once


def floor_of(times: dict[str, Times]) -> Times:
    return min((times[name] for name in FLOORS), key=lambda t: t.median)


def cell(dim: int, dtype: torch.dtype, mode: str, n: int) -> dict[str, Times]:
    x = torch.randn(1, n, dim, generator=torch.Generator().manual_seed(0)).to(dtype)
    todo = {name: work(module, x, mode) for name, module in modules(dim, dtype).items()}
    times = interleave(todo, seconds=10.0, least=7)
    gc.collect()
    return times


def timed(dim: int, dtype: torch.dtype, mode: str) -> tuple[list[list[str]], list[str]]:
    """The rows of a table, a column a length, and how far the quartiles of each cell spread."""
    cells = [cell(dim, dtype, mode, n) for n in LENGTHS]
    floors = [floor_of(times) for times in cells]
    rows = [["floor, ms", *(f"{1000 * floor.median:.1f}" for floor in floors)]]
    for name in CANDIDATES:
        rows.append([name, *(c[name].over(f) for c, f in zip(cells, floors, strict=True))])
        print("  ".join([str(dim), str(dtype), mode, *rows[-1]]), flush=True)
    spread = [
        sorted((t.high - t.low) / t.median for t in times.values())[len(times) // 2]
        for times in cells
    ]
    return rows, [f"{s:.1%}" for s in spread]


def weighed(dim: int) -> list[list[str]]:
    """Peak memory at one length, in multiples of the floor's."""
    rows = []
    peaks = {}
    for dtype, mode in itertools.product(DTYPES, MODES):
        x = torch.randn(1, MEMORY_AT, dim).to(dtype)
        for name, module in modules(dim, dtype).items():
            peaks[name, dtype, mode] = peak_bytes(work(module, x, mode))
    floor = "floor, flash"
    for name in CANDIDATES:
        ratios = [
            peaks[name, dtype, mode] / peaks[floor, dtype, mode]
            for dtype, mode in itertools.product(DTYPES, MODES)
        ]
        rows.append([name, *(f"{ratio:.2f}" for ratio in ratios)])
        print("  ".join(["memory", str(dim), *rows[-1]]), flush=True)
    return rows


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")  # of the peers
    dims = [int(a) for a in arguments] or list(DIMS)
    pinned = pin()
    parts = ["## The block"]
    for dim, dtype, mode in itertools.product(dims, DTYPES, MODES):
        rows, spread = timed(dim, dtype, mode)
        head = [f"dim {dim}, {str(dtype).removeprefix('torch.')}, {mode}"]
        head += [f"n = {n}" for n in LENGTHS]
        rows.append(["half of the runs lie within", *spread])
        parts.append(report.table(head, rows))
    for dim in dims:
        head = [f"peak memory, dim {dim}, n = {MEMORY_AT}"]
        head += [
            f"{str(dtype).removeprefix('torch.')}, {mode}"
            for dtype, mode in itertools.product(DTYPES, MODES)
        ]
        parts.append(report.table(head, weighed(dim)))
    said = report.circumstances(" ".join(["python -m benchmarks block", *arguments]), PACKAGES)
    parts.append(f"{said} Processor time, {pinned}; multiples of the faster floor.")
    report.write("block", "\n\n".join(parts))
