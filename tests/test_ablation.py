"""Heads that are switched off say nothing, and everything else stays as it was."""

from typing import Any

import pytest
import torch
from einops import rearrange
from torch import nn

from tests.strategies import drawn, make_block
from zeta_edu import TransformerBlock, ablate, record_attention

close = torch.testing.assert_close


def block(**options: Any) -> TransformerBlock:
    torch.manual_seed(0)
    return TransformerBlock(dim=16, dim_head=4, heads=4, **options).double().eval()


@pytest.mark.parametrize("options", [{}, {"flash_attn": True}, {"kv_heads": 2}])
@pytest.mark.parametrize("head", [0, 3, -1, (1, 2), range(4), ()])
def test_what_a_silent_head_would_have_added_is_missing_and_nothing_else(
    options: dict[str, Any], head: Any
) -> None:
    made, x = block(**options), drawn(2, 5, 16)
    with ablate(made, 0, head):
        without = made(x)
    mixed: list[torch.Tensor] = []
    handle = made.attend.register_forward_hook(lambda _, __, output: mixed.append(output))
    whole = made(x)
    handle.remove()
    listed = [head] if isinstance(head, int) else list(head)
    said = torch.zeros_like(mixed[0])
    said[:, listed] = mixed[0][:, listed]
    missing = made.attn_out(rearrange(said, "b h n d -> b n (h d)"))
    close(without, whole - missing)


def test_gradients_pass_the_silent_head_by() -> None:
    made, x = block(kv_heads=4), drawn(1, 5, 16)
    with ablate(made, 0, 1):
        made(x).sum().backward()
    gradient = made.fused_attn_ff_proj.weight.grad
    assert gradient is not None
    queries = rearrange(gradient[:16], "(h d) i -> h d i", h=4)
    assert not queries[1].any()
    assert queries[0].any()


def test_only_the_named_layer_and_contexts_that_are_nested() -> None:
    layers, x = nn.ModuleList([block(), block()]), drawn(1, 5, 16)
    whole = [layer(x) for layer in layers]
    with ablate(layers, -1, 0), ablate(layers, 1, 2):
        close(layers[0](x), whole[0])
        both = layers[1](x)
    with ablate(layers[1], 0, (0, 2)):
        close(layers[1](x), both)
    close(layers[1](x), whole[1])


def test_the_head_speaks_again_after_an_error() -> None:
    made, x = block(), drawn(1, 5, 16)
    whole = made(x)
    with pytest.raises(RuntimeError, match="mine"), ablate(made, 0, 0):
        raise RuntimeError("mine")
    close(made(x), whole)


def test_weights_are_recorded_as_they_are_and_a_cache_goes_on() -> None:
    made, x = block(), drawn(1, 5, 16)
    with ablate(made, 0, 1), record_attention(made) as record:
        together = made(x)
        cache = made.new_cache(1)
        parts = [made(x[:, :3], cache=cache), made(x[:, 3:], cache=cache)]
    close(torch.cat(parts, dim=1), together)
    with record_attention(made) as again:
        made(x)
    close(record[0], again[0])


def test_a_head_that_mixes_nan_is_silent_too() -> None:
    made, x = block(), drawn(1, 3, 16)
    made.attend.register_forward_hook(lambda _, __, mixed: mixed.fill_(torch.nan))
    with ablate(made, 0, range(4)):
        assert made(x).isfinite().all()


def test_a_compiled_block_is_ablated_too() -> None:
    made, x = block(), drawn(1, 5, 16)
    compiled = torch.compile(made, backend="eager")
    compiled(x)
    with ablate(compiled, 0, 1):
        without = compiled(x)
    with ablate(made, 0, 1):
        close(without, made(x))
    close(compiled(x), made(x))


@pytest.mark.parametrize(
    ("module", "layer", "head", "error", "match"),
    [
        ("model", 0, 0, TypeError, "module must be a torch.nn.Module, got str"),
        (nn.Linear(2, 2), 0, 0, ValueError, "module must contain a TransformerBlock, got Linear"),
        (
            make_block(dim=8, dim_head=2, heads=2),
            1,
            0,
            ValueError,
            "layer must be in 0 to 0, got 1",
        ),
        (make_block(dim=8, dim_head=2, heads=2), 0, 2, ValueError, "head must be in 0 to 1, got 2"),
        (make_block(dim=8, dim_head=2, heads=2), 0, (0, -3), ValueError, "head must be in 0 to 1"),
        (make_block(dim=8, dim_head=2, heads=2), 0, "0", TypeError, "head must be an int, got '0'"),
        (
            make_block(dim=8, dim_head=2, heads=2),
            True,
            0,
            TypeError,
            "layer must be an int, got True",
        ),
    ],
)
def test_what_does_not_exist_is_refused_by_name(
    module: Any, layer: Any, head: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match), ablate(module, layer, head):
        pass
