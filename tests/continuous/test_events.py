"""Events that are easy to miss, and events other than the fall of J(x) to a level."""

import math

import pytest
import torch

import odestop
from odestop import StoppingStatus, gradients
from odestop.criteria import TimeDependent
from odestop.solvers import ExplicitEuler, RungeKutta4

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

FIRST_ORDER = ["discrete_adjoint", "forward_sensitivity", gradients.ContinuousAdjoint(rtol=1e-9)]
TIGHT = {"method": "dopri8", "rtol": 1e-10, "atol": 1e-12}


def tensor(value, requires_grad=True):
    return torch.tensor(value, dtype=torch.float64, requires_grad=requires_grad)


def coordinate(x):
    return x[..., 0]


def clock(t, x):
    """x(t) = x0 + t."""
    return torch.ones_like(x)


@pytest.mark.parametrize(
    ("direction", "gradient"),
    [("either", "discrete_adjoint"), *(("rising", gradient) for gradient in [*FIRST_ORDER, "unrolled"])],
    ids=str,
)
def test_a_rise_to_the_threshold(direction, gradient):
    # x = x0 exp(θ (t - t0)) rises to ε at T = t0 + ln(ε / x0) / θ.
    theta, x0, t0, threshold = tensor(0.5), tensor([1.0]), tensor(0.3), tensor(3.0)
    solution = odestop.continuous_stopping_time(
        lambda t, x: theta * x, x0, coordinate, threshold, t0=t0, direction=direction, gradient=gradient, **TIGHT
    )
    assert solution.time.item() == pytest.approx(0.3 + 2 * math.log(3.0), rel=1e-8)
    assert solution.criterion_rate.item() == pytest.approx(1.5, rel=1e-8)
    found = torch.autograd.grad(solution.time, (theta, x0, t0, threshold))
    expected = (-4 * math.log(3.0), -2.0, 1.0, 2 / 3)
    assert [g.item() for g in found] == pytest.approx(expected, rel=1e-6)


def test_a_start_beyond_the_threshold_is_already_satisfied_in_its_direction():
    def status(direction, threshold):
        return odestop.continuous_stopping_time(
            lambda t, x: -x, tensor([1.0]), coordinate, threshold, direction=direction, t_max=5.0
        ).status

    assert status("falling", 2.0) is status("rising", 0.5) is StoppingStatus.ALREADY_SATISFIED
    assert status("falling", 1.0) is status("rising", 1.0) is status("either", 1.0) is StoppingStatus.ALREADY_SATISFIED
    assert status("either", 0.5) is StoppingStatus.REACHED
    assert status("either", 2.0) is status("rising", 2.0) is StoppingStatus.HORIZON


def test_levels_on_both_sides_of_the_start():
    # J = sin(t), from 0.
    levels = tensor([0.5, -0.5, 2.0, -0.9], requires_grad=False)
    solution = odestop.continuous_stopping_time(
        lambda t, x: torch.stack([x[..., 1], -x[..., 0]], dim=-1),
        tensor([0.0, 1.0]),
        coordinate,
        levels,
        direction="either",
        levels=True,
        t_max=20.0,
        **TIGHT,
    )
    expected = [math.pi / 6, 7 * math.pi / 6, math.inf, math.pi + math.asin(0.9)]
    assert solution.time.tolist() == pytest.approx(expected, rel=1e-8)


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match=r"direction must be one of 'falling', 'rising', 'either', got 'up'"):
        odestop.continuous_stopping_time(lambda t, x: -x, tensor([1.0]), coordinate, 0.5, direction="up")


def weighted_by_time(phi):
    """J = x exp(φ t), with an exact stopping time on x' = -θ x: T = (ln(x0 / ε) + θ t0) / (θ - φ)."""
    return TimeDependent(lambda t, x: x[..., 0] * torch.exp(phi * t))


