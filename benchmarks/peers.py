"""The block, the floor under it, and the blocks of other packages: one layer each, of equal size.

Each is a module that maps x of shape (batch, n, dim) to x plus what its layer makes of it, causal,
with 64 features a head, one head of keys and values where the package can, and a gated feed-forward
half four times as wide as `dim`. `decoder(module, length)` gives a function that takes one more
position after a prompt of that length, with the package's own cache.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeta_edu import TransformerBlock

DIM_HEAD, FF_MULT = 64, 4
ROOM = 512  # positions that a decoder may be asked for after its prompt
Step = Callable[[Tensor], Tensor]


class Ours(nn.Module):
    """`zeta_edu.TransformerBlock`, and the residual."""

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__()
        self.block = TransformerBlock(dim, DIM_HEAD, heads=dim // DIM_HEAD, **options)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)

    def decoder(self, prompt: Tensor) -> Step:
        cache = self.block.new_cache(len(prompt), prompt.shape[1] + ROOM)
        self.block(prompt, cache=cache)
        return lambda x: x + self.block(x, cache=cache)


class Floor(nn.Module):
    """The same matrix products and attention, and nothing else: no norm, rotation, gate or sum."""

    def __init__(self, dim: int, flash: bool = True) -> None:
        super().__init__()
        self.heads, self.flash = dim // DIM_HEAD, flash
        self.sizes = (dim, DIM_HEAD, DIM_HEAD, FF_MULT * dim, FF_MULT * dim)
        self.into = nn.Linear(dim, sum(self.sizes), bias=False)
        self.attn_out = nn.Linear(dim, dim, bias=False)
        self.ff_out = nn.Linear(FF_MULT * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v, value, _ = self.into(x).split(self.sizes, dim=-1)
        q = q.unflatten(-1, (self.heads, DIM_HEAD)).transpose(1, 2)
        mixed = self.attend(q, k[:, None], v[:, None])
        return self.attn_out(mixed.transpose(1, 2).flatten(2)) + self.ff_out(value)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.flash and q.shape[2] == 1:  # the heads are the queries: each key is read once
            return F.scaled_dot_product_attention(q.transpose(1, 2), k, v).transpose(1, 2)
        if self.flash:
            k, v = (t.expand(-1, self.heads, -1, -1) for t in (k, v))
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        scores = q.flatten(1, 2) @ k[:, 0].mT  # every head in one product; not even a mask
        return (scores.softmax(dim=-1) @ v[:, 0]).unflatten(1, (self.heads, -1))

    def decoder(self, prompt: Tensor) -> Step:
        batch, n, _ = prompt.shape
        keys = prompt.new_zeros(batch, n + ROOM, DIM_HEAD)
        values, place = keys.clone(), n

        def step(x: Tensor) -> Tensor:
            nonlocal place
            q, k, v, value, _ = self.into(x).split(self.sizes, dim=-1)
            keys[:, place : place + 1], values[:, place : place + 1] = k, v
            place += 1
            q = q.unflatten(-1, (self.heads, DIM_HEAD)).transpose(1, 2)
            mixed = self.attend(q, keys[:, None, :place], values[:, None, :place])
            return self.attn_out(mixed.transpose(1, 2).flatten(2)) + self.ff_out(value)

        return step


class PaLM(nn.Module):
    """palm-rlhf-pytorch's block, which zeta's, and so this package's, goes back to; no cache."""

    def __init__(self, dim: int, flash: bool) -> None:
        super().__init__()
        from palm_rlhf_pytorch.palm import ParallelTransformerBlock

        self.block = ParallelTransformerBlock(
            dim, DIM_HEAD, heads=dim // DIM_HEAD, ff_mult=FF_MULT, flash_attn=flash
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)

    def decoder(self, prompt: Tensor) -> Step:
        seen = [prompt]

        def step(x: Tensor) -> Tensor:
            seen[0] = torch.cat((seen[0], x), dim=1)
            return self(seen[0])[:, -1:]

        return step


class Cohere(nn.Module):
    """transformers' Cohere layer: parallel, with shared keys and values."""

    def __init__(self, dim: int, attention: str) -> None:
        super().__init__()
        from transformers.models.cohere import modeling_cohere as cohere

        self.config = cohere.CohereConfig(
            hidden_size=dim,
            intermediate_size=FF_MULT * dim,
            num_attention_heads=dim // DIM_HEAD,
            num_key_value_heads=1,
            num_hidden_layers=1,
            attn_implementation=attention,
            attention_dropout=0.0,
        )
        self.layer = cohere.CohereDecoderLayer(self.config, layer_idx=0)
        self.rotary = cohere.CohereRotaryEmbedding(self.config)
        self.eager = attention == "eager"

    def forward(self, x: Tensor, cache: Any = None, past: int = 0) -> Tensor:
        n = x.shape[1]
        positions = torch.arange(past, past + n)[None]
        mask = None
        if self.eager and n > 1:
            mask = x.new_full((n, n), -torch.inf).triu(1)[None, None]
        made = self.layer(
            x,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            position_embeddings=self.rotary(x, positions),
        )
        return made[0] if isinstance(made, tuple) else made

    def decoder(self, prompt: Tensor) -> Step:
        from transformers import DynamicCache

        cache = DynamicCache(config=self.config)
        self(prompt, cache)
        return lambda x: self(x, cache, cache.get_seq_length())


