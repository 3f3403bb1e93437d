"""Proximal gradient methods, for composite objectives such as the lasso."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odestop.discrete.step_maps.objective import Hyperparameter, ObjectiveStepMap
from odestop.dynamics._hyperparameters import POSITIVE
from odestop.objectives.composite import CompositeObjective, check_composite


class ProximalGradient(ObjectiveStepMap):
    """Proximal gradient, x_{k+1} = prox_{s r}(x_k - s ∇g(x_k)) for f = g + r; for the lasso also called ISTA.

    f(x_k) decreases and is at most f* + ‖x_0 - x*‖² / (2 s k) if g and r are convex and s ≤ 1/L (Beck,
    Teboulle, 2009, Theorem 3.1).  No memory: the state is x.

    Parameters
    ----------
    objective
        f = g + r.
    learning_rate
        s > 0: a number, a tensor of shape () or (*batch,), or a schedule by step; differentiable (see
        `ObjectiveStepMap`).

    Raises
    ------
    ValueError
        If ``objective`` is not a `CompositeObjective`, or the learning rate is not positive.

    Examples
    --------
    >>> from odestop.objectives import Lasso
    >>> step = ProximalGradient(Lasso(torch.eye(2), torch.tensor([4.0, 1.0]), 0.5), learning_rate=1.0)
    >>> step(0, torch.zeros(2)).tolist()
    [1.5, 0.0]
    """

    objective: CompositeObjective

    def __init__(self, objective: CompositeObjective, learning_rate: Hyperparameter) -> None:
        super().__init__(check_composite(objective), memories=0)
        self.register_hyperparameter("learning_rate", learning_rate, POSITIVE)

    def forward(self, k: int, state: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return the state after step k."""
        return self.objective.proximal_step(state, self.value_at("learning_rate", k, state))


class FISTA(ObjectiveStepMap):
    """FISTA, the accelerated proximal gradient (Beck, Teboulle, 2009): f(x_k) - f* ≤ 2 ‖x_0 - x*‖² / (s (k + 1)²).

    With the last displacement v_k = x_k - x_{k-1}:  τ_{k+1} = (1 + √(1 + 4 τ_k²)) / 2,
    y_k = x_k + (τ_k - 1)/τ_{k+1} v_k,  x_{k+1} = prox_{s r}(y_k - s ∇g(y_k)) for f = g + r; the bound holds if
    g and r are convex and s ≤ 1/L.  The state is [x, v, τ] of shape (*batch, 2d + 1), with v_0 = 0, τ_0 = 0.
    f(x_k) need not decrease at every step.

    Parameters
    ----------
    objective
        f = g + r.
    learning_rate
        s > 0: a number, a tensor of shape () or (*batch,), or a schedule by step; differentiable (see
        `ObjectiveStepMap`).

    Raises
    ------
    ValueError
        If ``objective`` is not a `CompositeObjective`, or the learning rate is not positive.

    Examples
    --------
    >>> from odestop.objectives import Lasso
    >>> step = FISTA(Lasso(torch.eye(2), torch.tensor([4.0, 1.0]), 0.5), learning_rate=1.0)
    >>> step(0, step.initial_state(torch.zeros(2))).tolist()
    [1.5, 0.0, 1.5, 0.0, 1.0]
    """

    objective: CompositeObjective

    def __init__(self, objective: CompositeObjective, learning_rate: Hyperparameter) -> None:
        super().__init__(check_composite(objective), memories=1)
        self.register_hyperparameter("learning_rate", learning_rate, POSITIVE)

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return x0 at rest, with τ = 0."""
        return torch.cat([x0, torch.zeros_like(x0), torch.zeros_like(x0[..., :1])], dim=-1)

    def position(self, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch d"]:
        """Return the x of a state."""
        return state[..., : state.shape[-1] // 2]

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        dimension = state.shape[-1] // 2
        x, displacement, tau = state.split([dimension, dimension, 1], dim=-1)
        next_tau = (1 + torch.sqrt(1 + 4 * tau * tau)) / 2
        extrapolated = x + (tau - 1) / next_tau * displacement
        new = self.objective.proximal_step(extrapolated, self.value_at("learning_rate", k, x))
        return torch.cat([new, new - x, next_tau], dim=-1)
