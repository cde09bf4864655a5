"""Numbers on their way to the browser: rounded openly, deflated, base64.

Three codings, each with its stated error:

- ``float16`` for weights up to `SMALL` numbers: within 0.00025 for a weight up to 1;
- ``uint8`` with a square-root scale for more weights: ``value = top * (code / levels)**2``, so
  that small weights keep more of their digits. 0 codes an exact zero and nothing else;
- ``float32`` for a few numbers of any sign (scores), ``uint8`` on a linear scale for many.

The bytes of a wide number are sent plane by plane (all low bytes, then all high ones), which
deflates better. ``not a number`` and minus infinity have codes of their own.
"""

import base64
import math
import zlib
from typing import Any

import numpy as np
from jaxtyping import Float

SMALL = 2**18
LEVELS = (253, 180, 127, 90, 63, 45, 31)
MINUS_INFINITY = 254
NOT_A_NUMBER = 255
# So that 8 heads in 12 layers over 256 tokens take 2 MB at most: base64 adds a third, and the
# script and the still picture come on top.
TARGET_BYTES = 1_250_000

State = dict[str, Any]


def encode_weights(weights: Float[np.ndarray, "..."]) -> State:
    """Code attention weights, which lie between 0 and 1, for the browser.

    Args:
        weights: of any shape; NaN is kept, zero stays exactly zero.

    Returns:
        A JSON-able dict: shape, dtype, scale, data, and `error`, the largest rounding error.

    Examples:
        >>> coded = encode_weights(np.array([0.0, 0.25, 1.0], dtype=np.float32))
        >>> coded["dtype"], decode(coded).tolist()
        ('float16', [0.0, 0.25, 1.0])
    """
    if weights.size <= SMALL:
        smallest = np.finfo(np.float16).smallest_subnormal
        half = np.where(weights > 0, np.maximum(weights, smallest), weights).astype("<f2")
        return _pack(weights, half, "float16", error=0.00025)
    codes, levels = _companded(weights)
    # Half a step where the square-root scale is coarsest: at 1.
    error = math.ceil(1e4 * (1 - (1 - 0.5 / levels) ** 2)) / 1e4
    return _pack(weights, codes, "uint8", scale="sqrt", levels=levels, error=error)


def encode_scores(scores: Float[np.ndarray, "..."]) -> State:
    """Code numbers of any sign and size, minus infinity among them, for the browser.

    Args:
        scores: of any shape; plus infinity is not allowed.

    Returns:
        A JSON-able dict: shape, dtype, scale, data and `error`, the largest rounding error.

    Examples:
        >>> decode(encode_scores(np.array([-3.5, -np.inf], dtype=np.float32))).tolist()
        [-3.5, -inf]
    """
    if scores.size <= SMALL // 2:
        return _pack(scores, scores.astype("<f4"), "float32", error=0.0)
    finite = scores[np.isfinite(scores)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    height = (np.where(np.isfinite(scores), scores, low) - low) / (high - low or 1.0)
    codes, levels = _finest(height)
    codes[np.isneginf(scores)] = MINUS_INFINITY
    codes[np.isnan(scores)] = NOT_A_NUMBER
    step = (high - low) / levels
    return _pack(scores, codes, "uint8", scale="linear", low=low, step=step, error=step / 2)


def decode(coded: State) -> Float[np.ndarray, "..."]:
    """What the browser will read: the inverse of the two encoders, up to their rounding."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(coded["data"])), dtype=np.uint8)
    if coded["dtype"] == "uint8":
        return _levels(coded)[raw].reshape(coded["shape"])
    width = {"float16": 2, "float32": 4}[coded["dtype"]]
    numbers = np.ascontiguousarray(raw.reshape(width, -1).T).view(f"<f{width}")
    return numbers.astype(np.float32).reshape(coded["shape"])


def _levels(coded: State) -> Float[np.ndarray, "256"]:
    codes = np.arange(256, dtype=np.float32)
    if coded["scale"] == "sqrt":
        values = (codes / coded["levels"]) ** 2
    else:
        values = coded["low"] + codes * coded["step"]
    values[MINUS_INFINITY], values[NOT_A_NUMBER] = -np.inf, np.nan
    return values.astype(np.float32)


def _companded(weights: Float[np.ndarray, "..."]) -> tuple[np.ndarray, int]:
    """Square-root codes in which 0 means an exact zero."""
    codes, levels = _finest(np.sqrt(np.nan_to_num(weights, nan=0.0)))
    np.maximum(codes, weights > 0, out=codes, casting="unsafe")
    codes[np.isnan(weights)] = NOT_A_NUMBER
    return codes, levels


def _finest(height: Float[np.ndarray, "..."]) -> tuple[np.ndarray, int]:
    """Round heights from 0 to 1 to as many levels as the size of the page allows."""
    # Tried on every so many-th row, which costs little and tells the size to a few per cent.
    rows = height.reshape(-1, height.shape[-1])
    sample = rows[:: max(1, rows.size // SMALL)]
    for levels in LEVELS:
        sample_bytes = len(_deflate(_rounded(sample, levels)))
        if sample_bytes * rows.size / sample.size <= TARGET_BYTES:
            break
    return _rounded(height, levels), levels


def _rounded(height: Float[np.ndarray, "..."], levels: int) -> np.ndarray:
    return np.rint(height * levels).astype(np.uint8)


def _pack(array: np.ndarray, coded: np.ndarray, dtype: str, **notes: Any) -> State:
    planes = np.ascontiguousarray(coded.reshape(-1, 1).view(np.uint8).T)
    data = base64.b64encode(_deflate(planes)).decode("ascii")
    return {"shape": list(array.shape), "dtype": dtype, **notes, "data": data}


def _deflate(planes: np.ndarray) -> bytes:
    # Rounded weights repeat by chance, not in phrases: looking only for runs of one byte is ten
    # times as fast as the default search, and packs causal weights a sixth smaller.
    press = zlib.compressobj(strategy=zlib.Z_RLE)
    return press.compress(planes.tobytes()) + press.flush()
