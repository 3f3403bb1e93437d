"""Dynamics dx/dt = -A(θ, x, t): modules with ``forward(t, x)`` that returns dx/dt."""

from odestop._functions import Linearized
from odestop.dynamics.adaptive import AdagradFlow, AdamFlow, RMSpropFlow
from odestop.dynamics.gradient_driven import GradientDrivenFlow
from odestop.dynamics.gradient_flow import GradientFlow, RescaledGradientFlow
from odestop.dynamics.greedy import (
    GreedyDiagonalFlow,
    GreedyFlow,
    GreedyLyapunovFlow,
    GreedySchattenFlow,
)
from odestop.dynamics.inertial import (
    HeavyBallFlow,
    HighResolutionConvexNesterovFlow,
    HighResolutionNesterovFlow,
    InertialFlow,
    InertialHessianDampedFlow,
    NesterovFlow,
    StronglyConvexNesterovFlow,
)
from odestop.dynamics.learned import (
    CoordinatewiseLSTMFlow,
    CoordinatewiseMLPFlow,
)
from odestop.dynamics.mirror import (
    HyperbolicEntropy,
    MirrorFlow,
    OrthantEntropy,
    PNorm,
    Potential,
    SimplexEntropy,
)
from odestop.dynamics.normalized import NormalizedFlow, SignFlow
from odestop.dynamics.preconditioned import (
    CoordinatewisePreconditioner,
    DensePreconditionedFlow,
    DiagonallyPreconditionedFlow,
    PreconditionedFlow,
)
from odestop.dynamics.proximal import ProximalFlow
from odestop.dynamics.schedules import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    PiecewiseSchedule,
    PolynomialSchedule,
)
from odestop.dynamics.second_order import (
    CubicRegularizedFlow,
    GaussNewtonFlow,
    GaussNewtonMetric,
    LazyNewtonFlow,
    NaturalGradientFlow,
    NewtonFlow,
    RegularizedNewtonFlow,
)
from odestop.dynamics.spectral import SpectralFlow

__all__ = [
    "AdagradFlow",
    "AdamFlow",
    "ConstantSchedule",
    "CoordinatewiseLSTMFlow",
    "CoordinatewiseMLPFlow",
    "CoordinatewisePreconditioner",
    "CosineSchedule",
    "CubicRegularizedFlow",
    "DensePreconditionedFlow",
    "DiagonallyPreconditionedFlow",
    "ExponentialSchedule",
    "GaussNewtonFlow",
    "GaussNewtonMetric",
    "GradientDrivenFlow",
    "GradientFlow",
    "GreedyDiagonalFlow",
    "GreedyFlow",
    "GreedyLyapunovFlow",
    "GreedySchattenFlow",
    "HeavyBallFlow",
    "HighResolutionConvexNesterovFlow",
    "HighResolutionNesterovFlow",
    "HyperbolicEntropy",
    "InertialFlow",
    "InertialHessianDampedFlow",
    "LazyNewtonFlow",
    "Linearized",
    "MirrorFlow",
    "NaturalGradientFlow",
    "NesterovFlow",
    "NewtonFlow",
    "NormalizedFlow",
    "OrthantEntropy",
    "PNorm",
    "PiecewiseSchedule",
    "PolynomialSchedule",
    "Potential",
    "PreconditionedFlow",
    "ProximalFlow",
    "RMSpropFlow",
    "RegularizedNewtonFlow",
    "RescaledGradientFlow",
    "SignFlow",
    "SimplexEntropy",
    "SpectralFlow",
    "StronglyConvexNesterovFlow",
]
