"""TransformerBlock: attention and SwiGLU feed-forward in parallel, from one fused projection."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zeta_edu.attention import Attend
from zeta_edu.cache import KVCache
from zeta_edu.checks import (
    flag,
    input_of,
    keep_mask,
    positive_integer,
    positive_number,
    probability,
)
from zeta_edu.feedforward import SwiGLU
from zeta_edu.lora import Finetune, FinetuneModules
from zeta_edu.norm import LayerNorm, l2_normalise
from zeta_edu.rotary import rotary_tables, rotate
from zeta_edu.settings import SavedSettings


class TransformerBlock(SavedSettings):
    """A pre-norm transformer block with attention and feed-forward in parallel.

    One bias-free projection of the normed input gives queries, keys, values and the feed-forward
    input; the output is their sum, without the residual, which is the caller's: `x + block(x)`.
    Without gradients the feed-forward input is overwritten: a hook on `ff_out` that keeps its input
    must clone it (one on the projection need not).

    Args:
        dim: features of the input and output.
        dim_head: features of a head, even.
        causal: a query sees only keys up to its own position.
        heads: query heads.
        qk_rmsnorm: l2-normalise queries and keys, with learned scales `q_scale` and `k_scale`.
        qk_scale: factor of the dot products with `qk_rmsnorm`; otherwise it is dim_head ** -0.5.
        ff_mult: inner features of the feed-forward half, in units of `dim`.
        attn_dropout: probability that an attention weight is dropped in training.
        ff_dropout: probability that an inner feed-forward feature is dropped in training.
        use_xpos: rotated queries and keys also fade with distance (only when causal).
        xpos_scale_base: distance, in positions, over which xPos fades by its factors zeta.
        flash_attn: use torch's fused attention kernels; the results are the same.
        finetune_modules: (q, k, v, o), each a module such as `LoRA` or None, whose outputs are
            added: q, k and v take the normed input, o takes the merged heads.
        kv_heads: heads of keys and values; 1 is multi-query, `heads` is multi-head attention.

    Raises:
        TypeError, ValueError: an argument is not of the kind above.

    Sources:
        PaLM (arXiv:2204.02311), section 2; multi-query attention (arXiv:1911.02150); rotary
        embedding (arXiv:2104.09864); xPos (arXiv:2212.10554); SwiGLU (arXiv:2002.05202).

    >>> block = TransformerBlock(dim=512, heads=8)
    >>> block(torch.randn(1, 128, 512)).shape
    torch.Size([1, 128, 512])
    """

    def __init__(
        self,
        dim: int,
        dim_head: int = 64,
        causal: bool = True,
        heads: int = 8,
        qk_rmsnorm: bool = False,
        qk_scale: float = 8,
        ff_mult: int = 4,
        attn_dropout: float = 0.0,
        ff_dropout: float = 0.0,
        use_xpos: bool = True,
        xpos_scale_base: float = 512,
        flash_attn: bool = False,
        finetune_modules: Sequence[Finetune] | None = None,
        *,
        kv_heads: int = 1,
    ):
        super().__init__()
        self.dim = positive_integer("dim", dim)
        self.dim_head = positive_integer("dim_head", dim_head)
        self.heads = positive_integer("heads", heads)
        self.kv_heads = positive_integer("kv_heads", kv_heads)
        self.causal = flag("causal", causal)
        self.qk_rmsnorm = flag("qk_rmsnorm", qk_rmsnorm)
        self.qk_scale = positive_number("qk_scale", qk_scale)
        self.use_xpos = flag("use_xpos", use_xpos)
        self.xpos_scale_base = positive_number("xpos_scale_base", xpos_scale_base)
        if dim_head % 2:
            raise ValueError(f"dim_head must be even, for the rotary pairs, got {dim_head}")
        if heads % kv_heads:
            raise ValueError(f"kv_heads must divide heads={heads}, got {kv_heads}")
        self.norm = LayerNorm(dim)
        ff_inner = dim * positive_integer("ff_mult", ff_mult)
        self.fused_dims = (heads * dim_head, kv_heads * dim_head, kv_heads * dim_head, 2 * ff_inner)
        self.fused_attn_ff_proj = nn.Linear(dim, sum(self.fused_dims), bias=False)
        if qk_rmsnorm:
            self.q_scale = nn.Parameter(torch.ones(dim_head))
            self.k_scale = nn.Parameter(torch.ones(dim_head))
        self.attend = Attend(
            scale=qk_scale if qk_rmsnorm else dim_head**-0.5,
            causal=causal,
            dropout=probability("attn_dropout", attn_dropout),
            flash=flag("flash_attn", flash_attn),
            xpos_scale_base=xpos_scale_base if use_xpos and causal else None,
        )
        self.attn_out = nn.Linear(heads * dim_head, dim, bias=False)
        self.ff_out = nn.Sequential(
            SwiGLU(inplace=True),
            nn.Dropout(probability("ff_dropout", ff_dropout)),
            nn.Linear(ff_inner, dim, bias=False),
        )
        self.finetune_modules = FinetuneModules(finetune_modules)

    def forward(
        self,
        x: Float[Tensor, "batch n dim"],
        mask: Bool[Tensor, "batch keys"] | None = None,
        finetune_modules: Sequence[Finetune] | None = None,
        *,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch n dim"]:
        """Transform `x`; see the class for what the parts do.

        Args:
            x: (batch, n, dim)
            mask: (batch, keys), bool, True where a key is kept; with a cache, past keys included.
            finetune_modules: (q, k, v, o), in place of the constructor's.
            cache: from `new_cache`: `x` continues what it holds, and is added to it.

        Returns:
            (batch, n, dim), zero from attention for a query that may see no key.

        Raises:
            TypeError, ValueError: an argument is not of the kind above.
        """
        self._check(x, mask, cache)
        tuned = self.finetune_modules
        if finetune_modules is not None:
            tuned = FinetuneModules(finetune_modules)
        q, k, v, ff = self._project(self.norm(x), tuned)
        # Before attention: so backward, which peaks here, is done with attention's tensors by then.
        ff_out = self.ff_out(self._overwritable(ff))
        q, k, v = (t.unflatten(-1, (-1, self.dim_head)) for t in (q, k, v))  # (batch, n, heads, d)
        if self.qk_rmsnorm:
            q, k = l2_normalise(q, self.q_scale), l2_normalise(k, self.k_scale)
        # Turned together, at 2,048 positions in a fifth of the time of one after the other.
        qk = torch.cat((q, k), dim=2)
        del q, k, ff  # without gradients, this and a copy of v free the projection: a sixth less
        if not torch.is_grad_enabled():
            v = v.clone()
        past = 0 if cache is None else cache.length
        cos, sin = rotary_tables(past, past + x.shape[1], self.dim_head, qk.device, qk.dtype)
        qk = rotate(qk, cos[:, None], sin[:, None]).transpose(1, 2)
        (q, k), v = qk.split((self.heads, self.kv_heads), dim=1), v.transpose(1, 2)
        if cache is not None:
            k, v = (t.to(qk.dtype) for t in cache.extend(k, v))

        heads = self.attend(q, k, v, mask).transpose(1, 2).flatten(2)
        attn_out = tuned.add("o", self.attn_out(heads), heads)
        return attn_out + ff_out

    def _project(self, normed: Tensor, tuned: FinetuneModules) -> tuple[Tensor, ...]:
        """Queries, keys, values and the feed-forward input, each (batch, n, features)."""
        q, k, v, ff = self.fused_attn_ff_proj(normed).split(self.fused_dims, dim=-1)
        return tuned.add("q", q, normed), tuned.add("k", k, normed), tuned.add("v", v, normed), ff

    def _overwritable(self, ff: Tensor) -> Tensor:
        """The feed-forward input, copied where a hook on the projection may have kept it."""
        hooked = self.fused_attn_ff_proj._forward_hooks and not torch.is_grad_enabled()
        return ff.clone() if hooked else ff

    def new_cache(self, batch_size: int, max_length: int | None = None) -> KVCache:
        """Make an empty cache, for a forward that goes on from earlier positions.

        Args:
            batch_size: sequences.
            max_length: positions it has room for from the start, and no more; growing when None.

        Returns:
            The cache, on the device and in the dtype of the weights.

        Raises:
            TypeError, ValueError: an argument is not a positive integer.

        >>> block, x = TransformerBlock(dim=16, dim_head=8, heads=2), torch.randn(1, 5, 16)
        >>> cache = block.new_cache(batch_size=1)
        >>> steps = [block(x[:, :4], cache=cache), block(x[:, 4:], cache=cache)]
        >>> torch.allclose(torch.cat(steps, dim=1), block(x), atol=1e-5)
        True
        """
        weight = self.fused_attn_ff_proj.weight
        return KVCache(
            batch_size,
            self.kv_heads,
            self.dim_head,
            max_length,
            device=weight.device,
            dtype=weight.dtype,
        )

    def _check(self, x: Tensor, mask: Tensor | None, cache: KVCache | None) -> None:
        """Refuse what cannot be computed, or would be computed wrongly without a word."""
        weight = self.fused_attn_ff_proj.weight
        batch, n, _ = input_of("x", x, weight, "batch n dim", self.dim).shape
        if cache is not None:
            self._check_cache(cache, batch)
        if mask is not None:
            keep_mask("mask", mask, batch, n + (0 if cache is None else cache.length))
            if mask.device != x.device:
                raise ValueError(f"mask must be on {x.device} like x, got {mask.device}")

    def _check_cache(self, cache: KVCache, batch: int) -> None:
        if not isinstance(cache, KVCache):
            raise TypeError(f"cache must come from block.new_cache, got {type(cache).__name__}")
        expected = (batch, self.kv_heads, self.dim_head)
        given = (cache.batch_size, *cache.keys.shape[1::2])
        if given != expected:
            sizes = "(batch, kv_heads, dim_head)"
            raise ValueError(f"cache must be for {sizes} = {expected}, got {given}")
        if not self.causal and cache.length:
            raise ValueError(
                "cache must be empty when causal=False: earlier positions would have to see later "
                f"ones, got a cache of length {cache.length}"
            )

    def _settings(self) -> dict[str, Any]:
        """What no shape shows, and would load wrongly without a word; kept as metadata."""
        names = ("causal", "scale", "xpos_scale_base")
        return {"heads": self.heads, **{name: getattr(self.attend, name) for name in names}}
