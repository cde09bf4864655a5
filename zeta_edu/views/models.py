"""Runs a model over a text for its attention weights: one made of blocks, or another library's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from zeta_edu.block import TransformerBlock
from zeta_edu.modes import evaluating
from zeta_edu.recording import record_attention


class Reading(NamedTuple):
    """What a model made of a text.

    Args:
        weights: one tensor (1, heads, queries, keys) for each layer.
        tokens: the text of each token.
        kv_heads: how many key/value heads the query heads share, where the model says so.
    """

    weights: Any
    tokens: list[str]
    kv_heads: int | None


def tokenizer_and_text(model: nn.Module, words: tuple[Any, ...]) -> tuple[Any, str]:
    """The tokenizer and the text that `attention_view` was given, or errors that name them."""
    if len(words) not in (1, 2):
        raise TypeError("with a model give its text: attention_view(model, [tokenizer,] text)")
    tokenizer = words[0] if len(words) == 2 else getattr(model, "tokenizer", None)
    if not callable(getattr(tokenizer, "encode", None)):
        raise TypeError(
            "tokenizer must have encode(text); this model carries none, so call "
            "attention_view(model, tokenizer, text)"
            if tokenizer is None
            else f"tokenizer must have encode(text), got {type(tokenizer).__name__}"
        )
    if not isinstance(words[-1], str):
        raise TypeError(f"text must be a str, got {type(words[-1]).__name__}")
    return tokenizer, words[-1]


def read_text(model: nn.Module, tokenizer: Any, text: str) -> Reading:
    """Run a model over a text, in evaluation mode, and leave it as it was.

    Raises:
        ValueError: it neither has blocks of this package nor gives attentions as Hugging Face's do.
        TypeError: a Hugging Face model came with a tokenizer of another kind.
    """
    blocks = [part for part in model.modules() if isinstance(part, TransformerBlock)]
    if not blocks and not hasattr(model, "config"):
        raise ValueError(
            "model must contain a TransformerBlock, or give attentions as Hugging Face's models "
            f"do; got {type(model).__name__}"
        )
    run = _run_blocks if blocks else _run_foreign
    with evaluating(model), torch.no_grad():
        return run(model, tokenizer, text)


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _run_blocks(model: nn.Module, tokenizer: Any, text: str) -> Reading:
    ids = list(tokenizer.encode(text))
    shared = {part.kv_heads for part in model.modules() if isinstance(part, TransformerBlock)}
    kv_heads = shared.pop() if len(shared) == 1 else None
    if not ids:
        return Reading(np.zeros((1, 1, 0, 0), dtype=np.float32), [], None)
    with record_attention(model) as record:
        model(torch.tensor([ids], device=_device(model)))
    return Reading(record, _pieces(tokenizer, ids), kv_heads)


def _run_foreign(model: nn.Module, tokenizer: Any, text: str) -> Reading:
    inputs = tokenizer(text, return_tensors="pt") if callable(tokenizer) else None
    if not isinstance(inputs, Mapping) or "input_ids" not in inputs:
        kind = type(tokenizer).__name__
        raise TypeError(f"tokenizer must give input_ids, as Hugging Face's do, got {kind}")
    ids = inputs["input_ids"][0].tolist()
    if not ids:
        return Reading(np.zeros((1, 1, 0, 0), dtype=np.float32), [], None)
    device = _device(model)
    with _eager(model):
        output = model(**{k: v.to(device) for k, v in inputs.items()}, output_attentions=True)
    weights = getattr(output, "attentions", None)
    if not weights or any(layer is None for layer in weights):
        raise ValueError(
            f"model {type(model).__name__} gives no attentions; load it with "
            'attn_implementation="eager"'
        )
    kv_heads: Any = getattr(model.config, "num_key_value_heads", None)
    return Reading(weights, _pieces(tokenizer, ids), kv_heads)


def _pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    if hasattr(tokenizer, "pieces"):
        return list(tokenizer.pieces(ids))
    return [tokenizer.decode([token]) for token in ids]


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Let a Hugging Face model compute its weights for once: its fused kernels never have them."""
    before = getattr(model.config, "_attn_implementation", None)
    switch = getattr(model, "set_attn_implementation", None)
    if switch is None or before == "eager":
        yield
        return
    switch("eager")
    try:
        yield
    finally:
        switch(before)
