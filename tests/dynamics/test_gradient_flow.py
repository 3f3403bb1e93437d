"""Gradient flows and the schedules that rescale them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from odestop.dynamics import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    GradientFlow,
    PiecewiseSchedule,
    PolynomialSchedule,
    RescaledGradientFlow,
)
from odestop.objectives import DiagonalQuadratic

DOUBLE = torch.float64
SCHEDULES = {
    "constant": (lambda: ConstantSchedule(2.0), lambda t: 2.0),
    "exponential": (lambda: ExponentialSchedule(2.0, 0.5, t0=1.0), lambda t: 2 * math.exp(-0.5 * (t - 1))),
    "polynomial": (lambda: PolynomialSchedule(2.0, 1.5), lambda t: 2 * (1 + t) ** -1.5),
    "cosine": (
        lambda: CosineSchedule(2.0, 0.5, duration=2, t0=0.25),
        lambda t: 1.25 + 0.75 * math.cos(math.pi / 2 * min(max(t - 0.25, 0), 2)),
    ),
    "piecewise": (
        lambda: PiecewiseSchedule([0.25, 0.75, 2.0], [1, 3, 0.5]),
        lambda t: float(np.interp(t, [0.25, 0.75, 2.0], [1, 3, 0.5])),
    ),
    "function": (lambda: lambda t: 2 / (1 + t), lambda t: 2 / (1 + t)),
}


@pytest.fixture(params=SCHEDULES)
def schedule_and_formula(request):
    build, formula = SCHEDULES[request.param]
    return build(), formula


def test_gradient_flow_is_the_negative_gradient():
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    slope = GradientFlow(DiagonalQuadratic([1.0, 4.0]))(torch.tensor(0.0), x)
    assert torch.equal(slope, torch.tensor([[-1.0, -8.0], [-3.0, 4.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_rescaled_flow_follows_its_formula_for_one_time_and_for_one_per_row(schedule_and_formula, dtype):
    schedule, formula = schedule_and_formula
    flow = RescaledGradientFlow(DiagonalQuadratic([1.0, 4.0], dtype=dtype), schedule)
    times = torch.tensor([0.0, 0.5, 3.0], dtype=dtype)
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]], dtype=dtype)
    batch = flow(times[:, None], x)
    assert batch.dtype == dtype
    for row, time in enumerate(times):
        single = flow(time, x[row])
        assert single.dtype == dtype
        torch.testing.assert_close(single, batch[row])
        expected = -formula(float(time)) * torch.tensor([1.0, 4.0], dtype=dtype) * x[row]
        torch.testing.assert_close(single.detach(), expected)


def test_hyperparameters_are_parameters_that_receive_the_right_gradient():
    schedule = ExponentialSchedule(2.0, 0.5, t0=1.0)
    schedule(torch.tensor(3.0, dtype=DOUBLE)).backward()
    assert dict(schedule.named_parameters()).keys() == {"scale", "rate"}
    assert float(schedule.scale.grad) == pytest.approx(math.exp(-1), rel=1e-15)
    assert float(schedule.rate.grad) == pytest.approx(-4 * math.exp(-1), rel=1e-15)


def test_numbers_are_stored_exactly():
    assert ExponentialSchedule(0.1, 0.7).rate.item() == 0.7


def test_a_parameter_or_a_tracked_tensor_of_the_caller_is_used_as_it_is():
    scale = nn.Parameter(torch.tensor(1.0))
    leaf = torch.tensor(0.5, requires_grad=True)
    schedule = ExponentialSchedule(scale, 2 * leaf)
    assert schedule.scale is scale
    schedule(torch.tensor(1.0)).backward()
    assert float(leaf.grad) == pytest.approx(-2 * math.exp(-1))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2), r"scale must be a number or a tensor of shape \(\), got shape \(2,\)"),
        (float("nan"), "scale must be finite real floating-point numbers, got nan"),
        (torch.tensor(1), r"scale must be finite real floating-point numbers, got tensor\(1\)"),
    ],
)
def test_unusable_hyperparameter_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        ConstantSchedule(value)


def test_cosine_schedule_is_that_of_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.5)
    schedule, h = CosineSchedule(2.0, 0.5, duration=1.0), 0.1
    for k in range(11):
        assert schedule(torch.tensor(k * h, dtype=DOUBLE)).item() == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("schedule", [CosineSchedule(2.0, 0.5, 2.0), PiecewiseSchedule([0.0, 1.0, 3.0], [1, 3, 2])])
def test_schedules_are_differentiable_twice_in_time_and_in_every_parameter(schedule):
    names = [name for name, _ in schedule.named_parameters()]

    def value(t, *values):
        return torch.func.functional_call(schedule, dict(zip(names, values, strict=True)), (t,))

    inputs = (torch.tensor([[0.3], [1.7]], dtype=DOUBLE, requires_grad=True), *schedule.parameters())
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


def test_knots_that_require_a_gradient_receive_it():
    knots = torch.tensor([0.0, 2.0], dtype=DOUBLE, requires_grad=True)
    PiecewiseSchedule(knots, [1.0, 3.0])(torch.tensor(0.5, dtype=DOUBLE)).backward()
    assert knots.grad.tolist() == [-0.75, -0.25]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CosineSchedule(1.0, 0.0, duration=0.0), "duration must be positive, got 0.0"),
        (lambda: PiecewiseSchedule([0.0, 0.0], [1, 2]), "knots must be at least two increasing times, got"),
        (lambda: PiecewiseSchedule([1.0], [1.0]), r"knots must be at least two increasing times, got \[1.0\]"),
        (lambda: PiecewiseSchedule([0.0, 1.0], [1.0]), r"values must have one entry .* 2 knots, got shape \(1,\)"),
        (lambda: PiecewiseSchedule([0.0, 1.0], [1.0, math.inf]), "values must be finite real"),
    ],
)
def test_impossible_schedules_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_schedule_that_cannot_be_called_is_refused():
    with pytest.raises(Exception, match="schedule"):
        RescaledGradientFlow(DiagonalQuadratic([1.0]), 2.0)
