"""Tangents carried forward: the numbers of the discrete adjoint, whatever depends on what."""

import pytest
import torch

import odestop
from odestop import StoppingStatus
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import DiagonallyPreconditionedFlow
from odestop.objectives import Rosenbrock


def double(values, requires_grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def decay(rate, x0, threshold=0.1, gradient="forward_sensitivity", **options):
    return odestop.continuous_stopping_time(
        lambda t, x: -rate * x, x0, lambda x: x.square().sum(-1), threshold, gradient=gradient, **options
    )


def mixed_batch(gradient):
    """Levels, one trajectory that is done at the start, one that misses its second level."""
    rates, weight = double([0.7, 1.3], True), double(1.2, True)
    t0, threshold = double([0.0, 0.1, 0.2, 0.3], True), double([[1, 0.1], [0.02, 2], [1, 1], [1, 1e-9]], True)
    x0 = double([[1.0, 2.0], [2.0, 1.0], [0.1, 0.1], [3.0, 1.0]], True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -rates * (1 + 0.5 * torch.sin(t)) * x,
        x0,
        lambda x: weight * x.square().sum(-1),
        threshold,
        t0=t0,
        t_max=5.0,
        levels=True,
        gradient=gradient,
        rtol=1e-5,
    )
    return solution, (rates, weight, t0, threshold, x0)


def per_trajectory_parameters(gradient):
    rates, x0 = double([[[1.0]], [[2.0]]], True), double([[[2.0, 1.0]] * 3] * 2, True)
    return decay(rates, x0, gradient=gradient), (rates, x0)


def network(gradient):
    module = torch.nn.Linear(2, 2, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(double([[-1.0, 0.5], [-0.5, -1.0]]))
    t0 = double(0.2, True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: torch.tanh(module(x)) - 0.3 * torch.cos(t) * x,
        double([1.0, 2.0]),
        lambda x: x.square().sum(-1),
        0.5,
        t0=t0,
        gradient=gradient,
    )
    return solution, (*module.parameters(), t0)


def rosenbrock(gradient):
    """Dynamics and criterion of an objective whose gradient is autograd's own."""
    objective = Rosenbrock(2, 1.0, 5.0)
    diagonal, x0, threshold = double([1.0, 0.8], True), double([-1.2, 1.0], True), double(1.0, True)
    flow = DiagonallyPreconditionedFlow(objective, diagonal)
    criterion = SquaredGradientNorm(objective)
    solution = odestop.continuous_stopping_time(flow, x0, criterion, threshold, gradient=gradient, rtol=1e-5)
    return solution, (diagonal, x0, threshold)


@pytest.mark.parametrize("flow", [mixed_batch, per_trajectory_parameters, network, rosenbrock])
def test_derivatives_are_those_of_the_discrete_adjoint(flow):
    answers = []
    for gradient in ("discrete_adjoint", "forward_sensitivity"):
        torch.manual_seed(0)
        solution, inputs = flow(gradient)
        weights = torch.arange(1.0, 1.0 + int(solution.reached.sum()), dtype=torch.float64)
        loss = (weights * solution.time[solution.reached]).sum() + solution.state.sin().sum()
        answers.append((solution.time, *torch.autograd.grad(loss, inputs)))
    for expected, measured in zip(*answers, strict=True):
        torch.testing.assert_close(measured, expected, rtol=1e-9, atol=1e-12)


def test_float32_agrees_with_the_closed_form():
    rate = torch.tensor(2.0, requires_grad=True)
    solution = decay(rate, torch.ones(1), rtol=1e-5)
    (gradient,) = torch.autograd.grad(solution.time, rate)
    assert gradient.dtype is torch.float32
    assert gradient.item() == pytest.approx(-solution.time.item() / 2.0, rel=1e-4)


def test_the_rows_of_a_jacobian_share_the_tangents():
    rate, x0 = double(2.0, True), double([[1.0], [2.0], [3.0]])
    solution = decay(rate, x0)
    assert solution.stats.vjps == 0
    spent, rows = [], []
    for time in solution.time:
        rows += torch.autograd.grad(time, rate, retain_graph=True)
        spent.append(solution.stats.vjps)
    torch.testing.assert_close(torch.stack(rows), -solution.time.detach() / 2.0, rtol=1e-6, atol=0.0)
    assert spent[0] > 0
    assert len(set(spent)) == 1


def test_thresholds_alone_need_no_column():
    threshold = double([0.5, 0.1], True)
    solution = decay(double(1.5), double([1.0]), threshold, levels=True)
    (gradient,) = torch.autograd.grad(solution.time.sum(), threshold)
    torch.testing.assert_close(gradient, -1 / (3.0 * threshold.detach()), rtol=1e-6, atol=0.0)


def test_a_trajectory_that_breaks_down_does_not_spoil_the_others():
    rate, x0 = double(1.5, True), double([[2.0], [-1.0]], True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -rate * x * torch.log(x), x0, lambda x: x[..., 0], 1.5, gradient="forward_sensitivity"
    )
    assert list(solution.status) == [StoppingStatus.REACHED, StoppingStatus.NON_FINITE]
    by_rate, by_x0 = torch.autograd.grad(solution.time.sum(), (rate, x0))
    torch.testing.assert_close(by_rate, -solution.time[0].detach() / 1.5, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(by_x0, double([[1 / (3.0 * torch.log(double(2.0)))], [0.0]]), rtol=1e-6, atol=0.0)


def test_unreached_and_tangential_trajectories_have_zero_gradients():
    rate = double(1.0, True)
    unreached = decay(rate, double([1.0]), t_max=0.1)
    assert torch.autograd.grad(unreached.time, rate)[0].item() == 0.0
    with pytest.warns(odestop.TangencyWarning):
        tangential = odestop.continuous_stopping_time(
            lambda t, x: -rate * x,
            double([2.0]),
            lambda x: (x[..., 0] - 1.0) ** 5,
            0.0,
            gradient="forward_sensitivity",
        )
    assert torch.autograd.grad(tangential.time, rate)[0].item() == 0.0


def test_second_derivatives_are_refused():
    rate = double(2.0, True)
    (gradient,) = torch.autograd.grad(decay(rate, double([1.0])).time, rate, create_graph=True)
    with pytest.raises(RuntimeError, match="unrolled"):
        torch.autograd.grad(gradient, rate)


def test_too_many_columns_are_refused_with_the_way_out():
    rate, x0 = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=r"4 tangents.*max_columns = 3.*discrete_adjoint"):
        decay(rate, x0, gradient=odestop.gradients.ForwardSensitivity(max_columns=3))
    with pytest.raises(ValueError, match="max_columns"):
        odestop.gradients.ForwardSensitivity(max_columns=0)
