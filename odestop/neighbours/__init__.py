"""What others differentiate in an iterative algorithm: its solution, and its k-th iterate."""

from odestop.neighbours.implicit import ImplicitGradientError, ImplicitGradientWarning, implicit_gradient
from odestop.neighbours.iterates import (
    DerivativeIterates,
    derivative_iterates,
    final_iterate,
    truncation_bias_bound,
)
from odestop.neighbours.linear import (
    GMRES,
    ConjugateGradient,
    Dense,
    LinearSolution,
    LinearSolver,
    LinearStatus,
    LinearSystem,
    NormalEquations,
)
from odestop.neighbours.penalised import SquaredNormPenalty, lasso_derivative

__all__ = [
    "GMRES",
    "ConjugateGradient",
    "Dense",
    "DerivativeIterates",
    "ImplicitGradientError",
    "ImplicitGradientWarning",
    "LinearSolution",
    "LinearSolver",
    "LinearStatus",
    "LinearSystem",
    "NormalEquations",
    "SquaredNormPenalty",
    "derivative_iterates",
    "final_iterate",
    "implicit_gradient",
    "lasso_derivative",
    "truncation_bias_bound",
]
