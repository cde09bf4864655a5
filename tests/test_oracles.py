"""The block against its peers: the same weights give the same outputs and gradients."""

import copy
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.reference import frequencies, zeta
from tests.strategies import block_options, drawn, explore, gradients, make_block
from zeta_edu import LoRA, TransformerBlock
from zeta_edu.feedforward import SwiGLU
from zeta_edu.norm import LayerNorm
from zeta_edu.rotary import rotate_queries_keys

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the peers use that is no longer in fashion is their own
    import peft
    from palm_rlhf_pytorch import palm
    from transformers.models.cohere import modeling_cohere as cohere
    from x_transformers import x_transformers

close = torch.testing.assert_close


# palm-rlhf-pytorch, whose block this one descends from. It stores the gain as gamma - 1, keeps its
# rotary tables in float32, and scales by dim_head ** -0.5 whatever its qk_scale says.


def palm_weights(block: TransformerBlock) -> dict[str, Tensor]:
    weights = {name: tensor.detach().clone() for name, tensor in block.state_dict().items()}
    weights["norm.gamma"] -= 1
    return weights


def palm_block(block: TransformerBlock, options: dict[str, Any]) -> nn.Module:
    options = {name: value for name, value in options.items() if name not in ("kv_heads", "dtype")}
    twin = palm.ParallelTransformerBlock(**options).to(block.norm.gamma.dtype)
    with_tables = twin.load_state_dict(palm_weights(block), strict=False)
    assert not with_tables.unexpected_keys
    assert set(with_tables.missing_keys) == {
        "norm.beta",
        "rotary_emb.inv_freq",
        "rotary_emb.scale",
    }
    if block.norm.gamma.dtype == torch.float64:
        twin.rotary_emb.inv_freq = frequencies(block.dim_head)
        twin.rotary_emb.scale = zeta(block.dim_head)
    return twin


