"""Analytic derivatives of every objective against autograd and finite differences of its value."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from odestop.objectives import (
    Beale,
    DiagonalQuadratic,
    Himmelblau,
    HouseholderQuadratic,
    HuberRegression,
    LeastSquares,
    LogisticRegression,
    MatrixFactorization,
    Objective,
    Quadratic,
    Rastrigin,
    Rosenbrock,
    SmoothSupportVectorMachine,
    SoftmaxRegression,
    multilayer_perceptron,
)

DIMENSION = 5
BATCHES = [(), (3,), (2, 3)]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def logistic(dtype: torch.dtype) -> LogisticRegression:
    features = random(12, DIMENSION, seed=5, dtype=dtype)
    return LogisticRegression(features, random(12, seed=6) > 0, regularization=0.1)


def classes(rows: int) -> Tensor:
    return torch.arange(rows) % 3


OBJECTIVES: dict[str, Callable[[torch.dtype], Objective]] = {
    "beale": lambda dtype: Beale(),
    "dense": lambda dtype: Quadratic.with_condition_number(
        DIMENSION, 50.0, 3, minimizer=random(DIMENSION, seed=9, dtype=dtype), dtype=dtype
    ),
    "diagonal": lambda dtype: DiagonalQuadratic([1.0, 2.0, 0.0, 4.0, 5.0], dtype=dtype),
    "himmelblau": lambda dtype: Himmelblau(),
    "householder": lambda dtype: HouseholderQuadratic.with_condition_number(
        DIMENSION, 50.0, 3, minimizer=random(DIMENSION, seed=9, dtype=dtype), dtype=dtype
    ),
    "huber": lambda dtype: HuberRegression(
        random(12, DIMENSION, dtype=dtype), random(12, seed=6, dtype=dtype), delta=0.8, regularization=0.1
    ),
    "least squares": lambda dtype: LeastSquares(random(12, DIMENSION, dtype=dtype), random(12, seed=6, dtype=dtype)),
    "logistic": logistic,
    "matrix factorization": lambda dtype: MatrixFactorization(random(3, 2, dtype=dtype), rank=2),
    "perceptron": lambda dtype: multilayer_perceptron(random(6, 2, dtype=dtype), classes(6), 1, regularization=0.1),
    "rastrigin": lambda dtype: Rastrigin(DIMENSION, amplitude=2.0),
    "rosenbrock": lambda dtype: Rosenbrock(DIMENSION, a=0.5, b=3.0),
    "softmax": lambda dtype: SoftmaxRegression(random(12, 2, seed=5, dtype=dtype), classes(12), regularization=0.1),
    "support vectors": lambda dtype: SmoothSupportVectorMachine(
        random(12, DIMENSION, seed=5, dtype=dtype), random(12, seed=6) > 0, regularization=0.1
    ),
}
CONVEX = ["dense", "diagonal", "householder", "huber", "least squares", "logistic", "softmax", "support vectors"]
WITH_MINIMUM = ["beale", "dense", "diagonal", "himmelblau", "householder", "rastrigin"]


@pytest.fixture(params=OBJECTIVES)
def build(request) -> Callable[[torch.dtype], Objective]:
    return OBJECTIVES[request.param]


@pytest.mark.parametrize("batch", BATCHES)
def test_gradient_equals_autograd_of_the_value(build, batch):
    objective = build(torch.float64)
    x = random(*batch, objective.dimension)
    torch.testing.assert_close(objective.gradient(x), Objective._gradient(objective, x).detach())


@pytest.mark.parametrize("batch", BATCHES)
def test_hessian_vector_product_equals_autograd_of_the_value_twice(build, batch):
    objective = build(torch.float64)
    x, v = random(2, *batch, objective.dimension)
    by_autograd = torch.autograd.functional.hvp(lambda x: objective(x).sum(), x, v)[1]
    torch.testing.assert_close(objective.hessian_vector_product(x, v), by_autograd)


def test_gradient_equals_central_differences_of_the_value(build):
    objective = build(torch.float64)
    x, v = random(2, 4, objective.dimension)
    step = 1e-5
    difference = (objective(x + step * v) - objective(x - step * v)) / (2 * step)
    torch.testing.assert_close((objective.gradient(x) * v).sum(-1), difference, rtol=1e-7, atol=1e-8)


def test_gradient_is_differentiable_twice_more(build):
    objective = build(torch.float64)
    x = random(2, objective.dimension).requires_grad_()
    assert torch.autograd.gradcheck(objective.gradient, x)
    assert torch.autograd.gradgradcheck(objective.gradient, x)


def test_each_row_of_a_batch_is_its_own_evaluation(build):
    objective = build(torch.float64)
    x, v = random(2, 2, 3, objective.dimension)
    for method, arguments in [
        (objective, (x,)),
        (objective.gradient, (x,)),
        (objective.hessian_vector_product, (x, v)),
    ]:
        single = method(*[argument[1, 2] for argument in arguments])
        torch.testing.assert_close(method(*arguments)[1, 2], single)


def test_function_transforms_see_the_same_derivatives(build):
    objective = build(torch.float64)
    x, v = random(2, 3, objective.dimension)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(objective))(x), objective.gradient(x))
    torch.testing.assert_close(torch.func.vmap(objective.gradient)(x), objective.gradient(x))
    products = objective.hessian_vector_product(x, v)
    torch.testing.assert_close(torch.func.vmap(objective.hessian_vector_product)(x, v), products)
    torch.testing.assert_close(torch.func.jacrev(objective.gradient)(x[0]) @ v[0], products[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_stays_in_the_dtype_of_the_state(build, dtype):
    objective = build(dtype)
    x = random(3, objective.dimension, dtype=dtype)
    results = (objective(x), objective.gradient(x), objective.hessian_vector_product(x, x))
    assert {result.dtype for result in results} == {dtype}


@pytest.mark.parametrize("name", [*CONVEX, "rastrigin"])
def test_smoothness_and_strong_convexity_bound_the_hessian(name):
    objective = OBJECTIVES[name](torch.float64)
    basis = torch.eye(objective.dimension, dtype=torch.float64)
    for x in random(10, objective.dimension):
        hessian = objective.hessian_vector_product(x.expand_as(basis), basis)
        eigenvalues = torch.linalg.eigvalsh(hessian)
        assert eigenvalues[-1] <= objective.smoothness * (1 + 1e-12)
        if name in CONVEX:
            assert eigenvalues[0] >= objective.strong_convexity * (1 - 1e-12) - 1e-14


@pytest.mark.parametrize("name", WITH_MINIMUM)
def test_the_minimum_is_attained_at_the_minimizer(name):
    objective = OBJECTIVES[name](torch.float64).double()
    assert float(objective(objective.minimizer)) == objective.minimum == 0.0
    assert torch.equal(objective.gradient(objective.minimizer), torch.zeros_like(objective.minimizer))
    assert bool((objective(random(100, objective.dimension)) > 0).all())