@pytest.mark.parametrize(
    ("batch", "gradient"),
    [
        ((), "discrete_adjoint"),
        *(((3,), gradient) for gradient in [*FIRST_ORDER, "unrolled"]),
        ((3,), gradients.FiniteDifference(relative_step=3e-4)),
    ],
    ids=str,
)
def test_a_criterion_that_depends_on_time(batch, gradient):
    theta, phi, t0 = tensor(1.0), tensor(0.3), tensor(0.4)
    x0 = tensor(1.0, False) + 0.5 * torch.arange(math.prod(batch), dtype=torch.float64).reshape(*batch, 1)
    x0.requires_grad_()
    threshold = tensor([0.6, 0.3])
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, x0, weighted_by_time(phi), threshold, t0=t0, levels=True, gradient=gradient, **TIGHT
    )
    exact = (torch.log(x0 / threshold) + theta * t0) / (theta - phi)
    torch.testing.assert_close(solution.time, exact, rtol=1e-8, atol=0.0)
    rate = (phi - theta) * threshold.expand_as(exact)
    torch.testing.assert_close(solution.criterion_rate, rate.detach(), rtol=1e-7, atol=0.0)
    loss, exact_loss = solution.time.square().sum(), exact.square().sum()
    inputs = (theta, phi, t0, x0, threshold)
    for found, expected in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(exact_loss, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=0.0)


def test_the_hessian_of_a_criterion_that_depends_on_time():
    def time(values):
        theta, phi, t0, x0, threshold = values
        return odestop.continuous_stopping_time(
            lambda t, x: -theta * x,
            x0.reshape(1),
            weighted_by_time(phi),
            threshold,
            t0=t0,
            gradient="unrolled",
            **TIGHT,
        ).time

    def exact(values):
        theta, phi, t0, x0, threshold = values
        return (torch.log(x0 / threshold) + theta * t0) / (theta - phi)

    values = tensor([1.0, 0.4, 0.3, 1.5, 0.2])
    hessian = torch.autograd.functional.hessian
    torch.testing.assert_close(hessian(time, values), hessian(exact, values), rtol=1e-5, atol=1e-6)


def test_torchdiffeq_agrees_on_a_criterion_that_depends_on_time():
    phi, x0 = tensor(0.4, False), tensor([1.5], False)
    question = (lambda t, x: -x, x0, weighted_by_time(phi), 0.2)
    ours, theirs = odestop.continuous_stopping_time(*question), odestop.torchdiffeq_stopping_time(*question)
    assert ours.time.item() == pytest.approx(theirs.time.item(), rel=1e-6)


@pytest.mark.parametrize("center", [0.03, 0.7, 4.0, 90.0])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dopri8"])
def test_a_dip_in_a_long_step_that_ends_lower_or_higher(method, center):
    # On a constant field the steps grow as far as they may; J = (s - c)² is below ε only for 2e-3 of the time.
    solution = odestop.continuous_stopping_time(
        clock, tensor([0.0]), lambda x: (x[..., 0] - center) ** 2, 1e-6, method=method, max_steps=200
    )
    assert solution.status is StoppingStatus.REACHED
    assert solution.time.item() == pytest.approx(center - 1e-3, rel=1e-6)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.7, 0.95])
def test_a_dip_inside_one_fixed_step(fraction):
    # A single step of size 1 from J = fraction² + 0.01 s to J = (1 - fraction)² + 0.01.
    solution = odestop.continuous_stopping_time(
        clock,
        tensor([0.0]),
        lambda x: (x[..., 0] - fraction) ** 2 + 0.01 * x[..., 0],
        0.01 * fraction + 1e-4,
        method=RungeKutta4(step_size=1.0),
        max_steps=2,
    )
    assert solution.status is StoppingStatus.REACHED
    assert solution.time.item() == pytest.approx(fraction - 0.005 - math.sqrt(1e-4 + 2.5e-5), abs=1e-9)


def test_a_dip_between_a_fall_and_another_fall():
    # J = 1 + s/2 + cos(3πs) on one step: 2, down to about 0.16 at s = 1/3, up to 2.3 and down to 0.5.
    solution = odestop.continuous_stopping_time(
        clock,
        tensor([0.0]),
        lambda x: 1.0 + 0.5 * x[..., 0] + torch.cos(3 * math.pi * x[..., 0]),
        0.3,
        method=RungeKutta4(step_size=1.0),
        max_steps=1,
    )
    assert solution.status is StoppingStatus.REACHED
    assert 0.2 < solution.time.item() < 1 / 3