def assert_same_as_palm(
    options: dict[str, Any],
    dtype: torch.dtype,
    x: Tensor,
    mask: Tensor | None,
    tolerance: float,
    flash: bool,
) -> None:
    options["qk_scale"] = options["dim_head"] ** -0.5
    block = make_block(dtype=dtype, flash_attn=flash, **options)
    twin = palm_block(block, options)
    x = x.to(dtype).requires_grad_()
    ours, theirs = block(x, mask), twin(x, mask)
    close(ours, theirs, atol=tolerance, rtol=tolerance)
    names = [name for name, _ in block.named_parameters()]
    into_ours = gradients(ours, x, *block.parameters())
    into_theirs = gradients(theirs, x, *(twin.get_parameter(name) for name in names))
    for mine, other in zip(into_ours, into_theirs, strict=True):
        size = max(1.0, other.abs().max().item())
        close(mine, other, atol=tolerance * size, rtol=tolerance)


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@explore(40)
@given(data=st.data())
def test_block_equals_palms_in_float64(flash: bool, data: st.DataObject):
    scale_base = data.draw(st.sampled_from((3, 30, 512)))
    options = data.draw(block_options(kv_heads=1, xpos_scale_base=scale_base))
    n = data.draw(st.integers(1, 12))
    mask = None
    if data.draw(st.booleans()):  # right padding: every query sees a key
        mask = torch.arange(n) < torch.tensor([[n], [data.draw(st.integers(1, n))]])
    x = drawn(2, n, options["dim"])
    assert_same_as_palm(options, torch.float64, x, mask, 1e-10, flash)


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("qk_rmsnorm", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("use_xpos", [False, True])
def test_block_equals_palms_in_float32(flash: bool, qk_rmsnorm: bool, causal: bool, use_xpos: bool):
    options = dict(dim=32, dim_head=16, heads=4, qk_rmsnorm=qk_rmsnorm)
    options |= dict(causal=causal, use_xpos=use_xpos)
    assert_same_as_palm(options, torch.float32, drawn(2, 48, 32) / 2, None, 1e-5, flash)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("qk_rmsnorm", [False, True])
def test_a_stack_of_blocks_equals_palms_model(causal: bool, qk_rmsnorm: bool):
    torch.manual_seed(0)
    options = dict(dim=16, dim_head=8, heads=3, causal=causal, qk_rmsnorm=qk_rmsnorm)
    model = palm.PaLM(num_tokens=40, depth=3, **options).double()
    blocks = [make_block(**options, seed=i, qk_scale=8**-0.5) for i in range(3)]
    for block, layer in zip(blocks, model.layers, strict=True):
        layer.fn.load_state_dict(palm_weights(block), strict=False)
        layer.fn.rotary_emb.inv_freq, layer.fn.rotary_emb.scale = frequencies(8), zeta(8)
    nn.init.normal_(model.norm.gamma)
    norm = LayerNorm(16).double()
    norm.gamma.data = model.norm.gamma.detach() + 1
    tokens = torch.randint(0, 40, (2, 20))
    x = model.token_emb(tokens)
    for block in blocks:
        x = x + block(x)
    ours, theirs = norm(x) @ model.token_emb.weight.T, model(tokens)
    close(ours, theirs, atol=1e-10, rtol=1e-10)
    for mine, other in zip(
        gradients(ours, *(block.fused_attn_ff_proj.weight for block in blocks)),
        gradients(theirs, *(layer.fn.fused_attn_ff_proj.weight for layer in model.layers)),
        strict=True,
    ):
        close(mine, other, atol=1e-10, rtol=1e-9)


def test_finetune_modules_equal_palms():
    options = dict(dim=8, dim_head=4, heads=2)
    block = make_block(**options)
    twin = palm_block(block, options)
    sizes = [(8, 8), (8, 4), (8, 4), (8, 8)]
    ours = [LoRA(*size, rank=3, alpha=5).double() for size in sizes]
    theirs = [palm.LoRA(*size, r=3, alpha=5).double() for size in sizes]
    for mine, other in zip(ours, theirs, strict=True):
        nn.init.normal_(mine.B)
        other.load_state_dict(mine.state_dict())
    x = drawn(2, 6, 8)
    mine, other = block(x, None, ours), twin(x, finetune_modules=theirs)
    close(mine, other, atol=1e-11, rtol=1e-10)
    for one, two in zip(
        gradients(mine, *(p for lora in ours for p in (lora.A, lora.B))),
        gradients(other, *(p for lora in theirs for p in (lora.A, lora.B))),
        strict=True,
    ):
        close(one, two, atol=1e-11, rtol=1e-9)


def test_swiglu_equals_palms():
    x = drawn(3, 5, 8)
    close(SwiGLU()(x), palm.SwiGLU()(x), rtol=0, atol=0)


# transformers' Cohere layer: parallel attention and feed-forward, LayerNorm without bias, shared
# keys. Its rotary pairs lie side by side, its norm and softmax compute in float32.


def side_by_side(weight: Tensor, dim_head: int) -> Tensor:
    """Rows of a projection, from pairs half a head apart to pairs side by side."""
    order = torch.arange(dim_head).reshape(2, dim_head // 2).T.flatten()
    return weight.reshape(-1, dim_head, weight.shape[-1])[:, order].reshape(weight.shape)


def cohere_layer(block: TransformerBlock) -> tuple[nn.Module, nn.Module]:
    config = cohere.CohereConfig(
        vocab_size=8,
        hidden_size=block.dim,
        head_dim=block.dim_head,
        intermediate_size=block.ff_out[2].in_features,
        num_attention_heads=block.heads,
        num_key_value_heads=block.kv_heads,
        num_hidden_layers=1,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="eager",
    )
    layer = cohere.CohereDecoderLayer(config, layer_idx=0)
    q, k, v, ff = block.fused_attn_ff_proj.weight.detach().split(block.fused_dims)
    value, gate = ff.chunk(2)
    layer.load_state_dict(
        {
            "input_layernorm.weight": block.norm.gamma,
            "self_attn.q_proj.weight": side_by_side(q, block.dim_head),
            "self_attn.k_proj.weight": side_by_side(k, block.dim_head),
            "self_attn.v_proj.weight": v,
            "self_attn.o_proj.weight": block.attn_out.weight,
            "mlp.gate_proj.weight": gate,
            "mlp.up_proj.weight": value,
            "mlp.down_proj.weight": block.ff_out[2].weight,
        }
    )
    return layer, cohere.CohereRotaryEmbedding(config)


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_block_equals_coheres_layer(flash: bool, kv_heads: int, padded: bool):
    options = dict(dim=32, dim_head=16, heads=4, kv_heads=kv_heads, use_xpos=False)
    block = make_block(dtype=torch.float32, flash_attn=flash, **options)
    layer, rotary = cohere_layer(block)
    x = drawn(2, 24, 32, dtype=torch.float32).requires_grad_()
    keep = torch.arange(24) < torch.tensor([[24], [17 if padded else 24]])
    visible = torch.ones(24, 24, dtype=torch.bool).tril() & keep[:, None, None]
    additive = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    places = rotary(x, torch.arange(24)[None])
    theirs = layer(x, attention_mask=additive, position_embeddings=places)
    ours = x + block(x, keep if padded else None)
    close(ours, theirs, atol=1e-5, rtol=1e-5)
    mine, other = gradients(ours, x)[0], gradients(theirs, x)[0]
    close(mine, other, atol=1e-4, rtol=1e-5)
    mine = gradients(ours, block.attn_out.weight, block.norm.gamma)
    other = gradients(theirs, layer.self_attn.o_proj.weight, layer.input_layernorm.weight)
    for one, two in zip(mine, other, strict=True):
        close(one, two, atol=1e-5 * two.abs().max().item(), rtol=1e-5)


# xPos, as torchscale has it: pairs side by side, positions counted from the middle of the sequence,
# the query multiplied by the scale, the key divided by it.


def torchscale_xpos(x: Tensor, scale_base: float, downscale: bool) -> Tensor:
    n, dim_head = x.shape[-2:]
    scale = (torch.arange(0, dim_head, 2).double() + 0.4 * dim_head) / (1.4 * dim_head)
    first = -(n // 2)
    scale = scale ** (torch.arange(first, n + first).double()[:, None] / scale_base)
    if downscale:
        scale = 1 / scale
    half = dim_head // 2
    angles = torch.outer(
        torch.arange(n).double(), 1 / 10_000 ** (torch.arange(half).double() / half)
    )
    sin, cos = ((t * scale).repeat_interleave(2, dim=-1) for t in (angles.sin(), angles.cos()))
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    return x * cos + turned * sin


@explore(30)
@given(
    n=st.integers(1, 40),
    half=st.integers(1, 8),
    scale_base=st.sampled_from((4, 64, 512)),
)
def test_xpos_products_equal_torchscales(n: int, half: int, scale_base: int):
    q, k = drawn(2, n, 2 * half), drawn(2, n, 2 * half, seed=2)
    places = torch.arange(n)
    ours_q, ours_k = rotate_queries_keys(q, k, places, places, True, scale_base)
    order = torch.arange(2 * half).reshape(2, half).T.flatten()
    theirs_q = torchscale_xpos(q[..., order], scale_base, downscale=False)
    theirs_k = torchscale_xpos(k[..., order], scale_base, downscale=True)
    ours, theirs = ours_q @ ours_k.mT, theirs_q @ theirs_k.mT
    past = torch.ones(n, n, dtype=torch.bool).tril()
    close(ours[..., past], theirs[..., past], atol=1e-10, rtol=1e-9)


def test_xpos_products_equal_x_transformers():
    q, k = drawn(1, 20, 16), drawn(1, 20, 16, seed=2)
    peer = x_transformers.RotaryEmbedding(16, use_xpos=True, scale_base=30).double()
    peer.inv_freq, peer.scale = frequencies(16), zeta(16)
    freqs, scale = peer(torch.arange(20).double())
    order = torch.arange(16).reshape(2, 8).T.flatten()  # its pairs lie side by side
    theirs = x_transformers.apply_rotary_pos_emb(q[..., order], freqs, scale)
    theirs = theirs @ x_transformers.apply_rotary_pos_emb(k[..., order], freqs, scale**-1).mT
    ours_q, ours_k = rotate_queries_keys(q, k, torch.arange(20), torch.arange(20), True, 30)
    past = torch.ones(20, 20, dtype=torch.bool).tril()
    close((ours_q @ ours_k.mT)[..., past], theirs[..., past], atol=1e-10, rtol=1e-9)


# LoRA, as peft has it.


@pytest.mark.parametrize(("rank", "alpha"), [(1, 1), (4, 16), (8, None), (3, 0.5)])
def test_lora_equals_pefts(rank: int, alpha: float | None):
    torch.manual_seed(0)
    base = nn.Linear(10, 6, bias=False).double()
    lora = LoRA(10, 6, rank, alpha).double()
    nn.init.normal_(lora.B)
    config = peft.LoraConfig(
        r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=["0"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = peft.get_peft_model(nn.Sequential(copy.deepcopy(base)), config).double()
    theirs = twin.base_model.model[0]
    theirs.lora_A["default"].weight.data = lora.A.detach().T.clone()
    theirs.lora_B["default"].weight.data = lora.B.detach().T.clone()
    x = drawn(2, 7, 10)
    mine, other = base(x) + lora(x), theirs(x)
    close(mine, other, atol=1e-12, rtol=1e-11)
    ours_a, ours_b = gradients(mine, lora.A, lora.B)
    their_a, their_b = gradients(
        other, theirs.lora_A["default"].weight, theirs.lora_B["default"].weight
    )
    close(ours_a, their_a.T, atol=1e-12, rtol=1e-11)
    close(ours_b, their_b.T, atol=1e-12, rtol=1e-11)
