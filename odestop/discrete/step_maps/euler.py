"""Forward Euler: the discretisation that the paper's discrete stopping time is defined with."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_callable, check_shape
from odestop.discrete.step_maps.base import TimeStepMap


class Euler(TimeStepMap):
    """Forward Euler step of a dynamics, x_{k+1} = x_k - h A(θ, x_k, t_k) (Def. 2 of arXiv 2505.22509).

    Parameters
    ----------
    dynamics
        ``dynamics(t, x) -> dx/dt`` = -A(θ, x, t), in torchdiffeq's convention: x has shape (*batch, d), or
        (*batch, m) where the dynamics has hidden state, t is 0-d for one trajectory and has shape (*batch, 1)
        for a batch, both in the dtype and on the device of the state.  A module becomes a submodule.
        ``initial_state`` and ``position`` of a dynamics with hidden state become those of the map.
    step_size
        h > 0: a number, or a tensor of shape () or (*batch,) that may require a gradient.

    Raises
    ------
    ValueError
        If the dynamics cannot be called or returns another shape than the state's, or if the step size is not
        positive and finite.

    Examples
    --------
    >>> import torch
    >>> euler = Euler(lambda t, x: -x, step_size=0.25)
    >>> euler(0, torch.tensor([1.0, 2.0]))
    tensor([0.7500, 1.5000])
    """

    def __init__(self, dynamics: Callable[[Tensor, Tensor], Tensor], step_size: float | int | Tensor) -> None:
        super().__init__(step_size)
        self.dynamics = check_callable("dynamics", dynamics, "(t, x) -> dx/dt")
        for name in ("initial_state", "position"):
            if hasattr(dynamics, name):
                setattr(self, name, getattr(dynamics, name))

    def forward(
        self, k: int, state: Float[Tensor, "*batch m"], t0: float | int | Tensor = 0.0
    ) -> Float[Tensor, "*batch m"]:
        """Return the state at t_{k+1} from the state at t_k = t0 + k h."""
        velocity = self.dynamics(self.time(k, state, t0), state)
        check_shape("dynamics", velocity, state.shape, "dx/dt has the shape of the state")
        return state + self.increment(velocity)
