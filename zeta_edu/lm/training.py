"""Training: a loop short enough to read, that can stop anywhere and go on to the same numbers."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Integer
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from zeta_edu.lm import parallel
from zeta_edu.lm.data import TokenWindows
from zeta_edu.lm.evaluation import bits_per_byte, check_validation, evaluate, fingerprint
from zeta_edu.lm.model import TransformerLM
from zeta_edu.lm.options import Progress, TrainingOptions
from zeta_edu.lm.resume import restore_state, save_state, seed_own

__all__ = [
    "Examples",
    "Progress",
    "Saving",
    "TrainingOptions",
    "bits_per_byte",
    "evaluate",
    "fit",
    "train",
]

LossFunction = Callable[[Tensor, Tensor], Tensor]
Report = Callable[[Progress], None]

UNSCORED = -100  # a target that is not to be predicted
_ADVICE = "a lower learning rate may help"


class Examples(Protocol):
    """What a training reads: a batch for each step, a function of the step alone."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs (batch, n) and targets (batch, n), -100 where there is nothing to learn."""


@dataclass(frozen=True)
class Saving:
    """Where the whole state of a training is kept, and what makes it that training.

    Args:
        state: file of the checkpoints; none are written when None.
        resume: go on from the checkpoint in `state`.
        identity: what a training that goes on must share with this one, beside its options, the
            model's shape, and the weights that are not trained.
    """

    state: str | Path | None = None
    resume: bool = False
    identity: dict[str, Any] | None = None


def train(
    model: TransformerLM,
    tokens: Integer[np.ndarray, " tokens"],
    validation_tokens: Integer[np.ndarray, " validation_tokens"],
    options: TrainingOptions,
    *,
    state: str | Path | None = None,
    resume: bool = False,
    identity: dict[str, Any] | None = None,
    report: Report | None = None,
) -> Progress:
    """Train a model to predict the next token of a text.

    Parameters that need no gradient stay as they are, so that a model with an adapter trains the
    adapter alone. Under `torchrun` the processes share every batch.

    Args:
        model: trained in place, on the device it is on.
        tokens: the training text as ids.
        validation_tokens: held-out text as ids.
        options: how to train.
        state: file for checkpoints of the whole state; none are written when not given.
        resume: go on from the checkpoint in `state`. On the CPU the losses that follow are,
            bit for bit, those of a training that never stopped.
        identity: what a training that goes on must share with this one, beside its options, the
            model's shape, the weights that are not trained, and the text.
        report: called after every step.

    Returns:
        Where the training stands at its end.

    Raises:
        ValueError: a text shorter than one window or of a larger vocabulary than the model's, or
            a checkpoint of another training.
        FloatingPointError: the loss or the gradient is not finite any more; the checkpoint
            before it stays.
    """
    examples = TokenWindows(tokens, options.batch_size, options.length, options.seed)
    check_validation(validation_tokens)
    for name, text in (("training", tokens), ("validation", validation_tokens)):
        _check_vocabulary(name, text, model)

    def validate(progress: Progress) -> None:
        loss = evaluate(model, validation_tokens, options.length, options.bf16)
        progress.validation[progress.step] = loss

    saving = Saving(state, resume, {"text": fingerprint(tokens), **(identity or {})})
    return fit(model, examples, validate, options, saving, report)


def _check_vocabulary(name: str, tokens: np.ndarray, model: TransformerLM) -> None:
    largest, count = int(tokens.max()), model.config["num_tokens"]
    if largest >= count:
        raise ValueError(
            f"the {name} text has the id {largest}, but the model's vocabulary only {count} ids: "
            "encode the text with the model's own tokenizer"
        )