def test_first_passages_of_random_waves_agree_with_a_fine_grid():
    generator = torch.Generator().manual_seed(0)
    count = 64
    amplitude, frequency, phase = (torch.rand(count, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    frequency, phase, threshold = 0.5 + 3 * frequency, 2 * math.pi * phase, -0.8

    def wave(t):
        return (amplitude * torch.cos(frequency * t.unsqueeze(-1) + phase)).sum(-1)

    # J is a wave on a field so simple that only the accuracy of another coordinate limits the steps, to about 1.
    def field(t, x):
        return torch.stack([torch.ones_like(x[..., 0]), x[..., 2], -x[..., 1]], dim=-1)

    x0 = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).repeat(count, 1)
    solution = odestop.continuous_stopping_time(field, x0, lambda x: wave(x[..., 0]), threshold, t_max=8.0, rtol=1e-5)
    grid = torch.linspace(0.0, 8.0, 8001, dtype=torch.float64)
    below = wave(grid.unsqueeze(-1).expand(-1, count)) <= threshold
    first = torch.where(below.any(0), grid[below.int().argmax(0)], 9.0)
    assert int(solution.stats.accepted_steps.max()) < 40
    assert int((first < 9.0).sum()) > 20
    missed = solution.time.clamp(max=9.0) > first + 1e-3
    assert int(missed.sum()) == 0, (missed.sum(), solution.stats.accepted_steps.max())


def test_a_crossing_at_the_end_of_a_step():
    # Euler with h = 0.5 halves x: J = ε to the last bit after two whole steps.
    theta = tensor(1.0)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, tensor([1.0]), coordinate, 0.25, method=ExplicitEuler(step_size=0.5)
    )
    assert solution.time.item() == 1.0
    # J = (1 - θ/2)(1 - θ h') = 1/4 for the size h' of the last step.
    (slope,) = torch.autograd.grad(solution.time, theta)
    assert slope.item() == pytest.approx(-1.0, rel=1e-12)


@pytest.mark.parametrize("units", [1, 3, 1000])
def test_a_crossing_within_rounding_of_a_step_boundary(units):
    theta = tensor(1.0)
    for sign in (1, -1):
        solution = odestop.continuous_stopping_time(
            lambda t, x: -theta * x,
            tensor([1.0]),
            coordinate,
            0.25 * (1 + sign * units * 2**-52),
            method=ExplicitEuler(step_size=0.5),
        )
        assert solution.status is StoppingStatus.REACHED
        assert solution.time.item() == pytest.approx(1.0, abs=1e-12)
        (slope,) = torch.autograd.grad(solution.time, theta)
        # Behind the boundary the last step has size zero: (1 - θ/2)² (1 - θ h') = 1/4, with half of the drift.
        assert slope.item() == pytest.approx(-1.0 if sign > 0 else -2.0, rel=1e-10)


def test_a_crossing_at_the_horizon():
    solution = odestop.continuous_stopping_time(
        lambda t, x: -clock(t, x), tensor([1.0]), coordinate, 0.0, t_max=1.0, method=ExplicitEuler(step_size=0.375)
    )
    assert solution.status is StoppingStatus.REACHED
    assert solution.time.item() == 1.0


@pytest.mark.parametrize(
    ("distance", "after", "gradient"),
    [
        (1e-2, -1e3, "discrete_adjoint"),
        (1e-6, 0.0, "discrete_adjoint"),
        *((1e-6, 1e3, gradient) for gradient in [*FIRST_ORDER, "unrolled"]),
    ],
    ids=str,
)
def test_a_right_hand_side_that_jumps_just_after_the_event(distance, after, gradient):
    theta = tensor(2.0)

    def field(t, x):
        return torch.where(x > 0.1 - distance, -theta * x, after + 0.0 * x)

    solution = odestop.continuous_stopping_time(
        field, tensor([1.0]), coordinate, 0.1, gradient=gradient, max_steps=2000, **TIGHT
    )
    assert solution.time.item() == pytest.approx(math.log(10.0) / 2, rel=1e-8)
    (slope,) = torch.autograd.grad(solution.time, theta)
    assert slope.item() == pytest.approx(-math.log(10.0) / 4, rel=1e-5)


def test_a_field_that_is_undefined_just_after_the_event():
    theta = tensor(2.0)
    solution = odestop.continuous_stopping_time(
        lambda t, x: torch.where(x > 0.1 - 1e-4, -theta * x, torch.nan), tensor([1.0]), coordinate, 0.1
    )
    assert solution.time.item() == pytest.approx(math.log(10.0) / 2, rel=1e-6)
    (slope,) = torch.autograd.grad(solution.time, theta)
    assert slope.item() == pytest.approx(-math.log(10.0) / 4, rel=1e-5)


@pytest.mark.parametrize("alias", ["euler", "heun", "rk4"])
def test_a_fixed_step_method_asks_for_its_step_size(alias):
    with pytest.raises(ValueError, match=r"takes fixed steps: odestop.solvers..*step_size"):
        odestop.continuous_stopping_time(lambda t, x: -x, tensor([1.0]), coordinate, 0.1, method=alias)
