"""Gradient flow, plain and rescaled in time (eq. 3 of arXiv 2505.22509)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from odestop.objectives.base import Objective, check_objective


class GradientFlow(nn.Module):
    """dx/dt = -∇f(x).

    Parameters
    ----------
    objective
        f.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`.

    Examples
    --------
    >>> import torch
    >>> from odestop.objectives import DiagonalQuadratic
    >>> GradientFlow(DiagonalQuadratic([1.0, 4.0]))(torch.tensor(0.0), torch.ones(2))
    tensor([-1., -4.])
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = check_objective(objective)

    def forward(self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        return -self.objective.gradient(x)


class RescaledGradientFlow(nn.Module):
    """dx/dt = -α(θ, t) ∇f(x) (eq. 3).

    Parameters
    ----------
    objective
        f.
    schedule
        α: maps t of shape () or (*batch, 1) to factors that broadcast against x; its parameters are θ.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`.

    Examples
    --------
    >>> import torch
    >>> from odestop.dynamics import ExponentialSchedule
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = RescaledGradientFlow(DiagonalQuadratic([1.0, 4.0]), ExponentialSchedule(0.5, rate=1.0))
    >>> flow(torch.tensor(0.0), torch.ones(2)).tolist()
    [-0.5, -2.0]
    """

    def __init__(self, objective: Objective, schedule: nn.Module) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        self.schedule = schedule

    def forward(self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return dx/dt at t of shape () or (*batch, 1)."""
        return -self.schedule(t) * self.objective.gradient(x)
