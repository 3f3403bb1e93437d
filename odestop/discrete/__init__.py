"""Definitions 2 and 3 and Algorithm 1: the stopping time N of an update rule, and its sensitivity."""

from odestop.discrete.adjoint import discrete_adjoint
from odestop.discrete.checkpoints import MemoryBudget
from odestop.discrete.sensitivity import Definition3, Hermite, Interpolated, LastStep, Sensitivity
from odestop.discrete.solution import DiscreteSolution, DiscreteStats
from odestop.discrete.step_maps import (
    FISTA,
    Adagrad,
    Adam,
    AdamW,
    Euler,
    GradientDescent,
    HeavyBall,
    Heun,
    Lion,
    Nesterov,
    NesterovMomentum,
    NesterovStronglyConvex,
    ObjectiveStepMap,
    ProximalGradient,
    RMSprop,
    RungeKutta4,
    StepMap,
    SymplecticEuler,
    TimeStepMap,
)
from odestop.discrete.stopping_time import discrete_stopping_time

__all__ = [
    "FISTA",
    "Adagrad",
    "Adam",
    "AdamW",
    "Definition3",
    "DiscreteSolution",
    "DiscreteStats",
    "Euler",
    "GradientDescent",
    "HeavyBall",
    "Hermite",
    "Heun",
    "Interpolated",
    "LastStep",
    "Lion",
    "MemoryBudget",
    "Nesterov",
    "NesterovMomentum",
    "NesterovStronglyConvex",
    "ObjectiveStepMap",
    "ProximalGradient",
    "RMSprop",
    "RungeKutta4",
    "Sensitivity",
    "StepMap",
    "SymplecticEuler",
    "TimeStepMap",
    "discrete_adjoint",
    "discrete_stopping_time",
]
