"""Time-changed gradient flow: the trajectory of the plain flow, with a stopping time that follows by an integral."""

import math

import pytest
import torch

from odestop import Euler
from odestop.criteria import ObjectiveGap
from odestop.discrete import GradientDescent
from odestop.dynamics import (
    CosineSchedule,
    ExponentialSchedule,
    GradientFlow,
    PiecewiseSchedule,
    PolynomialSchedule,
    RescaledGradientFlow,
)
from odestop.objectives import DiagonalQuadratic, Rosenbrock
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
DECAY = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)
START = torch.tensor([0.6, 0.5], dtype=DOUBLE)

# Each with the integral of α from 0 to T, differentiable in T and θ.
TIME_CHANGES = {
    "exponential": (
        ExponentialSchedule(0.5, rate=0.5),
        lambda a, t: a.scale / a.rate * (1 - torch.exp(-a.rate * t)),
    ),
    "polynomial": (
        PolynomialSchedule(0.5, exponent=0.5),
        lambda a, t: a.scale / (1 - a.exponent) * ((1 + t) ** (1 - a.exponent) - 1),
    ),
    "cosine": (
        CosineSchedule(2.0, 0.1, duration=1.0),
        lambda a, t: (
            0.5 * (a.scale + a.final) * t
            + 0.5 * (a.scale - a.final) * a.duration / math.pi * torch.sin(math.pi * t / a.duration)
        ),
    ),
    "warm-up": (
        PiecewiseSchedule([0.0, 0.2], [0.1, 1.0]),
        # The trapezoid under the ramp, and the rectangle after it.
        lambda a, t: (a.values[0] + a.values[1]) / 2 * 0.2 + a.values[1] * (t - 0.2),
    ),
    "function": (lambda t: 1 / (1 + DECAY * t), lambda a, t: torch.log1p(DECAY * t) / DECAY),
}
by_time_change = pytest.mark.parametrize(("schedule", "integral"), TIME_CHANGES.values(), ids=TIME_CHANGES)


@by_time_change
def test_the_integral_of_the_schedule_is_the_stopping_time_of_the_plain_flow(schedule, integral):
    objective = Rosenbrock(2, b=2.0)
    question = (START, ObjectiveGap(objective), 0.04)
    plain = checks.stopping_time(GradientFlow(objective), *question).time
    flow = RescaledGradientFlow(objective, schedule)
    time = checks.stopping_time(flow, *question).time
    parameters = list(flow.parameters()) or [DECAY]
    at_rest = time.detach().requires_grad_()
    total = integral(schedule, at_rest)
    torch.testing.assert_close(total.detach(), plain.detach(), rtol=1e-8, atol=0.0)
    # Implicit function theorem on integral(T, θ) = constant.
    rate, *partials = torch.autograd.grad(total, [at_rest, *parameters])
    for found, partial in zip(torch.autograd.grad(time, parameters), partials, strict=True):
        torch.testing.assert_close(found, -partial / rate, rtol=1e-6, atol=1e-9)


# Nothing bends before T, so that both solvers keep their order.
SMOOTH = {"cosine": CosineSchedule(2.0, 0.1, duration=1.0), "piecewise": PiecewiseSchedule([0.0, 1.0], [0.5, 1.0])}


@pytest.mark.parametrize("schedule", SMOOTH.values(), ids=SMOOTH)
@pytest.mark.parametrize(
    ("objective", "threshold"),
    [(DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE), 0.1), (Rosenbrock(2, b=2.0), 0.08)],
    ids=["quadratic", "rosenbrock"],
)
def test_rescaled_flows_pass(schedule, objective, threshold):
    flow = RescaledGradientFlow(objective, schedule)
    question = (flow, START, ObjectiveGap(objective), threshold)
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)
    checks.is_the_limit_of(flow, lambda h: GradientDescent(objective, lambda k: h * schedule(k * h)), START, time=0.1)


def test_plain_flow_passes():
    objective = Rosenbrock(2, b=2.0)
    flow = GradientFlow(objective)
    checks.agree_with_torchdiffeq(flow, START, ObjectiveGap(objective), 0.08)
    checks.gradient_agrees_with_differences(flow, START, ObjectiveGap(objective), 0.08)
    checks.is_the_limit_of(flow, lambda h: GradientDescent(objective, h), START, time=0.1)


def test_a_flow_that_comes_to_rest_at_the_end_of_its_schedule_never_arrives():
    """The cosine schedule to 0 lets half of scale · duration pass, less than the plain flow needs."""
    objective = DiagonalQuadratic([1.0, 1.0], dtype=DOUBLE)
    needed = 0.5 * math.log(1.0 / 0.1)
    arrives, never = (CosineSchedule(1.0, 0.0, duration=2 * needed * factor) for factor in (1.01, 0.99))
    start = torch.ones(2, dtype=DOUBLE)
    assert torch.isfinite(checks.stopping_time(RescaledGradientFlow(objective, arrives), start, objective, 0.1).time)
    with torch.no_grad():
        time = checks.stopping_time(RescaledGradientFlow(objective, never), start, objective, 0.1, t_max=20.0).time
    assert time == math.inf


def test_euler_with_a_plain_function_is_gradient_descent_with_that_schedule():
    objective = Rosenbrock(2, b=2.0)
    step = Euler(RescaledGradientFlow(objective, lambda t: 1 / (1 + t)), 0.01)
    other = GradientDescent(objective, lambda k: 0.01 / (1 + 0.01 * k))
    for k in (0, 5):
        torch.testing.assert_close(step(k, START), other(k, START))
