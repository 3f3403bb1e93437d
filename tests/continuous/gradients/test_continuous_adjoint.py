"""The continuous adjoint against closed forms, against the discrete adjoint, and against its own tolerances."""

import math

import pytest
import torch

import odestop
from odestop.continuous.gradients import ContinuousAdjoint, DiscreteAdjoint
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import CoordinatewisePreconditioner, DiagonallyPreconditionedFlow, PreconditionedFlow
from odestop.objectives import DiagonalQuadratic, Quadratic
from odestop.solvers import RungeKutta4

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = {"dtype": torch.float64}
TIGHT = {"rtol": 1e-10, "atol": 1e-13}
ADJOINT = ContinuousAdjoint(rtol=1e-9)


def leaf(*values):
    return torch.tensor(values if len(values) > 1 else values[0], requires_grad=True, **DOUBLE)


def flat(gradients):
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def relative_error(measured, expected):
    return float((flat(measured) - flat(expected)).norm() / flat(expected).norm())


def preconditioned(dimension, condition_number):
    objective = Quadratic.with_condition_number(dimension, condition_number, seed=0, **DOUBLE)
    flow = PreconditionedFlow(objective, CoordinatewisePreconditioner(dimension, scale=0.3, **DOUBLE))
    return flow, SquaredGradientNorm(objective)


def test_scalar_flow_has_every_derivative_of_its_closed_form():
    theta, threshold, t0 = leaf(2.0), leaf(0.1), leaf(0.3)
    x0 = torch.tensor([1.5], requires_grad=True, **DOUBLE)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, x0, lambda x: x[..., 0], threshold, t0=t0, gradient=ADJOINT, **TIGHT
    )
    measured = torch.autograd.grad(solution.time, (theta, x0, threshold, t0))
    expected = (-math.log(15.0) / 4, 1 / (2 * 1.5), -1 / (2 * 0.1), 1.0)
    assert [g.item() for g in measured] == pytest.approx(expected, rel=1e-8)


def test_time_dependent_rate_has_the_derivatives_of_its_closed_form():
    # x' = -s e^{-r t} x from t0: ln(x0/ε) = s (e^{-r t0} - e^{-r T}) / r.
    scale, rate, t0 = leaf(3.0), leaf(0.5), leaf(0.2)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -scale * torch.exp(-rate * t) * x,
        torch.tensor([2.0], **DOUBLE),
        lambda x: x[..., 0],
        0.05,
        t0=t0,
        gradient=ADJOINT,
        **TIGHT,
    )
    expected = -torch.log(torch.exp(-rate * t0) - rate * math.log(40.0) / scale) / rate
    measured = torch.autograd.grad(solution.time, (scale, rate, t0))
    exact = torch.autograd.grad(expected, (scale, rate, t0))
    torch.testing.assert_close(measured, exact, rtol=1e-8, atol=0.0)


def test_figure_1_flow_agrees_with_its_closed_form():
    objective = DiagonalQuadratic(torch.tensor([1.0, 4.0], **DOUBLE))
    flow = DiagonallyPreconditionedFlow(objective, torch.tensor([1.0, 0.5], **DOUBLE))
    x0 = leaf(1.0, 1.0)
    solution = odestop.continuous_stopping_time(
        flow, x0, SquaredGradientNorm(objective), 1e-3, gradient=ADJOINT, **TIGHT
    )
    # J = x1² e^{-2 θ1 T} + 16 x2² e^{-8 θ2 T}.
    time = solution.time.item()
    first, second = math.exp(-2 * time), 16 * math.exp(-4 * time)
    rate = -2 * first - 4 * second
    by_diagonal, by_x0 = torch.autograd.grad(solution.time, (flow.diagonal, x0))
    assert by_diagonal.tolist() == pytest.approx([2 * time * first / rate, 8 * time * second / rate], rel=1e-7)
    assert by_x0.tolist() == pytest.approx([-2 * first / rate, -2 * second / rate], rel=1e-7)


def test_state_and_criterion_parameters_carry_their_full_dependence():
    # On x' = -θ x with J = w x_1, x(T) = (ε/w) x0 / x0_1 whatever θ is.
    theta, weight, threshold = leaf(1.3), leaf(0.5), leaf(0.1)
    x0 = leaf(2.0, 5.0)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, x0, lambda x: weight * x[..., 0], threshold, gradient=ADJOINT, **TIGHT
    )
    by_theta, by_weight, by_x0, by_threshold = torch.autograd.grad(solution.state[1], (theta, weight, x0, threshold))
    assert abs(by_theta.item()) < 1e-8
    assert by_weight.item() == pytest.approx(-1.0, rel=1e-8)
    assert by_x0.tolist() == pytest.approx([-0.25, 0.1], rel=1e-8)
    assert by_threshold.item() == pytest.approx(5.0, rel=1e-8)


@pytest.mark.parametrize(
    ("method", "rtol", "agreement"),
    [("dopri5", 1e-8, 1e-6), ("tsit5", 1e-8, 1e-6), ("dopri8", 1e-8, 1e-6), ("bosh3", 1e-5, 1e-3)],
)
def test_it_agrees_with_the_discrete_adjoint_on_a_nonlinear_flow(method, rtol, agreement):
    flow, criterion = preconditioned(6, 10.0)
    x0, t0 = torch.ones(6, requires_grad=True, **DOUBLE), leaf(0.4)

    def gradient(by):
        solution = odestop.continuous_stopping_time(
            flow, x0, criterion, 1e-2, t0=t0, method=method, rtol=rtol, gradient=by
        )
        return torch.autograd.grad(solution.time + solution.state.sum(), [x0, t0, *flow.parameters()])

    assert relative_error(gradient(ContinuousAdjoint(rtol=rtol)), gradient(DiscreteAdjoint())) < agreement


