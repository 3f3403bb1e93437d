"""The shipped objectives by name."""

from __future__ import annotations

from typing import Annotated

import torch

from odestop.objectives import (
    DiagonalQuadratic,
    HouseholderQuadratic,
    LogisticRegression,
    Quadratic,
    Rosenbrock,
    breast_cancer,
    log_spaced_spectrum,
)
from odestop.registry.catalogue import Catalogue, ObjectiveEntry, Range, Seed

OBJECTIVES: Catalogue[ObjectiveEntry] = Catalogue("objective", ObjectiveEntry)
"""Objectives f."""

Dimension = Annotated[int, Range("d", 2, 10_000, "dimension")]
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


@OBJECTIVES.register("logistic-regression", breast_cancer, start=torch.zeros)
def _logistic_regression(
    dtype: torch.dtype | None,
    regularization: Annotated[float, Range("λ", 1e-4, 1.0, "weight of the ½ ‖x‖² penalty")] = 1e-2,
) -> LogisticRegression:
    return breast_cancer(regularization=regularization, dtype=dtype)
