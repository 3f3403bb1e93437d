"""Objectives f with their gradients and Hessian-vector products."""

from odestop.objectives.base import Objective
from odestop.objectives.logistic import LogisticRegression, breast_cancer
from odestop.objectives.quadratic import (
    DiagonalQuadratic,
    HouseholderQuadratic,
    Quadratic,
    QuadraticForm,
    log_spaced_spectrum,
)
from odestop.objectives.rosenbrock import Rosenbrock

__all__ = [
    "DiagonalQuadratic",
    "HouseholderQuadratic",
    "LogisticRegression",
    "Objective",
    "Quadratic",
    "QuadraticForm",
    "Rosenbrock",
    "breast_cancer",
    "log_spaced_spectrum",
]
