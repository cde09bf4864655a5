"""TransformerLM: a language model made of transformer blocks and little else."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zeta_edu.block import TransformerBlock
from zeta_edu.checks import positive_integer
from zeta_edu.lm import generation
from zeta_edu.lm.stopping import Stop
from zeta_edu.norm import LayerNorm

_BLOCK_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(TransformerBlock).parameters.items()
    if name not in ("dim", "finetune_modules")
}
_INITIAL_STD = 0.02


class TransformerLM(nn.Module):
    """A language model: embedding, blocks with residuals, a last norm, logits.

    The logits are the products of the last hidden state with every row of the embedding: one
    matrix serves at both ends. At the start every weight matrix is drawn from a normal
    distribution with standard deviation 0.02, those that write into the residual divided by the
    square root of twice the depth, so that the sum over blocks does not grow with their number.

    Args:
        num_tokens: number of different tokens.
        dim: width of the residual stream.
        depth: number of blocks.
        **block_options: options of every `TransformerBlock`, such as `heads`.

    Raises:
        TypeError: an option that the block does not have.
        ValueError: a value that is not allowed; the message names it.

    Source: the arrangement of PaLM (Chowdhery et al., 2022, section 2); tied embeddings from
    Press and Wolf, "Using the Output Embedding to Improve Language Models", 2017; the scaling
    of residual weights from Radford et al., "Language Models are Unsupervised Multitask
    Learners", 2019, section 2.3.

    Example:
        >>> model = TransformerLM(num_tokens=100, dim=32, depth=2, heads=4, dim_head=8)
        >>> model(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 100])
    """

    tokenizer: Any = None

    def __init__(self, num_tokens: int, dim: int, depth: int, **block_options: Any) -> None:
        super().__init__()
        shape = {"num_tokens": num_tokens, "dim": dim, "depth": depth}
        for name, value in shape.items():
            positive_integer(name, value)
        unknown = sorted(block_options.keys() - _BLOCK_DEFAULTS.keys())
        if unknown:
            raise TypeError(
                f"unknown block option {unknown[0]!r}; allowed are {', '.join(_BLOCK_DEFAULTS)}"
            )
        options = {**_BLOCK_DEFAULTS, **block_options}
        self._config = shape | options
        self.embedding = nn.Embedding(num_tokens, dim)
        self.blocks = nn.ModuleList([TransformerBlock(dim, **options) for _ in range(depth)])
        self.norm = LayerNorm(dim)
        self._initialise()

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape: plain numbers, ready for JSON."""
        return dict(self._config)

    def forward(
        self,
        tokens: Int[Tensor, "batch n"],
        mask: Bool[Tensor, "batch keys"] | None = None,
        *,
        cache: "ModelCache | None" = None,
    ) -> Float[Tensor, "batch n num_tokens"]:
        """Return the logits of the token after each token.

        Args:
            tokens: ids (batch, n).
            mask: True where a token is to be seen, False for padding; with a cache it covers
                everything so far, (batch, past + n).
            cache: made by `new_cache`; the tokens then follow those it has seen.

        Raises:
            TypeError: `tokens` is not a tensor of integers.
            ValueError: `tokens` has another shape than (batch, n), or an id out of range; a
                cache of another depth.
        """
        self.check_tokens(tokens)
        x = self.embedding(tokens)
        for block, layer_cache in zip(self.blocks, self._layer_caches(cache), strict=True):
            x = x + block(x, mask, cache=layer_cache)
        return F.linear(self.norm(x), self.embedding.weight)

    def new_cache(self, batch_size: int, max_length: int | None = None) -> "ModelCache":
        """Return an empty cache of keys and values for decoding.

        Args:
            batch_size: number of sequences.
            max_length: room to set aside at once, if the final length is known.
        """
        blocks = cast(Iterable[TransformerBlock], self.blocks)
        return ModelCache([block.new_cache(batch_size, max_length) for block in blocks])

    def generate(
        self,
        prompt: str | Tensor | Sequence[str] | Sequence[Tensor],
        max_new_tokens: int,
        *,
        stop: Stop = None,
        compile: bool = False,
        **sampling: Any,
    ) -> Any:
        """Continue a prompt, or a list of them; see `zeta_edu.lm.generate`.

        Args:
            prompt: a text, ids (n,) or (batch, n), or a list of texts or of ids.
            max_new_tokens: most tokens to add.
            stop: strings or ids that end a continuation.
            compile: use torch.compile and a cache of fixed size.
            **sampling: `temperature`, `top_k`, `top_p`, `seed`, `repetition_penalty`, as of
                `zeta_edu.lm.Sampling`.
        """
        drawn = generation.Sampling(**sampling)
        return generation.generate(self, prompt, max_new_tokens, drawn, stop, compile=compile)

    def stream(
        self,
        prompt: str | Tensor,
        max_new_tokens: int,
        *,
        stop: Stop = None,
        compile: bool = False,
        **sampling: Any,
    ) -> Iterator[str] | Iterator[Tensor]:
        """Continue a prompt piece by piece, with the arguments of `generate`."""
        drawn = generation.Sampling(**sampling)
        return generation.stream(self, prompt, max_new_tokens, drawn, stop, compile=compile)

    def _layer_caches(self, cache: "ModelCache | None") -> Sequence[Any]:
        if cache is None:
            return [None] * len(self.blocks)
        if not isinstance(cache, ModelCache):
            raise TypeError(f"cache must come from new_cache(), got {type(cache).__name__}")
        if len(cache.layers) != len(self.blocks):
            raise ValueError(
                f"cache has {len(cache.layers)} layers, the model {len(self.blocks)} blocks"
            )
        lengths = [layer.length for layer in cache.layers]
        if not torch.compiler.is_compiling() and min(lengths) < max(lengths):
            raise ValueError(
                f"cache has layers of different lengths, {lengths}: a call with it failed; reset it"
            )
        return cache.layers

    def check_tokens(self, tokens: Tensor) -> None:
        """Refuse what are no ids of this model.

        Raises:
            TypeError, ValueError: as for `forward`.
        """
        if not isinstance(tokens, Tensor) or tokens.dtype not in (torch.int64, torch.int32):
            kind = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
            raise TypeError(f"tokens must be an int64 or int32 tensor, got {kind}")
        if tokens.ndim != 2:
            raise ValueError(f"tokens must have shape (batch, n), got {tuple(tokens.shape)}")
        if tokens.numel() == 0 or torch.compiler.is_compiling():
            return
        low, high = (int(bound) for bound in tokens.aminmax())
        count = self._config["num_tokens"]
        if low < 0 or high >= count:
            raise ValueError(
                f"tokens must lie between 0 and {count - 1}, got {low if low < 0 else high}"
            )

    @torch.no_grad()
    def _initialise(self) -> None:
        into_residual = ("attn_out.weight", "ff_out.2.weight")
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = (2 * len(self.blocks)) ** -0.5 if name.endswith(into_residual) else 1.0
                nn.init.normal_(parameter, std=_INITIAL_STD * scale)


class ModelCache:
    """The key-value caches of a model's blocks, handled as one.

    Args:
        layers: one cache for each block, first to last.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = layers

    @property
    def length(self) -> int:
        """Number of tokens seen so far."""
        return self.layers[0].length

    def reset(self) -> None:
        """Forget everything, to begin a new sequence."""
        for layer in self.layers:
            layer.reset()

    def reorder(self, index: Int[Tensor, " batch"]) -> None:
        """Put sequence `index[i]` at place i, in every layer, as beam search does."""
        for layer in self.layers:
            layer.reorder(index)
