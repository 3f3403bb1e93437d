"""Derivatives of any order by the unrolled steps: against closed forms, differences and the discrete adjoint."""

import pytest
import torch
from torch.autograd.functional import hessian

import odestop
from odestop import StoppingStatus
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import DiagonallyPreconditionedFlow
from odestop.objectives import Rosenbrock
from odestop.solvers import RungeKutta4

pytestmark = pytest.mark.usefixtures("annotations_unchecked")
TIGHT = {"method": "dopri8", "rtol": 1e-12, "atol": 1e-15}


def double(values, requires_grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def stopping_time(dynamics, x0, criterion, threshold, **options):
    return odestop.continuous_stopping_time(dynamics, x0, criterion, threshold, gradient="unrolled", **options)


def scalar_time(inputs):
    rate, x0, threshold, t0 = inputs
    return stopping_time(lambda t, x: -rate * x, x0.reshape(1), lambda x: x[..., 0], threshold, t0=t0, **TIGHT).time


def scalar_closed_form(inputs):
    rate, x0, threshold, t0 = inputs
    return t0 + torch.log(x0 / threshold) / rate


def cubic_time(inputs):
    scale, x0, threshold = inputs
    return stopping_time(
        lambda t, x: -scale * x**3, x0.reshape(1), lambda x: x.square().sum(-1), threshold, **TIGHT
    ).time


def cubic_closed_form(inputs):
    scale, x0, threshold = inputs
    return (1 / threshold - 1 / x0**2) / (2 * scale)


@pytest.mark.parametrize(
    ("time", "closed_form", "point"),
    [
        (scalar_time, scalar_closed_form, double([2.0, 1.5, 0.5, 0.3])),
        (cubic_time, cubic_closed_form, double([1.3, 1.5, 0.5])),
    ],
)
def test_hessians_are_those_of_the_closed_form(time, closed_form, point):
    exact = hessian(closed_form, point)
    torch.testing.assert_close(hessian(time, point), exact, rtol=1e-9, atol=1e-9 * float(exact.abs().max()))


@pytest.mark.parametrize(("corrections", "exact_order"), [(1, 1), (2, 3), (3, 4)])
def test_each_correction_doubles_the_number_of_exact_derivatives(corrections, exact_order):
    # T = ln(1/ε) / a has derivatives of every order in a.
    def derivatives(time, rate):
        found = [time(rate)]
        for _ in range(4):
            found.append(torch.autograd.grad(found[-1], rate, create_graph=True)[0])
        return torch.stack(found[1:]).detach()

    rate = double(1.5, requires_grad=True)
    measured = derivatives(
        lambda rate: (
            odestop.continuous_stopping_time(
                lambda t, x: -rate * x,
                double([1.0]),
                lambda x: x[..., 0],
                0.5,
                gradient=odestop.gradients.Unrolled(corrections=corrections),
                **TIGHT,
            ).time
        ),
        rate,
    )
    relative = (measured / derivatives(lambda rate: torch.log(double(2.0)) / rate, rate) - 1.0).abs()
    assert relative[:exact_order].max() < 1e-8
    assert exact_order == 4 or relative[exact_order] > 1e-3


def test_time_and_state_pass_gradcheck_and_gradgradcheck():
    # With fixed steps the derivatives are those of the returned number exactly, whatever the step.
    def answer(rates, weight, x0, threshold, t0):
        solution = stopping_time(
            lambda t, x: -rates * (1 + 0.5 * torch.sin(t)) * x / (1 + x.square().sum(-1, keepdim=True)),
            x0,
            lambda x: weight * x.square().sum(-1),
            threshold,
            t0=t0,
            method=RungeKutta4(step_size=0.6),
        )
        return solution.time, solution.state

    values = ([1.0, 2.0], 0.7, [1.0, -0.5], 0.3, 0.1)
    inputs = tuple(double(value, requires_grad=True) for value in values)
    assert torch.autograd.gradcheck(answer, inputs)
    assert torch.autograd.gradgradcheck(answer, inputs)


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
    )
    return solution, (rates, weight, t0, threshold, x0)


def rosenbrock(gradient):
    objective = Rosenbrock(2, 1.0, 5.0)
    diagonal, x0, threshold = double([1.0, 0.8], True), double([-1.2, 1.0], True), double(1.0, True)
    flow = DiagonallyPreconditionedFlow(objective, diagonal)
    criterion = SquaredGradientNorm(objective)
    solution = odestop.continuous_stopping_time(flow, x0, criterion, threshold, gradient=gradient, rtol=1e-5)
    return solution, (diagonal, x0, threshold)


