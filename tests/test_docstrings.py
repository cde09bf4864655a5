"""Every public name of the block says what it takes, what it raises, and where it comes from."""

import inspect
from typing import Any

import pytest

import zeta_edu

NAMES = (
    "KVCache",
    "LoRA",
    "TransformerBlock",
    "ablate",
    "add_lora",
    "load_lora",
    "load_palm",
    "merge_lora",
    "record_attention",
    "rotate_queries_keys",
    "save_lora",
    "tiled_attention",
    "unmerge_lora",
    "use_lora",
)
PARTS = ("Args:", "Raises:", "Source", ">>> ")


def arguments(thing: Any) -> list[str]:
    names = inspect.signature(thing).parameters
    return [name for name in names if name != "self"]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented_whole_with_an_example(name: str):
    thing = getattr(zeta_edu, name)
    text = inspect.getdoc(thing)
    for part in PARTS:
        assert part in text, f"{name} lacks {part}"
    described = text[text.index("Args:") :]
    for argument in arguments(thing):
        assert (
            f"{argument}:" in described
            or f"{argument}," in described
            or (f", {argument}" in described)
        ), f"{name} does not describe {argument}"


@pytest.mark.parametrize("name", ["KVCache", "LoRA", "TransformerBlock"])
def test_public_methods_describe_their_arguments(name: str):
    for method, function in inspect.getmembers(getattr(zeta_edu, name), inspect.isfunction):
        if method.startswith("_") or function.__module__.split(".")[0] != "zeta_edu":
            continue
        text = inspect.getdoc(function)
        assert text, f"{name}.{method} has no docstring"
        for argument in arguments(function):
            inherits = name == "LoRA"  # the shapes of its one argument are the class's
            assert inherits or f"{argument}:" in text, f"{name}.{method}: {argument}"
