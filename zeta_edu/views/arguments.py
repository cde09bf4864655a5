"""From what a person has at hand to arrays: a model and a text, tensors of any library, a record.

Everything that does not fit is refused by name here, so that what follows need not ask again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from zeta_edu.views import models
from zeta_edu.views.models import Reading

# Filling values such as torch.finfo(dtype).min stand for minus infinity.
MASKED = -1e4


def read(source: Any, words: tuple[Any, ...], tokens: Sequence[str] | None) -> Reading:
    """Settle what `attention_view` was called with: run a model, or take weights as they are."""
    if isinstance(source, nn.Module):
        if tokens is not None:
            raise TypeError("tokens goes with weights; with a model give its text instead")
        return models.read_text(source, *models.tokenizer_and_text(source, words))
    if len(words) > 1 or (words and tokens is not None):
        raise TypeError("with weights give the tokens once: attention_view(weights, tokens)")
    return Reading(source, words[0] if words else tokens, None)  # type: ignore[arg-type]


def weights(source: Any) -> Float[np.ndarray, "layers heads queries keys"]:
    """Attention weights as one float32 array, from a tensor, an array, a record or a tuple."""
    array = _layers(_attentions(source))
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise ValueError(f"weights must have a layer and a head, got shape {array.shape}")
    outside = array[(array < -1e-4) | (array > 1 + 1e-3)]
    if outside.size:
        raise ValueError(
            f"weights must lie between 0 and 1, got {outside[0]:g}; "
            "scores before the softmax go into stages="
        )
    return np.clip(array, 0.0, 1.0)


def _attentions(source: Any) -> Any:
    """The weights in a Hugging Face output; anything else as it is."""
    if not hasattr(source, "attentions"):
        if hasattr(source, "cross_attentions"):
            raise ValueError(
                "weights must be of one kind; pass .encoder_attentions, .decoder_attentions or "
                f".cross_attentions of the {type(source).__name__}"
            )
        return source
    if not source.attentions:
        raise ValueError(
            f"the {type(source).__name__} holds no attentions: load the model with "
            'attn_implementation="eager", and call it with output_attentions=True'
        )
    return source.attentions


def _layers(source: Any) -> Float[np.ndarray, "layers heads queries keys"]:
    if isinstance(source, torch.Tensor | np.ndarray) or hasattr(source, "__array__"):
        array = _array("weights", source)
        if array.ndim == 3:
            array = array[None]
        if array.ndim != 4:
            raise ValueError(
                "weights must be (layers, heads, queries, keys) or (heads, queries, keys), "
                f"got shape {array.shape}"
            )
        return array
    if not isinstance(source, Sequence) or isinstance(source, str | bytes):
        raise TypeError(
            "weights must be a tensor, an array, or a sequence with one for each layer, "
            f"got {type(source).__name__}"
        )
    if not len(source):
        raise ValueError("weights is empty: no layer was recorded")
    layers = [_layer(index, layer) for index, layer in enumerate(source)]
    shapes = {layer.shape for layer in layers}
    if len(shapes) > 1:
        raise ValueError(f"weights must have one shape in all layers, got {sorted(shapes)}")
    return np.stack(layers)


def _layer(index: int, layer: Any) -> Float[np.ndarray, "heads queries keys"]:
    if layer is None:
        raise ValueError(
            f"weights[{index}] is None; load a Hugging Face model with "
            'attn_implementation="eager" and call it with output_attentions=True'
        )
    array = _array(f"weights[{index}]", layer)
    if array.ndim == 4:
        if array.shape[0] != 1:
            raise ValueError(
                f"weights[{index}] holds a batch of {array.shape[0]}; choose one text, as in "
                "attention_view([layer[:1] for layer in weights], tokens)"
            )
        array = array[0]
    if array.ndim != 3:
        raise ValueError(
            f"weights[{index}] must be (1, heads, queries, keys), got shape {array.shape}"
        )
    return array


def _array(name: str, source: Any, dtype: type = np.float32) -> np.ndarray:
    if isinstance(source, torch.Tensor):
        if source.is_complex() or source.dtype == torch.bool:
            raise TypeError(f"{name} must hold real numbers, got {source.dtype}")
        wide = torch.float32 if dtype is np.float32 else torch.float64
        source = source.detach().to("cpu", wide).numpy()
    try:
        array = np.asarray(source)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a tensor or an array: {error}") from error
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array.astype(dtype)


def numbers(name: str, source: Any, axes: str) -> Float[np.ndarray, "..."]:
    """A tensor or array as float64, with the named axes.

    Leading axes of length 1, such as a batch of one, are dropped where there are more axes than
    names.

    Examples:
        >>> numbers("queries", torch.zeros(1, 2, 3), "queries dim_head").shape
        (2, 3)
    """
    array = _array(name, source, np.float64)
    wanted = axes.split()
    given = array.shape
    while array.ndim > len(wanted) and array.shape[0] == 1:
        array = array[0]
    if array.ndim != len(wanted):
        raise ValueError(f"{name} must be ({', '.join(wanted)}), got shape {given}")
    return array


def names(name: str, tokens: Any, count: int) -> list[str]:
    """A text for each token; their numbers where none are given."""
    if tokens is None:
        return [str(number) for number in range(count)]
    if isinstance(tokens, str | bytes) or not isinstance(tokens, Sequence):
        raise TypeError(f"{name} must be a list of str, got {type(tokens).__name__}")
    for index, token in enumerate(tokens):
        if not isinstance(token, str):
            raise TypeError(f"{name}[{index}] must be a str, got {type(token).__name__}")
    if len(tokens) != count:
        raise ValueError(f"{name} must have {count} entries, got {len(tokens)}")
    return list(tokens)


def stages(
    given: Any, shape: tuple[int, ...], reserved: str
) -> dict[str, Float[np.ndarray, "layers heads queries keys"]]:
    """Named tensors of the weights' shape, with every masked value at minus infinity."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"stages must map names to tensors, got {type(given).__name__}")
    return {name: _stage(name, tensor, shape, reserved) for name, tensor in given.items()}


