"""The gradient of T on nonlinear flows against fourth-order central differences of T."""

import pytest
import torch

import odestop
from odestop.criteria import ObjectiveGap, SquaredGradientNorm
from odestop.dynamics import (
    CoordinatewisePreconditioner,
    DiagonallyPreconditionedFlow,
    ExponentialSchedule,
    GradientFlow,
    PreconditionedFlow,
    RescaledGradientFlow,
)
from odestop.objectives import Quadratic, Rosenbrock, breast_cancer

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = {"dtype": torch.float64}


def central_difference(function, point, direction, width):
    """Derivative along ``direction`` with an error of order width⁴."""
    at = [function(point + k * width * direction).item() for k in (-2, -1, 1, 2)]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * width)


def assert_agrees(time, point, *, width, tolerance):
    """Compare the gradient of ``time`` at ``point`` with differences along a random direction."""
    point = point.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(time(point), point)
    direction = torch.randn(point.shape, generator=torch.Generator().manual_seed(0), dtype=point.dtype)
    direction = direction / direction.norm()
    measured = central_difference(lambda p: time(p.detach()), point.detach(), direction, width)
    exact = float((gradient * direction).sum())
    assert measured == pytest.approx(exact, rel=tolerance, abs=tolerance * float(gradient.norm()))


def test_rosenbrock_flow_by_initial_point():
    objective = Rosenbrock(2, 1.0, 5.0)

    def time(x0):
        return odestop.continuous_stopping_time(
            GradientFlow(objective), x0, ObjectiveGap(objective), 1e-1, rtol=1e-9, atol=1e-12
        ).time

    assert_agrees(time, torch.tensor([-1.2, 1.0], **DOUBLE), width=1e-2, tolerance=1e-6)


def test_rosenbrock_flow_by_preconditioner():
    objective = Rosenbrock(2, 1.0, 5.0)

    def time(diagonal):
        flow = DiagonallyPreconditionedFlow(objective, diagonal)
        return odestop.continuous_stopping_time(
            flow,
            torch.tensor([-1.2, 1.0], **DOUBLE),
            SquaredGradientNorm(objective),
            1e-1,
            rtol=1e-9,
            atol=1e-12,
        ).time

    assert_agrees(time, torch.tensor([1.0, 0.5], **DOUBLE), width=1e-2, tolerance=1e-6)


def test_logistic_regression_flow_by_schedule():
    objective = breast_cancer(regularization=1e-1, **DOUBLE)

    def time(parameters):
        flow = RescaledGradientFlow(objective, ExponentialSchedule(parameters[0], parameters[1]))
        return odestop.continuous_stopping_time(
            flow, torch.zeros(31, **DOUBLE), SquaredGradientNorm(objective), 1e-3, rtol=1e-9, atol=1e-12
        ).time

    assert_agrees(time, torch.tensor([2.0, 0.05], **DOUBLE), width=1e-2, tolerance=1e-6)


def test_learned_preconditioner_by_every_weight():
    objective = Quadratic.with_condition_number(6, 20.0, seed=0, **DOUBLE)
    flow = PreconditionedFlow(objective, CoordinatewisePreconditioner(6, scale=0.5, **DOUBLE))
    names, shapes = zip(*((name, p.shape) for name, p in flow.named_parameters()), strict=True)

    def time(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        weights = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}

        def dynamics(t, x):
            return torch.func.functional_call(flow, weights, (t, x))

        return odestop.continuous_stopping_time(
            dynamics, torch.ones(6, **DOUBLE), SquaredGradientNorm(objective), 1e-3, rtol=1e-9, atol=1e-12
        ).time

    point = torch.cat([parameter.detach().reshape(-1) for parameter in flow.parameters()])
    assert_agrees(time, point, width=2e-3, tolerance=1e-6)


def test_the_gradient_is_that_of_the_number_returned_even_at_loose_tolerances():
    # With the step sizes frozen by a binding stability cap, T itself is smooth in the criterion's parameter.  The cap
    # is low enough to bind near the level too, where steps otherwise follow the time that is left.
    objective = Quadratic.with_condition_number(8, 50.0, seed=2, **DOUBLE)
    norm = SquaredGradientNorm(objective)

    def time(weight):
        return odestop.continuous_stopping_time(
            GradientFlow(objective),
            torch.ones(8, **DOUBLE),
            lambda x: weight * norm(x),
            1e-3,
            method=odestop.solvers.DormandPrince5(stability_fraction=0.5),
            rtol=1e-3,
            atol=1e-3,
        ).time

    assert_agrees(time, torch.tensor(1.0, **DOUBLE), width=1e-3, tolerance=1e-7)
