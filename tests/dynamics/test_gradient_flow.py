"""Gradient flows and the schedules that rescale them."""

import math

import pytest
import torch
from torch import nn

from odestop.dynamics import (
    ConstantSchedule,
    ExponentialSchedule,
    GradientFlow,
    PolynomialSchedule,
    RescaledGradientFlow,
)
from odestop.objectives import DiagonalQuadratic

DOUBLE = torch.float64
SCHEDULES = {
    "constant": (lambda: ConstantSchedule(2.0), lambda t: 2.0),
    "exponential": (lambda: ExponentialSchedule(2.0, 0.5, t0=1.0), lambda t: 2 * math.exp(-0.5 * (t - 1))),
    "polynomial": (lambda: PolynomialSchedule(2.0, 1.5), lambda t: 2 * (1 + t) ** -1.5),
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