def _stage(
    name: Any, tensor: Any, shape: tuple[int, ...], reserved: str
) -> Float[np.ndarray, "layers heads queries keys"]:
    if not isinstance(name, str):
        raise TypeError(f"stages must be named by str, got {type(name).__name__}")
    if name == reserved:
        raise ValueError(f"stages must not be named {reserved!r}: that is the weights themselves")
    label = f"stages[{name!r}]"
    sequence = isinstance(tensor, Sequence)
    array = np.stack([_layer(*pair) for pair in enumerate(tensor)]) if sequence else None
    array = _array(label, tensor) if array is None else array
    if array.shape == shape[1:]:
        array = array[None]
    if array.shape != shape:
        raise ValueError(f"{label} must have the weights' shape {shape}, got {array.shape}")
    if np.isposinf(array).any():
        raise ValueError(f"{label} holds plus infinity, which no softmax can weigh")
    return np.where(array <= MASKED, -np.inf, array).astype(np.float32)


def shared_heads(value: Any, known: int | None, heads: int) -> int | None:
    """How many key/value heads the query heads share: as given, or as the model says."""
    if value is None:
        return known if known and heads % known == 0 else None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"kv_heads must be an int, got {type(value).__name__}")
    if value < 1 or heads % value:
        raise ValueError(f"kv_heads must divide the {heads} heads of weights, got {value}")
    return value


def index(name: str, value: Any, count: int) -> int | None:
    """Which layer, head or query to open at; negative counts from the end, as in a list."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if not -count <= value < count:
        raise ValueError(f"{name} must be in 0 to {count - 1}, got {value}")
    return int(value) % count
