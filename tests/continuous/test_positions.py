"""Dynamics with a hidden state, whose position is an ordinary method: what counts as a parameter of the criterion."""

import pytest
import torch
from torch import nn

import odestop
from odestop.continuous.gradients import GRADIENTS
from odestop.criteria import ObjectiveGap
from odestop.objectives import DiagonalQuadratic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = {"dtype": torch.float64}
OBJECTIVE = DiagonalQuadratic([1.0, 4.0], dtype=torch.float64)


class AveragedFlow(nn.Module):
    """dx/dt = -m, dm/dt = (∇f(x) - m)/τ, with a plain method for the position."""

    def __init__(self, tau):
        super().__init__()
        if isinstance(tau, nn.Parameter):
            self.tau = tau
        else:
            self.register_buffer("tau", tau)

    def initial_state(self, x0):
        return torch.cat([x0, OBJECTIVE.gradient(x0)], dim=-1)

    def position(self, state):
        return state.chunk(2, dim=-1)[0]

    def forward(self, t, state):
        x, m = state.chunk(2, dim=-1)
        return torch.cat([-m, (OBJECTIVE.gradient(x) - m) / self.tau], dim=-1)


class StaticallyPlacedFlow(AveragedFlow):
    """The same, where no parameter can be reached through the position."""

    position = staticmethod(lambda state: state.chunk(2, dim=-1)[0])


class ScaledFlow(AveragedFlow):
    """Positions in units of τ: the position uses the parameter."""

    def position(self, state):
        return state.chunk(2, dim=-1)[0] * self.tau

    def initial_state(self, x0):
        return super().initial_state(x0 / self.tau)


def time_of(flow, gradient="discrete_adjoint"):
    x0 = torch.ones(2, **DOUBLE)
    return odestop.continuous_stopping_time(
        flow, x0, ObjectiveGap(OBJECTIVE), 0.1, rtol=1e-9, atol=1e-11, gradient=gradient
    ).time


def parameter(value=0.3):
    return nn.Parameter(torch.tensor(value, **DOUBLE))


@pytest.mark.parametrize("gradient", [name for name in GRADIENTS if name != "backsolve"])
def test_a_plain_method_has_the_gradients_of_a_static_one(gradient):
    (found,), (expected,) = (
        torch.autograd.grad(time_of(flow, gradient), flow.tau)
        for flow in (AveragedFlow(parameter()), StaticallyPlacedFlow(parameter()))
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def test_torchdiffeq_takes_a_plain_method():
    flow = AveragedFlow(parameter())
    reference = odestop.torchdiffeq_stopping_time(
        flow, torch.ones(2, **DOUBLE), ObjectiveGap(OBJECTIVE), 0.1, rtol=1e-9, atol=1e-11
    )
    for time in (reference.time, time_of(flow)):
        assert time.item() == pytest.approx(reference.time.item(), rel=1e-7)
    (expected,) = torch.autograd.grad(reference.time, flow.tau)
    (found,) = torch.autograd.grad(time_of(flow), flow.tau)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def test_torchdiffeq_refuses_a_position_with_parameters_of_its_own():
    with pytest.raises(ValueError, match="criterion requires a gradient"):
        odestop.torchdiffeq_stopping_time(
            ScaledFlow(parameter()), torch.ones(2, **DOUBLE), ObjectiveGap(OBJECTIVE), 0.1
        )


@pytest.mark.parametrize("flow", [AveragedFlow, ScaledFlow])
@pytest.mark.parametrize("is_leaf", [True, False])
def test_gradients_are_right_whether_or_not_the_position_uses_the_parameter(flow, is_leaf):
    logarithm = parameter(-1.2)

    def tau():
        return nn.Parameter(logarithm.exp().detach()) if is_leaf else logarithm.exp()

    made = flow(tau())
    (found,) = torch.autograd.grad(time_of(made), made.tau if is_leaf else logarithm)
    value = logarithm.exp().item()
    with torch.no_grad():
        ahead, behind = (time_of(flow(torch.tensor(value + sign * 1e-5, **DOUBLE))) for sign in (1, -1))
    expected = (ahead - behind).item() / 2e-5
    assert found.item() == pytest.approx(expected if is_leaf else expected * value, rel=1e-5)


@pytest.mark.parametrize("flow", [AveragedFlow, ScaledFlow])
def test_the_discrete_sensitivity_sees_the_same_parameters(flow):
    h, made = 3e-3, flow(parameter())
    solution = odestop.discrete_stopping_time(
        odestop.Euler(made, h), torch.ones(2, **DOUBLE), ObjectiveGap(OBJECTIVE), 0.1, sensitivity="interpolated"
    )
    (found,) = torch.autograd.grad(solution.time, made.tau)
    (expected,) = torch.autograd.grad(time_of(made), made.tau)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.0)
