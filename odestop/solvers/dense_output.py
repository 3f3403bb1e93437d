"""Continuous extension of one Runge-Kutta step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from odestop.solvers.one_step import Step


class DenseOutput:
    """x(t + s h) ≈ x + h Σ b_i(s) k_i on a step, for s in [0, 1].

    Parameters
    ----------
    start
        State at the start of the step, shape (*batch, d).
    step_size
        h, shape (*batch,).
    slopes
        Stage slopes k_i, each of shape (*batch, d).
    interpolant
        Coefficients of the powers s, s², … in b_i(s), one row per slope.
    """

    def __init__(
        self,
        start: Float[Tensor, "*batch d"],
        step_size: Float[Tensor, "*batch"],
        slopes: Sequence[Tensor],
        interpolant: Sequence[Sequence[float]],
    ) -> None:
        self.start = start
        self._step_size = step_size
        self._slopes = slopes
        self._interpolant = interpolant

    @cached_property
    def _coefficients(self) -> tuple[Tensor, ...]:
        """The coefficients of s^j, h Σ_i b_ij k_i for j = 1, 2, …, each of shape (*batch, d)."""
        interpolant = torch.tensor(self._interpolant, dtype=self.start.dtype, device=self.start.device)
        slopes = self._step_size.unsqueeze(-1) * torch.stack(tuple(self._slopes))
        return (interpolant.mT @ slopes.flatten(1)).unflatten(-1, self.start.shape).unbind()

    def __call__(self, fraction: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch d"]:
        """State at ``fraction`` of the step, one fraction per trajectory."""
        s = fraction.unsqueeze(-1)
        state = self._coefficients[-1]
        for coefficient in (*self._coefficients[-2::-1], self.start):
            state = torch.addcmul(coefficient, s, state)
        return state


class HermiteOutput:
    """Cubic polynomial with the states and slopes at both ends of a step, of order 3: for a method of many stages.

    Parameters
    ----------
    step
        Step whose first and last slopes are those at its ends.
    """

    def __init__(self, step: Step) -> None:
        self._step = step

    def __call__(self, fraction: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch d"]:
        """State at ``fraction`` of the step, one fraction per trajectory."""
        step = self._step
        s, h = fraction.unsqueeze(-1), step.step_size.unsqueeze(-1)
        chord = torch.lerp(step.start, step.end, 3.0 * s**2 - 2.0 * s**3)
        return chord + h * s * (1.0 - s) * ((1.0 - s) * step.slopes[0] - s * step.end_slope)
