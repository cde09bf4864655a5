"""PaLMs as palm-rlhf-pytorch makes and saves them."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from palm_rlhf_pytorch import PaLM

SIZES = {"num_tokens": 50, "dim": 16, "depth": 3, "dim_head": 8, "heads": 4}


def trained(**options: Any) -> PaLM:
    """A PaLM whose gains look trained: around 1, spread, some small."""
    torch.manual_seed(0)
    model = PaLM(**{**SIZES, **options})
    nn.init.normal_(model.token_emb.weight)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.normal_(parameter, mean=-0.1, std=0.3)
        elif name.endswith("scale"):
            nn.init.normal_(parameter, mean=1, std=0.2)
    return model.eval()


def saved(
    model: PaLM, path: Path, change: Callable[[dict[str, Tensor]], Any] | None = None
) -> Path:
    tensors = model.state_dict()
    if change is not None:
        change(tensors)
    torch.save(tensors, path)
    return path


def directly(tensors: dict[str, Tensor]) -> None:
    """Store gains as releases before 0.2.4 do."""
    for name in tensors:
        if name.endswith("gamma"):
            tensors[name] = tensors[name] + 1
