"""Explicit Runge-Kutta steps of higher order than Euler's, with a fixed step size."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from odestop.discrete.step_maps.base import TimeStepMap


class Heun(TimeStepMap):
    """Heun step of a dynamics, the explicit trapezoidal rule: order 2, two evaluations of the dynamics.

    x_{k+1} = x_k + h/2 (F(t_k, x_k) + F(t_{k+1}, x_k + h F(t_k, x_k))) (Heun, 1900).

    Parameters
    ----------
    dynamics, step_size
        F = dx/dt and h > 0, as in `TimeStepMap`.

    Examples
    --------
    >>> import torch
    >>> heun = Heun(lambda t, x: -x, step_size=0.5)
    >>> heun(0, torch.tensor([8.0]))
    tensor([5.])
    """

    evaluations_per_step: ClassVar[int] = 2

    def forward(
        self, k: int, state: Float[Tensor, "*batch m"], t0: float | int | Tensor = 0.0
    ) -> Float[Tensor, "*batch m"]:
        """Return the state at t_{k+1} from the state at t_k = t0 + k h."""
        first = self.velocity(k, state, t0)
        second = self.velocity(k + 1, state + self.increment(first), t0)
        return state + self.increment((first + second) / 2)


class RungeKutta4(TimeStepMap):
    """Classical Runge-Kutta step of a dynamics (Kutta, 1901): order 4, four evaluations of the dynamics.

    Parameters
    ----------
    dynamics, step_size
        F = dx/dt and h > 0, as in `TimeStepMap`.

    Examples
    --------
    >>> import torch
    >>> runge_kutta = RungeKutta4(lambda t, x: -x, step_size=1.0)
    >>> runge_kutta(0, torch.tensor([8.0]))  # 8 (1 - 1 + 1/2 - 1/6 + 1/24)
    tensor([3.])
    """

    evaluations_per_step: ClassVar[int] = 4

    def forward(
        self, k: int, state: Float[Tensor, "*batch m"], t0: float | int | Tensor = 0.0
    ) -> Float[Tensor, "*batch m"]:
        """Return the state at t_{k+1} from the state at t_k = t0 + k h."""
        first = self.velocity(k, state, t0)
        second = self.velocity(k + 0.5, state + self.increment(first / 2), t0)
        third = self.velocity(k + 0.5, state + self.increment(second / 2), t0)
        fourth = self.velocity(k + 1, state + self.increment(third), t0)
        return state + self.increment((first + 2 * (second + third) + fourth) / 6)
