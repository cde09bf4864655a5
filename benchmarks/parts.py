"""What the block does beyond the floor, part by part, in inference.

    python -m benchmarks parts          takes about a minute

The parts that the floor leaves out, each alone on tensors of the block's sizes, in processor time
of one thread, in parts of the floor's; and what a call costs that has hardly anything to compute.
"""

import torch

from benchmarks import report
from benchmarks.measuring import Work, interleave, pin
from benchmarks.peers import DIM_HEAD, Floor, Ours
from zeta_edu.feedforward import SwiGLU
from zeta_edu.norm import LayerNorm
from zeta_edu.rotary import apply_xpos, rotary_tables, rotate

DIM = 512
LENGTHS = (128, 512, 2048)
SMALL = 64  # a dim whose matrix products take no time


def parts(n: int) -> dict[str, Work]:
    heads = DIM // DIM_HEAD
    x, pairs = torch.randn(1, n, DIM), torch.randn(1, n, 8 * DIM)
    norm, gate = LayerNorm(DIM), SwiGLU()
    q, k = torch.randn(1, n, heads, DIM_HEAD), torch.randn(1, n, 1, DIM_HEAD)
    turned = torch.randn(1, heads, n, DIM_HEAD), torch.randn(1, 1, n, DIM_HEAD)
    cos, sin = (table[:, None] for table in rotary_tables(0, n, DIM_HEAD, x.device, x.dtype))
    return {
        "silu and its product": lambda: gate(pairs),
        "rotation": lambda: rotate(torch.cat((q, k), dim=2), cos, sin),
        "xPos": lambda: apply_xpos(*turned, 0, 512),
        "layer norm": lambda: norm(x),
        "the two sums": lambda: x + x + x,
    }


def call(module: torch.nn.Module, dim: int, n: int) -> Work:
    x = torch.randn(1, n, dim)
    return lambda: module(x)


@torch.inference_mode()
def main(arguments: list[str]) -> None:
    pinned = pin()
    columns = []
    for n in LENGTHS:
        work = {"floor": call(Floor(DIM), DIM, n), **parts(n)}
        columns.append(interleave(work, seconds=12.0, least=15))
    names = [name for name in columns[0] if name != "floor"]
    floors = [times["floor"].median for times in columns]
    rows = [["floor, ms", *(f"{1000 * floor:.1f}" for floor in floors)]]
    for name in names:
        shares = (c[name].median / f for c, f in zip(columns, floors, strict=True))
        rows.append([name, *(f"{share:.1%}" for share in shares)])
    print(*rows, sep="\n", flush=True)
    tiny = {"floor": Floor(SMALL), "zeta_edu, flash": Ours(SMALL, flash_attn=True)}
    fixed = interleave({name: call(m, SMALL, 1) for name, m in tiny.items()}, seconds=3.0)
    table = report.table(["part", *(f"n = {n}" for n in LENGTHS)], rows)
    calls = " and ".join(f"{1e6 * t.median:.0f} µs ({name})" for name, t in fixed.items())
    said = report.circumstances("python -m benchmarks parts", ["torch"])
    note = f"A call of dim {SMALL} with one position, which hardly computes, takes {calls}."
    text = f"## What is above the floor\n\n{table}\n\n{note}\n\n{said} Processor time, {pinned}."
    report.write("parts", text)
