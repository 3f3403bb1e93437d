"""Central differences of whole solves: right to their stated accuracy, and without a trace."""

import math

import pytest
import torch

import odestop
from odestop import StoppingStatus

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def double(values, requires_grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def solve(dynamics, x0, criterion, threshold, *, gradient="finite_difference", **options):
    return odestop.continuous_stopping_time(dynamics, x0, criterion, threshold, gradient=gradient, **options)


def test_every_derivative_of_the_closed_form():
    # w x² = ε at T = t0 + ln(w x0² / ε) / (2 θ).
    rate, weight, threshold, t0 = (double(v, True) for v in (2.0, 0.7, 0.01, 0.3))
    x0 = double([1.5], True)
    solution = solve(lambda t, x: -rate * x, x0, lambda x: weight * x.square().sum(-1), threshold, t0=t0, rtol=1e-9)
    gradients = torch.autograd.grad(solution.time, (rate, weight, threshold, t0, x0))
    duration = math.log(0.7 * 1.5**2 / 0.01) / 4.0
    expected = (-duration / 2.0, 1 / (4 * 0.7), -1 / (4 * 0.01), 1.0, 1 / (2 * 1.5))
    assert [g.item() for g in gradients] == pytest.approx(expected, rel=3e-6)


def test_the_error_falls_with_the_square_of_the_step():
    errors = []
    for width in (4e-2, 2e-2):
        rate = double(2.0, True)
        method = odestop.gradients.FiniteDifference(relative_step=width)
        solution = solve(lambda t, x: -rate * x, double([1.0]), lambda x: x[..., 0], 0.1, gradient=method, rtol=1e-9)  # noqa: B023
        errors.append(abs(torch.autograd.grad(solution.time, rate)[0].item() + math.log(10) / 4))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.02)


def test_levels_statuses_and_states_agree_with_the_discrete_adjoint():
    answers = []
    for gradient in ("discrete_adjoint", "finite_difference"):
        rates, t0 = double([0.7, 1.3], True), double([0.0, 0.2, 0.3], True)
        threshold = double([[1.0, 0.1], [1.0, 1.0], [1.0, 1e-9]], True)
        x0 = double([[1.0, 2.0], [0.1, 0.0], [3.0, 1.0]], True)
        solution = solve(
            lambda t, x: -rates * (1 + 0.5 * torch.sin(t)) * x,  # noqa: B023
            x0,
            lambda x: x.square().sum(-1),
            threshold,
            t0=t0,
            t_max=3.0,
            levels=True,
            gradient=gradient,
        )
        weights = torch.arange(1.0, 1.0 + int(solution.reached.sum()), dtype=torch.float64)
        loss = (weights * solution.time[solution.reached]).sum() + solution.state.sin().sum()
        answers.append(torch.autograd.grad(loss, (rates, t0, threshold, x0)))
    assert list(solution.status[:, 1]) == [
        StoppingStatus.REACHED,
        StoppingStatus.ALREADY_SATISFIED,
        StoppingStatus.HORIZON,
    ]
    for expected, measured in zip(*answers, strict=True):
        torch.testing.assert_close(measured, expected, rtol=1e-4, atol=1e-5)


def test_parameters_and_counts_are_left_as_they_were():
    rate = double([2.0, 1 / 3], True)
    before, version = rate.detach().clone(), rate._version
    solution = solve(lambda t, x: -rate * x, double([1.0, 1.0]), lambda x: x.square().sum(-1), 0.5, rtol=1e-4)
    evaluations = solution.stats.nfe
    torch.autograd.grad(solution.time, rate)
    assert torch.equal(rate, before)
    assert rate._version == version
    assert solution.stats.nfe == evaluations


def test_parameters_are_put_back_after_a_failure():
    rate, fail = double(2.0, True), []

    def dynamics(t, x):
        if fail and float(rate) != 2.0:
            raise ArithmeticError
        return -rate * x

    solution = solve(dynamics, double([1.0]), lambda x: x[..., 0], 0.5)
    fail.append(True)
    with pytest.raises(ArithmeticError):
        torch.autograd.grad(solution.time, rate)
    assert rate.item() == 2.0


def test_a_parameter_shared_by_dynamics_and_criterion_counts_once():
    # θ x = ε at T = ln(θ x0 / ε) / θ.
    rate = double(2.0, True)
    solution = solve(lambda t, x: -rate * x, double([1.0]), lambda x: rate * x[..., 0], 0.1, rtol=1e-9)
    (gradient,) = torch.autograd.grad(solution.time, rate)
    assert gradient.item() == pytest.approx((1 - math.log(20.0)) / 4, rel=1e-5)


def test_an_initial_point_that_is_also_a_parameter():
    # x' = -x0 x from x0: T = ln(x0 / ε) / x0.
    x0 = double([2.0], True)
    solution = solve(lambda t, x: -x0 * x, x0, lambda x: x[..., 0], 0.1, rtol=1e-9)
    (gradient,) = torch.autograd.grad(solution.time, x0)
    assert gradient.item() == pytest.approx((1 - math.log(20.0)) / 4, rel=1e-5)


def test_parameters_in_one_piece_of_memory_are_refused():
    both = double([2.0, 0.7], True)
    rate = both[0]
    solution = solve(lambda t, x: -rate * x, double([1.0]), lambda x: both[1] * x[..., 0], 0.1, rtol=1e-4)
    with pytest.raises(RuntimeError, match="share their memory"):
        torch.autograd.grad(solution.time, both)


def test_a_moved_trajectory_that_misses_its_threshold_is_an_error():
    rate = double(2.0, True)
    horizon = math.log(10.0) / 2 * 1.0001
    solution = solve(lambda t, x: -rate * x, double([1.0]), lambda x: x[..., 0], 0.1, t_max=horizon)
    with pytest.raises(RuntimeError, match="smaller relative_step"):
        torch.autograd.grad(solution.time, rate)


def test_a_zero_threshold_and_a_zero_parameter_are_moved_as_well():
    shift, threshold = double(0.0, True), double(0.0, True)
    solution = solve(lambda t, x: -x, double([2.0]), lambda x: x[..., 0] - 1.0 - shift, threshold, rtol=1e-9)
    gradients = torch.autograd.grad(solution.time, (shift, threshold))
    assert [g.item() for g in gradients] == pytest.approx([-1.0, -1.0], rel=3e-6)


def test_unreached_trajectories_have_zero_gradients():
    rate = double(1.0, True)
    solution = solve(lambda t, x: -rate * x, double([1.0]), lambda x: x[..., 0], 0.5, t_max=0.1)
    assert torch.autograd.grad(solution.time, rate)[0].item() == 0.0


def test_second_derivatives_are_refused():
    rate = double(2.0, True)
    solution = solve(lambda t, x: -rate * x, double([1.0]), lambda x: x[..., 0], 0.5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(solution.time, rate, create_graph=True)
    with pytest.raises(RuntimeError, match="unrolled"):
        torch.autograd.grad(gradient, rate)


def test_the_step_must_be_positive():
    with pytest.raises(ValueError, match="relative_step"):
        odestop.gradients.FiniteDifference(relative_step=0.0)
