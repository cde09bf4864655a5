"""What a model is worth on text that it has not seen."""

import hashlib
import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Integer
from torch import Tensor, nn

from zeta_edu.lm import parallel
from zeta_edu.lm.data import cut_windows
from zeta_edu.modes import evaluating

# A quick validation reads this many windows, spread evenly over the held-out text.
VALIDATION_WINDOWS = 64
_WINDOWS_AT_ONCE = 16


@torch.no_grad()
def evaluate(
    model: nn.Module,
    tokens: Integer[np.ndarray, " tokens"],
    length: int,
    bf16: bool = False,
    windows: int | None = VALIDATION_WINDOWS,
) -> float:
    """Return the mean loss in nats per token over windows spread evenly over a text.

    Under `torchrun` the processes share the windows, and each gets the mean of all.

    Args:
        model: left in the mode it was in.
        tokens: the text as ids, at least two.
        length: tokens in a window; a shorter text is one window.
        bf16: compute in bfloat16 by autocast.
        windows: how many; all that fit side by side when None.

    Raises:
        ValueError: fewer than two tokens.
    """
    check_validation(tokens)
    length = min(length, len(tokens) - 1)
    fitting = (len(tokens) - 1) // length
    starts = np.arange(fitting) * length
    if windows is not None and windows < fitting:
        starts = starts[np.linspace(0, fitting - 1, windows).astype(int)]
    device = next(model.parameters()).device
    summed = torch.zeros((), dtype=torch.float64, device=device)
    for part in _own_parts(starts):
        # A process may have no window in a round: it runs the model all the same, as FSDP needs.
        inputs, targets = (side.to(device) for side in cut_windows(tokens, part, length))
        with evaluating(model), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(inputs)
        losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        summed += losses.sum(dtype=torch.float64)
    return parallel.total(summed).item() / (len(starts) * length)


def _own_parts(starts: np.ndarray) -> list[np.ndarray]:
    """Share windows out in rounds, one part for each process in each."""
    rounds = math.ceil(len(starts) / (_WINDOWS_AT_ONCE * parallel.processes()))
    parts = np.array_split(starts, rounds * parallel.processes())
    return parts[parallel.rank() :: parallel.processes()]


def check_validation(tokens: Integer[np.ndarray, " tokens"]) -> None:
    """Refuse a validation text in which nothing can be predicted."""
    if len(tokens) < 2:
        raise ValueError(f"the validation text has {len(tokens)} tokens; at least 2 are needed")


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


def fingerprint(*arrays: np.ndarray | Tensor) -> str:
    """Return a hash by which the same numbers, such as a text encoded the same way, are known."""
    known = hashlib.sha256()
    for array in arrays:
        if isinstance(array, Tensor):  # of any type, bfloat16 too
            array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        known.update(np.ascontiguousarray(array).data)
    return known.hexdigest()
