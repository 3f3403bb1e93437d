"""Every way a stopping time can fail or need care gets its status, promptly."""

import math
import warnings

import pytest
import torch

import odestop
from odestop import StoppingStatus
from odestop.criteria import ObjectiveGap, SquaredGradientNorm
from odestop.dynamics import ExponentialSchedule, GradientFlow, RescaledGradientFlow
from odestop.objectives import DiagonalQuadratic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")
BUDGET = 3000


def start(*values, dtype=torch.float64):
    return torch.tensor(values or (1.2, 1.0), dtype=dtype)


def energy(x):
    return x.square().sum(-1)


def solve(dynamics, threshold=1e-6, x0=None, criterion=energy, **arguments):
    arguments.setdefault("max_steps", BUDGET)
    return odestop.continuous_stopping_time(dynamics, start() if x0 is None else x0, criterion, threshold, **arguments)


def spent(solution):
    return int(solution.stats.accepted_steps + solution.stats.rejected_steps)


def test_finite_horizon():
    solution = solve(lambda t, x: -x, t_max=1.5)
    assert solution.status is StoppingStatus.HORIZON
    assert solution.time.item() == math.inf
    assert not solution.reached
    torch.testing.assert_close(solution.state, start() * math.exp(-1.5), rtol=1e-6, atol=0.0)


def test_threshold_met_just_before_and_just_after_the_horizon():
    time = math.log(2.44 / 1e-6) / 2
    assert solve(lambda t, x: -x, t_max=time * (1 + 1e-6)).status is StoppingStatus.REACHED
    assert solve(lambda t, x: -x, t_max=time * (1 - 1e-6)).status is StoppingStatus.HORIZON


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "field",
    [
        lambda t, x: -(x - 2.0),
        lambda t, x: -1e8 * (x - 2.0),
        lambda t, x: 0.0 * x,
        lambda t, x: -torch.exp(-t) * x,
        lambda t, x: -((1.0 + t) ** -2) * x,
    ],
    ids=["stationary point", "stiff", "zero field", "exponential schedule", "polynomial schedule"],
)
def test_a_flow_at_rest_above_the_threshold_is_stationary(field, dtype):
    solution = solve(field, x0=start(dtype=dtype))
    assert solution.status is StoppingStatus.STATIONARY
    assert solution.time.item() == math.inf
    assert spent(solution) < 400


def test_shipped_flow_with_an_integrable_schedule_is_stationary():
    objective = DiagonalQuadratic(torch.tensor([1.0, 4.0], dtype=torch.float64))
    schedule = ExponentialSchedule(torch.tensor(1.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64))
    flow = RescaledGradientFlow(objective, schedule)
    assert solve(flow, criterion=SquaredGradientNorm(objective)).status is StoppingStatus.STATIONARY


def test_a_threshold_below_the_minimum_is_stationary():
    objective = DiagonalQuadratic(torch.tensor([1.0, 4.0], dtype=torch.float64))
    solution = solve(GradientFlow(objective), threshold=-1.0, criterion=ObjectiveGap(objective))
    assert solution.status is StoppingStatus.STATIONARY


def test_step_budget():
    solution = solve(lambda t, x: torch.stack([x[1], -x[0]]), max_steps=50)
    assert solution.status is StoppingStatus.MAX_STEPS
    assert spent(solution) == 50


def test_step_budget_that_just_suffices_reaches():
    needed = spent(solve(lambda t, x: -x)) + 1
    assert solve(lambda t, x: -x, max_steps=needed).status is StoppingStatus.REACHED
    assert solve(lambda t, x: -x, max_steps=needed - 1).status is StoppingStatus.MAX_STEPS


@pytest.mark.parametrize(
    "field",
    [lambda t, x: x * torch.nan, lambda t, x: torch.where(t > 1, torch.nan, -x)],
    ids=["at once", "after a while"],
)
def test_a_field_of_nan_is_non_finite(field):
    solution = solve(field)
    assert solution.status is StoppingStatus.NON_FINITE
    assert bool(torch.isfinite(solution.state).all())


def test_a_criterion_of_nan_is_non_finite():
    assert solve(lambda t, x: -x, criterion=lambda x: x.sum(-1) * torch.nan).status is StoppingStatus.NON_FINITE


def test_blow_up_in_finite_time_ends_in_a_status():
    status = solve(lambda t, x: x**2).status
    assert status in (StoppingStatus.STEP_UNDERFLOW, StoppingStatus.NON_FINITE)


def test_already_satisfied_is_t0_with_a_zero_gradient():
    theta, t0 = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.0, 0.7))
    x0 = start(1e-4, 1e-4).requires_grad_()
    solution = solve(lambda t, x: -theta * x, x0=x0, t0=t0)
    assert solution.status is StoppingStatus.ALREADY_SATISFIED
    assert solution.time.item() == 0.7
    gradients = torch.autograd.grad(solution.time, (theta, x0, t0), retain_graph=True)
    assert [g.abs().sum().item() for g in gradients] == [0.0, 0.0, 1.0]
    (identity,) = torch.autograd.grad(solution.state.sum(), x0)
    torch.testing.assert_close(identity, torch.ones_like(x0))


def test_starting_exactly_at_the_threshold_is_already_satisfied():
    assert solve(lambda t, x: -x, x0=start(1.0, 0.0), threshold=1.0).status is StoppingStatus.ALREADY_SATISFIED


