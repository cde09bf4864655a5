"""Run by torchrun in test_torchrun.py: trains as told and writes down the losses of each part.

Each argument is KIND,FIRST,LAST,STATE: the kind of training, where it goes on from (0 for the
beginning), the step after which it stops, and the file of its state.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from tests.lm.small import new_model, options
from zeta_edu.lm import parallel, save_model, train


class Stopped(Exception):
    """Thrown after the last step that is wanted."""


def run(kind: str, first: str, last: str, state: str) -> list[tuple[int, float, float | None]]:
    model, losses = new_model(), []
    dropout = 0.2 if "dropout" in kind else 0.0
    for block in model.blocks:
        block.ff_out[1].p = dropout

    def report(progress):
        losses.append((progress.step, progress.loss, progress.validation.get(progress.step)))
        if progress.step == int(last):
            raise Stopped

    chosen = options(
        fsdp="fsdp" in kind, accumulate=2 if "parts" in kind else 1, clip=0.1, save_every=4
    )
    tokens = np.load("tokens.npy")
    saving = {"state": state, "resume": first != "0"}
    try:
        train(model, tokens, tokens, chosen, **saving, report=report)
        save_model(model, f"{state}.model")
    except Stopped:
        parallel.wait()
    return losses


if __name__ == "__main__":
    torch.set_num_threads(1)
    parallel.start("cpu")
    found = {word: run(*word.split(",")) for word in sys.argv[1:]}
    if parallel.is_first():
        Path("losses.json").write_text(json.dumps(found))
    parallel.finish()
