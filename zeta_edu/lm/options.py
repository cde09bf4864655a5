"""How to train, and where a training stands."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from zeta_edu.checks import random_seed


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. The learning rate is the peak; it falls to a tenth along a cosine.

    Args:
        steps: optimizer steps.
        batch_size: windows in a step.
        length: tokens in a window.
        accumulate: parts that a process cuts its share of a batch into, to save memory.
        learning_rate: highest learning rate.
        warmup: steps over which the learning rate rises from 0.
        weight_decay: decoupled decay of the blocks' matrices.
        clip: largest norm of the gradient.
        seed: of the windows.
        bf16: compute in bfloat16 where that is safe, by autocast; weights stay float32.
        compile: compile the loss with torch.compile.
        fsdp: under torchrun, give each process a part of the weights, gradients and moments
            (FSDP2) instead of a copy of all (DDP).
        evaluate_every: steps between validations; the last step always validates.
        save_every: steps between checkpoints of the whole state; the last step always saves.
    """

    steps: int
    batch_size: int = 16
    length: int = 256
    accumulate: int = 1
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    bf16: bool = False
    compile: bool = False
    fsdp: bool = False
    evaluate_every: int = 250
    save_every: int = 250

    def __post_init__(self) -> None:
        at_least_one = ("steps", "batch_size", "length", "accumulate", "evaluate_every")
        for name in (*at_least_one, "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        random_seed("seed", self.seed)
        for name in ("warmup", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite, not negative, got {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate must divide batch_size, got {self.accumulate} and {self.batch_size}"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What a training that goes on must share with the one it goes on from."""
        free = ("evaluate_every", "save_every", "fsdp")
        return {name: value for name, value in asdict(self).items() if name not in free}

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one step reads."""
        return self.batch_size * self.length


@dataclass
class Progress:
    """Where a training stands, given to `report` after every step.

    `tokens` counts those read so far, `loss` is the last step's, in nats per token, and
    `validation` holds the validation losses by step; `accuracy`, of a task with known answers,
    the share of them that the model gave.
    """

    step: int = 0
    tokens: int = 0
    loss: float = math.nan
    gradient_norm: float = math.nan
    learning_rate: float = 0.0
    seconds: float = 0.0
    validation: dict[int, float] = field(default_factory=dict)
    accuracy: dict[int, float] = field(default_factory=dict)