def test_a_batch_with_levels_agrees_with_the_discrete_adjoint():
    flow, criterion = preconditioned(5, 10.0)
    x0 = torch.ones(4, 5, **DOUBLE) * torch.tensor([0.3, 1.0, 2.0, 1e-3], **DOUBLE)[:, None]
    x0.requires_grad_()
    # The last trajectory starts below all levels but one, and no trajectory reaches that one.
    levels = torch.tensor([3e-2, -1.0, 0.2, 1e-2], requires_grad=True, **DOUBLE)
    t0 = torch.tensor([0.0, 0.5, -1.0, 0.0], requires_grad=True, **DOUBLE)
    weights = torch.rand(4, 4, **DOUBLE)

    def gradient(by):
        solution = odestop.continuous_stopping_time(
            flow, x0, criterion, levels, t0=t0, t_max=20.0, levels=True, gradient=by
        )
        assert bool((solution.reached == torch.tensor([True, False, True, True])).all())
        loss = (weights * solution.time.where(solution.reached, 0.0)).sum() + solution.state[:, [0, 2, 3]].sum()
        return torch.autograd.grad(loss, [x0, levels, t0, *flow.parameters()])

    measured, expected = gradient(ContinuousAdjoint(rtol=1e-7)), gradient(DiscreteAdjoint())
    for one, other in zip(measured, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


def test_failed_trajectories_do_not_spoil_the_others():
    rate = leaf(1.0)
    # The field is defined up to the clock x_2 = 3: never for the second trajectory, not long enough for the third.
    x0 = torch.tensor([[1.0, 0.0], [1.0, 4.0], [1.0, 2.0]], **DOUBLE)

    def field(t, x):
        undefined = torch.sqrt(3.0 - x[..., 1])
        return torch.stack([-rate * x[..., 0] * undefined / undefined, torch.ones_like(undefined)], dim=-1)

    solution = odestop.continuous_stopping_time(field, x0, lambda x: x[..., 0], 0.1, gradient=ADJOINT)
    assert solution.reached.tolist() == [True, False, False]
    (gradient,) = torch.autograd.grad(solution.time[0], rate)
    assert gradient.item() == pytest.approx(-math.log(10.0), rel=1e-6)


def test_a_tighter_tolerance_reduces_the_error_down_to_the_forward_solve():
    flow, criterion = preconditioned(10, 20.0)

    def gradient(by, **tolerances):
        solution = odestop.continuous_stopping_time(
            flow, torch.ones(10, **DOUBLE), criterion, 1e-2, gradient=by, **tolerances
        )
        return torch.autograd.grad(solution.time, list(flow.parameters()))

    exact = gradient(DiscreteAdjoint(), method="dopri8", rtol=1e-11, atol=1e-13)
    errors = [relative_error(gradient(ContinuousAdjoint(rtol=r)), exact) for r in (1e-2, 1e-4, 1e-6)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    floor = relative_error(gradient(ContinuousAdjoint(rtol=1e-8)), exact)
    # Measured 3e-4, 4e-6, 5e-8, and 3e-8.
    assert errors[2] < 2e-7
    assert 1e-9 < floor < 1e-7


def test_it_counts_its_vector_jacobian_products():
    calls = 0

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, cotangent):
            nonlocal calls
            calls += 1
            return cotangent

    theta = leaf(2.0)
    solution = odestop.continuous_stopping_time(
        lambda t, x: Counted.apply(-theta * x),
        torch.ones(1, **DOUBLE),
        lambda x: x[..., 0],
        0.01,
        gradient="continuous_adjoint",
    )
    solution.time.backward()
    assert solution.stats.vjps == calls > 0


def test_a_method_with_fixed_steps_keeps_them():
    theta = leaf(2.0)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x,
        torch.ones(1, **DOUBLE),
        lambda x: x[..., 0],
        0.1,
        method=RungeKutta4(step_size=0.05),
        gradient="continuous_adjoint",
    )
    (gradient,) = torch.autograd.grad(solution.time, theta)
    assert gradient.item() == pytest.approx(-math.log(10.0) / 4, rel=1e-5)
    steps = math.ceil(solution.time.item() / 0.05)
    assert solution.stats.vjps == pytest.approx(7 * steps + 1, abs=8)


def test_float32_and_a_field_that_does_not_depend_on_the_state():
    speed = torch.tensor(2.0, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -speed * torch.ones_like(x), torch.ones(1), lambda x: x[..., 0], 0.5, gradient="continuous_adjoint"
    )
    (gradient,) = torch.autograd.grad(solution.time, speed)
    assert gradient.dtype == torch.float32
    assert gradient.item() == pytest.approx(-0.5 / 4, rel=1e-5)


def test_too_few_steps_are_an_error():
    theta = leaf(2.0)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x,
        torch.ones(1, **DOUBLE),
        lambda x: x[..., 0],
        0.01,
        gradient=ContinuousAdjoint(max_steps=2),
    )
    with pytest.raises(RuntimeError, match="max_steps = 2"):
        solution.time.backward()


@pytest.mark.parametrize("knobs", [{"rtol": 0.0}, {"atol": -1.0}, {"max_steps": 0}])
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(ValueError, match=next(iter(knobs))):
        ContinuousAdjoint(**knobs)
