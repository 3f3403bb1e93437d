"""Analytic derivatives of every objective against autograd and finite differences of its value."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from odestop.objectives import (
    DiagonalQuadratic,
    HouseholderQuadratic,
    LogisticRegression,
    Objective,
    Quadratic,
    Rosenbrock,
)

DIMENSION = 5
SHAPES = [(DIMENSION,), (3, DIMENSION), (2, 3, DIMENSION)]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def logistic(dtype: torch.dtype) -> LogisticRegression:
    features = random(12, DIMENSION, seed=5, dtype=dtype)
    return LogisticRegression(features, random(12, seed=6) > 0, regularization=0.1)


OBJECTIVES: dict[str, Callable[[torch.dtype], Objective]] = {
    "dense": lambda dtype: Quadratic.with_condition_number(
        DIMENSION, 50.0, 3, minimizer=random(DIMENSION, seed=9, dtype=dtype), dtype=dtype
    ),
    "diagonal": lambda dtype: DiagonalQuadratic([1.0, 2.0, 0.0, 4.0, 5.0], dtype=dtype),
    "householder": lambda dtype: HouseholderQuadratic.with_condition_number(
        DIMENSION, 50.0, 3, minimizer=random(DIMENSION, seed=9, dtype=dtype), dtype=dtype
    ),
    "logistic": logistic,
    "rosenbrock": lambda dtype: Rosenbrock(DIMENSION, a=0.5, b=3.0),
}


@pytest.fixture(params=OBJECTIVES)
def build(request) -> Callable[[torch.dtype], Objective]:
    return OBJECTIVES[request.param]


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_equals_autograd_of_the_value(build, shape):
    objective, x = build(torch.float64), random(*shape)
    torch.testing.assert_close(objective.gradient(x), Objective._gradient(objective, x).detach())


@pytest.mark.parametrize("shape", SHAPES)
def test_hessian_vector_product_equals_autograd_of_the_value_twice(build, shape):
    objective, x, v = build(torch.float64), random(*shape), random(*shape, seed=1)
    by_autograd = torch.autograd.functional.hvp(lambda x: objective(x).sum(), x, v)[1]
    torch.testing.assert_close(objective.hessian_vector_product(x, v), by_autograd)


def test_gradient_equals_central_differences_of_the_value(build):
    objective, x, v = build(torch.float64), random(4, DIMENSION), random(4, DIMENSION, seed=1)
    step = 1e-5
    difference = (objective(x + step * v) - objective(x - step * v)) / (2 * step)
    torch.testing.assert_close((objective.gradient(x) * v).sum(-1), difference, rtol=1e-7, atol=1e-8)


def test_gradient_is_differentiable_twice_more(build):
    objective = build(torch.float64)
    x = random(2, DIMENSION).requires_grad_()
    assert torch.autograd.gradcheck(objective.gradient, x)
    assert torch.autograd.gradgradcheck(objective.gradient, x)


def test_each_row_of_a_batch_is_its_own_evaluation(build):
    objective, x, v = build(torch.float64), random(2, 3, DIMENSION), random(2, 3, DIMENSION, seed=1)
    for method, arguments in [
        (objective, (x,)),
        (objective.gradient, (x,)),
        (objective.hessian_vector_product, (x, v)),
    ]:
        single = method(*[argument[1, 2] for argument in arguments])
        torch.testing.assert_close(method(*arguments)[1, 2], single)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_stays_in_the_dtype_of_the_state(build, dtype):
    objective, x = build(dtype), random(3, DIMENSION, dtype=dtype)
    results = (objective(x), objective.gradient(x), objective.hessian_vector_product(x, x))
    assert {result.dtype for result in results} == {dtype}


@pytest.mark.parametrize("name", ["dense", "diagonal", "householder", "logistic"])
def test_smoothness_and_strong_convexity_bound_the_hessian(name):
    objective = OBJECTIVES[name](torch.float64)
    basis = torch.eye(DIMENSION, dtype=torch.float64)
    for x in random(10, DIMENSION):
        hessian = objective.hessian_vector_product(x.expand_as(basis), basis)
        eigenvalues = torch.linalg.eigvalsh(hessian)
        assert eigenvalues[-1] <= objective.smoothness * (1 + 1e-12)
        assert eigenvalues[0] >= objective.strong_convexity * (1 - 1e-12) - 1e-14


@pytest.mark.parametrize("name", ["dense", "diagonal", "householder"])
def test_the_minimum_is_attained_at_the_minimizer(name):
    objective = OBJECTIVES[name](torch.float64)
    assert float(objective(objective.minimizer)) == objective.minimum == 0.0
    assert torch.equal(objective.gradient(objective.minimizer), torch.zeros(DIMENSION, dtype=torch.float64))
