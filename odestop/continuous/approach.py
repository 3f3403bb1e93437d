"""The approach to a level: when a trajectory will be there, and how long its steps may still be.

An adjoint λ starts at the event with components along every eigenvector of the Jacobian, the stiff ones too, which the
state has long lost.  Going backward they die out like those of the state after t0, and want a mesh that is as fine at
its end as the error control makes it at its beginning.  So steps shrink in proportion to the time that is left.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

_PART_OF_TIME_LEFT = 0.25
_FINEST = 2.0
"""Step times spectral radius below which no step is shortened."""


class Approach:
    """Predicts the crossing of every level by every trajectory, from J at the two ends of its last step.

    Parameters
    ----------
    thresholds
        ε, shape (n, levels).
    """

    def __init__(self, thresholds: Array) -> None:
        self._thresholds = thresholds
        self._crossing = np.full(thresholds.shape, np.inf)
        self._positive = thresholds > 0
        self._log_thresholds = np.log(thresholds, where=self._positive, out=np.zeros_like(thresholds))

    def expect(self, rows: Array, start_time: Array, step_size: Array, value: Array, end_value: Array) -> None:
        """Predict anew for some trajectories, at the rate of J in a step, of log J where J and ε are positive."""
        start, end, level = value[:, None], end_value[:, None], self._thresholds
        with np.errstate(all="ignore"):
            positive = (np.minimum(start, end) > 0) & self._positive
            log_start = np.log(start)
            steps = np.where(
                positive,
                (log_start - self._log_thresholds) / (log_start - np.log(end)),
                (start - level) / (start - end),
            )
            crossing = start_time[:, None] + steps * step_size[:, None]
        self._crossing = np.where(rows[:, None], crossing, self._crossing)

    def time_left(self, time: Array) -> Array:
        """Time to every level, shape (n, levels); inf for a level that J does not approach."""
        left = self._crossing - time[:, None]
        return np.where(left > 0, left, np.inf)

    def longest_step(self, time: Array, radius: Array, pending: Array) -> Array:
        """Longest step that is short beside the time to the nearest pending level, shape (n,)."""
        nearest = np.where(pending, self.time_left(time), np.inf).min(axis=-1)
        with np.errstate(divide="ignore"):
            return np.maximum(_FINEST / radius, _PART_OF_TIME_LEFT * nearest)

    def is_too_fast(self, step_size: Array, radius: Array) -> Array:
        """Whether a step that comes to a level is too long to end there, shape (n,)."""
        return step_size * radius > 1.01 * _FINEST
