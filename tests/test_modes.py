"""The block under modes of torch that change what a tensor may be used for, or how kernels act."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from zeta_edu import KVCache, TransformerBlock
from zeta_edu.attention import attention_weights, flash_attention, regular_attention

close = torch.testing.assert_close


def drawn(*shape: int, seed: int = 0, **options) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, **options)


@pytest.mark.parametrize("max_length", [None, 200])
def test_a_cache_made_and_grown_under_inference_mode_serves_outside_it(max_length):
    with torch.inference_mode():
        cache = KVCache(1, 1, 4, max_length)
        cache.extend(drawn(1, 1, 3, 4), drawn(1, 1, 3, 4))
        cache.extend(drawn(1, 1, 90, 4), drawn(1, 1, 90, 4))
        cache.reorder(torch.tensor([0]))
    new = drawn(1, 1, 2, 4, seed=1).requires_grad_()
    keys, values = cache.extend(new, new * 2)
    (keys.sum() + values.square().sum()).backward()
    assert cache.length == 95
    assert new.grad is not None


def test_tables_and_masks_made_under_inference_mode_serve_a_training_step():
    block = TransformerBlock(8, 6, heads=2, xpos_scale_base=33)
    x = drawn(1, 131, 8)
    with torch.inference_mode():
        block(x)
    block(x.requires_grad_()).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_a_query_that_sees_nothing_gets_zeros_from_every_kernel(backend):
    inputs = [drawn(2, 2, 5, 4, seed=i, dtype=torch.float64).requires_grad_() for i in range(3)]
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[0, :, 1:3] = False
    regular = regular_attention(*inputs, mask=mask, causal=True)
    with sdpa_kernel(backend):
        flash = flash_attention(*inputs, mask=mask, causal=True)
        gradients = torch.autograd.grad(flash.sin().sum(), inputs)
    assert (flash[0, :, 1:3] == 0).all()
    close(flash, regular)
    for ours, theirs in zip(
        gradients, torch.autograd.grad(regular.sin().sum(), inputs), strict=True
    ):
        close(ours, theirs)


def test_a_hidden_score_too_large_for_float16_does_no_harm():
    queries = torch.full((1, 1, 2, 4), 100.0, dtype=torch.float16)
    keys = torch.tensor([[[[0.0] * 4, [1000.0] * 4]]], dtype=torch.float16)
    weights = attention_weights(queries, keys, causal=True, scale=1.0)
    close(weights[0, 0, 0], torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_weights_of_half_precision_are_computed_in_float32(dtype, masked):
    queries, keys = drawn(1, 1, 3, 4).to(dtype), drawn(1, 1, 6, 4, seed=1).to(dtype)
    mask = torch.tensor([True] * 5 + [False]) if masked else None
    weights = attention_weights(queries, keys, mask=mask)
    assert weights.dtype == torch.float32
    close(weights.sum(-1), torch.ones(1, 1, 3), rtol=0, atol=1e-6)


def test_weights_are_not_causal_unless_asked():
    weights = attention_weights(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4))
    close(weights, torch.full((1, 1, 2, 2), 0.5))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attention", [regular_attention, flash_attention])
def test_dropout_drops_weights_masked_or_not(attention, masked):
    queries, keys, values = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 400, 4), torch.eye(400)
    mask = torch.arange(400)[None] < 300 if masked else None
    out = attention(queries, keys, values[None, None, :, :4], mask=mask)
    weights = [
        attention(queries, keys, values[None, None, :, i : i + 4], mask=mask, dropout=0.5)[0, 0, 0]
        for i in range(0, 300, 4)
    ]
    kept = torch.cat(weights) > 0
    assert (out > 0).all()
    assert 0.3 < kept.float().mean() < 0.7
    close(torch.cat(weights)[kept], torch.full((int(kept.sum()),), 2 / (300 if masked else 400)))


@pytest.mark.parametrize("flash", [False, True])
def test_autocast_decodes_with_a_cache_of_the_weights_dtype(flash):
    block = TransformerBlock(16, 8, heads=2, flash_attn=flash)
    x = drawn(1, 7, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cache = block.new_cache(1)
        stepped = torch.cat([block(x[:, i : i + 1], cache=cache) for i in range(7)], dim=1)
    assert cache.keys.dtype == torch.float32
    close(stepped.float(), block(x).detach(), rtol=0.05, atol=0.02)