class XTransformers(nn.Module):
    """x-transformers' decoder of one layer: attention, then feed-forward; rotary embedding."""

    def __init__(self, dim: int, flash: bool) -> None:
        super().__init__()
        from x_transformers import Decoder

        self.layers = Decoder(
            dim=dim,
            depth=1,
            heads=dim // DIM_HEAD,
            attn_dim_head=DIM_HEAD,
            attn_one_kv_head=True,
            attn_flash=flash,
            rotary_pos_emb=True,
            rotary_emb_dim=DIM_HEAD,
            ff_mult=FF_MULT,
            ff_glu=True,
            ff_swish=True,
            ff_no_bias=True,
            pre_norm_has_final_norm=False,
            verbose=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return made

    def decoder(self, prompt: Tensor) -> Step:
        _, cache = self.layers(prompt, return_hiddens=True)
        state = [cache]

        def step(x: Tensor) -> Tensor:
            made, state[0] = self.layers(
                x, cache=state[0], input_not_include_cache=True, return_hiddens=True
            )
            return made

        return step


class LitGPT(nn.Module):
    """litgpt's block, parallel, with one key/value head and one norm for both halves."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        from litgpt import Config
        from litgpt.model import Block, build_rope_cache

        self.config = Config(
            n_layer=1,
            n_embd=dim,
            n_head=dim // DIM_HEAD,
            n_query_groups=1,
            block_size=16_384,
            rotary_percentage=1.0,
            parallel_residual=True,
            shared_attention_norm=True,
            bias=False,
            mlp_class_name="LLaMAMLP",
            intermediate_size=FF_MULT * dim,
        )
        self.block = Block(self.config, 0)
        for name, table in zip(("cos", "sin"), build_rope_cache(16_384, DIM_HEAD), strict=True):
            self.register_buffer(name, table[None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        made: Tensor = self.block(x, self.cos[:, :n], self.sin[:, :n])
        return made

    def decoder(self, prompt: Tensor) -> Step:
        batch, n, _ = prompt.shape
        attention = self.block.attn
        attention.kv_cache = attention.build_kv_cache(
            batch, n + ROOM, rope_cache_length=DIM_HEAD, dtype=prompt.dtype
        )
        below = torch.ones(n + ROOM, n + ROOM, dtype=torch.bool).tril()[None, None]

        def step(x: Tensor, start: list[int] | None = None) -> Tensor:
            at = place if start is None else start
            stop = at[0] + x.shape[1]
            positions = torch.arange(at[0], stop)
            rope = self.cos[:, at[0] : stop], self.sin[:, at[0] : stop]
            mask = below[:, :, at[0] : stop, :stop]
            at[0] = stop
            made: Tensor = self.block(x, *rope, mask, positions, stop)
            return made

        place = [0]
        step(prompt)
        return step


class TorchEncoder(nn.Module):
    """torch's own layer: attention with a key head a head, then two matrices of equal work."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            dim,
            dim // DIM_HEAD,
            dim_feedforward=FF_MULT * dim * 3 // 2,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        made: Tensor = self.layer(x, src_mask=mask, is_causal=True)
        return made


FLOORS: dict[str, Callable[[int], nn.Module]] = {
    "floor, flash": Floor,
    "floor, regular": partial(Floor, flash=False),
}
OURS: dict[str, Callable[[int], nn.Module]] = {
    "zeta_edu, flash": partial(Ours, flash_attn=True),
    "zeta_edu, flash, no xPos": partial(Ours, flash_attn=True, use_xpos=False),
    "zeta_edu, regular": Ours,
}
PEERS: dict[str, Callable[[int], nn.Module]] = {
    "palm-rlhf-pytorch": partial(PaLM, flash=False),
    "transformers Cohere, eager": partial(Cohere, attention="eager"),
    "transformers Cohere, sdpa": partial(Cohere, attention="sdpa"),
    "x-transformers": partial(XTransformers, flash=False),
    "x-transformers, flash": partial(XTransformers, flash=True),
    "litgpt": LitGPT,
    "torch TransformerEncoderLayer": TorchEncoder,
}
PACKAGES = ("torch", "palm-rlhf-pytorch", "transformers", "x-transformers", "litgpt")
