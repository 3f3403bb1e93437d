"""Symplectic Euler: the step that keeps the energy of an oscillation from drifting."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from odestop.discrete.step_maps.base import TimeStepMap


class SymplecticEuler(TimeStepMap):
    """Symplectic Euler step of a dynamics of positions and velocities, also called semi-implicit: order 1.

    The state is s = [x, v], the positions first, of two equal halves; with dx/dt and dv/dt the halves of the
    dynamics,

    * v_{k+1} = v_k + h dv/dt(t_k, [x_k, v_k]), the velocities first,
    * x_{k+1} = x_k + h dx/dt(t_k, [x_k, v_{k+1}]), the positions with the new velocities.

    It is a symplectic map, and keeps a modified energy, if dx/dt depends on v alone and dv/dt on x alone
    (Hairer, Lubich, Wanner, Geometric Numerical Integration, 2006, section VI.3); with friction, where dv/dt
    depends on v as well, it is an explicit method of order 1.  Two evaluations of the dynamics.

    Parameters
    ----------
    dynamics, step_size
        ds/dt, shape (*batch, 2d), and h > 0, as in `TimeStepMap`.

    Raises
    ------
    ValueError
        At a step, if the state has no halves.

    Examples
    --------
    >>> import torch
    >>> oscillator = lambda t, s: torch.cat([s[..., 1:], -s[..., :1]], dim=-1)
    >>> step = SymplecticEuler(oscillator, step_size=0.5)
    >>> step(0, torch.tensor([1.0, 0.0]))
    tensor([ 0.7500, -0.5000])
    """

    evaluations_per_step: ClassVar[int] = 2

    def forward(
        self, k: int, state: Float[Tensor, "*batch m"], t0: float | int | Tensor = 0.0
    ) -> Float[Tensor, "*batch m"]:
        """Return the state at t_{k+1} from the state at t_k = t0 + k h."""
        if state.shape[-1] % 2 != 0:
            raise ValueError(f"state must have shape (*batch, 2d), positions and velocities, got {tuple(state.shape)}")
        x, v = state.chunk(2, dim=-1)
        new_v = v + self.increment(self.velocity(k, state, t0).chunk(2, dim=-1)[1])
        kicked = torch.cat([x, new_v], dim=-1)
        new_x = x + self.increment(self.velocity(k, kicked, t0).chunk(2, dim=-1)[0])
        return torch.cat([new_x, new_v], dim=-1)
