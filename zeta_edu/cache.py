"""The KV cache: keys and values of the positions so far, so that a step computes only its own."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from zeta_edu.checks import floating_dtype, floating_tensor, positive_integer


class KVCache:
    """Keys, rotated but without xPos factors, and values of one block's past positions.

    Made by `TransformerBlock.new_cache`. Grows by doubling, or, with `max_length`, is allocated
    once, as compiled decoding needs it. What it holds is constant: gradients flow through the new
    positions of a call, not through earlier calls.

    Args:
        batch_size: sequences.
        kv_heads, dim_head: of the block.
        max_length: the most positions it may hold; unlimited when None.
        device, dtype: of the block's weights.

    Raises:
        TypeError, ValueError: a size is not a positive integer, `dtype` not a floating-point one.

    Source: Shazeer 2019 (arXiv:1911.02150), section 2.4, where decoding is incremental.

    >>> cache = KVCache(1, kv_heads=1, dim_head=4)
    >>> keys, values = cache.extend(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 4))
    >>> cache.length, keys.shape
    (3, torch.Size([1, 1, 3, 4]))
    """

    def __init__(
        self,
        batch_size: int,
        kv_heads: int,
        dim_head: int,
        max_length: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        batch_size = positive_integer("batch_size", batch_size)
        heads = positive_integer("kv_heads", kv_heads)
        features = positive_integer("dim_head", dim_head)
        self.max_length = None if max_length is None else positive_integer("max_length", max_length)
        self.length = 0
        dtype = None if dtype is None else floating_dtype("dtype", dtype)
        shape = (batch_size, heads, self.max_length or 0, features)
        with torch.inference_mode(False):  # so that it may be written to in any mode
            self._keys = torch.zeros(shape, device=device, dtype=dtype)
            self._values = torch.zeros(shape, device=device, dtype=dtype)

    @property
    def batch_size(self) -> int:
        """Sequences it holds."""
        return len(self._keys)

    @property
    def keys(self) -> Float[Tensor, "batch kv_heads length dim_head"]:
        """Rotated keys so far."""
        return self._keys[:, :, : self.length]

    @property
    def values(self) -> Float[Tensor, "batch kv_heads length dim_head"]:
        """Values so far."""
        return self._values[:, :, : self.length]

    def extend(
        self,
        keys: Float[Tensor, "batch kv_heads new dim_head"],
        values: Float[Tensor, "batch kv_heads new dim_head"],
    ) -> tuple[
        Float[Tensor, "batch kv_heads length dim_head"],
        Float[Tensor, "batch kv_heads length dim_head"],
    ]:
        """Append new positions, and return all keys and values so far.

        Args:
            keys: (batch, kv_heads, new, dim_head), rotated, without xPos factors.
            values: (batch, kv_heads, new, dim_head)

        Returns:
            Keys and values (batch, kv_heads, length, dim_head), the new ones last.

        Raises:
            TypeError, ValueError: they do not fit this cache's shape, would lose precision in its
                dtype, or exceed `max_length`.
        """
        for name, new in (("keys", keys), ("values", values)):
            floating_tensor(name, new, "batch kv_heads new dim_head")
            if torch.promote_types(new.dtype, self._keys.dtype) != self._keys.dtype:
                raise TypeError(f"{name} must fit into {self._keys.dtype}, got {new.dtype}")
        expected = (self.batch_size, self._keys.shape[1], keys.shape[2], self._keys.shape[3])
        if tuple(keys.shape) != expected or keys.shape != values.shape:
            shapes = (tuple(keys.shape), tuple(values.shape))
            raise ValueError(f"cache takes keys and values {expected}, got {shapes}")
        past, stop = self.length, self.length + keys.shape[2]
        self._make_room(stop)
        with torch.no_grad():  # a copy: a view would keep the whole fused projection alive
            self._keys[:, :, past:stop] = keys
            self._values[:, :, past:stop] = values
        self.length = stop
        if not torch.is_grad_enabled():
            return self.keys, self.values
        # What a backward pass needs must not be written to by the next step.
        old_keys, old_values = self._keys[:, :, :past], self._values[:, :, :past]
        return torch.cat((old_keys, keys), dim=2), torch.cat((old_values, values), dim=2)

    def _make_room(self, stop: int) -> None:
        capacity = self._keys.shape[2]
        if stop <= capacity:
            return
        if self.max_length is not None:
            raise ValueError(
                f"cache holds at most max_length={self.max_length} positions, got {stop}"
            )
        more = max(stop, 2 * capacity, 64) - capacity
        with torch.inference_mode(False):
            self._keys = F.pad(self._keys, (0, 0, 0, more))
            self._values = F.pad(self._values, (0, 0, 0, more))

    def reset(self) -> None:
        """Forget every position; the memory is kept for the next ones."""
        self.length = 0

    def reorder(self, index: Int[Tensor, " new_batch"]) -> None:
        """Let sequence i go on from what was sequence index[i], as beam search does.

        Args:
            index: (new_batch,), integers from 0 to batch_size - 1, in any order and number.

        Raises:
            TypeError, ValueError: `index` is not such a tensor.

        >>> cache = KVCache(2, kv_heads=1, dim_head=4)
        >>> cache.reorder(torch.tensor([1, 1, 0]))
        >>> cache.batch_size
        3
        """
        expected = f"a tensor of integers from 0 to {self.batch_size - 1}, one axis"
        if not isinstance(index, Tensor):
            raise TypeError(f"index must be {expected}, got {type(index).__name__}")
        if index.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"index must be {expected}, got dtype {index.dtype}")
        if index.ndim != 1 or not len(index):
            raise ValueError(f"index must be {expected}, got shape {tuple(index.shape)}")
        if index.min() < 0 or index.max() >= self.batch_size:
            raise ValueError(f"index must be {expected}, got {index.tolist()}")
        index = index.to(self._keys.device)
        with torch.inference_mode(False):
            self._keys = self._keys.index_select(0, index)
            self._values = self._values.index_select(0, index)
