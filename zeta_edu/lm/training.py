"""Training: a loop short enough to read, that can stop anywhere and go on to the same numbers."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Integer
from torch import Tensor
from torch.optim import AdamW, Optimizer

from zeta_edu.lm.data import TokenWindows, cut_windows
from zeta_edu.lm.model import TransformerLM
from zeta_edu.lm.resume import restore_state, save_state

LossFunction = Callable[[Tensor, Tensor], Tensor]

# A quick validation reads this many windows, spread evenly over the held-out text.
_VALIDATION_WINDOWS = 64
_ADVICE = "a lower learning rate may help"


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. The learning rate is the peak; it falls to a tenth along a cosine.

    Args:
        steps: optimizer steps.
        batch_size: windows in a step.
        length: tokens in a window.
        accumulate: parts that a step's batch is cut into, to save memory; divides batch_size.
        learning_rate: highest learning rate.
        warmup: steps over which the learning rate rises from 0.
        weight_decay: decoupled decay of the blocks' matrices.
        clip: largest norm of the gradient.
        seed: of the windows.
        bf16: compute in bfloat16 where that is safe, by autocast; weights stay float32.
        compile: compile the loss with torch.compile.
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
    evaluate_every: int = 250
    save_every: int = 250

    def __post_init__(self) -> None:
        at_least_one = ("steps", "batch_size", "length", "accumulate", "evaluate_every")
        for name in (*at_least_one, "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
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
        free = ("evaluate_every", "save_every")
        return {name: value for name, value in asdict(self).items() if name not in free}

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one step reads."""
        return self.batch_size * self.length


@dataclass
class Progress:
    """Where a training stands, given to `report` after every step.

    `tokens` counts those read so far, `loss` is the last step's, in nats per token, and
    `validation` holds the validation losses by step.
    """

    step: int = 0
    tokens: int = 0
    loss: float = math.nan
    gradient_norm: float = math.nan
    learning_rate: float = 0.0
    seconds: float = 0.0
    validation: dict[int, float] = field(default_factory=dict)


def train(
    model: TransformerLM,
    tokens: Integer[np.ndarray, " tokens"],
    validation_tokens: Integer[np.ndarray, " validation_tokens"],
    options: TrainingOptions,
    *,
    state: str | Path | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> Progress:
    """Train a model to predict the next token.

    Args:
        model: trained in place, on the device it is on.
        tokens: the training text as ids.
        validation_tokens: held-out text as ids.
        options: how to train.
        state: file for checkpoints of the whole state; none are written when not given.
        resume: go on from the checkpoint in `state`. On the CPU the losses that follow are,
            bit for bit, those of a training that never stopped.
        report: called after every step.

    Returns:
        Where the training stands at its end.

    Raises:
        ValueError: a text shorter than one window, or a checkpoint of another training.
        FloatingPointError: the loss or the gradient is not finite any more; the checkpoint
            before it stays.
    """
    windows = TokenWindows(tokens, options.batch_size, options.length, options.seed)
    loss_function = make_loss(model, options)
    optimizer = make_optimizer(model, options)
    identity = {**options.identity, "model": model.config, "text": fingerprint(tokens)}
    progress = Progress()
    if resume:
        progress = Progress(**restore_state(state, model, optimizer, identity))
    model.train()
    for step in range(progress.step, options.steps):
        started = time.perf_counter()
        set_learning_rate(optimizer, options, step)
        progress.loss = backward(loss_function, windows.batch(step), options.accumulate, model)
        progress.gradient_norm = update(model, optimizer, options.clip)
        progress.step, progress.tokens = step + 1, progress.tokens + options.tokens_per_step
        progress.learning_rate = optimizer.param_groups[0]["lr"]
        progress.seconds += time.perf_counter() - started
        if is_due(step + 1, options.evaluate_every, options.steps):
            loss = evaluate(model, validation_tokens, options.length, options.bf16)
            progress.validation[step + 1] = loss
        if state is not None and is_due(step + 1, options.save_every, options.steps):
            save_state(state, model, optimizer, identity, asdict(progress))
        if report is not None:
            report(progress)
    return progress


def make_loss(model: TransformerLM, options: TrainingOptions) -> LossFunction:
    """Return the function (inputs, targets) -> mean cross-entropy, compiled if asked for."""

    def loss_function(inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=options.bf16):
            logits = model(inputs)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return torch.compile(loss_function) if options.compile else loss_function


def make_optimizer(model: TransformerLM, options: TrainingOptions) -> AdamW:
    """Return AdamW that decays the blocks' matrices and nothing else.

    Gains are left alone because decay would pull them to 0, away from their resting place 1;
    the embedding, because the row of a rare token would shrink between its few gradients.
    """
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and name != "embedding.weight"
        (decayed if is_matrix else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95), fused=True)


