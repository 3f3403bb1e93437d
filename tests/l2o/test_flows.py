"""The learned inertial flow: the equation it stands for, its stability, and training through T."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import odestop
from odestop.criteria import ObjectiveGap
from odestop.dynamics import InertialHessianDampedFlow
from odestop.l2o.flows import InertialCoefficients, LearnedInertialFlow, stopping_times, train_inertial_flow
from odestop.l2o.problems import LogisticProblems
from odestop.objectives import DiagonalQuadratic, Objective, Rosenbrock

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
PROBLEMS = LogisticProblems(8, 4)


def random_coefficients(seed: int, scale: float = 1.0) -> InertialCoefficients:
    coefficients = InertialCoefficients(hidden=4, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in coefficients.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=DOUBLE)
    return coefficients


def test_coefficients_start_near_nesterov() -> None:
    friction, damping, force = InertialCoefficients(offset=5.0, dtype=DOUBLE)(torch.tensor(1e12, dtype=DOUBLE))
    assert friction.item() == pytest.approx(0.0, abs=1e-11)
    assert (damping.item(), force.item()) == pytest.approx((1.0, 0.9))
    assert InertialCoefficients(offset=5.0).alpha.item() == pytest.approx(5.0)


def test_it_is_the_inertial_system_with_hessian_driven_damping() -> None:
    coefficients = random_coefficients(0)
    smoothness = 3.0

    def damping(t: Tensor) -> Tensor:
        return coefficients(t).damping

    def gamma(t: Tensor) -> Tensor:
        with torch.enable_grad():
            time = t.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(damping(time).sum(), time)
        return coefficients(t).force + slope

    f = Objective.from_function(lambda x: x[..., 0].cosh() + (x[..., 0] * x[..., 1]).exp() + x.square().sum(-1))
    scaled = Objective.from_function(lambda x: f(x) / smoothness)
    f.smoothness = smoothness
    alpha = coefficients.alpha.detach()
    flow = LearnedInertialFlow(f, coefficients)
    reference = InertialHessianDampedFlow(scaled, alpha, damping, gamma, t0=-coefficients.offset)
    x0 = torch.tensor([1.0, -0.5], dtype=DOUBLE)
    start = flow.initial_state(x0)
    assert torch.equal(flow(torch.zeros((), dtype=DOUBLE), start)[:2], torch.zeros(2, dtype=DOUBLE))
    times = []
    for dynamics in (flow, reference):
        with torch.no_grad():
            solution = odestop.continuous_stopping_time(dynamics, x0, lambda x: f(x), 2.3, t_max=60.0, rtol=1e-10)
        times.append(solution.time.item())
    assert times[0] == pytest.approx(times[1], rel=1e-8)
    assert 0.5 < times[0] < 60


def test_one_iteration_is_one_euler_step_of_size_one() -> None:
    objective, x0 = PROBLEMS.sample(3, torch.Generator().manual_seed(0), dtype=DOUBLE)
    coefficients = random_coefficients(1)
    flow = LearnedInertialFlow(objective, coefficients)
    solution = odestop.discrete_stopping_time(odestop.Euler(flow, 1.0), x0, objective, -1.0, max_steps=4)
    x, v = x0, torch.zeros_like(x0)
    damping = coefficients(torch.zeros((), dtype=DOUBLE)).damping
    psi = v + damping * objective.gradient(x) / objective.smoothness.unsqueeze(-1)
    for k in range(4):
        friction, damping, force = coefficients(torch.tensor(float(k), dtype=DOUBLE))
        gradient = objective.gradient(x) / objective.smoothness.unsqueeze(-1)
        x, psi = x + psi - damping * gradient, psi - friction * (psi - damping * gradient) - force * gradient
    torch.testing.assert_close(solution.position, x)


@pytest.mark.parametrize("seed", range(5))
def test_euler_is_stable_for_every_curvature_whatever_the_weights(seed: int) -> None:
    coefficients = random_coefficients(seed, scale=5.0)
    curvatures = torch.linspace(0.001, 1.0, 50, dtype=DOUBLE)
    with torch.no_grad():
        for t in (0.0, 0.3, 2.0, 30.0, 1e3):
            friction, damping, force = coefficients(torch.tensor(t, dtype=DOUBLE))
            ones = torch.ones_like(curvatures)
            matrices = torch.stack(
                [
                    torch.stack([1 - damping * curvatures, ones], dim=-1),
                    torch.stack([(friction * damping - force) * curvatures, (1 - friction) * ones], dim=-1),
                ],
                dim=-2,
            )
            assert float(torch.linalg.eigvals(matrices).abs().max()) < 1
            f = DiagonalQuadratic(curvatures * 7)
            flow = LearnedInertialFlow(f, coefficients)
            f.smoothness = flow.smoothness = torch.tensor(7.0, dtype=DOUBLE)
            state = torch.randn(100, dtype=DOUBLE)
            step = odestop.Euler(flow, 1.0)(0, state, t0=t)
            pairs = torch.stack(state.chunk(2), dim=-1).unsqueeze(-1)
            torch.testing.assert_close(step, torch.cat(list((matrices @ pairs).squeeze(-1).T)))


def test_the_gradient_of_the_mean_time_is_that_of_finite_differences() -> None:
    objective, x0 = PROBLEMS.sample(3, torch.Generator().manual_seed(0), dtype=DOUBLE)
    coefficients = random_coefficients(2, scale=0.3)

    def mean_time() -> Tensor:
        return stopping_times(coefficients, objective, x0, ObjectiveGap, 0.05, 500.0)[0].mean()

    gradients = torch.autograd.grad(mean_time(), list(coefficients.parameters()))
    directions = [torch.randn_like(parameter) for parameter in coefficients.parameters()]
    slope = sum((g * v).sum() for g, v in zip(gradients, directions, strict=True))
    times = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, v in zip(coefficients.parameters(), directions, strict=True):
                parameter += sign * 1e-3 * v
            times.append(mean_time())
            for parameter, v in zip(coefficients.parameters(), directions, strict=True):
                parameter -= sign * 1e-3 * v
    assert float(slope) == pytest.approx(float(times[0] - times[1]) / 2e-3, rel=2e-3)


def test_problems_out_of_reach_count_with_the_horizon_and_have_no_gradient() -> None:
    objective, x0 = PROBLEMS.sample(4, torch.Generator().manual_seed(0), dtype=DOUBLE)
    coefficients = InertialCoefficients(dtype=DOUBLE)
    free, _ = stopping_times(coefficients, objective, x0, ObjectiveGap, 0.05, 500.0)
    horizon = float(free.detach().median()) + 1e-3
    time, reached = stopping_times(coefficients, objective, x0, ObjectiveGap, 0.05, horizon)
    assert 0 < int(reached.sum()) < 4
    assert time[~reached].tolist() == [horizon] * int((~reached).sum())
    torch.testing.assert_close(time[reached], free[reached])
    gradients = torch.autograd.grad(time[~reached].sum(), list(coefficients.parameters()))
    assert all(bool((gradient == 0).all()) for gradient in gradients)


def test_training_shortens_the_time_and_the_iterations_on_other_problems() -> None:
    coefficients = InertialCoefficients(hidden=4, dtype=DOUBLE)
    objective, x0 = PROBLEMS.sample(4, torch.Generator().manual_seed(99), dtype=DOUBLE)

    def held_out() -> tuple[float, float]:
        with torch.no_grad():
            time, reached = stopping_times(coefficients, objective, x0, ObjectiveGap, 0.05, 500.0)
            euler = odestop.Euler(LearnedInertialFlow(objective, coefficients), 1.0)
            steps = odestop.discrete_stopping_time(euler, x0, ObjectiveGap(objective), 0.05).steps
        assert bool(reached.all())
        return time.mean().item(), steps.mean().item()

    before = held_out()
    history = train_inertial_flow(
        coefficients, PROBLEMS, ObjectiveGap, 0.05, t_max=500.0, steps=4, batch=2, learning_rate=0.5
    )
    after = held_out()
    assert history["step"].tolist() == [1, 2, 3, 4]
    assert history["alpha"].iloc[0] == pytest.approx(3.0)
    assert after[0] < 0.7 * before[0]
    assert after[1] < 0.7 * before[1]


def test_bad_arguments_are_named() -> None:
    for call, message in (
        (lambda: InertialCoefficients(hidden=0), "hidden must be an integer of at least 1, got 0"),
        (lambda: InertialCoefficients(offset=0.0), "offset must be a positive finite number, got 0.0"),
        (lambda: LearnedInertialFlow(Rosenbrock(2), InertialCoefficients()), "objective must know its smoothness"),
        (
            lambda: train_inertial_flow(InertialCoefficients(), PROBLEMS, ObjectiveGap, 0.1, t_max=9.0, steps=0),
            "steps must be an integer of at least 1, got 0",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
