"""Objectives f with their gradients and Hessian-vector products."""

from odestop.objectives.base import Objective
from odestop.objectives.bundled import bundled_data
from odestop.objectives.composite import CompositeObjective
from odestop.objectives.finite_sum import FiniteSum
from odestop.objectives.huber import HuberRegression
from odestop.objectives.landscapes import Beale, Himmelblau, Rastrigin
from odestop.objectives.lasso import ElasticNet, Lasso, LeastSquares
from odestop.objectives.logistic import LogisticRegression, breast_cancer
from odestop.objectives.matrix_factorization import MatrixFactorization
from odestop.objectives.module import ModuleObjective, multilayer_perceptron
from odestop.objectives.quadratic import (
    DiagonalQuadratic,
    HouseholderQuadratic,
    Quadratic,
    QuadraticForm,
    log_spaced_spectrum,
)
from odestop.objectives.rosenbrock import Rosenbrock
from odestop.objectives.softmax import SoftmaxRegression
from odestop.objectives.support_vector_machine import SmoothSupportVectorMachine

__all__ = [
    "Beale",
    "CompositeObjective",
    "DiagonalQuadratic",
    "ElasticNet",
    "FiniteSum",
    "Himmelblau",
    "HouseholderQuadratic",
    "HuberRegression",
    "Lasso",
    "LeastSquares",
    "LogisticRegression",
    "MatrixFactorization",
    "ModuleObjective",
    "Objective",
    "Quadratic",
    "QuadraticForm",
    "Rastrigin",
    "Rosenbrock",
    "SmoothSupportVectorMachine",
    "SoftmaxRegression",
    "breast_cancer",
    "bundled_data",
    "log_spaced_spectrum",
    "multilayer_perceptron",
]
