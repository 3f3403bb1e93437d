"""Gradient flow, plain and rescaled in time (eq. 3 of arXiv 2505.22509)."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_callable
from odestop.dynamics.gradient_driven import GradientDrivenFlow
from odestop.objectives.base import Objective, check_objective


class GradientFlow(GradientDrivenFlow):
    """dx/dt = -∇f(x).

    The limit of gradient descent (Cauchy, 1847), x - h ∇f(x), as the learning rate h goes to 0.

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

    coordinatewise = True

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = check_objective(objective)

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        return -gradient


class RescaledGradientFlow(GradientDrivenFlow):
    """dx/dt = -α(θ, t) ∇f(x) (eq. 3).

    The limit of gradient descent with the learning rates h α(k h).  It is the plain flow with its time changed:
    the trajectory is the same, and T is where ∫ α from t₀ to T is the duration of the plain flow.

    Parameters
    ----------
    objective
        f.
    schedule
        α: one of the modules of `odestop.dynamics`, or any callable that maps t of shape () or (*batch, 1) to
        factors that broadcast against x.  θ are its parameters; those of a plain function are the tensors it
        uses that require a gradient.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or the schedule cannot be called.

    Examples
    --------
    >>> import torch
    >>> from odestop.dynamics import ExponentialSchedule
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = RescaledGradientFlow(DiagonalQuadratic([1.0, 4.0]), ExponentialSchedule(0.5, rate=1.0))
    >>> flow(torch.tensor(0.0), torch.ones(2)).tolist()
    [-0.5, -2.0]

    A schedule of one's own, with a decay that T is differentiated in:

    >>> import odestop
    >>> decay = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    >>> flow = RescaledGradientFlow(DiagonalQuadratic([1.0, 4.0]), lambda t: 1 / (1 + decay * t))
    >>> x0 = torch.ones(2, dtype=torch.float64)
    >>> solution = odestop.continuous_stopping_time(flow, x0, flow.objective, threshold=0.1)
    >>> solution.time.backward()
    >>> round(solution.time.item(), 4), round(decay.grad.item(), 4)
    (0.8537, 0.3544)
    """

    coordinatewise = True

    def __init__(self, objective: Objective, schedule: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        self.schedule = check_callable("schedule", schedule, "t -> α(t)")

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return dx/dt at t of shape () or (*batch, 1)."""
        return -self.schedule(t) * gradient