def set_learning_rate(optimizer: Optimizer, options: TrainingOptions, step: int) -> None:
    """Set the rate of a step: up in a line, then down a cosine to a tenth of the peak."""
    if step < options.warmup:
        factor = (step + 1) / options.warmup
    else:
        done = (step - options.warmup) / max(1, options.steps - options.warmup)
        factor = 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate * factor


def backward(
    loss_function: LossFunction, batch: tuple[Tensor, Tensor], parts: int, model: TransformerLM
) -> float:
    """Add a batch's gradients, part by part, and return its mean loss.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    device = model.embedding.weight.device
    total = 0.0
    for inputs, targets in zip(*(side.chunk(parts) for side in batch), strict=True):
        loss = loss_function(inputs.to(device), targets.to(device)) / parts
        loss.backward()
        total += loss.item()
    if not math.isfinite(total):
        raise FloatingPointError(f"the loss became {total}; {_ADVICE}")
    return total


def update(model: TransformerLM, optimizer: Optimizer, clip: float) -> float:
    """Clip the gradients, take one optimizer step, and return the norm before clipping.

    Raises:
        FloatingPointError: the norm is not finite; the weights are as they were.
    """
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip).item()
    if not math.isfinite(norm):
        raise FloatingPointError(f"the gradient's norm became {norm}; {_ADVICE}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


@torch.no_grad()
def evaluate(
    model: TransformerLM,
    tokens: Integer[np.ndarray, " tokens"],
    length: int,
    bf16: bool = False,
    windows: int | None = _VALIDATION_WINDOWS,
) -> float:
    """Return the mean loss in nats per token over windows spread evenly over a text.

    Args:
        model: left in the mode it was in.
        tokens: the text as ids, at least two.
        length: tokens in a window; a shorter text is one window.
        bf16: compute in bfloat16 by autocast.
        windows: how many; all that fit side by side when None.
    """
    if len(tokens) < 2:
        raise ValueError(f"the validation text has {len(tokens)} tokens; at least 2 are needed")
    length = min(length, len(tokens) - 1)
    fitting = (len(tokens) - 1) // length
    starts = np.arange(fitting) * length
    if windows is not None and windows < fitting:
        starts = starts[np.linspace(0, fitting - 1, windows).astype(int)]
    device, was_training = model.embedding.weight.device, model.training
    model.eval()
    total = 0.0
    for part in np.array_split(starts, math.ceil(len(starts) / 16)):
        inputs, targets = (side.to(device) for side in cut_windows(tokens, part, length))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(inputs)
        total += F.cross_entropy(logits.float().flatten(0, 1), targets.flatten()).item() * len(part)
    model.train(was_training)
    return total / len(starts)


def bits_per_byte(loss: float, tokens: int, text_bytes: int) -> float:
    """Turn a loss in nats per token into bits per byte, which no tokenizer can flatter.

    Args:
        loss: mean loss in nats per token.
        tokens: number of tokens of the text.
        text_bytes: number of bytes of the same text in UTF-8.

    Example:
        >>> round(bits_per_byte(loss=2.0, tokens=100, text_bytes=300), 3)
        0.962
    """
    return loss / math.log(2) * tokens / text_bytes


def fingerprint(tokens: Integer[np.ndarray, " tokens"]) -> str:
    """Return a hash by which the same text, encoded the same way, is known again."""
    return hashlib.sha256(tokens.tobytes()).hexdigest()


def is_due(step: int, every: int, last: int) -> bool:
    """Whether something done every so many steps, and at the last, is due."""
    return step % every == 0 or step == last
