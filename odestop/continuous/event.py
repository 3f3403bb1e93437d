"""Where a trajectory crosses a level: found on the dense output, then settled on the re-taken step.

Two stages, because the dense output is of lower order than the step.  The first brackets the crossing on the dense
output of the step that contains it.  The second re-takes that step itself with h' in place of h until J(x(t + h')) = ε
to rounding, so that the stopping time has the order of the method and an exact discrete derivative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.crossings import Crossing
from odestop.continuous.problem import StoppingProblem, to_host
from odestop.continuous.root_finding import bracketed_root
from odestop.solvers import OneStepMethod

Array = np.ndarray

_DENSE_TOLERANCE = 1e-5
_SETTLING_ROUNDS = 12


@dataclass(frozen=True)
class Event:
    """One level's events: each trajectory's last, shortened step, which ends at J = ε.

    Attributes
    ----------
    rows
        Trajectories with an event, shape (n,); the other rows of everything below are placeholders.
    index
        Number of accepted steps in the record before the last one, shape (n,).
    start, end
        States at the start of the last step and at the event, shape (*batch, d).
    start_time, step_size
        t_k and h' = T - t_k, shape (n,).
    stages
        Stages of the last step: those of the longer step that it replaces, shape (n,).
    rate
        dJ/dt = ∇J·F + ∂J/∂t at the event, shape (n,).
    tangential
        Whether dJ/dt is too small for a gradient, beside the mean rate over the last step.
    """

    rows: Array
    index: Array
    start: Tensor
    end: Tensor
    start_time: Array
    step_size: Array
    stages: Array
    rate: Array
    tangential: Array

    @property
    def time(self) -> Array:
        """T, shape (n,)."""
        return self.start_time + self.step_size


def locate_event(problem: StoppingProblem, solver: OneStepMethod, crossing: Crossing, level: int) -> Event:
    """Locate the events of one level."""
    search = _Search(problem, solver, crossing, level)
    event = search.settled(search.on_dense_output())
    rate = _criterion_rate(problem, event)
    tangential = event.rows & (np.abs(rate) <= problem.resolution**0.5 * search.mean_rate(event.step_size))
    return replace(event, rate=rate, tangential=tangential)


class _Search:
    """The two stages of `locate_event`."""

    def __init__(self, problem: StoppingProblem, solver: OneStepMethod, crossing: Crossing, level: int) -> None:
        self.problem, self.solver, self.crossing = problem, solver, crossing
        (self.threshold,), self.orientation = to_host(problem.threshold[..., level]), problem.orientation[:, level]
        self.rows = crossing.rows
        (whole_step,) = to_host(crossing.step.step_size)
        self.whole_step = np.where(self.rows, whole_step, 1.0)
        self.dense = solver.dense_output(crossing.step)
        self.start_time = problem.to_device(crossing.start_time)

    def gap(self, elapsed: Tensor, state: Tensor) -> Array:
        """log(J/ε) where that is defined, for a decay is nearly linear in it; J - ε elsewhere; positive before T."""
        (value,), threshold = to_host(self.problem.criterion(self.start_time + elapsed, state)), self.threshold
        gap = np.where(self.rows, value - threshold, 0.0)
        positive = self.rows & (value > 0) & (threshold > 0)
        # log1p keeps the digits of a gap that is small beside ε.
        np.divide(gap, threshold, out=gap, where=positive)
        np.log1p(gap, out=gap, where=positive)
        return self.orientation * gap

    def dense_gap(self, fraction: Array) -> Array:
        on_device = self.problem.to_device(fraction)
        return self.gap(on_device * self.crossing.step.step_size, self.dense(on_device))

    def on_dense_output(self) -> Array:
        """Step size to the event, to the accuracy of the dense output."""
        low, high = np.zeros_like(self.whole_step), self.crossing.end_fraction
        fraction = bracketed_root(
            self.dense_gap, low, high, self.dense_gap(low), self.dense_gap(high), _DENSE_TOLERANCE
        )
        return np.where(self.rows, fraction * self.whole_step, 0.0)

    def retake(self, h: Array) -> tuple[Tensor, Array]:
        """State and gap at the end of the step with size h."""
        step, h_tensor = self.crossing.step, self.problem.to_device(h)
        end, _ = self.solver.advance(
            self.problem.field, self.start_time, step.start, h_tensor, step.slopes[0], step.stages
        )
        return end, self.gap(h_tensor, end)

    def slope(self, h: Array) -> Array:
        """d(gap)/dh along the dense output, by a one-sided difference."""
        width = self.problem.resolution**0.5
        fraction = h / self.whole_step
        return (self.dense_gap(fraction) - self.dense_gap(fraction - width)) / (width * self.whole_step)

    def mean_rate(self, h: Array) -> Array:
        """Mean rate at which J came to ε; over more of the step where that is but rounding away from its start."""
        crossing = self.crossing
        bracket = crossing.end_fraction * self.whole_step
        rounding = 1e3 * self.problem.resolution * np.abs(self.threshold)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(crossing.gap > rounding, crossing.gap / h, (crossing.gap - crossing.end_gap) / bracket)

    def settled(self, guess: Array) -> Event:
        """Secant iteration on h', kept inside the bracket, until J = ε to rounding or no further progress."""
        problem, rows = self.problem, self.rows
        low, high = np.zeros_like(guess), self.whole_step * self.crossing.end_fraction
        h = problem.rounded(guess)
        end, gap = self.retake(h)
        best_h, best_gap, best_end = h, np.abs(gap), end
        slope, stalled = self.slope(h), ~rows
        for _ in range(_SETTLING_ROUNDS):
            low, high = np.where(gap > 0, h, low), np.where(gap > 0, high, h)
            proposal = problem.rounded(_inside(h, gap, slope, low, high))
            if np.all((proposal == h) | (best_gap <= problem.resolution) | stalled):
                break
            previous_h, previous_gap, h = h, gap, np.where(rows, proposal, 0.0)
            end, gap = self.retake(h)
            # A secant iteration this close that does not halve the gap has arrived at the rounding of J.
            stalled |= (best_gap <= problem.resolution**0.5) & (np.abs(gap) > 0.5 * best_gap)
            better = rows & (np.abs(gap) < best_gap)
            best_end = torch.where(problem.row_mask(better).unsqueeze(-1), end, best_end)
            best_h, best_gap = np.where(better, h, best_h), np.where(better, np.abs(gap), best_gap)
            slope = _secant(slope, h - previous_h, gap - previous_gap, problem.resolution)
        crossing, unknown = self.crossing, np.full_like(best_h, np.nan)
        step = crossing.step
        return Event(
            rows, crossing.index, step.start, best_end, crossing.start_time, best_h, step.stages, unknown, ~rows
        )