def fit(
    model: TransformerLM,
    examples: Examples,
    validate: Report,
    options: TrainingOptions,
    saving: Saving = Saving(),
    report: Report | None = None,
) -> Progress:
    """Train a model on any examples.

    Args:
        model: as for `train`.
        examples: a batch for each step.
        validate: called with the progress when a validation is due; puts what it finds there.
        options: how to train.
        saving: where the state is kept.
        report: called after every step.

    Returns:
        Where the training stands at its end.

    Raises:
        ValueError, FloatingPointError: as for `train`.
    """
    identity = {
        **options.identity,
        "model": model.config,
        "base": fingerprint(*(p for p in model.parameters() if not p.requires_grad)),
        **(saving.identity or {}),
    }
    trained = parallel.wrap(model, options.fsdp)
    loss_function = make_loss(trained, options)
    optimizer = make_optimizer(model, options)
    progress = Progress()
    if saving.resume:
        progress = Progress(**restore_state(saving.state, model, optimizer, identity))
    elif parallel.processes() > 1:
        seed_own(options.seed, step=0)
    trained.train()
    for step in range(progress.step, options.steps):
        started = time.perf_counter()
        set_learning_rate(optimizer, options, step)
        batch = examples.batch(step)
        progress.loss = backward(loss_function, batch, options.accumulate, trained)
        progress.gradient_norm = update(model, optimizer, options.clip)
        progress.step, progress.tokens = step + 1, progress.tokens + batch[0].numel()
        progress.learning_rate = optimizer.param_groups[0]["lr"]
        progress.seconds += time.perf_counter() - started
        if is_due(step + 1, options.evaluate_every, options.steps):
            validate(progress)
        if report is not None:  # before saving: what it writes is there when the state is
            report(progress)
        if saving.state is not None and is_due(step + 1, options.save_every, options.steps):
            save_state(saving.state, model, optimizer, identity, asdict(progress))
    return progress


def make_loss(model: nn.Module, options: TrainingOptions) -> LossFunction:
    """Return the function (inputs, targets) -> summed cross-entropy, compiled if asked for."""

    def loss_function(inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=options.bf16):
            logits = model(inputs)
        return F.cross_entropy(
            logits.float().flatten(0, 1),
            targets.flatten(),
            ignore_index=UNSCORED,
            reduction="sum",
        )

    return torch.compile(loss_function) if options.compile else loss_function


def make_optimizer(model: nn.Module, options: TrainingOptions) -> AdamW:
    """Return AdamW that decays the matrices that multiply, and nothing else that is trained.

    Gains are left alone because decay would pull them to 0, away from their resting place 1;
    an embedding, because the row of a rare token would shrink between its few gradients.
    """
    embeddings = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim == 2 and parameter not in embeddings
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
    loss_function: LossFunction, batch: tuple[Tensor, Tensor], parts: int, trained: nn.Module
) -> float:
    """Add a batch's gradients, part by part, and return its mean loss.

    Each process takes its rows of the batch. The mean is over the targets of the whole batch.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    device = next(trained.parameters()).device
    targets_in_all = int((batch[1] != UNSCORED).sum())
    # Gradients are averaged over processes, so that a sum over them is had by their number.
    share = parallel.processes() / max(1, targets_in_all)
    rows = [parallel.own_rows(side).chunk(parts) for side in batch]
    summed = torch.zeros((), device=device)
    for number, (inputs, targets) in enumerate(zip(*rows, strict=True), 1):
        with parallel.averaging(trained, wanted=number == len(rows[0])):
            loss = loss_function(inputs.to(device), targets.to(device)) * share
            loss.backward()
        summed += loss.detach()
    mean = parallel.total(summed).item() / parallel.processes()
    if not math.isfinite(mean):
        raise FloatingPointError(f"the loss became {mean}; {_ADVICE}")
    return mean


def update(model: nn.Module, optimizer: Optimizer, clip: float) -> float:
    """Clip the gradients, take one optimizer step, and return the norm before clipping.

    Raises:
        FloatingPointError: the norm is not finite; the weights are as they were.
    """
    norm = parallel.whole(nn.utils.clip_grad_norm_(model.parameters(), clip)).item()
    if not math.isfinite(norm):
        raise FloatingPointError(f"the gradient's norm became {norm}; {_ADVICE}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def is_due(step: int, every: int, last: int) -> bool:
    """Whether something done every so many steps, and at the last, is due."""
    return step % every == 0 or step == last
