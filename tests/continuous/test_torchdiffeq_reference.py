"""What torchdiffeq's answer offers and refuses; test_torchdiffeq_agreement.py compares it on every shipped dynamics."""

import math

import pytest
import torch

import odestop
from odestop import StoppingStatus
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import DiagonallyPreconditionedFlow
from odestop.objectives import breast_cancer

DOUBLE = {"dtype": torch.float64}


def test_logistic_regression_agrees():
    objective = breast_cancer(regularization=1e-1, **DOUBLE)
    flow = DiagonallyPreconditionedFlow(objective, torch.linspace(0.5, 1.5, 31, **DOUBLE))
    gradients = []
    for solver in (odestop.continuous_stopping_time, odestop.torchdiffeq_stopping_time):
        solution = solver(flow, torch.zeros(31, **DOUBLE), SquaredGradientNorm(objective), 1e-3)
        gradients.append(torch.autograd.grad(solution.time, flow.diagonal)[0])
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-4


def test_criterion_and_dynamics_may_call_autograd_inside():
    def loss(x):
        return (x**4).sum(-1) / 4 + x.square().sum(-1) / 2

    def gradient(x):
        return torch.autograd.grad(loss(x).sum(), x, create_graph=True)[0]

    scale = torch.tensor(1.5, requires_grad=True, **DOUBLE)
    x0 = torch.tensor([1.0, -0.5], **DOUBLE)
    times, derivatives = [], []
    for solver in (odestop.continuous_stopping_time, odestop.torchdiffeq_stopping_time):
        solution = solver(lambda t, x: -scale * gradient(x), x0, lambda x: gradient(x).square().sum(-1), 1e-3)
        times.append(solution.time.item())
        derivatives.append(torch.autograd.grad(solution.time, scale)[0].item())
    assert times[0] == pytest.approx(times[1], rel=1e-6)
    assert derivatives == pytest.approx([-times[0] / 1.5] * 2, rel=1e-5)


def test_statuses_of_the_reference():
    def solve(field=lambda t, x: -x, **arguments):
        return odestop.torchdiffeq_stopping_time(field, torch.ones(2, **DOUBLE), lambda x: x.sum(-1), **arguments)

    assert solve(threshold=3.0).status is StoppingStatus.ALREADY_SATISFIED
    assert solve(threshold=0.1, t_max=1.0).status is StoppingStatus.HORIZON
    assert solve(threshold=0.1, max_steps=2).status is StoppingStatus.MAX_STEPS
    assert solve(threshold=0.1, t_max=1.0).time.item() == math.inf
    failed = solve(lambda t, x: torch.where(t > 0.5, torch.nan, -x), threshold=0.1).status
    assert failed in (StoppingStatus.NON_FINITE, StoppingStatus.STEP_UNDERFLOW)


def test_a_batch_is_solved_row_by_row():
    x0 = torch.tensor([[1.0, 1.0], [2.0, 2.0]], **DOUBLE).requires_grad_()
    solution = odestop.torchdiffeq_stopping_time(lambda t, x: -x, x0, lambda x: x.sum(-1), 0.2)
    torch.testing.assert_close(solution.time, torch.tensor([10.0, 20.0], **DOUBLE).log(), rtol=1e-6, atol=0.0)
    (gradient,) = torch.autograd.grad(solution.time.sum(), x0)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0.5], [0.25, 0.25]], **DOUBLE), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", ["threshold", "t0", "criterion"])
def test_gradients_that_torchdiffeq_does_not_give_are_refused(name):
    tracked = torch.tensor(0.1, requires_grad=True, **DOUBLE)
    arguments = {"threshold": 0.1, "t0": 0.0}
    criterion = (lambda x: tracked * x.sum(-1)) if name == "criterion" else (lambda x: x.sum(-1))
    if name != "criterion":
        arguments[name] = tracked
    with pytest.raises(ValueError, match=f"{name} requires a gradient"):
        odestop.torchdiffeq_stopping_time(lambda t, x: -x, torch.ones(2, **DOUBLE), criterion, **arguments)
