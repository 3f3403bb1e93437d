"""Definitions 2 and 3 and Algorithm 1: the stopping time N of an update rule, and its sensitivity."""

from odestop.discrete.adjoint import discrete_adjoint
from odestop.discrete.sensitivity import Definition3, Interpolated, Sensitivity
from odestop.discrete.solution import DiscreteSolution, DiscreteStats
from odestop.discrete.step_maps import Euler, StepMap, TimeStepMap
from odestop.discrete.stopping_time import discrete_stopping_time

__all__ = [
    "Definition3",
    "DiscreteSolution",
    "DiscreteStats",
    "Euler",
    "Interpolated",
    "Sensitivity",
    "StepMap",
    "TimeStepMap",
    "discrete_adjoint",
    "discrete_stopping_time",
]
