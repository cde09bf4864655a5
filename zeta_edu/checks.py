"""What an argument must be: one short function per kind, each with an error that names it."""

import math
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def positive_integer(name: str, value: Any) -> int:
    """`value` as an int of at least 1, or an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a positive integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value}")
    return value


def number(name: str, value: Any) -> float:
    """`value` as a finite number (int or float, not bool), or an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return value


def positive_number(name: str, value: Any) -> float:
    """`value` as a finite number above zero, or an error that names the argument."""
    if number(name, value) <= 0:
        raise ValueError(f"{name} must be above 0, got {value}")
    return value


def probability(name: str, value: Any) -> float:
    """`value` as a number in [0, 1), or an error that names the argument."""
    if not 0 <= number(name, value) < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
    return value


def random_seed(name: str, value: Any) -> int:
    """`value` as an int that torch takes for a seed, or an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if not 0 <= value < 2**63:
        raise ValueError(f"{name} must be at least 0 and below 2 ** 63, got {value}")
    return value


def flag(name: str, value: Any) -> bool:
    """`value` as a bool, or an error that names the argument."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def existing_file(name: str, value: Any) -> Path:
    """`value` as the path of a file that is there, or an error that names the argument."""
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{name} must be the path of a file, got {value!r}")
    path = Path(value)
    if not path.is_file():
        raise FileNotFoundError(f"{name} must be a file, got {str(path)!r}")
    return path


def floating_dtype(name: str, value: Any) -> torch.dtype:
    """`value` as a floating-point dtype, or an error that names the argument."""
    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise TypeError(f"{name} must be a floating-point dtype, got {value!r}")
    return value


def floating_tensor(name: str, value: Any, shape: str) -> Tensor:
    """`value` as a floating-point tensor with as many axes as `shape` names, or an error.

    `shape` is written as in the documentation: `"batch heads query dim_head"`; a leading `...`
    stands for any number of axes.
    """
    axes = shape.split()
    expected = f"a floating-point tensor ({', '.join(axes)})"
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be {expected}, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be {expected}, got dtype {value.dtype}")
    fits = value.ndim >= len(axes) - 1 if axes[0] == "..." else value.ndim == len(axes)
    if not fits:
        raise ValueError(f"{name} must be {expected}, got shape {tuple(value.shape)}")
    return value


def input_of(name: str, value: Any, weight: Tensor, shape: str, features: int) -> Tensor:
    """`value` as an input that a layer can take, or an error.

    It is a floating-point tensor whose axes `shape` names, the last one `features` long, on the
    device of the layer's `weight` and, unless autocast converts it, of its dtype.
    """
    floating_tensor(name, value, shape)
    if value.shape[-1] != features:
        axes = f"({', '.join(shape.split())}={features})"
        raise ValueError(f"{name} must be {axes}, got shape {tuple(value.shape)}")
    if value.device != weight.device:
        raise ValueError(f"{name} must be on {weight.device} like the weights, got {value.device}")
    if value.dtype != weight.dtype and not torch.is_autocast_enabled(value.device.type):
        raise TypeError(f"{name} must be {weight.dtype} like the weights, got {value.dtype}")
    return value


def keep_mask(name: str, value: Any, batch: int, keys: int) -> Tensor:
    """`value` as a bool tensor (batch, keys), True where a key may be attended to, or an error."""
    expected = f"a bool tensor (batch, keys) = {(batch, keys)}, True where a key is kept"
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be {expected}, got {type(value).__name__}")
    if value.dtype is not torch.bool:
        raise TypeError(f"{name} must be {expected}, got dtype {value.dtype}")
    if tuple(value.shape) != (batch, keys):
        raise ValueError(f"{name} must be {expected}, got shape {tuple(value.shape)}")
    return value
