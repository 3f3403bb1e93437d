"""Update rules: the protocol, and the maps that ship with the package."""

from odestop.discrete.step_maps.adaptive import Adagrad, Adam, AdamW, Lion, RMSprop
from odestop.discrete.step_maps.base import StepMap, TimeStepMap
from odestop.discrete.step_maps.euler import Euler
from odestop.discrete.step_maps.momentum import (
    GradientDescent,
    HeavyBall,
    Nesterov,
    NesterovMomentum,
    NesterovStronglyConvex,
)
from odestop.discrete.step_maps.objective import ObjectiveStepMap
from odestop.discrete.step_maps.proximal import FISTA, ProximalGradient
from odestop.discrete.step_maps.runge_kutta import Heun, RungeKutta4
from odestop.discrete.step_maps.symplectic import SymplecticEuler

__all__ = [
    "FISTA",
    "Adagrad",
    "Adam",
    "AdamW",
    "Euler",
    "GradientDescent",
    "HeavyBall",
    "Heun",
    "Lion",
    "Nesterov",
    "NesterovMomentum",
    "NesterovStronglyConvex",
    "ObjectiveStepMap",
    "ProximalGradient",
    "RMSprop",
    "RungeKutta4",
    "StepMap",
    "SymplecticEuler",
    "TimeStepMap",
]