@pytest.mark.parametrize("flow", [mixed_batch, rosenbrock])
def test_values_and_first_derivatives_are_those_of_the_discrete_adjoint(flow):
    answers = []
    for gradient in ("discrete_adjoint", "unrolled"):
        solution, inputs = flow(gradient)
        weights = torch.arange(1.0, 1.0 + int(solution.reached.sum()), dtype=torch.float64)
        loss = (weights * solution.time[solution.reached]).sum() + solution.state.sin().sum()
        answers.append((solution.time, solution.state, *torch.autograd.grad(loss, inputs)))
    for expected, measured in zip(*answers, strict=True):
        torch.testing.assert_close(measured, expected, rtol=1e-9, atol=1e-12)


def test_unreached_and_satisfied_trajectories_have_their_own_second_derivatives():
    rate, t0 = double(1.0, True), double([0.0, 0.5, 1.0], True)
    x0 = double([[2.0], [0.1], [5.0]], True)
    solution = stopping_time(lambda t, x: -rate * x, x0, lambda x: x[..., 0], 0.5, t0=t0, t_max=2.5)
    assert list(solution.status) == [
        StoppingStatus.REACHED,
        StoppingStatus.ALREADY_SATISFIED,
        StoppingStatus.HORIZON,
    ]
    by_x0, by_t0, by_rate = torch.autograd.grad(solution.time.sum(), (x0, t0, rate), create_graph=True)
    torch.testing.assert_close(by_x0, double([[0.5], [0.0], [0.0]]), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(by_t0, double([1.0, 1.0, 0.0]), rtol=1e-6, atol=1e-12)
    (mixed,) = torch.autograd.grad(by_rate, x0, retain_graph=True)
    torch.testing.assert_close(mixed, double([[-0.5], [0.0], [0.0]]), rtol=1e-5, atol=0.0)
    (state_by_x0,) = torch.autograd.grad(solution.state.sum(), x0)
    torch.testing.assert_close(state_by_x0, double([[0.0], [1.0], [0.0]]), rtol=0.0, atol=1e-12)


def test_a_trajectory_without_any_event_has_zero_gradients():
    rate = double(1.0, requires_grad=True)
    solution = stopping_time(lambda t, x: -rate * x, double([1.0]), lambda x: x[..., 0], 0.5, t_max=0.1)
    assert solution.time.item() == float("inf")
    assert torch.autograd.grad(solution.time, rate)[0].item() == 0.0


def test_a_trajectory_that_breaks_down_does_not_spoil_the_others():
    rate, x0 = double(1.5, requires_grad=True), double([[2.0], [-1.0]], requires_grad=True)
    # (x ln x)' needs x > 0.
    solution = stopping_time(lambda t, x: -rate * x * torch.log(x), x0, lambda x: x[..., 0], 1.5)
    assert list(solution.status) == [StoppingStatus.REACHED, StoppingStatus.NON_FINITE]
    by_rate, by_x0 = torch.autograd.grad(solution.time.sum(), (rate, x0), create_graph=True)
    # ln ln x falls at the given rate.
    ratio = torch.log(double(2.0)) / torch.log(double(1.5))
    torch.testing.assert_close(by_rate, -torch.log(ratio) / rate**2, rtol=1e-6, atol=0.0)
    assert by_x0[1].item() == 0.0
    (second,) = torch.autograd.grad(by_rate, rate)
    torch.testing.assert_close(second, 2 * torch.log(ratio) / rate**3, rtol=1e-5, atol=0.0)


def test_a_tangential_crossing_has_a_zero_gradient():
    rate = double(1.0, requires_grad=True)
    with pytest.warns(odestop.TangencyWarning):
        solution = stopping_time(lambda t, x: -rate * x, double([2.0]), lambda x: (x[..., 0] - 1.0) ** 5, 0.0)
    assert torch.isfinite(solution.time)
    assert torch.autograd.grad(solution.time, rate)[0].item() == 0.0


def test_nothing_is_attached_without_need():
    rate = double(1.0, requires_grad=True)
    with torch.no_grad():
        solution = stopping_time(lambda t, x: -rate * x, double([1.0]), lambda x: x[..., 0], 0.5)
    assert not solution.time.requires_grad
    assert not stopping_time(lambda t, x: -x, double([1.0]), lambda x: x[..., 0], 0.5).time.requires_grad


def test_a_criterion_that_hides_its_state_is_refused():
    rate = double(1.0, requires_grad=True)
    with pytest.raises(RuntimeError, match="carries no gradient"):
        stopping_time(lambda t, x: -rate * x, double([1.0]), lambda x: x.detach()[..., 0], 0.5)


def test_corrections_must_be_a_positive_count():
    with pytest.raises(ValueError, match="corrections"):
        odestop.gradients.Unrolled(corrections=0)