def test_failures_have_a_zero_gradient_and_do_not_spoil_their_neighbours():
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def field(t, x):
        poisoned = torch.where(x[..., :1] < -1.0, torch.nan, 1.0)
        return -theta * x * poisoned

    x0 = start(1.0, 1.0).repeat(4, 1)
    x0[1] = torch.tensor([-2.0, 1.0])
    x0[3] = 1e-5
    threshold = torch.tensor([1e-2, 1e-2, -1.0, 1e-2], dtype=torch.float64)
    x0.requires_grad_()
    solution = solve(field, x0=x0, threshold=threshold, t_max=30.0)
    assert list(solution.status) == [
        StoppingStatus.REACHED,
        StoppingStatus.NON_FINITE,
        StoppingStatus.HORIZON,
        StoppingStatus.ALREADY_SATISFIED,
    ]
    by_theta, by_x0 = torch.autograd.grad(solution.time[solution.reached].sum(), (theta, x0))
    assert by_theta.item() == pytest.approx(-math.log(200) / 2, rel=1e-5)
    assert bool((by_x0[1:] == 0).all())
    (all_rows,) = torch.autograd.grad(solve(field, x0=x0, threshold=threshold, t_max=30.0).time.sum(), theta)
    assert all_rows.item() == pytest.approx(by_theta.item(), rel=1e-12)


def test_on_failure_raise_carries_the_solution():
    with pytest.raises(odestop.StoppingTimeError, match=r"1 of 2 .* horizon") as failure:
        solve(lambda t, x: -x, x0=start(1.0, 1.0).repeat(2, 1), threshold=torch.tensor([0.5, 1e-9]), t_max=1.0,
              on_failure="raise")  # fmt: skip
    assert failure.value.solution.time[0].item() == pytest.approx(math.log(2.0), rel=1e-6)


def test_on_failure_raise_is_silent_when_all_stop():
    assert solve(lambda t, x: -x, on_failure="raise").reached


def rotation(t, x):
    return torch.stack([x[..., 1], -x[..., 0]], dim=-1)


@pytest.mark.parametrize("rtol", [1e-2, 1e-4, 1e-8])
def test_a_dip_between_steps_is_found(rtol):
    # J = x_1² touches zero twice per turn and is below 1e-6 only for 2e-3 of the time.
    solution = solve(rotation, x0=start(1.0, 0.0), criterion=lambda x: x[..., 0] ** 2, rtol=rtol, atol=rtol)
    assert solution.status is StoppingStatus.REACHED
    assert solution.time.item() == pytest.approx(math.acos(1e-3), rel=3 * rtol)


def test_dips_are_found_row_by_row_in_a_batch():
    x0 = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, 0.3]], dtype=torch.float64, requires_grad=True)
    solution = solve(rotation, x0=x0, criterion=lambda x: x[..., 0] ** 2 + 1e-3, threshold=1e-3 + 1e-8)
    for row in range(3):
        alone = solve(rotation, x0=x0[row], criterion=lambda x: x[..., 0] ** 2 + 1e-3, threshold=1e-3 + 1e-8)
        assert solution.time[row].item() == pytest.approx(alone.time.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(solution.time.sum(), x0)
    # The angle to the vertical axis decides the time.
    angle = torch.atan2(x0[:, 0], x0[:, 1])
    radius = x0.norm(dim=-1)
    time = torch.where(x0[:, 0] > 0, torch.pi / 2 - torch.atan2(x0[:, 1], x0[:, 0]), angle)
    assert bool(torch.isfinite(gradient).all())
    assert radius.shape == time.shape == (3,)


def test_a_tangential_crossing_warns_with_the_rate_and_has_a_zero_gradient():
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    # J = (x_1 - 1)³ reaches 0 with a vanishing slope.
    with pytest.warns(odestop.TangencyWarning, match="dJ/dt = "):
        solution = solve(lambda t, x: -theta * x, x0=start(2.0, 2.0), criterion=lambda x: (x[..., 0] - 1.0) ** 5,
                         threshold=0.0)  # fmt: skip
    assert solution.status is StoppingStatus.TANGENTIAL
    assert solution.time.item() == pytest.approx(math.log(2.0), rel=1e-2)
    (gradient,) = torch.autograd.grad(solution.time, theta)
    assert gradient.item() == 0.0


def test_a_transversal_crossing_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(lambda t, x: -x)


def assert_ends_within_the_budget(field):
    solution = solve(field, x0=start(1.0, -0.5, 0.25), threshold=1e-8, max_steps=300, t_max=1e3)
    assert isinstance(solution.status, StoppingStatus)
    assert spent(solution) <= 300


@pytest.mark.parametrize("seed", range(4))
def test_random_linear_and_bang_bang_fields_end_in_a_status_within_the_budget(seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(3, 3, generator=generator, dtype=torch.float64) * 10.0 ** (2 * seed)
    assert_ends_within_the_budget(lambda t, x: x @ matrix)
    assert_ends_within_the_budget(lambda t, x: torch.sign(x @ matrix))


@pytest.mark.parametrize(
    "field",
    [
        lambda t, x: torch.exp(x.abs()),
        lambda t, x: torch.where(t > 0.5, x / 0.0, -x),
        lambda t, x: -x / (x.norm(dim=-1, keepdim=True) + 1e-300) ** 3,
        lambda t, x: torch.sin(1e6 * t) * x,
    ],
    ids=["exponential growth", "infinite after a while", "infinite at the origin", "fast oscillation"],
)
def test_adversarial_fields_end_in_a_status_within_the_budget(field):
    assert_ends_within_the_budget(field)
