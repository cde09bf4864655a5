"""Lessons and other notebooks as pages that need nothing else: no kernel, no network."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "export_notebook":
        raise AttributeError(f"module 'zeta_edu.pages' has no attribute {name!r}")
    from zeta_edu.pages.export import export_notebook  # needs nbconvert; the commands need not

    return export_notebook
