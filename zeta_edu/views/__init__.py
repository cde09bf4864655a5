"""Pictures of a transformer that move: in a notebook, on a page, without kernel and network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeta_edu.views import style
    from zeta_edu.views.attention import AttentionView, attention_view
    from zeta_edu.views.block import BlockView, block_view
    from zeta_edu.views.cache import CacheView, cache_view
    from zeta_edu.views.display import View
    from zeta_edu.views.flash import FlashView, flash_view
    from zeta_edu.views.heads import HeadsView, heads_view
    from zeta_edu.views.lora import LoRAView, lora_view
    from zeta_edu.views.mask import MaskView, mask_view
    from zeta_edu.views.qknorm import QKNormView, qknorm_view
    from zeta_edu.views.rotary import RotaryView, rotary_view
    from zeta_edu.views.xpos import XPosView, xpos_view

__all__ = [
    "AttentionView",
    "BlockView",
    "CacheView",
    "FlashView",
    "HeadsView",
    "LoRAView",
    "MaskView",
    "QKNormView",
    "RotaryView",
    "View",
    "XPosView",
    "attention_view",
    "block_view",
    "cache_view",
    "flash_view",
    "heads_view",
    "lora_view",
    "mask_view",
    "qknorm_view",
    "rotary_view",
    "style",
    "xpos_view",
]

# A view's class and its function live in the file of its name; `style` is a file itself.
_HOMES = {"View": "display"} | {
    name: name.removesuffix("View").removesuffix("_view").lower()
    for name in __all__
    if name not in ("View", "style")
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: the command line asks for this package's commands without its pictures.
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_HOMES.get(name, name)}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        message = 'the views draw with matplotlib: pip install "zeta-edu[notebooks]"'
        raise ImportError(message) from error
    return getattr(module, name, module)
