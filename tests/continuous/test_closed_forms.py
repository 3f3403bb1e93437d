"""T and all its first derivatives against closed forms, in float64 at rtol 1e-10."""

import math

import pytest
import torch
from scipy.optimize import brentq

import odestop
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import DiagonallyPreconditionedFlow, GradientFlow
from odestop.objectives import DiagonalQuadratic, Quadratic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

TIGHT = {"rtol": 1e-10, "atol": 1e-13}


def double(*values, requires_grad=False):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64, requires_grad=requires_grad)


def test_scalar_flow_has_the_time_and_every_derivative_of_its_closed_form():
    theta, threshold, t0 = (double(v, requires_grad=True) for v in (2.0, 0.1, 0.3))
    x0 = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, x0, lambda x: x[..., 0], threshold, t0=t0, **TIGHT
    )
    gradients = torch.autograd.grad(solution.time, (theta, x0, threshold, t0))
    log_ratio = math.log(15.0)
    assert solution.time.item() == pytest.approx(0.3 + log_ratio / 2, rel=1e-9)
    expected = (-log_ratio / 4, 1 / (2 * 1.5), -1 / (2 * 0.1), 1.0)
    assert [g.item() for g in gradients] == pytest.approx(expected, rel=1e-9)
    assert solution.criterion_rate.item() == pytest.approx(-0.2, rel=1e-9)


def test_time_dependent_rate_has_the_derivatives_of_its_closed_form():
    # x' = -s e^{-r t} x from t0: ln(x0/ε) = s (e^{-r t0} - e^{-r T}) / r.
    scale, rate, t0 = (double(v, requires_grad=True) for v in (3.0, 0.5, 0.2))
    x0 = torch.tensor([2.0], dtype=torch.float64)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -scale * torch.exp(-rate * t) * x, x0, lambda x: x[..., 0], 0.05, t0=t0, **TIGHT
    )
    s, r, start = (v.detach().clone().requires_grad_() for v in (scale, rate, t0))
    expected = -torch.log(torch.exp(-r * start) - r * math.log(40.0) / s) / r
    assert solution.time.item() == pytest.approx(expected.item(), rel=1e-9)
    measured = torch.autograd.grad(solution.time, (scale, rate, t0))
    exact = torch.autograd.grad(expected, (s, r, start))
    torch.testing.assert_close(measured, exact, rtol=1e-9, atol=0.0)


def test_criterion_parameters_receive_the_implicit_gradient():
    theta, weight = double(1.5, requires_grad=True), double(0.7, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, double(2.0, 1.0), lambda x: weight * x.square().sum(-1), 0.01, **TIGHT
    )
    # w |x0|² e^{-2θT} = ε.
    time = math.log(0.7 * 5.0 / 0.01) / 3.0
    assert solution.time.item() == pytest.approx(time, rel=1e-9)
    by_theta, by_weight = torch.autograd.grad(solution.time, (theta, weight))
    assert by_theta.item() == pytest.approx(-time / 1.5, rel=1e-9)
    assert by_weight.item() == pytest.approx(1 / (2 * 1.5 * 0.7), rel=1e-9)


def figure_1_time(theta, x0, threshold):
    """Root of x1² e^{-2T} + 16 x2² e^{-8θT} = ε."""
    return brentq(
        lambda t: x0[0] ** 2 * math.exp(-2 * t) + 16 * x0[1] ** 2 * math.exp(-8 * theta * t) - threshold,
        0.0,
        50.0,
        xtol=1e-15,
        rtol=1e-15,
    )


@pytest.mark.parametrize("theta", [0.05, 0.5, 2.5])
def test_figure_1_flow_agrees_with_its_closed_form(theta):
    flow = DiagonallyPreconditionedFlow(DiagonalQuadratic(double(1.0, 4.0)), double(1.0, theta))
    x0, threshold = double(1.0, 1.0, requires_grad=True), double(1e-3, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        flow, x0, SquaredGradientNorm(DiagonalQuadratic(double(1.0, 4.0))), threshold, **TIGHT
    )
    time = figure_1_time(theta, (1.0, 1.0), 1e-3)
    first, second = math.exp(-2 * time), 16 * math.exp(-8 * theta * time)
    rate = -2 * first - 8 * theta * second
    assert solution.time.item() == pytest.approx(time, rel=1e-9)
    by_diagonal, by_x0, by_threshold = torch.autograd.grad(solution.time, (flow.diagonal, x0, threshold))
    expected = [2 * time * first / rate, 8 * time * second / rate]
    assert by_diagonal.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9 * max(map(abs, expected)))
    expected = [-2 * first / rate, -2 * second / rate]
    assert by_x0.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9 * max(map(abs, expected)))
    assert by_threshold.item() == pytest.approx(1 / rate, rel=1e-9)


def test_dense_quadratic_agrees_with_its_eigendecomposition():
    objective = Quadratic.with_condition_number(20, 100.0, seed=3, dtype=torch.float64)
    x0 = torch.ones(20, dtype=torch.float64, requires_grad=True)
    speed = double(1.0, requires_grad=True)
    flow = GradientFlow(objective)
    solution = odestop.continuous_stopping_time(
        lambda t, x: speed * flow(t, x), x0, SquaredGradientNorm(objective), 1e-4, **TIGHT
    )
    eigenvalues = objective.eigenvalues
    coefficients = objective.to_eigenbasis(x0.detach())

    def squared_norm(t):
        return float((eigenvalues * coefficients * torch.exp(-eigenvalues * t)).square().sum())

    time = brentq(lambda t: math.log(squared_norm(t) / 1e-4), 0.0, 1e4, xtol=1e-13, rtol=1e-15)
    decay = torch.exp(-eigenvalues * time)
    gradient = eigenvalues * coefficients * decay
    rate = -2 * float((eigenvalues * gradient.square()).sum())
    # Variational equation: ∂x(T)/∂x0 = e^{-QT}, ∇J = 2 Q g, and T is inversely proportional to the speed.
    by_x0 = -objective.from_eigenbasis(2 * eigenvalues * gradient * decay) / rate
    assert solution.time.item() == pytest.approx(time, rel=1e-9)
    measured, by_speed = torch.autograd.grad(solution.time, (x0, speed))
    assert float((measured - by_x0).norm() / by_x0.norm()) < 1e-9
    assert by_speed.item() == pytest.approx(-time, rel=1e-9)


