"""Training: tokens per second of a small language model of each kind of block, eager and compiled.

    python -m benchmarks training       takes about ten minutes

Four layers of dim 256, tied embeddings of 2,048 tokens, batches of 8 sequences of 256 tokens,
AdamW, float32, in processor time of one thread. All share everything but the layer.
"""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import report
from benchmarks.block import CANDIDATES
from benchmarks.measuring import Work, interleave, pin
from benchmarks.peers import PACKAGES

DIM, DEPTH, TOKENS, BATCH, LENGTH = 256, 4, 2048, 8, 256


class Model(nn.Module):
    """Embedding, layers, norm and the embedding again, over any kind of layer."""

    def __init__(self, layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, DIM)
        self.layers = nn.Sequential(*(layer(DIM) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(DIM, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.layers(self.embed(tokens))) @ self.embed.weight.T


def training(layer: Callable[[int], nn.Module], compiled: bool) -> Work:
    torch.manual_seed(0)
    model = Model(layer)
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(TOKENS, (BATCH, LENGTH + 1))

    def step() -> None:
        logits = run(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    pinned = pin()
    torch._dynamo.config.recompile_limit = 4 * len(CANDIDATES)  # all share `Model.forward`
    todo: dict[str, Work] = {}
    refused: dict[str, str] = {}
    for name, layer in CANDIDATES.items():
        todo[name] = training(layer, compiled=False)
        try:
            compiled = training(layer, compiled=True)
            compiled()
            todo[f"{name}, compiled"] = compiled
        except Exception as error:
            refused[name] = type(error).__name__
    times = interleave(todo, seconds=120.0, least=7)
    floor = min(
        (t for name, t in times.items() if name.startswith("floor")), key=lambda t: t.median
    )
    rows = []
    for name in CANDIDATES:
        row = [name]
        for kind in (name, f"{name}, compiled"):
            if kind in times:
                row += [f"{BATCH * LENGTH / times[kind].median:,.0f}", times[kind].over(floor)]
            else:
                row += [refused[name], "–"]
        rows.append(row)
        print("  ".join(row), flush=True)
    head = ["", "tokens/s", "of the floor's time", "tokens/s, compiled", "of the floor's time"]
    said = report.circumstances("python -m benchmarks training", PACKAGES)
    note = f"{said} Processor time, {pinned}; the floor is the fastest of the four kinds of floor."
    report.write("training", f"## Training\n\n{report.table(head, rows)}\n\n{note}")
