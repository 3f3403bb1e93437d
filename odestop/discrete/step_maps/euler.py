"""Forward Euler: the discretisation that the paper's discrete stopping time is defined with."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from odestop.discrete.step_maps.analytic import pull_back_gradient_step
from odestop.discrete.step_maps.base import TimeStepMap
from odestop.dynamics.gradient_flow import GradientFlow


class Euler(TimeStepMap):
    """Forward Euler step of a dynamics, x_{k+1} = x_k - h A(θ, x_k, t_k) (Def. 2 of arXiv 2505.22509).

    Parameters
    ----------
    dynamics, step_size
        dx/dt and h > 0, as in `TimeStepMap`.

    Examples
    --------
    >>> import torch
    >>> euler = Euler(lambda t, x: -x, step_size=0.25)
    >>> euler(0, torch.tensor([1.0, 2.0]))
    tensor([0.7500, 1.5000])
    """

    def forward(
        self, k: int, state: Float[Tensor, "*batch m"], t0: float | int | Tensor = 0.0
    ) -> Float[Tensor, "*batch m"]:
        """Return the state at t_{k+1} from the state at t_k = t0 + k h."""
        return state + self.increment(self.velocity(k, state, t0))

    def pull_back(
        self,
        k: int,
        state: Float[Tensor, "*batch m"],
        cotangent: Float[Tensor, "*batch m"],
        parameters: Sequence[Tensor],
        t0: float | int | Tensor = 0.0,
    ) -> tuple[Tensor, list[Tensor]] | None:
        """Pull a cotangent through the step by the Hessian of f where the dynamics is a `GradientFlow`."""
        if type(self.dynamics) is not GradientFlow:
            return None
        return pull_back_gradient_step(self.dynamics.objective, self.step_size, state, cotangent, parameters)
