"""A modern transformer block, built step by step in lessons, and the module they build.

>>> import torch
>>> from zeta_edu import TransformerBlock
>>> TransformerBlock(dim=512, heads=8)(torch.randn(1, 128, 512)).shape
torch.Size([1, 128, 512])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeta_edu import views
    from zeta_edu.ablation import ablate
    from zeta_edu.adapters import add_lora, merge_lora, unmerge_lora, use_lora
    from zeta_edu.block import TransformerBlock
    from zeta_edu.cache import KVCache
    from zeta_edu.exercises import check, hint, progress
    from zeta_edu.lm import TransformerLM, load_pretrained
    from zeta_edu.lm.adapter_files import load_lora, save_lora
    from zeta_edu.lm.palm import load_palm
    from zeta_edu.lora import LoRA
    from zeta_edu.recording import record_attention
    from zeta_edu.rotary import rotate_queries_keys
    from zeta_edu.tiled import tiled_attention

__all__ = [
    "KVCache",
    "LoRA",
    "TransformerBlock",
    "TransformerLM",
    "ablate",
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
    "tiled_attention",
    "unmerge_lora",
    "use_lora",
    "views",
]
__version__ = "0.1.0"

# Where each name is. It is loaded on first use: the command line need not wait for torch, nor the
# block for matplotlib or a tokenizer.
_HOMES = {
    "KVCache": "cache",
    "LoRA": "lora",
    "TransformerBlock": "block",
    "TransformerLM": "lm",
    "ablate": "ablation",
    "add_lora": "adapters",
    "check": "exercises",
    "hint": "exercises",
    "load_lora": "lm.adapter_files",
    "load_palm": "lm.palm",
    "load_pretrained": "lm",
    "merge_lora": "adapters",
    "progress": "exercises",
    "record_attention": "recording",
    "rotate_queries_keys": "rotary",
    "save_lora": "lm.adapter_files",
    "tiled_attention": "tiled",
    "unmerge_lora": "adapters",
    "use_lora": "adapters",
}


def __getattr__(name: str) -> Any:
    if name == "views":
        return import_module("zeta_edu.views")
    if name not in _HOMES:
        raise AttributeError(f"module 'zeta_edu' has no attribute {name!r}")
    value = getattr(import_module(f"zeta_edu.{_HOMES[name]}"), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
