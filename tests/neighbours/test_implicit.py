"""Implicit gradients against closed forms, finite differences and torch's own graph."""

import math

import pytest
import torch
from torch import Tensor

from odestop.neighbours import (
    ConjugateGradient,
    ImplicitGradientError,
    ImplicitGradientWarning,
    LinearSolution,
    LinearStatus,
    implicit_gradient,
)
from odestop.objectives import Lasso, LogisticRegression

SOLVERS = ("auto", "dense", "cg", "gmres", "normal")


def ridge(features: Tensor, targets: Tensor, penalty: Tensor) -> Tensor:
    """Minimizer of ½ ‖A x - b‖² + ½ θ ‖x‖²."""
    identity = torch.eye(features.shape[1], dtype=features.dtype)
    return torch.linalg.solve(features.T @ features + penalty * identity, features.T @ targets)


@pytest.mark.parametrize("solver", SOLVERS)
def test_ridge_regression_in_all_its_parameters(solver: str) -> None:
    tensors = [torch.randn(9, 4), torch.randn(9), torch.tensor(0.7)]
    features, targets, penalty = (tensor.double().requires_grad_() for tensor in tensors)
    exact = ridge(features, targets, penalty)
    x = implicit_gradient(
        lambda x, A, b, theta: A.T @ (A @ x - b) + theta * x, exact, (features, targets, penalty), solver=solver
    )
    assert torch.equal(x, exact)
    weights = torch.randn(4).double()
    expected = torch.autograd.grad(exact @ weights, (features, targets, penalty))
    for gradient, reference in zip(
        torch.autograd.grad(x @ weights, (features, targets, penalty)), expected, strict=True
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(), (1,), (3, 1)])
def test_single_unknowns(solver: str, shape: tuple[int, ...]) -> None:
    """x = θ^{1/3}, dx/dθ = 1 / (3 x²)."""
    theta = (1 + torch.rand(shape, dtype=torch.float64)).requires_grad_()
    x = implicit_gradient(lambda x, theta: x**3 - theta, theta.detach() ** (1 / 3), theta, solver=solver)
    assert x.shape == shape
    (gradient,) = torch.autograd.grad(x.sum(), theta)
    torch.testing.assert_close(gradient, 1 / (3 * x.detach() ** 2))


