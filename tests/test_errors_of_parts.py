"""Bad calls of the parts beside the block: LoRA, adapters, positions, recording."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from zeta_edu import (
    LoRA,
    TransformerBlock,
    load_lora,
    record_attention,
    rotate_queries_keys,
    save_lora,
)
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


def ones(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.ones(*shape, dtype=dtype, device=device)


def turn(q: Any = None, k: Any = None, at_q: Any = None, at_k: Any = None, *rest: Any) -> Any:
    q, k = ones(3, 4) if q is None else q, ones(5, 4) if k is None else k
    at_q = torch.arange(3) if at_q is None else at_q
    at_k = torch.arange(5) if at_k is None else at_k
    return lambda: rotate_queries_keys(q, k, at_q, at_k, *rest)


def recorded(module: Any) -> Callable[[], Any]:
    def call() -> None:
        with record_attention(module):
            pass

    return call


def adapted(**options: Any) -> Callable[[], Any]:
    return lambda: add_lora(block(), **options)


# (call, what it raises, fragments of the message: argument, what is allowed, what came)
BAD_CALLS: list[tuple[Callable[[], Any], type[Exception], tuple[str, ...]]] = [
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
    (lambda: LayerNorm(4)([1.0] * 4), TypeError, ("x", "floating-point tensor", "got list")),
    (
        lambda: LayerNorm(4)(ones(2, 4, dtype=torch.int64)),
        TypeError,
        ("x", "floating-point tensor", "got dtype torch.int64"),
    ),
    (lambda: SwiGLU()(ones(2, 5)), ValueError, ("x", "even last axis", "got (2, 5)")),
    (lambda: SwiGLU()("x"), TypeError, ("x", "floating-point tensor", "got str")),
    (lambda: SwiGLU()(torch.tensor(1.0)), ValueError, ("x", "(..., double_inner)", "got shape ()")),
    # Files of adapters.
    (
        lambda: load_lora(block(), None),
        TypeError,
        ("path", "the path of a file", "got None"),
    ),
    (
        lambda: load_lora(block(), "nowhere.safetensors"),
        FileNotFoundError,
        ("path", "a file", "got 'nowhere.safetensors'"),
    ),
    (
        lambda: save_lora(block(), "here.safetensors", "mine"),
        ValueError,
        ("name", "one of the adapters []", "got 'mine'"),
    ),
]


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


def test_a_refused_adapter_leaves_the_model_as_it_was():
    for options in ({"rank": 0}, {"alpha": NAN}, {"dropout": 1}, {"name": "training"}):
        model = nn.Sequential(block(), block())
        names = list(model.state_dict())
        with pytest.raises(ValueError):
            add_lora(model, **options)
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert list(model.state_dict()) == names
