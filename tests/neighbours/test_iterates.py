"""Derivatives of iterates: closed forms on quadratics, forward against reverse, and finite differences."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from odestop.discrete import FISTA, ProximalGradient
from odestop.neighbours import (
    SquaredNormPenalty,
    derivative_iterates,
    final_iterate,
    implicit_gradient,
    lasso_derivative,
    truncation_bias_bound,
)
from odestop.objectives import Lasso, LeastSquares, LogisticRegression

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

CURVATURES = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
CENTRE = torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)
RATE, PENALTY = 0.8, 0.1


def descent(penalty: Tensor) -> Callable[[int, Tensor], Tensor]:
    """Gradient descent on ½ Σ q (x - c)² + ½ θ ‖x‖²."""
    return lambda k, x: x - RATE * (CURVATURES * (x - CENTRE) + penalty * x)


def closed_forms() -> tuple[Tensor, Tensor, Tensor]:
    """x*, ∂x*/∂θ and the contraction factors 1 - s (q + θ) of the coordinates."""
    total = CURVATURES + PENALTY
    return CURVATURES * CENTRE / total, -CURVATURES * CENTRE / total**2, 1 - RATE * total


def jacobian(x: Tensor, parameter: Tensor) -> Tensor:
    rows = [torch.autograd.grad(entry, parameter, retain_graph=True)[0] for entry in x]
    return torch.stack(rows)


@pytest.mark.parametrize("backward_steps", [None, 1, 4, 15, 40])
def test_last_steps_of_gradient_descent_in_closed_form(backward_steps: int | None) -> None:
    """From x_{K-m} as a constant: ∂x_K/∂θ = (1 - r^m) ∂x*/∂θ - m s r^{m-1} (x_{K-m} - x*)."""
    steps, start = 15, torch.tensor([5.0, 4.0, -3.0], dtype=torch.float64)
    solution, derivative, factor = closed_forms()
    penalty = torch.tensor(PENALTY, dtype=torch.float64, requires_grad=True)
    x = final_iterate(descent(penalty), start, steps, backward_steps=backward_steps)
    m = min(backward_steps or steps, steps)
    torch.testing.assert_close(x, solution + factor**steps * (start - solution))
    offset = factor ** (steps - m) * (start - solution)
    expected = (1 - factor**m) * derivative - m * RATE * factor ** (m - 1) * offset
    torch.testing.assert_close(jacobian(x, penalty), expected)


def test_the_derivative_of_the_iterate_tends_to_that_of_the_solution_at_the_predicted_rate() -> None:
    """The error is (k s (x_0 - x*) / r + ∂x*/∂θ) r^k: the rate of the iterates, with a factor k in front."""
    solution, derivative, factor = closed_forms()
    start = torch.zeros(3, dtype=torch.float64)
    found = derivative_iterates(descent, start, torch.tensor(PENALTY, dtype=torch.float64), 60)
    k = torch.arange(61, dtype=torch.float64).unsqueeze(1)
    expected = -(factor**k) * (k * RATE * (start - solution) / factor + derivative)
    torch.testing.assert_close(found.derivatives - derivative, expected, atol=1e-12, rtol=1e-9)
    penalty = torch.tensor(PENALTY, dtype=torch.float64, requires_grad=True)
    condition = lambda x, theta: CURVATURES * (x - CENTRE) + theta * x  # noqa: E731
    for solver in ("cg", "gmres", "dense"):
        x = implicit_gradient(condition, solution, penalty, solver=solver)
        torch.testing.assert_close(jacobian(x, penalty), derivative)


@pytest.mark.parametrize("backward_steps", [1, 2, 5])
def test_the_bias_of_the_last_steps_meets_its_bound(backward_steps: int) -> None:
    solution, derivative, factor = closed_forms()
    penalty = torch.tensor(PENALTY, dtype=torch.float64, requires_grad=True)
    x = final_iterate(descent(penalty), solution, 8, backward_steps=backward_steps)
    bias = jacobian(x, penalty) - derivative
    bound = truncation_bias_bound(float(factor.max()), RATE * float(solution.norm()), backward_steps)
    assert bias.norm().item() <= bound
    # One coordinate alone: the bound is attained.
    slow = int(factor.argmax())
    tight = truncation_bias_bound(float(factor[slow]), RATE * abs(float(solution[slow])), backward_steps)
    assert abs(bias[slow].item()) == pytest.approx(tight, rel=1e-12)


def test_the_bound_of_one_step_away_from_the_solution() -> None:
    solution, derivative, factor = closed_forms()
    penalty = torch.tensor(PENALTY, dtype=torch.float64, requires_grad=True)
    start = torch.zeros(3, dtype=torch.float64)
    for steps in (1, 3, 9):
        before = solution + factor ** (steps - 1) * (start - solution)
        bias = jacobian(final_iterate(descent(penalty), start, steps, backward_steps=1), penalty) - derivative
        distance = float((before - solution).norm())
        bound = truncation_bias_bound(
            float(factor.max()), RATE * float(solution.norm()), jacobian_lipschitz=RATE, distance=distance
        )
        assert bias.norm().item() <= bound
        assert bound < 10 * bias.norm().item()


def regression(n: int = 40, d: int = 6) -> tuple[Tensor, Tensor]:
    features = torch.randn(n, d, dtype=torch.float64)
    truth = torch.tensor([2.0, -1.5, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64)[:d]
    return features, features @ truth + 0.3 * torch.randn(n, dtype=torch.float64)


def schedule(smoothness: float) -> Callable[[Tensor], Tensor]:
    """Step sizes between 0.4/L and 1.4/L."""
    return lambda k: (0.9 + 0.5 * torch.cos(k)) / smoothness


PROBLEMS = {
    "lasso": lambda features, targets: lambda level: Lasso(features, targets, level),
    "logistic": lambda features, targets: (
        lambda level: SquaredNormPenalty(LogisticRegression(features, (targets > 0).long()), level)
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("method", [ProximalGradient, FISTA])
def test_forward_reverse_and_finite_differences_agree(problem: str, method: type[FISTA]) -> None:
    features, targets = regression()
    objective = PROBLEMS[problem](features, targets)
    smoothness = objective(torch.tensor(0.1)).smooth.smoothness
    rates = schedule(smoothness) if method is ProximalGradient else 1 / smoothness

    def build(level: Tensor) -> FISTA:
        return method(objective(level), rates)

    start, steps, weights = torch.zeros(6, dtype=torch.float64), 12, torch.randn(6, dtype=torch.float64)
    level = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    forward = derivative_iterates(build, start, level, steps)
    for k in (1, 5, steps):
        x = final_iterate(build(level), start, k)
        torch.testing.assert_close(x.detach(), forward.positions[k])
        (reverse,) = torch.autograd.grad(x @ weights, level)
        torch.testing.assert_close(reverse, forward.derivatives[k] @ weights)
    with torch.no_grad():
        ends = [final_iterate(build(level + shift), start, steps) for shift in (1e-6, -1e-6)]
    torch.testing.assert_close(forward.derivatives[-1], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", [ProximalGradient, FISTA])
def test_derivatives_of_the_lasso_tend_to_that_on_the_support(method: type[FISTA]) -> None:
    features, targets = regression()
    smoothness = LeastSquares(features, targets).smoothness
    found = derivative_iterates(
        lambda level: method(Lasso(features, targets, level), 1 / smoothness),
        torch.zeros(6, dtype=torch.float64),
        torch.tensor(0.3, dtype=torch.float64),
        250,
    )
    solution = found.positions[-1]
    assert 0 < int((solution != 0).sum()) < 6
    reference = lasso_derivative(Lasso(features, targets, 0.3), solution)
    torch.testing.assert_close(found.derivatives[-1], reference, rtol=1e-7, atol=1e-9)


def minimizer(features: Tensor, targets: Tensor, level: float) -> Tensor:
    step = FISTA(Lasso(features, targets, level), 1 / LeastSquares(features, targets).smoothness)
    with torch.no_grad():
        return final_iterate(step, torch.zeros(features.shape[1], dtype=torch.float64), 300)


def test_lasso_derivatives_are_finite_differences_away_from_support_changes() -> None:
    features, targets = regression()
    for level in (0.05, 0.3, 0.9):
        points = [minimizer(features, targets, level + shift) for shift in (-1e-5, 0.0, 1e-5)]
        assert len({tuple(point.sign().tolist()) for point in points}) == 1
        lasso = Lasso(features, targets, level)
        difference = (points[2] - points[0]) / 2e-5
        torch.testing.assert_close(lasso_derivative(lasso, points[1]), difference, rtol=1e-5, atol=1e-7)
        leaf = torch.tensor(level, dtype=torch.float64, requires_grad=True)
        x = implicit_gradient(lambda x, u: Lasso(features, targets, u).proximal_step(x, 0.3) - x, points[1], leaf)
        torch.testing.assert_close(jacobian(x, leaf), difference, rtol=1e-5, atol=1e-7)


def test_at_a_support_change_the_derivative_is_that_of_one_side() -> None:
    """Two columns with overlap c, unit length: x_2 leaves at λ₁; from there ∂x_1/∂λ is -1, and before -1/(1 + c)."""
    overlap = 0.6
    gram = torch.tensor([[1.0, overlap], [overlap, 1.0]], dtype=torch.float64)
    features = torch.linalg.cholesky(gram).mT * 2**0.5
    correlations = torch.tensor([2.0, 1.5], dtype=torch.float64)  # Aᵀb / n
    targets = 2 * torch.linalg.solve(features.mT, correlations)
    # x_2 enters where its correlation with the residual of x_1 = 2 - λ reaches λ: 1.5 - c (2 - λ) = λ.
    change = (1.5 - overlap * 2.0) / (1 - overlap)
    sides = {}
    for side, shift in (("both", -1e-3), ("one", 1e-3)):
        points = [minimizer(features, targets, change + shift + width) for width in (-1e-4, 0.0, 1e-4)]
        sides[side] = lasso_derivative(Lasso(features, targets, change + shift), points[1])
        torch.testing.assert_close(sides[side], (points[2] - points[0]) / 2e-4, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(sides["both"], torch.full((2,), -1 / (1 + overlap), dtype=torch.float64))
    torch.testing.assert_close(sides["one"], torch.tensor([-1.0, 0.0], dtype=torch.float64))


def test_ridge_by_its_proximal_operator() -> None:
    features, targets = regression()
    level = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    objective = SquaredNormPenalty(LeastSquares(features, targets), level)
    x = final_iterate(ProximalGradient(objective, 1 / objective.smooth.smoothness), torch.zeros(6).double(), 300)
    identity = torch.eye(6, dtype=torch.float64)
    exact = torch.linalg.solve(features.T @ features / 40 + level * identity, features.T @ targets / 40)
    torch.testing.assert_close(x, exact)
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), level)[0] for y in (x, exact)))
    assert objective(exact).item() == pytest.approx(
        ((features @ exact - targets).square().mean() / 2 + 0.15 * exact.square().sum()).item()
    )


def test_batches_start_points_and_checkpoints() -> None:
    penalty = torch.tensor(PENALTY, dtype=torch.float64, requires_grad=True)
    start = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    x = final_iterate(descent(penalty), start, 9, checkpoints="sqrt")
    gradients = torch.autograd.grad(x.sum(), (penalty, start))
    _, _, factor = closed_forms()
    torch.testing.assert_close(gradients[1], (factor**9).expand(4, 3))
    rows = [final_iterate(descent(penalty), row.detach(), 9) for row in start]
    (total,) = torch.autograd.grad(sum(row.sum() for row in rows), penalty)
    torch.testing.assert_close(gradients[0], total)


def test_without_anything_to_differentiate_nothing_is_attached() -> None:
    x = final_iterate(lambda k, x: 0.5 * x, torch.tensor([8.0]), 3, backward_steps=2)
    assert x.tolist() == [1.0]
    assert not x.requires_grad


def test_a_direction_of_several_parameters() -> None:
    found = derivative_iterates(
        lambda theta: lambda k, x: theta[0] * x + theta[1],
        torch.tensor([2.0]),
        torch.tensor([0.5, 1.0]),
        2,
        direction=torch.tensor([1.0, -1.0]),
    )
    # x_1 = 2, ẋ_1 = 2 - 1 = 1;  ẋ_2 = ½ ẋ_1 + x_1 - 1 = 1.5.
    assert found.derivatives.flatten().tolist() == [0.0, 1.0, 1.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: final_iterate(lambda k, x: x, torch.ones(1), 0), "steps must be an integer of at least 1, got 0"),
        (lambda: final_iterate(lambda k, x: x, torch.ones(1), 1, backward_steps=0), "backward_steps must be"),
        (
            lambda: final_iterate(lambda k, x: x, torch.ones(1), 1, backward_steps=1, checkpoints="sqrt"),
            "checkpoints must be left at 'all'",
        ),
        (
            lambda: derivative_iterates(
                lambda u: lambda k, x: u * x, torch.ones(1), torch.tensor(1.0), 1, direction=torch.ones(2)
            ),
            r"direction must have the shape \(\) of θ, got \(2,\)",
        ),
        (lambda: truncation_bias_bound(1.0, 1.0), r"contraction must lie in \[0, 1\), got 1.0"),
        (lambda: truncation_bias_bound(0.5, 1.0, 2, distance=1.0), "distance must be left at 0"),
        (lambda: SquaredNormPenalty(LeastSquares(torch.eye(1), torch.ones(1)), -1.0), "regularization must be"),
        (
            lambda: lasso_derivative(Lasso(torch.ones(2, 2), torch.ones(2), 0.1), torch.ones(2)),
            "x_star must have a support of linearly independent columns, got rank 1 of 2",
        ),
        (lambda: lasso_derivative(Lasso(torch.eye(2), torch.ones(2), 0.1), torch.ones(3)), r"shape \(2,\), got \(3,\)"),
    ],
)
def test_arguments_are_checked(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
