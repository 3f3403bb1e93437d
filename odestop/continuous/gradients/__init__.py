"""How the gradient of T is computed: one module per method, all behind ``gradient=``."""

from odestop.continuous.gradients.discrete_adjoint import DiscreteAdjoint
from odestop.continuous.gradients.method import GradientMethod

GRADIENTS: dict[str, GradientMethod] = {"discrete_adjoint": DiscreteAdjoint()}
"""The aliases that ``gradient=`` accepts."""

__all__ = ["GRADIENTS", "DiscreteAdjoint", "GradientMethod"]
