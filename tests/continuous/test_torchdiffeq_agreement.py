"""The native solver and torchdiffeq answer every shipped dynamics alike."""

import pytest
import torch

import odestop
from odestop import StoppingStatus
from odestop.criteria import ObjectiveGap, SquaredGradientNorm
from odestop.dynamics import (
    ConstantSchedule,
    CoordinatewisePreconditioner,
    DiagonallyPreconditionedFlow,
    ExponentialSchedule,
    GradientFlow,
    PolynomialSchedule,
    PreconditionedFlow,
    RescaledGradientFlow,
)
from odestop.objectives import DiagonalQuadratic, HouseholderQuadratic, Quadratic, Rosenbrock

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = {"dtype": torch.float64}


def quadratic():
    return Quadratic.with_condition_number(5, 30.0, seed=0, **DOUBLE)


def value(number):
    return torch.tensor(number, **DOUBLE)


CASES = {
    "gradient flow": lambda: (GradientFlow(quadratic()), quadratic()),
    "matrix-free": lambda: (
        GradientFlow(HouseholderQuadratic.with_condition_number(5, 30.0, seed=0, **DOUBLE)),
        HouseholderQuadratic.with_condition_number(5, 30.0, seed=0, **DOUBLE),
    ),
    "constant": lambda: (RescaledGradientFlow(quadratic(), ConstantSchedule(value(1.5))), quadratic()),
    "exponential": lambda: (
        RescaledGradientFlow(quadratic(), ExponentialSchedule(value(2.0), value(0.01))),
        quadratic(),
    ),
    "polynomial": lambda: (
        RescaledGradientFlow(quadratic(), PolynomialSchedule(value(2.0), value(0.3))),
        quadratic(),
    ),
    "diagonal": lambda: (
        DiagonallyPreconditionedFlow(DiagonalQuadratic(torch.tensor([1.0, 4.0, 2.0, 1.5, 3.0], **DOUBLE)),
                                     torch.tensor([1.0, 0.5, 2.0, 1.0, 0.3], **DOUBLE)),
        DiagonalQuadratic(torch.tensor([1.0, 4.0, 2.0, 1.5, 3.0], **DOUBLE)),
    ),
    "learned": lambda: (
        PreconditionedFlow(quadratic(), CoordinatewisePreconditioner(5, scale=0.5, **DOUBLE)),
        quadratic(),
    ),
    "rosenbrock": lambda: (GradientFlow(Rosenbrock(5, 1.0, 5.0)), Rosenbrock(5, 1.0, 5.0)),
}  # fmt: skip


@pytest.mark.parametrize("criterion", [ObjectiveGap, SquaredGradientNorm])
@pytest.mark.parametrize("case", CASES)
def test_times_states_and_gradients_agree(case, criterion):
    flow, objective = CASES[case]()
    x0 = torch.linspace(0.5, 1.5, 5, **DOUBLE).requires_grad_()
    inputs = [x0, *flow.parameters()]
    answers = []
    for solver, tolerance in (
        (odestop.continuous_stopping_time, {}),
        (odestop.torchdiffeq_stopping_time, {"event_scale": 1e6}),
    ):
        solution = solver(flow, x0, criterion(objective), 1e-3, rtol=1e-9, atol=1e-11, **tolerance)
        assert solution.status is StoppingStatus.REACHED
        gradients = torch.autograd.grad(solution.time, inputs, allow_unused=True, materialize_grads=True)
        answers.append((solution.time.item(), solution.state.detach(), torch.cat([g.reshape(-1) for g in gradients])))
    (time, state, gradient), (other_time, other_state, other_gradient) = answers
    assert time == pytest.approx(other_time, rel=1e-7)
    torch.testing.assert_close(state, other_state, rtol=1e-6, atol=1e-8)
    assert float((gradient - other_gradient).norm() / gradient.norm()) < 1e-5
