"""LayerNorm without bias, and the normalisation of queries and keys."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zeta_edu.checks import floating_tensor, positive_integer


class LayerNorm(nn.Module):
    """Layer normalisation with a learned gain and no bias.

    Each vector is shifted to mean 0, scaled to variance 1, then multiplied by `gamma`.

    Args:
        dim: features of the last axis.

    Shapes:
        (..., dim) -> (..., dim)

    Raises:
        TypeError, ValueError: when `dim` is not a positive integer, or not the last axis of a
            floating-point tensor `x`.

    Source:
        Ba, Kiros, Hinton 2016, "Layer Normalization" (arXiv:1607.06450), equation 4; without
        bias as in PaLM (arXiv:2204.02311), section 2.

    >>> LayerNorm(4)(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).mean().abs() < 1e-6
    tensor(True)
    """

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(positive_integer("dim", dim)))

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Normalise the last axis of `x`."""
        floating_tensor("x", x, "... dim")
        if x.shape[-1:] != self.gamma.shape:
            raise ValueError(f"x must be (..., dim={len(self.gamma)}), got shape {tuple(x.shape)}")
        return F.layer_norm(x, self.gamma.shape, self.gamma)


def l2_normalise(
    x: Float[Tensor, "*batch dim_head"], scale: Float[Tensor, " dim_head"]
) -> Float[Tensor, "*batch dim_head"]:
    """Bring vectors to length 1, then multiply each feature by its learned `scale`.

    The dot product of two such vectors is bounded by the scales, whatever the inputs, so the
    attention logits cannot grow without limit. A zero vector stays zero.

    Args:
        x: (..., dim_head) queries or keys.
        scale: (dim_head,) learned factors, `q_scale` or `k_scale`.

    Returns:
        (..., dim_head), in the dtype of `x`; the length is taken in at least float32.

    Source:
        Henry et al. 2020, "Query-Key Normalization for Transformers" (arXiv:2010.04245),
        equation 5; learned scales as in ViT-22B (arXiv:2302.05442), section 2.

    >>> l2_normalise(torch.tensor([3.0, 4.0]), torch.ones(2))
    tensor([0.6000, 0.8000])
    """
    precise = torch.promote_types(x.dtype, torch.float32)
    unit = F.normalize(x.to(precise), dim=-1)
    return (unit * scale).to(x.dtype)
