"""Every bad call is refused in a sentence: which argument, what came, what is allowed."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zeta_edu import KVCache, LoRA, TransformerBlock, record_attention, rotate_queries_keys
from zeta_edu.adapters import add_lora, merge_lora, unmerge_lora, use_lora
from zeta_edu.feedforward import SwiGLU
from zeta_edu.lora import FinetuneModules
from zeta_edu.norm import LayerNorm

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


def turn(q: Any = None, k: Any = None, at_q: Any = None, at_k: Any = None, *rest: Any) -> Any:
    q, k = ones(3, 4) if q is None else q, ones(5, 4) if k is None else k
    at_q = torch.arange(3) if at_q is None else at_q
    at_k = torch.arange(5) if at_k is None else at_k
    return lambda: rotate_queries_keys(q, k, at_q, at_k, *rest)


def used_cache() -> KVCache:
    cache = KVCache(2, 1, 4)
    cache.extend(ones(2, 1, 3, 4), ones(2, 1, 3, 4))
    return cache


def recorded(module: Any) -> Callable[[], Any]:
    def call() -> None:
        with record_attention(module):
            pass

    return call


def adapted(**options: Any) -> Callable[[], Any]:
    return lambda: add_lora(block(), **options)


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
        ("keys and values", "(2, 1, 3, 4)", "(2, 1, 2, 4)"),
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
    # LoRA and the adapters of a model.
    (lambda: LoRA(0, 4), ValueError, ("dim", WHOLE, "got 0")),
    (lambda: LoRA(4, 4.5), TypeError, ("dim_out", WHOLE, "got 4.5")),
    (lambda: LoRA(4, 4, rank=0), ValueError, ("rank", WHOLE, "got 0")),
    (lambda: LoRA(4, 4, rank="8"), TypeError, ("rank", WHOLE, "got '8'")),
    (lambda: LoRA(4, 4, alpha=INF), ValueError, ("alpha", "finite", "got inf")),
    (lambda: LoRA(4, 4, alpha="16"), TypeError, ("alpha", NUMBER, "got '16'")),
    (lambda: LoRA(4, 4, dropout=1.0), ValueError, ("dropout", "below 1", "got 1.0")),
    (lambda: LoRA(4, 4)(ones(2, 5)), ValueError, ("x", "dim=4", "got shape (2, 5)")),
    (lambda: LoRA(4, 4)([1.0] * 4), TypeError, ("x", "floating-point tensor", "got list")),
    (
        lambda: LoRA(4, 4)(ones(2, 4, dtype=torch.float64)),
        TypeError,
        ("x", "torch.float32", "got torch.float64"),
    ),
    (lambda: FinetuneModules(7), TypeError, ("finetune_modules", FOUR, "got int")),
    (lambda: add_lora(7), TypeError, ("model", "torch.nn.Module", "got int")),
    (
        lambda: add_lora(nn.Linear(2, 2)),
        ValueError,
        ("model", "contain a TransformerBlock", "got Linear"),
    ),
    (adapted(rank=0), ValueError, ("rank", WHOLE, "got 0")),
    (adapted(alpha=NAN), ValueError, ("alpha", "finite", "got nan")),
    (adapted(dropout=2), ValueError, ("dropout", "below 1", "got 2")),
    (
        adapted(targets="qv"),
        TypeError,
        ("targets", "a sequence, some of ('q', 'k', 'v', 'o')", "got 'qv'"),
    ),
    (adapted(targets=()), ValueError, ("targets", "some of ('q', 'k', 'v', 'o')", "got ()")),
    (adapted(targets=("q", "q")), ValueError, ("targets", "each once", "got ('q', 'q')")),
    (adapted(targets=("q", "up")), ValueError, ("targets", "some of ('q', 'k', 'v', 'o')", "'up'")),
    (adapted(name=""), ValueError, ("name", "an identifier", "got ''")),
    (adapted(name="a.b"), ValueError, ("name", "an identifier", "got 'a.b'")),
    (adapted(name=3), (TypeError, ValueError), ("name", "an identifier", "got 3")),
    (adapted(name="training"), ValueError, ("name", "got 'training'")),
    (adapted(name="active"), ValueError, ("name", "got 'active'")),
    (adapted(name="keys"), ValueError, ("name", "got 'keys'")),
    (lambda: add_lora(add_lora(block())), ValueError, ("name", "a new one", "got 'default'")),
    (
        lambda: add_lora(block(finetune_modules=(LoRA(6, 8), None, None, None))),
        ValueError,
        ("targets", "free", "a LoRA for 'q'"),
    ),
    (
        lambda: add_lora(merge_lora(add_lora(block())), name="b"),
        ValueError,
        ("'default'", "unmerge_lora"),
    ),
    (
        lambda: use_lora(block(), "mine"),
        ValueError,
        ("name", "one of the adapters []", "got 'mine'"),
    ),
    (
        lambda: use_lora(add_lora(block()), "mine"),
        ValueError,
        ("name", "['default']", "got 'mine'"),
    ),
    (
        lambda: use_lora(merge_lora(add_lora(block())), None),
        ValueError,
        ("'default'", "unmerge_lora"),
    ),
    (lambda: merge_lora(block()), ValueError, ("model", "active adapter", "add_lora")),
    (
        lambda: merge_lora(use_lora(add_lora(block()), None)),
        ValueError,
        ("model", "active adapter"),
    ),
    (lambda: merge_lora(merge_lora(add_lora(block()))), ValueError, ("model", "active adapter")),
    (
        lambda: unmerge_lora(add_lora(block())),
        ValueError,
        ("model", "merged adapter", "merge_lora"),
    ),
    # rotate_queries_keys.
    (turn(q=[1.0]), TypeError, ("queries", "floating-point tensor", "got list")),
    (turn(k=ones(5, 4, dtype=torch.int32)), TypeError, ("keys", "floating-point", "torch.int32")),
    (turn(q=ones(4)), ValueError, ("queries", "(..., query, dim_head)", "got shape (4,)")),
    (turn(k=ones(5, 6)), ValueError, ("queries and keys", "even dim_head", "got (4, 6)")),
    (
        turn(q=ones(3, 3), k=ones(5, 3)),
        ValueError,
        ("queries and keys", "even dim_head", "got (3, 3)"),
    ),
    (turn(at_q=[0, 1, 2]), TypeError, ("query_positions", "a tensor", "got list")),
    (turn(at_q=3), TypeError, ("query_positions", "a tensor", "got int")),
    (turn(at_q=torch.arange(4)), ValueError, ("query_positions", "(query,)", "got shape (4,)")),
    (turn(at_q=torch.tensor(3)), ValueError, ("query_positions", "(query,)", "got shape ()")),
    (
        turn(at_q=ones(7, 3)),
        ValueError,
        ("query_positions", "broadcast to (3,)", "got shape (7, 3)"),
    ),
    (
        turn(q=ones(2, 3, 4), at_q=ones(7, 3)),
        ValueError,
        ("query_positions", "(2, 3)", "got shape (7, 3)"),
    ),
    (
        turn(at_k=ones(5, dtype=torch.bool)),
        TypeError,
        ("key_positions", "integers or real", "torch.bool"),
    ),
    (
        turn(at_k=ones(5, dtype=torch.complex64)),
        TypeError,
        ("key_positions", "real", "torch.complex64"),
    ),
    (turn(at_k=torch.tensor([0, 1, NAN, 3, 4])), ValueError, ("key_positions", "finite", "nan")),
    (turn(at_q=torch.tensor([0, 1, INF])), ValueError, ("query_positions", "finite", "inf")),
    (turn(None, None, None, None, 1), TypeError, ("use_xpos", TRUTH, "got 1")),
    (turn(None, None, None, None, True, -1), ValueError, ("xpos_scale_base", "above 0", "got -1")),
    (
        turn(None, None, None, None, True, "512"),
        TypeError,
        ("xpos_scale_base", NUMBER, "got '512'"),
    ),
    # Recording and the parts.
    (recorded("block"), TypeError, ("module", "torch.nn.Module", "got str")),
    (recorded(nn.Linear(2, 2)), ValueError, ("module", "contain a TransformerBlock", "got Linear")),
    (lambda: LayerNorm(0), ValueError, ("dim", WHOLE, "got 0")),
    (lambda: LayerNorm(4)(ones(2, 3)), ValueError, ("x", "dim=4", "got shape (2, 3)")),
    (lambda: SwiGLU()(ones(2, 5)), ValueError, ("x", "even last axis", "got (2, 5)")),
]


def test_the_table_is_long_enough_to_mean_something():
    assert len(BAD_CALLS) >= 100


@pytest.mark.parametrize(("call", "error", "fragments"), BAD_CALLS, ids=range(len(BAD_CALLS)))
def test_a_bad_call_is_refused_in_a_sentence(
    call: Callable[[], Any], error: type[Exception], fragments: tuple[str, ...]
):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(fragments[0]) or fragments[0] in message
    for fragment in fragments:
        assert fragment in message
    assert len(message) < 300


def test_a_refused_adapter_leaves_the_model_as_it_was():
    for options in ({"rank": 0}, {"alpha": NAN}, {"dropout": 1}, {"name": "training"}):
        model = nn.Sequential(block(), block())
        names = list(model.state_dict())
        with pytest.raises(ValueError):
            add_lora(model, **options)
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert list(model.state_dict()) == names


def test_refusing_needs_no_gradient_and_no_cache_is_touched():
    cache = KVCache(2, 1, 4)
    with pytest.raises(ValueError):
        block()(ones(2, 5, 7), cache=cache)
    assert cache.length == 0
