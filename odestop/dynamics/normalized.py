"""Flows whose speed does not depend on the size of the gradient: normalised, and by the sign of each coordinate.

Without smoothing they reach a minimum in finite time, and are discontinuous there (Cortés, 2006): stop above it, at
a threshold where gradients are still larger than the smoothing, or the problem becomes stiff.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop.dynamics._hyperparameters import NON_NEGATIVE, at_trajectories, register_number
from odestop.dynamics.gradient_driven import GradientDrivenFlow
from odestop.objectives.base import Objective, check_objective


class NormalizedFlow(nn.Module):
    """dx/dt = -∇f(x)/(‖∇f(x)‖ + s) (Cortés, 2006, for s = 0).

    The limit of normalised gradient descent, x - h ∇f(x)/(‖∇f(x)‖ + s), as the learning rate h goes to 0.  For
    s = 0 the point moves at unit speed along the curve of the gradient flow: T is the length of the path.  The time
    to go from ‖x‖ = r₀ to r on f = λ/2 ‖x‖² is r₀ - r + s/λ log(r₀/r).

    Parameters
    ----------
    objective
        f.
    smoothing
        s >= 0, a number or a tensor of shape () or (*batch,); differentiable.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or the smoothing is negative.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = NormalizedFlow(DiagonalQuadratic([1.0, 1.0]), smoothing=5.0)
    >>> flow(torch.tensor(0.0), torch.tensor([3.0, 4.0])).tolist()
    [-0.30000001192092896, -0.4000000059604645]
    """

    smoothing: Tensor

    def __init__(self, objective: Objective, smoothing: float | int | Tensor = 0.0) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        register_number(self, "smoothing", smoothing, NON_NEGATIVE)

    def forward(self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        gradient = self.objective.gradient(x)
        size = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        return -gradient / (size + at_trajectories(self.smoothing, x))


class SignFlow(GradientDrivenFlow):
    """dx/dt = -tanh(∇f(x)/s), coordinate by coordinate: for s → 0 the flow -sign(∇f(x)) (Cortés, 2006).

    The limit of x - h tanh(∇f(x)/s) as the learning rate h goes to 0; of signSGD (Bernstein et al., 2018), which is
    `odestop.discrete.Lion` with both averaging factors 0, where all |∂ᵢf| ≫ s, and every |xᵢ| falls
    linearly if f is a separable quadratic.  There is no version with s = 0: once a ∂ᵢf has reached 0 it would
    stay there by switching signs infinitely often.

    Parameters
    ----------
    objective
        f.
    smoothing
        s > 0, a number or a tensor of shape () or (*batch,); differentiable.  The flow is stiff at a rate of the
        Hessian over s where gradients are smaller than s.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or the smoothing is not positive.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = SignFlow(DiagonalQuadratic([1.0, 4.0]), smoothing=0.01)
    >>> flow(torch.tensor(0.0), torch.tensor([[3.0, -2.0], [0.0, 0.5]])).tolist()
    [[-1.0, 1.0], [-0.0, -1.0]]
    """

    smoothing: Tensor
    coordinatewise = True

    def __init__(self, objective: Objective, smoothing: float | int | Tensor = 0.1) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        register_number(self, "smoothing", smoothing)

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        return -torch.tanh(gradient / at_trajectories(self.smoothing, state))
