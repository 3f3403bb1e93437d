"""The shipped objectives by name."""

from __future__ import annotations

from typing import Annotated

import torch

from odestop.objectives import (
    Beale,
    DiagonalQuadratic,
    ElasticNet,
    Himmelblau,
    HouseholderQuadratic,
    HuberRegression,
    Lasso,
    LeastSquares,
    LogisticRegression,
    MatrixFactorization,
    ModuleObjective,
    Quadratic,
    Rastrigin,
    Rosenbrock,
    SmoothSupportVectorMachine,
    SoftmaxRegression,
    breast_cancer,
    bundled_data,
    log_spaced_spectrum,
    multilayer_perceptron,
)
from odestop.registry.catalogue import Catalogue, ObjectiveEntry, Range, Seed

OBJECTIVES: Catalogue[ObjectiveEntry] = Catalogue("objective", ObjectiveEntry)
"""Objectives f."""

Dimension = Annotated[int, Range("d", 2, 10_000, "dimension")]
Regularization = Annotated[float, Range("λ", 1e-4, 1.0, "weight of the ½ ‖x‖² penalty")]
ConditionNumber = Annotated[float, Range("κ", 1.0, 1e4, "ratio of the extreme eigenvalues")]


@OBJECTIVES.register("quadratic", Quadratic)
def _quadratic(
    dtype: torch.dtype | None,
    dimension: Dimension = 100,
    condition_number: ConditionNumber = 100.0,
    seed: Seed = 0,
) -> Quadratic:
    return Quadratic.with_condition_number(dimension, condition_number, seed, dtype=dtype)


@OBJECTIVES.register("matrix-free-quadratic", HouseholderQuadratic)
def _matrix_free_quadratic(
    dtype: torch.dtype | None,
    dimension: Annotated[int, Range("d", 2, 1_000_000, "dimension")] = 1000,
    condition_number: ConditionNumber = 100.0,
    seed: Seed = 0,
) -> HouseholderQuadratic:
    return HouseholderQuadratic.with_condition_number(dimension, condition_number, seed, dtype=dtype)


@OBJECTIVES.register("diagonal-quadratic", DiagonalQuadratic)
def _diagonal_quadratic(
    dtype: torch.dtype | None, dimension: Dimension = 2, condition_number: ConditionNumber = 4.0
) -> DiagonalQuadratic:
    # From 1 to the condition number: the defaults give the (1, 4) of the paper's Fig. 1.
    return DiagonalQuadratic(log_spaced_spectrum(dimension, condition_number, condition_number, dtype=dtype))


@OBJECTIVES.register(
    "rosenbrock",
    Rosenbrock,
    start=lambda dimension: torch.tensor([-1.2, 1.0], dtype=torch.float64).repeat(dimension)[:dimension],
)
def _rosenbrock(
    dimension: Annotated[int, Range("d", 2, 100, "dimension")] = 2,
    a: Annotated[float, Range("a", 0.5, 2.0, "position of the minimum")] = 1.0,
    b: Annotated[float, Range("b", 1.0, 1000.0, "steepness of the valley's walls")] = 100.0,
) -> Rosenbrock:
    return Rosenbrock(dimension, a, b)


OBJECTIVES.register("beale", start=torch.ones)(Beale)
OBJECTIVES.register("himmelblau", start=lambda dimension: torch.full((dimension,), 4.0))(Himmelblau)


@OBJECTIVES.register("rastrigin", Rastrigin, start=lambda dimension: torch.full((dimension,), 1.1))
def _rastrigin(
    dimension: Annotated[int, Range("d", 2, 100, "dimension")] = 2,
    amplitude: Annotated[float, Range("a", 0.1, 10.0, "height of the ripples")] = 10.0,
) -> Rastrigin:
    return Rastrigin(dimension, amplitude)


