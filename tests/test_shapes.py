"""The shapes in the signatures are true: every call is checked against them while it runs."""

import functools
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import block_options, drawn, explore, keep_masks

PARTS = (
    "adapters",
    "attention",
    "block",
    "cache",
    "feedforward",
    "lora",
    "norm",
    "recording",
    "rotary",
)


narrow = functools.partial(drawn, dtype=torch.float32)


def packages_modules() -> dict[str, ModuleType]:
    return {name: m for name, m in sys.modules.items() if name.split(".")[0] == "zeta_edu"}


@pytest.fixture(scope="module")
def typed() -> Iterator[SimpleNamespace]:
    """The package's modules, imported once more with every annotation enforced."""
    usual = packages_modules()
    for name in usual:
        del sys.modules[name]
    try:
        with jaxtyping.install_import_hook("zeta_edu", "tests.strategies.enforce_types"):
            parts = {part: importlib.import_module(f"zeta_edu.{part}") for part in PARTS}
        yield SimpleNamespace(**parts)
    finally:
        for name in packages_modules():
            del sys.modules[name]
        sys.modules.update(usual)


@explore(60)
@given(data=st.data())
def test_a_block_keeps_its_shapes(typed: SimpleNamespace, data: st.DataObject):
    options = data.draw(block_options(flash_attn=data.draw(st.booleans())))
    dtype = data.draw(st.sampled_from((torch.float32, torch.bfloat16, torch.float64)))
    block = typed.block.TransformerBlock(**options).to(dtype)
    batch, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    x, mask = drawn(batch, n, options["dim"], dtype=dtype), data.draw(keep_masks(batch, n))
    cache = block.new_cache(batch, data.draw(st.sampled_from((None, n))))
    with typed.recording.record_attention(block) as record:
        assert block(x, mask).shape == x.shape
        assert block(x, mask, cache=cache).shape == x.shape
    assert record[0].shape == record[1].shape == (batch, options["heads"], n, n)
    cache.reorder(torch.zeros(2, dtype=torch.int64))
    assert cache.keys.shape == (2, options["kv_heads"], n, options["dim_head"])


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize(("batch", "n"), [(0, 3), (2, 0)])
def test_empty_inputs_keep_their_shapes(typed: SimpleNamespace, flash: bool, batch: int, n: int):
    block = typed.block.TransformerBlock(6, 4, heads=2, flash_attn=flash)
    assert block(torch.zeros(batch, n, 6)).shape == (batch, n, 6)


def test_cached_steps_and_several_windows_keep_their_shapes(typed: SimpleNamespace):
    for flash in (False, True):
        block = typed.block.TransformerBlock(6, 4, xpos_scale_base=0.3, flash_attn=flash)
        cache, x = block.new_cache(2), narrow(2, 20, 6)
        for start, stop in ((0, 7), (7, 8), (8, 20)):
            keep = torch.ones(2, stop, dtype=torch.bool)
            assert block(x[:, start:stop], keep, cache=cache).shape == (2, stop - start, 6)


def test_finetune_modules_and_adapters_keep_their_shapes(typed: SimpleNamespace):
    lora = typed.lora.LoRA
    four = lora(6, 8, 2), lora(6, 4, 2), None, lora(8, 6, 2)
    block = typed.block.TransformerBlock(6, 4, heads=2, finetune_modules=four)
    assert block(narrow(2, 3, 6)).shape == (2, 3, 6)
    assert block(narrow(2, 3, 6), None, four).shape == (2, 3, 6)
    adapted = typed.adapters.add_lora(typed.block.TransformerBlock(6, 4, heads=2), rank=2)
    assert adapted(narrow(2, 3, 6)).shape == (2, 3, 6)
    typed.adapters.unmerge_lora(typed.adapters.merge_lora(adapted))


def test_rotated_queries_and_keys_keep_their_shapes(typed: SimpleNamespace):
    turn = typed.rotary.rotate_queries_keys
    for q, k in ((narrow(3, 4), narrow(5, 4)), (narrow(2, 6, 3, 4), narrow(2, 1, 5, 4))):
        for use_xpos in (True, False):
            out = turn(q, k, torch.arange(3), torch.arange(5), use_xpos)
            assert [x.shape for x in out] == [q.shape, k.shape]
    each = turn(narrow(2, 3, 4), narrow(2, 5, 4), torch.zeros(2, 3), torch.zeros(1, 5))
    assert [x.shape for x in each] == [(2, 3, 4), (2, 5, 4)]


QUERIES = narrow(1, 1, 3, 4)
WRONG: list[tuple[str, str, tuple[Any, ...]]] = [
    ("rotary", "rotate", (narrow(3, 4), narrow(3, 2), narrow(3, 1))),
    ("rotary", "apply_xpos", (narrow(1, 2, 3, 4), narrow(1, 1, 3, 6), 0, 512.0)),
    ("norm", "l2_normalise", (narrow(3, 4), narrow(5))),
    ("attention", "attention_weights", (narrow(1, 2, 3, 4), narrow(2, 1, 3, 4))),
    (
        "attention",
        "regular_attention",
        (narrow(1, 1, 3, 4), narrow(1, 1, 5, 4), narrow(1, 1, 6, 4)),
    ),
    ("attention", "flash_attention", (narrow(1, 1, 3, 4), narrow(1, 1, 5, 4), narrow(1, 1, 5, 2))),
]


@pytest.mark.parametrize(("part", "name", "arguments"), WRONG, ids=[row[1] for row in WRONG])
def test_a_wrong_shape_inside_is_caught(
    typed: SimpleNamespace, part: str, name: str, arguments: tuple[Any, ...]
):
    function = getattr(getattr(typed, part), name)
    with pytest.raises(jaxtyping.TypeCheckError, match="Expected type"):
        function(*arguments)
