"""Step-size control on the host: the first step, and the proportional-integral controller for the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class PIController:
    """Proportional-integral controller (Gustafsson, 1991) for one step size per trajectory.

    The factor on h is safety · e_k^(-α) · e_(k-1)^β, with e the error relative to the tolerance (accepted if e ≤ 1),
    α = (1 - 0.75 b)/q and β = b/q for an error estimate of local order q.

    Parameters
    ----------
    safety
        Aims this far below the largest acceptable step.
    stabilisation
        b: weight of the previous error; 0 is a plain integral controller.
    min_factor, max_factor
        Bounds on the change of h from one step to the next.
    """

    safety: float = 0.9
    stabilisation: float = 0.2
    min_factor: float = 0.2
    max_factor: float = 10.0

    def factor(self, error: Array, previous_error: Array, accepted: Array, local_order: int) -> Array:
        """Factor on each trajectory's step size; a rejected step never grows."""
        proportional = self.stabilisation / local_order
        integral = 1.0 / local_order - 0.75 * proportional
        error = np.fmin(np.maximum(error, 1e-10), 1e10)  # 1e10 where it is not a number
        factor = self.safety * error**-integral
        factor = np.where(accepted, factor * previous_error**proportional, np.minimum(factor, 0.9))
        return np.minimum(np.maximum(factor, self.min_factor), self.max_factor)


def first_step_size(slope_size: Array, curvature_size: Array, trial: Array, order: int) -> Array:
    """First step of a method of ``order``, from the sizes of x' and x'' relative to the tolerances.

    Hairer, Nørsett & Wanner, *Solving Ordinary Differential Equations I*, II.4; the trial step itself where the size of
    x'' could not be measured.
    """
    largest = np.maximum(slope_size, curvature_size)
    with np.errstate(divide="ignore", invalid="ignore"):
        guess = np.where(largest > 1e-15, (0.01 / largest) ** (1.0 / (order + 1)), np.maximum(1e-6, trial * 1e-3))
    guess = np.where(np.isfinite(largest) & (guess > 0), guess, trial)
    return np.minimum(100.0 * trial, guess)


def trial_step_size(state_size: Array, slope_size: Array) -> Array:
    """Euler step for measuring x'': a hundredth of the time in which x changes by its own size."""
    usable = (state_size > 1e-5) & (slope_size > 1e-5) & np.isfinite(slope_size)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(usable, 0.01 * state_size / slope_size, 1e-6)
