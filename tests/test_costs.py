"""What a call costs, counted and not timed: operations that compute, and what is imported."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from zeta_edu import TransformerBlock

# Operations that only look at the same memory in another way.
VIEWS = "view _unsafe_view slice split split_with_sizes permute transpose t expand unsqueeze detach"
VIEWS += " alias select unbind promote_types empty"


class Counting(TorchDispatchMode):
    """Counts the operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name not in VIEWS.split():
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def counted(call: Callable[[], object]) -> Counter[str]:
    call()  # tables and masks are there from now on
    with Counting() as counting:
        call()
    return counting.counts


def small(**options: Any) -> tuple[TransformerBlock, torch.Tensor]:
    return TransformerBlock(dim=128, heads=2, **options), torch.randn(1, 64, 128)


@pytest.mark.parametrize(
    ("options", "most"),
    [({"flash_attn": True, "use_xpos": False}, 26), ({"flash_attn": True}, 28), ({}, 36)],
    ids=["flash, no xPos", "flash", "regular"],
)
def test_a_forward_pass_takes_few_operations(options: dict[str, Any], most: int) -> None:
    block, x = small(**options)
    with torch.no_grad():
        counts = counted(lambda: block(x))
    assert counts["mm"] == 3  # one projection in, one out of each half
    assert counts.total() <= most, counts


def test_a_step_with_a_cache_takes_hardly_more() -> None:
    block, x = small(flash_attn=True)
    cache = block.new_cache(1)
    with torch.no_grad():
        block(x, cache=cache)
        counts = counted(lambda: block(x[:, :1], cache=cache))
    assert counts["mm"] == 3
    assert counts.total() <= 28, counts


def test_a_step_reads_keys_that_heads_share_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def spy(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> torch.Tensor:
        shapes.append((tuple(q.shape), tuple(k.shape)))
        return kernel(q, k, v, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    block = TransformerBlock(dim=64, dim_head=8, heads=8, kv_heads=2, flash_attn=True)
    cache, x = block.new_cache(3), torch.randn(3, 20, 64)
    with torch.no_grad():
        block(x, cache=cache)
        shapes.clear()
        block(x[:, :1], cache=cache)
    assert shapes == [((3, 2, 4, 8), (3, 2, 21, 8))]  # four heads are four queries of one key head


def test_backward_computes_three_products_for_each_of_forward() -> None:
    block, x = small(flash_attn=True)
    x.requires_grad_()
    counts = counted(lambda: block(x).sum().backward())
    assert counts["mm"] == 9
    assert counts.total() <= 72, counts


def test_parts_of_a_causal_pass_read_only_the_keys_they_may_see() -> None:
    """Regular attention over 4 parts multiplies 1 + 2 + 3 + 4 tiles, not 16."""
    from torch.utils.flop_counter import FlopCounterMode

    def products(causal: bool) -> int:
        block = TransformerBlock(dim=16, dim_head=16, heads=1, causal=causal)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            block(torch.randn(1, 512, 16))
        return int(counter.get_flop_counts()["TransformerBlock.attend"][torch.ops.aten.bmm])

    assert products(causal=True) == products(causal=False) * 10 / 16
