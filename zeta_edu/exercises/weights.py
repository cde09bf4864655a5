"""Tables of attention weights that exercises are tried on."""

import torch
from torch import Tensor


def causal_weights(heads: int, n: int, seed: int) -> Tensor:
    """Causal weights (head, n, n) whose rows sum to 1."""
    scores = torch.randn(heads, n, n, generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(~torch.ones(n, n).tril().bool(), -torch.inf).softmax(dim=-1)


def even_weights(n: int) -> Tensor:
    """Weights of one head that looks everywhere alike: (1, n, n)."""
    return (torch.ones(n, n).tril() / torch.arange(1.0, n + 1)[:, None])[None]
