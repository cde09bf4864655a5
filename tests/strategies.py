"""What several test files share: drawn configurations, blocks with telling weights, and masks."""

import os
from typing import Any

import pytest
import torch
from beartype import BeartypeConf, beartype
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import Tensor

from zeta_edu import TransformerBlock

# ZETA_EDU_EXAMPLES=20 draws twenty times as many examples, and others at every run.
THOROUGH = float(os.environ.get("ZETA_EDU_EXAMPLES", "1"))
SHRINK = os.environ.get("ZETA_EDU_SHRINK") != "no"  # a counterexample is made small, slowly
# Small ones put several windows of queries into a short sequence.
SCALE_BASES = (0.05, 0.3, 1, 2.5, 7, 512)

enforce_types = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, too

# Ways through the block that differ in their code, for tests of one example.
VARIANTS: dict[str, dict[str, Any]] = {
    "regular": {},
    "flash": {"flash_attn": True},
    "qk_rmsnorm": {"qk_rmsnorm": True},
    "not causal": {"causal": False},
    "several windows": {"xpos_scale_base": 0.4},
}
variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
paths = pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])


def explore(examples: int) -> settings:
    """Return hypothesis settings: so many examples, the same ones at every run."""
    return settings(
        max_examples=max(1, int(examples * THOROUGH)),
        derandomize=THOROUGH <= 1,
        database=None,
        deadline=None,
        phases=[phase for phase in Phase if SHRINK or phase is not Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@st.composite
def block_options(draw: st.DrawFn, **fixed: Any) -> dict[str, Any]:
    """Keyword arguments of a small TransformerBlock; those in `fixed` are as given."""
    kv_heads = draw(st.integers(1, 3))
    options = {
        "dim": draw(st.integers(2, 9)),
        "dim_head": draw(st.sampled_from((2, 4, 6))),
        "heads": kv_heads * draw(st.integers(1, 3)),
        "kv_heads": kv_heads,
        "causal": draw(st.booleans()),
        "use_xpos": draw(st.booleans()),
        "xpos_scale_base": draw(st.sampled_from(SCALE_BASES)),
        "qk_rmsnorm": draw(st.booleans()),
        "qk_scale": draw(st.sampled_from((0.5, 3, 8))),
        "ff_mult": draw(st.integers(1, 3)),
    }
    return {**options, **fixed}


@st.composite
def keep_masks(draw: st.DrawFn, batch: int, keys: int) -> Tensor | None:
    """None, or a mask (batch, keys) whose rows are padded left or right, ragged, or empty."""
    if draw(st.booleans()):
        return None
    columns = torch.arange(keys)
    rows = []
    for _ in range(batch):
        kind = draw(st.sampled_from(("left", "right", "ragged", "nothing")))
        at = draw(st.integers(0, keys))
        ragged = [draw(st.booleans()) for _ in range(keys)] if kind == "ragged" else []
        rows.append(
            {
                "left": columns >= at,
                "right": columns < at,
                "ragged": torch.tensor(ragged, dtype=torch.bool),
                "nothing": columns < 0,
            }[kind]
        )
    return torch.stack(rows)


def make_block(
    dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any
) -> TransformerBlock:
    """A block whose gains differ from 1 and whose attention is far from uniform."""
    torch.manual_seed(seed)
    block = TransformerBlock(**options).to(dtype)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
            elif not name.startswith("finetune_modules"):
                parameter.mul_(2)
    return block


def drawn(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal random numbers, the same ones for the same seed."""
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def gradients(out: Tensor, *inputs: Tensor, again: bool = True) -> list[Tensor]:
    """The gradients of a sum of `out` in which every entry has a weight of its own.

    `again` keeps the graph for another call, which a compiled one does not allow.
    """
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    return list(torch.autograd.grad((out * weights).sum(), inputs, retain_graph=again))
