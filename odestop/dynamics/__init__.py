"""Dynamics dx/dt = -A(θ, x, t): modules with ``forward(t, x)`` that returns dx/dt."""

from odestop.dynamics.gradient_flow import GradientFlow, RescaledGradientFlow
from odestop.dynamics.preconditioned import (
    CoordinatewisePreconditioner,
    DiagonallyPreconditionedFlow,
    PreconditionedFlow,
)
from odestop.dynamics.schedules import ConstantSchedule, ExponentialSchedule, PolynomialSchedule

__all__ = [
    "ConstantSchedule",
    "CoordinatewisePreconditioner",
    "DiagonallyPreconditionedFlow",
    "ExponentialSchedule",
    "GradientFlow",
    "PolynomialSchedule",
    "PreconditionedFlow",
    "RescaledGradientFlow",
]