def _inside(h: Array, gap: Array, slope: Array, low: Array, high: Array) -> Array:
    """Newton's proposal where it falls inside the bracket, the middle elsewhere."""
    with np.errstate(divide="ignore", invalid="ignore"):
        proposal = h - gap / slope
    return np.where((proposal >= low) & (proposal <= high), proposal, 0.5 * (low + high))


def _secant(slope: Array, change: Array, gap_change: Array, resolution: float) -> Array:
    """Slope of the secant where the values differ by more than rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        secant = gap_change / change
    return np.where((np.abs(gap_change) > 1e4 * resolution) & np.isfinite(secant), secant, slope)


def _criterion_rate(problem: StoppingProblem, event: Event) -> Array:
    """∇J·F + ∂J/∂t at the event; nan for a criterion that carries no gradient."""
    time = problem.to_device(event.time)
    slope = problem.field(time, event.end)
    if not problem.criterion.tracks_state:
        return np.full_like(event.step_size, np.nan)
    time, state = time.requires_grad_(), event.end.detach().requires_grad_()
    value = problem.criterion.with_graph(time, state)
    gradient, drift = torch.autograd.grad(
        value, (state, time), torch.ones_like(value), allow_unused=True, materialize_grads=True
    )
    return to_host((gradient * slope).sum(-1) + drift)[0]
