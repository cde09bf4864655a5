"""Every bad call of a block is refused in a sentence: argument, what came, what is allowed."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zeta_edu import KVCache, LoRA, TransformerBlock

NAN, INF = math.nan, math.inf
WHOLE, NUMBER, TRUTH = "a positive integer", "a number", "True or False"
FOUR = "(q, k, v, o), each a callable module or None"
KEEP = "a bool tensor (batch, keys) = (2, 5), True where a key is kept"
CACHE = "(batch, kv_heads, dim_head) = (2, 1, 4)"


def block(**options: Any) -> TransformerBlock:
    return TransformerBlock(**{"dim": 6, "dim_head": 4, "heads": 2, **options})


def make(**options: Any) -> Callable[[], Any]:
    return lambda: block(**options)


def run(x: Any = None, *args: Any, **options: Any) -> Callable[[], Any]:
    return lambda: block()(torch.zeros(2, 5, 6) if x is None else x, *args, **options)


def ones(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.ones(*shape, dtype=dtype, device=device)


def extend(keys: Any, values: Any) -> Callable[[], Any]:
    return lambda: KVCache(2, 1, 4).extend(keys, values)


def reorder(index: Any) -> Callable[[], Any]:
    return lambda: KVCache(2, 1, 4).reorder(index)


def used_cache() -> KVCache:
    cache = KVCache(2, 1, 4)
    cache.extend(ones(2, 1, 3, 4), ones(2, 1, 3, 4))
    return cache


# (call, what it raises, fragments of the message: argument, what is allowed, what came)
BAD_CALLS: list[tuple[Callable[[], Any], type[Exception], tuple[str, ...]]] = [
    # The constructor.
    (make(dim=0), ValueError, ("dim", WHOLE, "got 0")),
    (make(dim=-3), ValueError, ("dim", WHOLE, "got -3")),
    (make(dim=6.0), TypeError, ("dim", WHOLE, "got 6.0")),
    (make(dim="6"), TypeError, ("dim", WHOLE, "got '6'")),
    (make(dim=None), TypeError, ("dim", WHOLE, "got None")),
    (make(dim=True), TypeError, ("dim", WHOLE, "got True")),
    (make(dim_head=0), ValueError, ("dim_head", WHOLE, "got 0")),
    (make(dim_head=3), ValueError, ("dim_head", "even", "got 3")),
    (make(dim_head=4.0), TypeError, ("dim_head", WHOLE, "got 4.0")),
    (make(causal=1), TypeError, ("causal", TRUTH, "got 1")),
    (make(causal=None), TypeError, ("causal", TRUTH, "got None")),
    (make(heads=0), ValueError, ("heads", WHOLE, "got 0")),
    (make(heads=2.0), TypeError, ("heads", WHOLE, "got 2.0")),
    (make(heads=np.array([2])), TypeError, ("heads", WHOLE, "got array([2])")),
    (make(qk_rmsnorm="yes"), TypeError, ("qk_rmsnorm", TRUTH, "got 'yes'")),
    (make(qk_scale=0), ValueError, ("qk_scale", "above 0", "got 0")),
    (make(qk_scale=-1.0), ValueError, ("qk_scale", "above 0", "got -1.0")),
    (make(qk_scale=NAN), ValueError, ("qk_scale", "finite", "got nan")),
    (make(qk_scale=torch.tensor(8.0)), TypeError, ("qk_scale", NUMBER, "got tensor(8.)")),
    (make(ff_mult=0), ValueError, ("ff_mult", WHOLE, "got 0")),
    (make(ff_mult=1.5), TypeError, ("ff_mult", WHOLE, "got 1.5")),
    (make(attn_dropout=1.0), ValueError, ("attn_dropout", "at least 0 and below 1", "got 1.0")),
    (make(attn_dropout=-0.1), ValueError, ("attn_dropout", "at least 0", "got -0.1")),
    (make(attn_dropout=True), TypeError, ("attn_dropout", NUMBER, "got True")),
    (make(ff_dropout=1.5), ValueError, ("ff_dropout", "at least 0 and below 1", "got 1.5")),
    (make(ff_dropout=NAN), ValueError, ("ff_dropout", "finite", "got nan")),
    (make(ff_dropout="0.1"), TypeError, ("ff_dropout", NUMBER, "got '0.1'")),
    (make(use_xpos=0), TypeError, ("use_xpos", TRUTH, "got 0")),
    (make(xpos_scale_base=0), ValueError, ("xpos_scale_base", "above 0", "got 0")),
    (make(xpos_scale_base=INF), ValueError, ("xpos_scale_base", "finite", "got inf")),
    (make(xpos_scale_base=None), TypeError, ("xpos_scale_base", NUMBER, "got None")),
    (make(flash_attn="auto"), TypeError, ("flash_attn", TRUTH, "got 'auto'")),
    (make(kv_heads=0), ValueError, ("kv_heads", WHOLE, "got 0")),
    (make(kv_heads=3), ValueError, ("kv_heads", "divide heads=2", "got 3")),
    (make(finetune_modules=nn.Linear(6, 8)), TypeError, ("finetune_modules", FOUR, "got Linear")),
    (make(finetune_modules=(None,) * 3), ValueError, ("finetune_modules", FOUR, "got 3")),
    (make(finetune_modules=[None] * 5), ValueError, ("finetune_modules", FOUR, "got 5")),
    (make(finetune_modules={"q": None}), TypeError, ("finetune_modules", FOUR, "got dict")),
    (
        make(finetune_modules=(None, 3, None, None)),
        TypeError,
        ("finetune_modules", FOUR, "got int for k"),
    ),
    # The call.
    (run([[0.0] * 6]), TypeError, ("x", "a floating-point tensor (batch, n, dim)", "got list")),
    (run(np.zeros((2, 5, 6))), TypeError, ("x", "floating-point tensor", "got ndarray")),
    (
        run(ones(2, 5, 6, dtype=torch.int64)),
        TypeError,
        ("x", "floating-point", "got dtype torch.int64"),
    ),
    (
        run(ones(2, 5, 6, dtype=torch.complex64)),
        TypeError,
        ("x", "floating-point", "torch.complex64"),
    ),
    (
        run(ones(2, 5, 6, dtype=torch.float64)),
        TypeError,
        ("x", "torch.float32", "got torch.float64"),
    ),
    (run(ones(2, 5, 6, device="meta")), ValueError, ("x", "on cpu like the weights", "got meta")),
    (run(ones(5, 6)), ValueError, ("x", "(batch, n, dim)", "got shape (5, 6)")),
    (run(ones(1, 2, 5, 6)), ValueError, ("x", "(batch, n, dim)", "got shape (1, 2, 5, 6)")),
    (run(ones(2, 5, 7)), ValueError, ("x", "(batch, n, dim=6)", "got shape (2, 5, 7)")),
    (run(None, ones(2, 5)), TypeError, ("mask", KEEP, "got dtype torch.float32")),
    (run(None, ones(2, 5, dtype=torch.uint8)), TypeError, ("mask", KEEP, "got dtype torch.uint8")),
    (run(None, [[True] * 5] * 2), TypeError, ("mask", KEEP, "got list")),
    (run(None, ones(2, 4, dtype=torch.bool)), ValueError, ("mask", KEEP, "got shape (2, 4)")),
    (run(None, ones(1, 5, dtype=torch.bool)), ValueError, ("mask", KEEP, "got shape (1, 5)")),
    (run(None, ones(5, 5, dtype=torch.bool)), ValueError, ("mask", KEEP, "got shape (5, 5)")),
    (
        run(None, ones(2, 1, 1, 5, dtype=torch.bool)),
        ValueError,
        ("mask", KEEP, "got shape (2, 1, 1, 5)"),
    ),
    (
        run(None, ones(2, 5, dtype=torch.bool, device="meta")),
        ValueError,
        ("mask", "on cpu like x", "got meta"),
    ),
    (run(None, None, (None,) * 2), ValueError, ("finetune_modules", FOUR, "got 2")),
    (run(None, None, "qkvo"), TypeError, ("finetune_modules", FOUR, "got str")),
    (
        run(None, None, (LoRA(6, 4), None, None, None)),
        ValueError,
        ("finetune_modules", "for q must map (2, 5, 6) to (2, 5, 8)", "got (2, 5, 4)"),
    ),
    (
        run(None, None, (None, None, None, LoRA(6, 6))),
        ValueError,
        ("x", "dim=6", "got shape (2, 5, 8)"),
    ),
    (
        run(None, None, (None, None, lambda x: None, None)),
        TypeError,
        ("finetune_modules", "for v must give a tensor", "got NoneType"),
    ),
    # The cache.
    (run(None, cache={}), TypeError, ("cache", "block.new_cache", "got dict")),
    (run(None, cache=KVCache(3, 1, 4)), ValueError, ("cache", CACHE, "got (3, 1, 4)")),
    (run(None, cache=KVCache(2, 2, 4)), ValueError, ("cache", CACHE, "got (2, 2, 4)")),
    (run(None, cache=KVCache(2, 1, 6)), ValueError, ("cache", CACHE, "got (2, 1, 6)")),
    (
        run(None, cache=KVCache(2, 1, 4, 3)),
        ValueError,
        ("cache", "max_length=3 positions", "got 5"),
    ),
    (
        run(None, ones(2, 5, dtype=torch.bool), cache=used_cache()),
        ValueError,
        ("mask", "(2, 8)", "got shape (2, 5)"),
    ),
    (
        lambda: block(causal=False)(ones(2, 5, 6), cache=used_cache()),
        ValueError,
        ("cache", "must be empty when causal=False", "length 3"),
    ),
    (lambda: block().new_cache(0), ValueError, ("batch_size", WHOLE, "got 0")),
    (lambda: block().new_cache(1.0), TypeError, ("batch_size", WHOLE, "got 1.0")),
    (lambda: block().new_cache(1, 0), ValueError, ("max_length", WHOLE, "got 0")),
    (lambda: block().new_cache(1, "8"), TypeError, ("max_length", WHOLE, "got '8'")),
    (lambda: KVCache(1, 0, 4), ValueError, ("kv_heads", WHOLE, "got 0")),
    (lambda: KVCache(1, 1, -4), ValueError, ("dim_head", WHOLE, "got -4")),
    (
        lambda: KVCache(1, 1, 4, dtype=torch.int64),
        TypeError,
        ("dtype", "floating-point", "torch.int64"),
    ),
    (
        lambda: KVCache(1, 1, 4, dtype="float32"),
        TypeError,
        ("dtype", "a floating-point dtype", "got 'float32'"),
    ),
    (
        extend(ones(2, 1, 4), ones(2, 1, 4)),
        ValueError,
        ("keys", "(batch, kv_heads, new, dim_head)", "(2, 1, 4)"),
    ),
    (
        extend(ones(1, 1, 3, 4), ones(1, 1, 3, 4)),
        ValueError,
        ("keys and values", "(2, 1, 3, 4)", "(1, 1, 3, 4)"),
    ),
    (
        extend(ones(2, 1, 3, 4), ones(2, 1, 2, 4)),
        ValueError,
        ("keys and values", "(2, 1, 3, 4)", "got ((2, 1, 3, 4), (2, 1, 2, 4))"),
    ),
    (
        extend(ones(2, 1, 3, 4), None),
        TypeError,
        ("values", "floating-point tensor", "got NoneType"),
    ),
    (
        extend(ones(2, 1, 3, 4, dtype=torch.int64), ones(2, 1, 3, 4)),
        TypeError,
        ("keys", "floating-point", "torch.int64"),
    ),
    (
        extend(ones(2, 1, 3, 4), ones(2, 1, 3, 4, dtype=torch.float64)),
        TypeError,
        ("values", "torch.float32", "got torch.float64"),
    ),
    (reorder([1, 0]), TypeError, ("index", "integers from 0 to 1", "got list")),
    (reorder(ones(2)), TypeError, ("index", "integers from 0 to 1", "got dtype torch.float32")),
    (reorder(torch.tensor([0, 2])), ValueError, ("index", "integers from 0 to 1", "got [0, 2]")),
    (reorder(torch.tensor([-1, 0])), ValueError, ("index", "integers from 0 to 1", "got [-1, 0]")),
    (reorder(torch.tensor(1)), ValueError, ("index", "one axis", "got shape ()")),
    (reorder(torch.tensor([[0, 1]])), ValueError, ("index", "one axis", "got shape (1, 2)")),
    (
        reorder(torch.tensor([], dtype=torch.int64)),
        ValueError,
        ("index", "one axis", "got shape (0,)"),
    ),
]


def test_the_table_is_long_enough_to_mean_something():
    assert len(BAD_CALLS) >= 60


@pytest.mark.parametrize(("call", "error", "fragments"), BAD_CALLS, ids=range(len(BAD_CALLS)))
def test_a_bad_call_is_refused_in_a_sentence(
    call: Callable[[], Any], error: type[Exception], fragments: tuple[str, ...]
):
    with pytest.raises(error) as caught:
        call()
    message, argument = str(caught.value), re.escape(fragments[0])
    # The whole word: "x" is in many a sentence.
    assert re.search(rf"(?<!\w){argument}(?!\w)", message)
    for fragment in fragments[1:]:
        assert fragment in message
    assert len(message) < 300


def test_refusing_needs_no_gradient_and_no_cache_is_touched():
    cache = KVCache(2, 1, 4)
    with pytest.raises(ValueError):
        block()(ones(2, 5, 7), cache=cache)
    assert cache.length == 0
