"""One small example of every view, for the tests that hold all of them to the same promises."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from zeta_edu import LoRA, TransformerBlock
from zeta_edu.views import (
    View,
    attention_view,
    block_view,
    cache_view,
    flash_view,
    heads_view,
    lora_view,
    mask_view,
    qknorm_view,
    rotary_view,
    xpos_view,
)

TOKENS = ["def", " add", "(", "a", ",", " b", "):", "\n    "]
HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "${document.title='owned'}",
    "&lt;b&gt;",
    "\u2028",
    "\u202eabc",
    "$\\frac{1}{",
    "",
]


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _block(**options: Any) -> TransformerBlock:
    torch.manual_seed(0)
    return TransformerBlock(dim=32, dim_head=8, heads=4, **options).eval()


def _attention(tokens: Sequence[str] = TOKENS) -> View:
    scores = _randn(2, 3, 8, 8).masked_fill(torch.ones(8, 8).triu(1).bool(), -torch.inf)
    return attention_view(scores.softmax(-1), list(tokens))


def _mask(tokens: Sequence[str] = TOKENS) -> View:
    return mask_view(2 * _randn(8, 8), tokens=list(tokens), padding=2)  # or its side says nothing


def _flash(tokens: Sequence[str] = TOKENS) -> View:
    queries, keys, values = _randn(3, 8, 4)
    return flash_view(queries, keys, values, query_tile=2, key_tile=2, tokens=list(tokens))


def _qknorm() -> View:
    queries, keys = _randn(2, 2, 16, 8)
    return qknorm_view(queries, keys)


def _lora() -> View:
    adapter = LoRA(12, 10, rank=4)
    adapter.A.data, adapter.B.data = _randn(12, 4, seed=1), 0.2 * _randn(4, 10, seed=2)
    return lora_view(_randn(12, 10), adapter)


def _cache(tokens: Sequence[str] = TOKENS) -> View:
    return cache_view(_block(), _randn(1, 8, 32), prompt=3, tokens=list(tokens))


def _block_example(tokens: Sequence[str] = TOKENS) -> View:
    return block_view(_block(), _randn(1, 8, 32), tokens=list(tokens))


EXAMPLES: dict[str, Callable[..., View]] = {
    "attention": _attention,
    "heads": lambda: heads_view(8, 2),
    "mask": _mask,
    "flash": _flash,
    "rotary": lambda: rotary_view(8),
    "xpos": lambda: xpos_view(),
    "qknorm": _qknorm,
    "lora": _lora,
    "cache": _cache,
    "block": _block_example,
}
"""A view for each name; those in `WITH_TOKENS` take the tokens."""

WITH_TOKENS = ("attention", "mask", "flash", "cache", "block")
