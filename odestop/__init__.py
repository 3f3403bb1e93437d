"""Differentiable stopping times of optimizers, as ODEs and as the discrete algorithms people run.

Xie, Fong, Yuan, Wen, "Accelerating Optimization via Differentiable Stopping Time", NeurIPS 2025 (arXiv 2505.22509).
"""

from odestop import criteria, data, dynamics, objectives, optim, solvers
from odestop.comparison import compare_gradients, fit_order
from odestop.continuous import (
    ContinuousSolution,
    continuous_stopping_time,
    gradients,
    torchdiffeq_stopping_time,
)
from odestop.discrete import DiscreteSolution, Euler, discrete_stopping_time
from odestop.status import StoppingStatus, StoppingTimeError, TangencyWarning

__version__ = "0.1.0"

__all__ = [
    "ContinuousSolution",
    "DiscreteSolution",
    "Euler",
    "StoppingStatus",
    "StoppingTimeError",
    "TangencyWarning",
    "compare_gradients",
    "continuous_stopping_time",
    "criteria",
    "data",
    "discrete_stopping_time",
    "dynamics",
    "fit_order",
    "gradients",
    "objectives",
    "optim",
    "solvers",
    "torchdiffeq_stopping_time",
]
