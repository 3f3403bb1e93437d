"""Criteria J whose fall to the threshold ε is the stopping time (Def. 1 and 2 of arXiv 2505.22509)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from odestop.objectives.base import Objective, check_objective, register_value


class ObjectiveGap(nn.Module):
    """J(x) = f(x) - f*.

    Parameters
    ----------
    objective
        f; its parameters are the parameters φ of the criterion.
    minimum
        f*, a number or a tensor of shape (); ``objective.minimum`` by default.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or f* is neither known to it nor given.

    Examples
    --------
    >>> import torch
    >>> from odestop.objectives import DiagonalQuadratic
    >>> ObjectiveGap(DiagonalQuadratic([1.0, 4.0]))(torch.ones(5, 2))
    tensor([2.5000, 2.5000, 2.5000, 2.5000, 2.5000])
    """

    minimum: float | Tensor

    def __init__(self, objective: Objective, minimum: float | Tensor | None = None) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        if minimum is None:
            minimum = objective.minimum
        if minimum is None:
            raise ValueError(
                f"minimum must be given for {type(objective).__name__}, whose minimum is unknown; "
                "it is a number or a tensor of shape ()"
            )
        register_value(self, "minimum", minimum)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return J(x)."""
        return self.objective(x) - self.minimum


class SquaredGradientNorm(nn.Module):
    """J(x) = ‖∇f(x)‖².

    Shares ∇f(x) with a gradient flow evaluated at the same tensor x (see `Objective`).

    Parameters
    ----------
    objective
        f; its parameters are the parameters φ of the criterion.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`.

    Examples
    --------
    >>> import torch
    >>> from odestop.objectives import DiagonalQuadratic
    >>> SquaredGradientNorm(DiagonalQuadratic([1.0, 4.0]))(torch.ones(2))
    tensor(17.)
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = check_objective(objective)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return J(x)."""
        gradient = self.objective.gradient(x)
        return (gradient * gradient).sum(-1)
