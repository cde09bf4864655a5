"""A modern transformer block, built step by step in lessons, and the module they build.

>>> import torch
>>> from zeta_edu import TransformerBlock
>>> TransformerBlock(dim=512, heads=8)(torch.randn(1, 128, 512)).shape
torch.Size([1, 128, 512])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zeta_edu.adapters import add_lora, merge_lora, unmerge_lora, use_lora
from zeta_edu.block import TransformerBlock
from zeta_edu.cache import KVCache
from zeta_edu.lora import LoRA
from zeta_edu.recording import record_attention
from zeta_edu.rotary import rotate_queries_keys

if TYPE_CHECKING:
    from zeta_edu import views
    from zeta_edu.exercises import check, hint, progress
    from zeta_edu.lm import TransformerLM, load_pretrained
    from zeta_edu.lm.adapter_files import load_lora, save_lora
    from zeta_edu.lm.palm import load_palm

__all__ = [
    "KVCache",
    "LoRA",
    "TransformerBlock",
    "TransformerLM",
    "add_lora",
    "check",
    "hint",
    "load_lora",
    "load_palm",
    "load_pretrained",
    "merge_lora",
    "progress",
    "record_attention",
    "rotate_queries_keys",
    "save_lora",
    "unmerge_lora",
    "use_lora",
    "views",
]
__version__ = "0.1.0"

# Loaded on first use: the block itself needs neither matplotlib nor a tokenizer.
_LATER = {
    "TransformerLM": "zeta_edu.lm",
    "load_lora": "zeta_edu.lm.adapter_files",
    "load_palm": "zeta_edu.lm.palm",
    "load_pretrained": "zeta_edu.lm",
    "save_lora": "zeta_edu.lm.adapter_files",
    "check": "zeta_edu.exercises",
    "hint": "zeta_edu.exercises",
    "progress": "zeta_edu.exercises",
}


def __getattr__(name: str) -> Any:
    if name == "views":
        return import_module("zeta_edu.views")
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'zeta_edu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