def test_state_carries_the_full_dependence_of_the_stopping_time():
    # On x' = -θ x with J = x_1, x(T) = ε x0 / x0_1 whatever θ is.
    theta, threshold = double(1.3, requires_grad=True), double(0.1, requires_grad=True)
    x0 = double(2.0, 5.0, requires_grad=True)
    solution = odestop.continuous_stopping_time(lambda t, x: -theta * x, x0, lambda x: x[..., 0], threshold, **TIGHT)
    torch.testing.assert_close(solution.state, double(0.1, 0.25), rtol=1e-9, atol=0.0)
    by_theta, by_x0, by_threshold = torch.autograd.grad(solution.state[1], (theta, x0, threshold))
    assert abs(by_theta.item()) < 1e-10
    assert by_x0.tolist() == pytest.approx([-0.125, 0.05], rel=1e-9)
    assert by_threshold.item() == pytest.approx(2.5, rel=1e-9)


def test_sum_of_time_and_state_gradients_is_linear():
    theta = double(1.3, requires_grad=True)

    def gradient(of):
        solution = odestop.continuous_stopping_time(
            lambda t, x: -theta * x - 0.2 * x**3, double(2.0, 1.0), lambda x: x.square().sum(-1), 0.1
        )
        return torch.autograd.grad(of(solution), theta)[0]

    both = gradient(lambda s: 2 * s.time + s.state[0])
    torch.testing.assert_close(both, 2 * gradient(lambda s: s.time) + gradient(lambda s: s.state[0]))


def test_heavy_ball_state_with_initial_state_and_position():
    class HeavyBall(torch.nn.Module):
        """q'' + 2 γ q' + q = 0, underdamped, from rest."""

        def __init__(self):
            super().__init__()
            self.friction = torch.nn.Parameter(double(0.2))

        def initial_state(self, x0):
            return torch.cat([x0, torch.zeros_like(x0)], dim=-1)

        def position(self, state):
            return state[..., : state.shape[-1] // 2]

        def forward(self, t, state):
            q, v = state.chunk(2, dim=-1)
            return torch.cat([v, -2 * self.friction * v - q], dim=-1)

    flow = HeavyBall()
    x0 = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    solution = odestop.continuous_stopping_time(flow, x0, lambda q: q[..., 0], 0.25, **TIGHT)

    def position(t, gamma):
        omega = torch.sqrt(1 - gamma**2)
        return torch.exp(-gamma * t) * (torch.cos(omega * t) + gamma / omega * torch.sin(omega * t))

    time = brentq(lambda t: position(double(t), double(0.2)).item() - 0.25, 0.0, 2.0, xtol=1e-14)
    t, gamma = double(time, requires_grad=True), double(0.2, requires_grad=True)
    by_t, by_gamma = torch.autograd.grad(position(t, gamma), (t, gamma))
    assert solution.time.item() == pytest.approx(time, rel=1e-9)
    measured, by_x0 = torch.autograd.grad(solution.time, (flow.friction, x0))
    assert measured.item() == pytest.approx((-by_gamma / by_t).item(), rel=1e-8)
    assert by_x0.item() == pytest.approx((-0.25 / by_t).item(), rel=1e-8)
    assert solution.position.shape == (1,)
    assert solution.state.shape == (2,)


def test_float32_solves_to_float32_accuracy():
    theta = torch.tensor(2.0, requires_grad=True)
    solution = odestop.continuous_stopping_time(lambda t, x: -theta * x, torch.ones(3), lambda x: x.sum(-1), 0.3)
    (gradient,) = torch.autograd.grad(solution.time, theta)
    assert solution.time.dtype == solution.state.dtype == torch.float32
    assert solution.time.item() == pytest.approx(math.log(10) / 2, rel=1e-6)
    assert gradient.item() == pytest.approx(-math.log(10) / 4, rel=1e-5)


def test_tiny_thresholds_are_located_and_differentiated_exactly():
    theta = double(1.0, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, double(1.0, 1.0), lambda x: x.square().sum(-1), 1e-24
    )
    (gradient,) = torch.autograd.grad(solution.time, theta)
    time = math.log(2e24) / 2
    assert solution.time.item() == pytest.approx(time, rel=1e-6)
    assert gradient.item() == pytest.approx(-time, rel=1e-5)


def test_criterion_at_the_returned_state_equals_the_threshold_to_rounding():
    objective = Quadratic.with_condition_number(30, 1e3, seed=1, dtype=torch.float64)
    criterion = SquaredGradientNorm(objective)
    for threshold in (1e-2, 1e-4, 1e-6):
        solution = odestop.continuous_stopping_time(
            GradientFlow(objective), torch.ones(30, dtype=torch.float64), criterion, threshold, rtol=1e-5
        )
        assert criterion(solution.state).item() == pytest.approx(threshold, rel=1e-12)
