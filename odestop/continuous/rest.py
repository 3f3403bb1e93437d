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

    def __init__(self, problem: StoppingProblem, atol: float, thresholds: Array, value: Array) -> None:
        self._problem, self._thresholds = problem, thresholds
        self._resolution = _ROUNDING * problem.resolution
        self._negligible = atol * problem.initial_state.shape[-1] ** 0.5
        self.mark = problem.initial_state.detach()
        self._mark_value = value.copy()
        self._idle = np.zeros(value.size, dtype=np.int64)

    def resting(
        self, rows: Array, state: Tensor, value: Array, pending: Array, displacement: Array, size: Array
    ) -> Array:
        """Rows that have been idle for many steps, after an accepted step in ``rows`` to ``state``.

        ``pending`` are the levels not reached yet, shape (n, levels), ``displacement`` is the distance from ``mark``
        and ``size`` the norm of the state.
        """
        still = displacement <= self._resolution * size
        slow = rows & ~still & (displacement <= self._negligible)
        if slow.any():
            still |= slow & ~self._approaching(value, pending)
        left = rows & ~still
        if left.all():
            self.mark, self._mark_value, self._idle = state, value, np.zeros_like(self._idle)
            return still
        if left.any():
            self.mark = torch.where(self._problem.row_mask(left).unsqueeze(-1), state, self.mark)
        self._idle = np.where(left, 0, self._idle + (rows & still))
        self._mark_value = np.where(left, value, self._mark_value)
        return self._idle >= _IDLE_STEPS

    def _approaching(self, value: Array, pending: Array) -> Array:
        """Rows whose J has come closer to their nearest level since the mark, by a noticeable part of the distance."""
        gaps = np.where(pending, value[:, None] - self._thresholds, np.inf)
        nearest = np.take_along_axis(gaps, np.abs(gaps).argmin(axis=-1, keepdims=True), axis=-1)[:, 0]
        return np.sign(nearest) * (self._mark_value - value) > 1e-8 * np.abs(nearest)
