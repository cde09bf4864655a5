"""SwiGLU: one half gates the other."""

import torch
import torch.autograd.forward_ad as fwAD
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import drawn, explore
from zeta_edu.feedforward import SwiGLU

close = torch.testing.assert_close


@explore(30)
@given(inner=st.integers(0, 6), axes=st.lists(st.integers(0, 3), max_size=3))
def test_first_half_is_the_value_second_the_gate(inner: int, axes: list[int]):
    value, gate = drawn(*axes, inner), drawn(*axes, inner, seed=2)
    out = SwiGLU()(torch.cat((value, gate), dim=-1))
    close(out, value * gate / (1 + (-gate).exp()))


def test_a_closed_gate_lets_nothing_through_and_an_open_one_everything():
    value = torch.tensor([2.0, -3.0])
    assert not SwiGLU()(torch.cat((value, torch.zeros(2)))).any()
    close(SwiGLU()(torch.cat((value, torch.full((2,), 100.0)))), 100 * value)
    close(SwiGLU()(torch.cat((value, torch.full((2,), -100.0)))), 0 * value)


def test_it_has_no_parameters_and_right_derivatives_of_every_kind():
    assert not SwiGLU().state_dict()
    x = drawn(3, 8).requires_grad_()
    assert torch.autograd.gradcheck(SwiGLU(), x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(SwiGLU(), x)
    in_rows = torch.autograd.functional.jacobian(SwiGLU(), x)
    at_once = torch.autograd.functional.jacobian(SwiGLU(), x, vectorize=True)
    close(at_once, in_rows)
    close(torch.func.jacfwd(torch.func.jacrev(SwiGLU()))(x), second_derivatives(x))


def second_derivatives(x: torch.Tensor) -> torch.Tensor:
    def rows(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.autograd.functional.jacobian(SwiGLU(), x, create_graph=True)
        return out

    out: torch.Tensor = torch.autograd.functional.jacobian(rows, x)
    return out


def test_forward_over_reverse_goes_through_it():
    x, along = drawn(3, 8).requires_grad_(), drawn(3, 8, seed=2)
    with fwAD.dual_level():
        (gradient,) = torch.autograd.grad(SwiGLU()(dual := fwAD.make_dual(x, along)).sum(), dual)
        turned = fwAD.unpack_dual(gradient).tangent
    hessian = torch.autograd.functional.hessian(lambda x: SwiGLU()(x).sum(), x)
    close(turned, torch.einsum("abcd,cd->ab", hessian, along))


def test_what_waits_for_backward_is_its_input_and_nothing_else():
    kept: list[torch.Tensor] = []
    x = drawn(3, 8).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        SwiGLU()(x)
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr()]


def test_in_place_it_writes_over_its_input_only_without_gradients():
    x = drawn(3, 8)
    before, expected = x.clone(), SwiGLU()(x)
    close(SwiGLU(inplace=True)(x.clone().requires_grad_()), expected)
    assert torch.equal(x, before)
    with torch.no_grad():
        close(SwiGLU()(x), expected)
        assert torch.equal(x, before)
        out = SwiGLU(inplace=True)(x)
    close(out, expected)
    assert out.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert not torch.equal(x, before)


def test_in_place_shows_in_its_name():
    assert str(SwiGLU(inplace=True)) == "SwiGLU(inplace=True)"
    assert str(SwiGLU()) == "SwiGLU()"


def test_what_torch_compile_gets_is_the_plain_formula():
    x = drawn(3, 8)
    traced = torch.compile(SwiGLU(inplace=True), backend="eager", fullgraph=True)
    close(traced(x), SwiGLU()(x))
    with torch.no_grad():
        close(traced(x), SwiGLU()(x))
