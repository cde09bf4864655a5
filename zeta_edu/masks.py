"""Which query may see which key: causal masks, built once and grown, and padding."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zeta_edu.rotary import is_tracing, power_of_two

# Masks that serve every block, grown when they are too small: a square one by device, True on and
# below the diagonal; and one to add to scores, 0 and -inf, whose diagonal ends in the bottom right.
_CAUSAL: dict[torch.device, Tensor] = {}
_BIAS: dict[tuple[torch.device, torch.dtype], Tensor] = {}
BIAS_ROWS = 256


def causal_mask(queries: int, keys: int, device: torch.device) -> Bool[Tensor, "query key"]:
    """True where a query may see a key: itself and all before it, the last query the last key.

    With a cache there are more keys than queries, and the diagonal ends in the bottom-right
    corner. The square of the new positions is built once per device and grown; every key before
    it is visible to all.

    >>> causal_mask(2, 3, torch.device("cpu")).int()
    tensor([[1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    past = keys - queries
    if is_tracing():
        return _no_later(queries, keys, device)
    square = _CAUSAL.get(device)
    if square is None or len(square) < queries:
        size = power_of_two(queries)
        with torch.inference_mode(False):  # so that a training step may use it
            square = _no_later(size, size, device)
        _CAUSAL[device] = square
    square = square[:queries, :queries]
    return F.pad(square, (past, 0), value=True) if past else square


def _no_later(queries: int, keys: int, device: torch.device) -> Tensor:
    places = torch.arange(keys, device=device)
    return places <= places[keys - queries :, None]


def causal_bias(queries: int, keys: int, like: Tensor) -> Float[Tensor, "query key"]:
    """What `causal_mask` says as a term of the scores: 0, or -inf where a query may not see a key.

    Up to `BIAS_ROWS` queries read it from one table, as its lower right corner. Torch's kernels
    turn a mask of True and False into such a term, and keep it for backward: without the table
    that would be a new one for each part of a pass, together the square of the length.
    """
    if is_tracing() or queries > BIAS_ROWS:
        return as_bias(~_no_later(queries, keys, like.device), like.dtype)
    place = (like.device, like.dtype)
    table = _BIAS.get(place)
    if table is None or table.shape[1] < keys:
        columns = max(BIAS_ROWS, power_of_two(keys))
        with torch.inference_mode(False):
            table = as_bias(~_no_later(BIAS_ROWS, columns, like.device), like.dtype)
        _BIAS[place] = table
    return table[BIAS_ROWS - queries :, table.shape[1] - keys :]


def as_bias(hidden: Bool[Tensor, "*any"], dtype: torch.dtype) -> Float[Tensor, "*any"]:
    """0 where `hidden` is False, -inf where it is True."""
    return torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, -torch.inf)


def visible_keys(
    queries: int,
    keys: int,
    device: torch.device,
    mask: Bool[Tensor, "*some #query key"] | None,
    causal: bool,
) -> Bool[Tensor, "*some query key"] | None:
    """Which query may see which key by `mask` and causality together; None when each may all."""
    if not causal or queries == 1:  # a single query is the last one, and sees every key
        return mask
    earlier = causal_mask(queries, keys, device)
    return earlier if mask is None else earlier & mask
