"""Trajectories that have come to rest: no threshold will be reached from where they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.problem import StoppingProblem

Array = np.ndarray

_ROUNDING = 100.0
_IDLE_STEPS = 50


class RestDetector:
    """Counts accepted steps in which a trajectory stays where it was marked.

    It leaves the mark by moving more than rounding and, below the absolute tolerance, only if J still approaches the
    threshold by a noticeable part of what is missing.
    """

    def __init__(self, problem: StoppingProblem, atol: float, value: Array) -> None:
        self._problem = problem
        self._resolution = _ROUNDING * problem.resolution
        self._negligible = atol * problem.initial_state.shape[-1] ** 0.5
        self.mark = problem.initial_state.detach()
        self._mark_value = value.copy()
        self._idle = np.zeros(value.size, dtype=np.int64)

    def resting(self, rows: Array, state: Tensor, value: Array, gaps: Array, displacement: Array, size: Array) -> Array:
        """Rows that have been idle for many steps, after an accepted step in ``rows`` to ``state``.

        ``gaps`` are the values J - ε of the pending levels, shape (n, levels), inf for the others; ``displacement`` is
        the distance from ``mark`` and ``size`` the norm of the state.
        """
        nearest = np.take_along_axis(gaps, np.abs(gaps).argmin(axis=-1, keepdims=True), axis=-1)[:, 0]
        approaching = np.sign(nearest) * (self._mark_value - value) > 1e-8 * np.abs(nearest)
        still = (displacement <= self._resolution * size) | ((displacement <= self._negligible) & ~approaching)
        self._idle = np.where(rows, np.where(still, self._idle + 1, 0), self._idle)
        left = rows & ~still
        if left.all():
            self.mark = state
        elif left.any():
            self.mark = torch.where(self._problem.row_mask(left).unsqueeze(-1), state, self.mark)
        self._mark_value = np.where(left, value, self._mark_value)
        return self._idle >= _IDLE_STEPS
