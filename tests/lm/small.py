"""Small trainings that the tests share."""

import torch

from zeta_edu.lm import TrainingOptions, TransformerLM


def new_model(**options):
    torch.manual_seed(0)
    shape = {"num_tokens": 300, "dim": 32, "depth": 2, "heads": 2, "dim_head": 16, "ff_mult": 2}
    return TransformerLM(**(shape | options))


def options(**changes):
    small = {"steps": 12, "batch_size": 4, "length": 16, "warmup": 3, "evaluate_every": 4}
    return TrainingOptions(**(small | {"save_every": 4} | changes))


class Losses(list):
    """The losses of every step; stops the training after ``stop`` steps."""

    def __init__(self, stop=None):
        super().__init__()
        self.stop = stop

    def __call__(self, progress):
        self.append((progress.step, progress.loss, progress.validation.get(progress.step)))
        if progress.step == self.stop:
            raise KeyboardInterrupt