def _random_point(dimension: int) -> torch.Tensor:
    """Return a point that no symmetry of the objective leaves where it is."""
    return 0.3 * torch.randn(dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@OBJECTIVES.register("matrix-factorization", MatrixFactorization, start=_random_point)
def _matrix_factorization(
    dtype: torch.dtype | None,
    rows: Annotated[int, Range("m", 2, 100, "rows of a random M")] = 5,
    columns: Annotated[int, Range("n", 2, 100, "columns of M")] = 4,
    rank: Annotated[int, Range("r", 1, 10, "columns of U and V")] = 2,
    seed: Seed = 0,
) -> MatrixFactorization:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return MatrixFactorization(matrix.to(dtype or torch.get_default_dtype()), rank)


@OBJECTIVES.register("logistic-regression", breast_cancer, start=torch.zeros)
def _logistic_regression(
    dtype: torch.dtype | None,
    regularization: Regularization = 1e-2,
) -> LogisticRegression:
    return breast_cancer(regularization=regularization, dtype=dtype)


@OBJECTIVES.register("least-squares", start=torch.zeros)
def _least_squares(dtype: torch.dtype | None) -> LeastSquares:
    """Least squares on scikit-learn's bundled diabetes data: n = 442, d = 11."""
    return LeastSquares(*bundled_data("diabetes", dtype=dtype))


Sparsity = Annotated[float, Range("λ", 1e-3, 1.0, "weight of the ‖x‖₁ penalty")]


@OBJECTIVES.register("lasso", start=torch.zeros)
def _lasso(dtype: torch.dtype | None, sparsity: Sparsity = 0.05) -> Lasso:
    """Lasso on scikit-learn's bundled diabetes data: n = 442, d = 11; for the proximal flow."""
    return Lasso(*bundled_data("diabetes", dtype=dtype), sparsity)


@OBJECTIVES.register("elastic-net", start=torch.zeros)
def _elastic_net(
    dtype: torch.dtype | None, sparsity: Sparsity = 0.05, regularization: Regularization = 1e-2
) -> ElasticNet:
    """Elastic net on scikit-learn's bundled diabetes data: n = 442, d = 11; for the proximal flow."""
    return ElasticNet(*bundled_data("diabetes", dtype=dtype), sparsity, regularization)


@OBJECTIVES.register("huber-regression", start=torch.zeros)
def _huber_regression(
    dtype: torch.dtype | None,
    delta: Annotated[float, Range("δ", 0.1, 3.0, "residual from which on a row pulls no harder")] = 1.0,
    regularization: Regularization = 1e-2,
) -> HuberRegression:
    """Huber regression on scikit-learn's bundled diabetes data: n = 442, d = 11."""
    return HuberRegression(*bundled_data("diabetes", dtype=dtype), delta, regularization)


@OBJECTIVES.register("softmax-regression", start=torch.zeros)
def _softmax_regression(dtype: torch.dtype | None, regularization: Regularization = 1e-2) -> SoftmaxRegression:
    """Softmax regression on scikit-learn's bundled wine data: n = 178, d = 42."""
    return SoftmaxRegression(*bundled_data("wine", dtype=dtype), regularization)


@OBJECTIVES.register("smooth-support-vector-machine", start=torch.zeros)
def _smooth_support_vector_machine(
    dtype: torch.dtype | None,
    regularization: Annotated[float, Range("λ", 1e-2, 100.0, "weight of the ½ ‖w‖² penalty")] = 1.0,
) -> SmoothSupportVectorMachine:
    """Smooth support vector machine on scikit-learn's bundled breast-cancer data: n = 569, d = 31."""
    return SmoothSupportVectorMachine(*bundled_data("breast-cancer", intercept=False, dtype=dtype), regularization)


@OBJECTIVES.register("multilayer-perceptron", start=_random_point)
def _multilayer_perceptron(
    dtype: torch.dtype | None,
    hidden: Annotated[int, Range("m", 1, 64, "hidden units")] = 3,
    regularization: Regularization = 1e-2,
) -> ModuleObjective:
    """One hidden layer on scikit-learn's bundled breast-cancer data: n = 569, d = 33 m + 2."""
    return multilayer_perceptron(*bundled_data("breast-cancer", intercept=False, dtype=dtype), hidden, regularization)
