"""Pictures of a transformer that move: in a notebook, on a page, without kernel and network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeta_edu.views import style
    from zeta_edu.views.attention import AttentionView, attention_view
    from zeta_edu.views.display import View

__all__ = ["AttentionView", "View", "attention_view", "style"]

_HOMES = {"AttentionView": "attention", "attention_view": "attention", "View": "display"}


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
