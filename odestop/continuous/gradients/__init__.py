"""How the gradient of T is computed: one module per method, all behind ``gradient=``."""

from odestop.continuous.gradients.backsolve import Backsolve
from odestop.continuous.gradients.continuous_adjoint import ContinuousAdjoint
from odestop.continuous.gradients.discrete_adjoint import DiscreteAdjoint
from odestop.continuous.gradients.finite_difference import FiniteDifference
from odestop.continuous.gradients.forward_sensitivity import ForwardSensitivity
from odestop.continuous.gradients.method import GradientMethod
from odestop.continuous.gradients.unrolled import Unrolled

GRADIENTS: dict[str, GradientMethod] = {
    "discrete_adjoint": DiscreteAdjoint(),
    "continuous_adjoint": ContinuousAdjoint(),
    "backsolve": Backsolve(),
    "forward_sensitivity": ForwardSensitivity(),
    "unrolled": Unrolled(),
    "finite_difference": FiniteDifference(),
}
"""The aliases that ``gradient=`` accepts."""

__all__ = [
    "GRADIENTS",
    "Backsolve",
    "ContinuousAdjoint",
    "DiscreteAdjoint",
    "FiniteDifference",
    "ForwardSensitivity",
    "GradientMethod",
    "Unrolled",
]
