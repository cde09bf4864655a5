"""SwiGLU: the gated activation of the feed-forward half."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from zeta_edu.checks import flag, floating_tensor
from zeta_edu.rotary import is_tracing


class SwiGLU(nn.Module):
    """Gate one half of the features with the other: `silu(gate) * value`.

    The first half of the last axis is the value, the second half the gate.

    Args:
        inplace: write the result over `x` where no gradient is recorded, as torch's activations
            do; it is then a view of `x`.

    Shapes:
        (..., 2 * inner) -> (..., inner)

    Raises:
        TypeError, ValueError: when `x` is no floating-point tensor, or its last axis cannot be
            halved.

    Source:
        Shazeer 2020, "GLU Variants Improve Transformer" (arXiv:2002.05202), equation 5.

    >>> SwiGLU()(torch.tensor([2.0, 0.0]))  # value 2, gate 0: silu(0) = 0
    tensor([0.])
    """

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = flag("inplace", inplace)

    def forward(self, x: Float[Tensor, "... double_inner"]) -> Float[Tensor, "... inner"]:
        """Multiply the value by the silu of the gate."""
        floating_tensor("x", x, "... double_inner")
        if x.shape[-1] % 2:
            raise ValueError(f"x must have an even last axis (value, gate), got {tuple(x.shape)}")
        value, gate = x.chunk(2, dim=-1)
        if is_tracing():  # a compiler decides by itself what to keep
            return F.silu(gate) * value
        if self.inplace and not torch.is_grad_enabled():
            return value.mul_(F.silu(gate, inplace=True))
        gated: Tensor = _Gated.apply(x)
        return gated

    def extra_repr(self) -> str:
        """Name the option where it is on."""
        return "inplace=True" if self.inplace else ""


class _Gated(torch.autograd.Function):
    """`silu(gate) * value` that computes the silu once more in backward instead of keeping it.

    Autograd would keep it: in a block of `ff_mult=4` a fifth of all that waits for backward. Once
    more takes half a percent of forward and backward.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return F.silu(gate).mul_(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        value, gate = x.chunk(2, dim=-1)
        if _followed(gradient, x):
            return torch.cat((gradient * F.silu(gate), gradient * value * _slope(gate)), dim=-1)
        # Both halves are written where they belong: nothing else is made, and nothing is joined.
        slope = torch.empty_like(x)
        by_value, by_gate = slope.chunk(2, dim=-1)
        torch.mul(gradient, value, out=by_gate)
        torch.ops.aten.silu_backward.grad_input(by_gate, gate, grad_input=by_gate)
        torch.ops.aten.silu.out(gate, out=by_value).mul_(gradient)
        return slope

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        value, gate = x.chunk(2, dim=-1)
        by_value, by_gate = tangent.chunk(2, dim=-1)
        return by_value * F.silu(gate) + by_gate * value * _slope(gate)


def _followed(*tensors: Tensor) -> bool:
    """Whether something follows how backward computes: a second derivative, forward mode, vmap."""
    if torch.is_grad_enabled() or any(unpack_dual(t).tangent is not None for t in tensors):
        return True
    try:  # the stand-ins of vmap and the like have no memory of their own
        return not all(tensor.data_ptr() for tensor in tensors if tensor.numel())
    except RuntimeError:
        return True


def _slope(gate: Tensor) -> Tensor:
    """The derivative of silu."""
    open_share = gate.sigmoid()
    return open_share * (1 + gate * (1 - open_share))
