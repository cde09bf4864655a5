"""SwiGLU: the gated activation of the feed-forward half."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zeta_edu.checks import floating_tensor


class SwiGLU(nn.Module):
    """Gate one half of the features with the other: `silu(gate) * value`.

    The first half of the last axis is the value, the second half the gate.

    Shapes:
        (..., 2 * inner) -> (..., inner)

    Raises:
        TypeError, ValueError: when `x` is no floating-point tensor, or its last axis cannot be
            halved.

    Source:
        Shazeer 2020, "GLU Variants Improve Transformer" (arXiv:2002.05202), equation 5.

    >>> import torch
    >>> SwiGLU()(torch.tensor([2.0, 0.0]))  # value 2, gate 0: silu(0) = 0
    tensor([0.])
    """

    def forward(self, x: Float[Tensor, "... double_inner"]) -> Float[Tensor, "... inner"]:
        """Multiply the value by the silu of the gate."""
        floating_tensor("x", x, "... double_inner")
        if x.shape[-1] % 2:
            raise ValueError(f"x must have an even last axis (value, gate), got {tuple(x.shape)}")
        value, gate = x.chunk(2, dim=-1)
        return F.silu(gate) * value
