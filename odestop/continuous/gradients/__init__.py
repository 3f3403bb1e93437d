"""How the gradient of T is computed: one module per method, all behind ``gradient=``."""

from odestop.continuous.gradients.discrete_adjoint import DiscreteAdjoint

GRADIENTS: dict[str, DiscreteAdjoint] = {"discrete_adjoint": DiscreteAdjoint()}
"""The aliases that ``gradient=`` accepts."""

__all__ = ["GRADIENTS", "DiscreteAdjoint"]
