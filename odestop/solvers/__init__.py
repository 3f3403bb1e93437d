"""One ODE step, its error estimate, step-size control and dense output; no stopping rule and no autograd in here."""

from odestop.solvers.dense_output import DenseOutput
from odestop.solvers.runge_kutta import DormandPrince5, RungeKutta, Step
from odestop.solvers.stability import SpectralRadius
from odestop.solvers.step_control import PIController
from odestop.solvers.tableaus import DORMAND_PRINCE_5, ButcherTableau

METHODS: dict[str, RungeKutta] = {"dopri5": DormandPrince5()}
"""The aliases that ``method=`` accepts."""

__all__ = [
    "DORMAND_PRINCE_5",
    "METHODS",
    "ButcherTableau",
    "DenseOutput",
    "DormandPrince5",
    "PIController",
    "RungeKutta",
    "SpectralRadius",
    "Step",
]