@pytest.mark.parametrize("solver", ["dense", "gmres", "normal"])
def test_fixed_points_without_symmetry_in_batches(solver: str) -> None:
    weights = (0.3 * torch.randn(5, 5, dtype=torch.float64)).requires_grad_()
    inputs = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)

    def step(x: Tensor, W: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(x @ W.T + u)

    x = torch.zeros(3, 5, dtype=torch.float64)
    for _ in range(150):
        x = step(x, weights, inputs)
    unrolled = torch.autograd.grad(x.square().sum(), (weights, inputs))
    solves: list[LinearSolution] = []
    attached = implicit_gradient(
        lambda x, W, u: step(x, W, u) - x, x, (weights, inputs), solver=solver, on_solve=solves.append
    )
    assert not solves
    implicit = torch.autograd.grad(attached.square().sum(), (weights, inputs))
    for gradient, reference in zip(implicit, unrolled, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-6, atol=1e-7)
    assert (solves[0].status == LinearStatus.CONVERGED).all()


def test_tensors_that_the_condition_uses_by_itself() -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    x = implicit_gradient(lambda x: scale * x - 1, torch.tensor(0.5))
    x.backward()
    assert scale.grad is not None
    assert scale.grad.item() == -0.25


def test_logistic_regression_against_finite_differences() -> None:
    features, labels = torch.randn(30, 4, dtype=torch.float64), (torch.rand(30) > 0.4).long()
    objective = LogisticRegression(features, labels)

    identity = torch.eye(4, dtype=torch.float64)

    def minimize(theta: float) -> Tensor:
        x = torch.zeros(4, dtype=torch.float64)
        for _ in range(20):
            hessian = objective.hessian_vector_product(x.expand(4, 4), identity) + theta * identity
            x = x - torch.linalg.solve(hessian, objective.gradient(x) + theta * x)
        return x

    theta = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    x = implicit_gradient(lambda x, theta: objective.gradient(x) + theta * x, minimize(0.1), theta, solver="cg")
    (gradient,) = torch.autograd.grad(x.sum(), theta)
    difference = (minimize(0.1 + 1e-5) - minimize(0.1 - 1e-5)).sum() / 2e-5
    assert gradient.item() == pytest.approx(difference.item(), rel=1e-7)


def test_lasso_through_its_proximal_fixed_point() -> None:
    """With orthonormal columns x_j = soft(b_j, nλ): the derivative in λ is -n sign(x_j) on the support, else 0."""
    targets = torch.tensor([4.0, -3.0, 0.1], dtype=torch.float64)
    level = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def condition(x: Tensor, level: Tensor) -> Tensor:
        return Lasso(torch.eye(3, dtype=torch.float64), targets, level).proximal_step(x, 1.0) - x

    x = implicit_gradient(condition, torch.tensor([2.5, -1.5, 0.0], dtype=torch.float64), level)
    rows = [torch.autograd.grad(x[j], level, retain_graph=True)[0].item() for j in range(3)]
    assert rows == pytest.approx([-3.0, 3.0, 0.0])


def test_a_point_that_is_no_solution_is_told_with_the_number() -> None:
    theta = torch.tensor(1.0, requires_grad=True)
    with pytest.warns(ImplicitGradientWarning, match=r"‖optimality\(x_star\)‖ is up to 3, more than .* = 0.003"):
        implicit_gradient(lambda x, theta: theta * x - 5, torch.tensor([2.0]), theta)
    implicit_gradient(lambda x, theta: theta * x - 5, torch.tensor([2.0]), theta, residual_tolerance=math.inf)


@pytest.mark.parametrize(
    ("optimality", "solver", "status"),
    [
        (lambda x, theta: torch.stack([x[0], -x[1]]) + theta, "cg", LinearStatus.BREAKDOWN),
        (lambda x, theta: x.sum() + theta.expand(2), "dense", LinearStatus.SINGULAR),
        (lambda x, theta: x.detach() + theta, "gmres", LinearStatus.SINGULAR),
        (
            lambda x, theta: x * torch.tensor([1.0, 50.0]) + theta,
            ConjugateGradient(max_iterations=1),
            LinearStatus.NOT_CONVERGED,
        ),
    ],
)
def test_failures_have_a_status_and_a_message(optimality, solver, status: LinearStatus) -> None:
    theta, solves = torch.tensor(0.0, requires_grad=True), []
    x = implicit_gradient(optimality, torch.zeros(2), theta, solver=solver, on_solve=solves.append)
    with pytest.warns(ImplicitGradientWarning, match=status.value[:30].replace("(", ".")):
        (x @ torch.tensor([1.0, 2.0])).backward()
    assert solves[0].status is status
    assert theta.grad is not None
    assert (theta.grad.item() != 0.0) == status.has_solution
    strict = implicit_gradient(optimality, torch.zeros(2), theta, solver=solver, on_failure="raise")
    with pytest.raises(ImplicitGradientError) as caught:
        (strict @ torch.tensor([1.0, 2.0])).backward()
    assert caught.value.solve.status is status


def test_second_derivatives_are_refused() -> None:
    theta = torch.tensor(2.0, requires_grad=True)
    x = implicit_gradient(lambda x, theta: theta * x - 1, torch.tensor(0.5), theta)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(x, theta, create_graph=True)


def test_without_anything_to_differentiate_the_point_comes_back() -> None:
    point = torch.tensor([0.5])
    x = implicit_gradient(lambda x: 2 * x - 1, point)
    assert torch.equal(x, point)
    assert not x.requires_grad
    assert x is not point


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_star": torch.tensor([1])}, "x_star must have a real floating-point dtype"),
        ({"optimality": lambda x: x.sum()}, r"optimality must return shape \(2,\), got \(\)"),
        ({"solver": "lu"}, "solver must be one of 'auto', 'dense', 'cg', 'gmres', 'normal'"),
        ({"on_failure": "stop"}, "on_failure must be one of 'warn', 'raise'"),
        ({"residual_tolerance": -1.0}, "residual_tolerance must be a positive number or inf"),
    ],
)
def test_arguments_are_checked(changes: dict, message: str) -> None:
    arguments = {"optimality": lambda x: x, "x_star": torch.zeros(2), **changes}
    with pytest.raises(ValueError, match=message):
        implicit_gradient(**arguments)
