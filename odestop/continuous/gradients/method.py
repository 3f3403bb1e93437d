"""What every gradient method provides."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from odestop.continuous.forward import ForwardSolve
from odestop.continuous.problem import StoppingProblem
from odestop.continuous.solution import ContinuousStats
from odestop.solvers import OneStepMethod


@runtime_checkable
class GradientMethod(Protocol):
    """Turns a finished forward solve into differentiable T and x(T)."""

    def attach(
        self, problem: StoppingProblem, solver: OneStepMethod, solve: ForwardSolve, stats: ContinuousStats
    ) -> tuple[Tensor, Tensor]:
        """T of shape (*batch, levels) and x(T) of shape (*batch, levels, d), as differentiable tensors."""
        ...
