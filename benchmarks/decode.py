"""Decoding: one more position after a prompt, with each package's own cache.

    python -m benchmarks decode         takes about ten minutes

A layer of dim 512 with 8 heads of 64 and one head of keys and values, in inference mode, in
processor time of one thread. palm-rlhf-pytorch has no cache and reads everything again; torch's
layer has none and is left out.
"""

import warnings

import torch
from torch import nn

from benchmarks import report
from benchmarks.block import CANDIDATES, floor_of
from benchmarks.measuring import Times, Work, interleave, pin
from benchmarks.peers import PACKAGES, Step

DIM = 512
PROMPTS = (128, 1024, 4096)
DTYPES = (torch.float32, torch.bfloat16)
MOST = 400  # steps after a prompt, fewer than the decoders have room for
AT_ONCE = 8  # steps that are timed together: one takes less than a clock can tell


def stepper(module: nn.Module, prompt: torch.Tensor, at_once: int) -> Work:
    """Steps on from the prompt; from the prompt anew where the cache would overflow.

    Reading the prompt anew happens once in fifty times: no median shows it.
    """
    x = prompt[:, -1:].clone()
    step, taken = start(module, prompt), 0

    def once() -> None:
        nonlocal step, taken
        if taken + at_once > MOST:
            step, taken = start(module, prompt), 0
        with torch.inference_mode():
            for _ in range(at_once):
                step(x)
        taken += at_once

    return once


def start(module: nn.Module, prompt: torch.Tensor) -> Step:
    with torch.inference_mode():
        step: Step = module.decoder(prompt)  # type: ignore[operator]
    return step


def measured(dtype: torch.dtype, length: int) -> dict[str, Times]:
    todo: dict[str, Work] = {}
    prompt = torch.randn(1, length, DIM, generator=torch.Generator().manual_seed(0)).to(dtype)
    for name, make in CANDIDATES.items():
        torch.manual_seed(0)
        module = make(DIM).to(dtype).eval()
        if hasattr(module, "decoder"):
            todo[name] = stepper(module, prompt, 1 if name == "palm-rlhf-pytorch" else AT_ONCE)
    times = interleave(todo, seconds=20.0, least=7)
    return {
        name: t if name == "palm-rlhf-pytorch" else Times(*(part / AT_ONCE for part in t))
        for name, t in times.items()
    }


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    pinned = pin()
    cells = {(d, n): measured(d, n) for d in DTYPES for n in PROMPTS}
    floors = {key: floor_of(times) for key, times in cells.items()}
    head = ["one more position after", *(f"{n} ({str(d)[6:]})" for d, n in cells)]
    rows = [["floor, ms", *(f"{1000 * floor.median:.2f}" for floor in floors.values())]]
    for name in next(iter(cells.values())):
        rows.append([name, *(times[name].over(floors[key]) for key, times in cells.items())])
        print("  ".join(rows[-1]), flush=True)
    said = report.circumstances("python -m benchmarks decode", PACKAGES)
    note = f"{said} Processor time, {pinned}; multiples of the faster floor."
    report.write("decode", f"## Decoding\n\n{report.table(head, rows)}\n\n{note}")
