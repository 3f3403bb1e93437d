"""Proximal gradient and FISTA on the lasso: optimality, published bounds, gradients in the regularisation."""

import pytest
import torch

from odestop.discrete import FISTA, GradientDescent, ProximalGradient, discrete_stopping_time
from odestop.discrete.step_maps import ObjectiveStepMap
from odestop.objectives import DiagonalQuadratic, Lasso

DOUBLE = torch.float64
FEATURES = torch.randn(30, 6, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
TARGETS = FEATURES @ torch.tensor([2.0, 0.0, -1.0, 0.0, 0.0, 0.5], dtype=DOUBLE) + 0.1


def lasso(regularization: float | torch.Tensor = 0.2) -> Lasso:
    return Lasso(FEATURES, TARGETS, regularization)


def run(step: ObjectiveStepMap, count: int) -> torch.Tensor:
    """x_0, …, x_count from the origin."""
    state = step.initial_state(torch.zeros(6, dtype=DOUBLE))
    positions = [step.position(state)]
    for k in range(count):
        state = step(k, state)
        positions.append(step.position(state))
    return torch.stack(positions).detach()


@pytest.mark.parametrize("kind", [ProximalGradient, FISTA])
def test_the_limit_satisfies_the_optimality_conditions(kind: type[ObjectiveStepMap]) -> None:
    """Of the lasso: |∂g/∂x_i| ≤ λ, and ∂g/∂x_i = -λ sign(x_i) wherever x_i ≠ 0."""
    objective = lasso()
    x = run(kind(objective, 1 / objective.smooth.smoothness), 150)[-1]
    gradient, active = objective.smooth.gradient(x), x != 0
    assert 0 < int(active.sum()) < 6
    torch.testing.assert_close(gradient[active], -0.2 * torch.sign(x[active]), rtol=1e-9, atol=0)
    assert (gradient[~active].abs() < 0.2).all()


def test_published_bounds_hold_and_proximal_gradient_descends() -> None:
    """f(x_k) - f* ≤ ‖x_0 - x*‖² / (2 s k), and ≤ 2 ‖x_0 - x*‖² / (s (k + 1)²) for FISTA, with s = 1/L."""
    scales = torch.logspace(0, -1.5, 6, dtype=DOUBLE)
    objective = Lasso(FEATURES * scales, FEATURES @ (scales * torch.ones(6, dtype=DOUBLE)), 1e-4)
    smoothness = objective.smooth.smoothness
    plain, fast = (run(kind(objective, 1 / smoothness), 100) for kind in (ProximalGradient, FISTA))
    # All coordinates are positive at the minimizer, so that A^T (A x - b) / n = -λ there.
    hessian = objective.smooth.features.T @ objective.smooth.features / 30
    minimizer = 1 - torch.linalg.solve(hessian, torch.full((6,), 1e-4, dtype=DOUBLE))
    assert (minimizer > 0).all()
    distance, k = smoothness * (minimizer**2).sum(), torch.arange(1, 101)
    by_plain, by_fast = (objective(x)[1:] - objective(minimizer) for x in (plain, fast))
    assert (by_plain.diff() <= 0).all()
    assert (by_plain <= distance / (2 * k)).all()
    assert (by_fast <= 2 * distance / (k + 1) ** 2).all()
    assert 0 < by_fast[-1] < by_plain[-1] / 10


def test_fista_is_the_published_recursion() -> None:
    """Beck and Teboulle (2009), FISTA with constant stepsize."""
    objective, rate = lasso(), 0.1
    x = y = torch.zeros(6, dtype=DOUBLE)
    t = 1.0
    for ours in run(FISTA(objective, rate), 60)[1:]:
        z = y - rate * objective.smooth.gradient(y)
        previous, x = x, torch.sign(z) * (z.abs() - rate * 0.2).clamp_min(0)
        t, last_t = (1 + (1 + 4 * t**2) ** 0.5) / 2, t
        y = x + (last_t - 1) / t * (x - previous)
        torch.testing.assert_close(ours, x, rtol=1e-12, atol=1e-14)


def test_the_limit_moves_with_the_regularisation_as_on_its_support() -> None:
    """There ∇²g dx* = -sign(x*) dλ, and nothing moves elsewhere."""
    regularization = torch.tensor(0.2, dtype=DOUBLE, requires_grad=True)
    objective = lasso(regularization)
    step = FISTA(objective, 1 / objective.smooth.smoothness)
    state = step.initial_state(torch.zeros(6, dtype=DOUBLE))
    for k in range(120):
        state = step(k, state)
    x = step.position(state)
    active = x.detach() != 0
    hessian = FEATURES[:, active].T @ FEATURES[:, active] / 30
    expected = torch.zeros(6, dtype=DOUBLE)
    expected[active] = torch.linalg.solve(hessian, -torch.sign(x.detach()[active]))
    for i in range(6):
        (slope,) = torch.autograd.grad(x[i], regularization, retain_graph=True)
        torch.testing.assert_close(slope, expected[i], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", [ProximalGradient, FISTA])
def test_the_steps_to_an_optimality_gap_have_a_gradient_in_the_regularisation(kind: type[ObjectiveStepMap]) -> None:
    regularization = torch.tensor([0.1, 0.2], dtype=DOUBLE, requires_grad=True)

    def steps(regularization: torch.Tensor) -> torch.Tensor:
        objective = lasso(regularization)
        return discrete_stopping_time(
            kind(objective, 0.2),
            torch.ones(2, 6, dtype=DOUBLE),
            lambda x: (objective.gradient_mapping(x, 0.2) ** 2).sum(-1),
            1e-3,
            sensitivity="interpolated",
        ).steps

    (gradient,) = torch.autograd.grad(steps(regularization).sum(), regularization)
    with torch.no_grad():
        difference = (steps(regularization + 1e-6) - steps(regularization - 1e-6)) / 2e-6
    torch.testing.assert_close(gradient, difference, rtol=1e-5, atol=1e-6)


def test_an_objective_without_a_proximal_operator_is_refused() -> None:
    with pytest.raises(Exception, match="objective"):
        ProximalGradient(DiagonalQuadratic([1.0]), 0.1)  # type: ignore[arg-type]


def test_a_lasso_has_no_gradient_to_descend() -> None:
    with pytest.raises(NotImplementedError, match=r"Lasso is not differentiable everywhere: use smooth\.gradient"):
        GradientDescent(lasso(), 0.1)(0, torch.zeros(6, dtype=DOUBLE))
