"""SwiGLU: one half gates the other."""

import torch
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


def test_it_has_no_parameters_and_right_derivatives():
    assert not SwiGLU().state_dict()
    assert torch.autograd.gradcheck(SwiGLU(), drawn(3, 8).requires_grad_())
