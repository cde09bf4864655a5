"""How time and memory of the block grow: with length, batch, depth, and the position of a step.

    python -m benchmarks scaling        takes about fifteen minutes

Layers of dim 512 with 8 heads of 64 and one head of keys and values, float32, in processor time of
one thread. An exponent is the slope of a straight line through the logarithms, by least squares:
1 is proportional, 2 quadratic; `at the end` is that of the last doubling alone.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from benchmarks import charts, report
from benchmarks.block import work
from benchmarks.charts import Curve
from benchmarks.decode import AT_ONCE, stepper
from benchmarks.measuring import Work, interleave, peak_bytes, pin
from benchmarks.peers import Floor, Ours

DIM = 512
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16_384)
REGULAR_UP_TO = 4096
BATCHES = (1, 2, 4, 8, 16)
DEPTHS = (1, 2, 4, 8, 16)
POSITIONS = (128, 512, 2048, 4096, 8192, 16_384)
MODES = ("forward", "forward + backward")
PICTURE = (
    "Time and memory against length, and a cached step against its position, on logarithmic axes. "
    "Memory with flash attention is a straight line of slope 1, with gradients as soon as it "
    "outgrows those of the weights."
)


def exponent(curve: Curve) -> float:
    x, y = (torch.tensor(list(v), dtype=torch.float64).log() for v in (curve.sizes, curve.values))
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / (x @ x))


def row(curve: Curve, sizes: Sequence[int], digits: int) -> list[str]:
    shown = dict(zip(curve.sizes, curve.values, strict=True))
    cells = [f"{shown[size]:,.{digits}f}" if size in shown else "–" for size in sizes]
    end = Curve(curve.name, curve.sizes[-2:], curve.values[-2:])
    return [curve.name, *cells, f"{exponent(curve):.2f}", f"{exponent(end):.2f}"]


def layer(flash: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return Ours(DIM, flash_attn=flash)


def of(make: Callable[[], nn.Module], mode: str, batch: int = 1, n: int = 512) -> Work:
    x = torch.randn(batch, n, DIM, generator=torch.Generator().manual_seed(0))
    return work(make(), x, mode)


def milliseconds(once: Work) -> float:
    return 1000 * interleave({"": once}, seconds=2.0, least=3)[""].median


def megabytes(once: Work) -> float:
    return peak_bytes(once) / 1e6


def curve(
    name: str, sizes: Sequence[int], once: Callable[[int], Work], measure: Callable[[Work], float]
) -> Curve:
    made = Curve(name, sizes, [measure(once(size)) for size in sizes])
    print("  ".join(row(made, sizes, 2)), flush=True)
    return made


def by_length(measure: Callable[[Work], float]) -> list[Curve]:
    short = [n for n in LENGTHS if n <= REGULAR_UP_TO]
    curves = []
    for mode in MODES:
        curves += [
            curve(f"flash, {mode}", LENGTHS, lambda n, m=mode: of(layer, m, n=n), measure),
            curve(
                f"regular, {mode}",
                short,
                lambda n, m=mode: of(lambda: layer(False), m, n=n),
                measure,
            ),
        ]
    return curves


def by_batch_and_depth() -> list[Curve]:
    curves = []
    for mode in MODES:

        def wide(batch: int, mode: str = mode) -> Work:
            return of(layer, mode, batch)

        def deep(depth: int, mode: str = mode) -> Work:
            return of(lambda: nn.Sequential(*(layer() for _ in range(depth))), mode)

        curves += [
            curve(f"batch, {mode}, ms", BATCHES, wide, milliseconds),
            curve(f"batch, {mode}, MB", BATCHES, wide, megabytes),
            curve(f"depth, {mode}, ms", DEPTHS, deep, milliseconds),
            curve(f"depth, {mode}, MB", DEPTHS, deep, megabytes),
        ]
    return curves


def by_position() -> list[Curve]:
    """One step with the cache, and the floor's, whose work grows too: it reads all keys."""
    values: dict[str, list[float]] = {"zeta_edu": [], "floor": []}
    for position in POSITIONS:
        prompt = torch.randn(1, position, DIM, generator=torch.Generator().manual_seed(0))
        todo = {
            "zeta_edu": stepper(layer(), prompt, AT_ONCE),
            "floor": stepper(Floor(DIM), prompt, AT_ONCE),
        }
        for name, times in interleave(todo, seconds=10.0, least=7).items():
            values[name].append(1000 * times.median / AT_ONCE)
    made = [Curve(f"{name}, one step", POSITIONS, steps) for name, steps in values.items()]
    for one in made:
        print("  ".join(row(one, POSITIONS, 2)), flush=True)
    return made


def table(title: str, sizes: Sequence[int], curves: Sequence[Curve], digits: int) -> str:
    head = [title, *(f"{size:,}" for size in sizes), "exponent", "at the end"]
    return report.table(head, [row(c, sizes, digits) for c in curves])


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    pinned = pin()
    times, memory = by_length(milliseconds), by_length(megabytes)
    others, steps = by_batch_and_depth(), by_position()
    charts.curves("scaling", {"time, ms": times, "memory, MB": memory, "a step, ms": steps})
    said = report.circumstances("python -m benchmarks scaling", ("torch",))
    memory_is = "memory is what tensors take beyond the weights and the input, as torch records it"
    parts = [
        "## How it grows",
        f"![{PICTURE}](scaling.png)",
        table("length: time, ms", LENGTHS, times, 1),
        table("length: peak memory, MB", LENGTHS, memory, 1),
        table("batch or depth, n = 512", BATCHES, others, 1),
        table("a cached step after so many positions, ms", POSITIONS, steps, 2),
        f"{said} Processor time, {pinned}. Forward is in inference mode; {memory_is}.",
    ]
    report.write("scaling", "\n\n".join(parts))
