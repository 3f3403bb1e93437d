"""Which step of which trajectory crosses which level: first passages, seen at the ends of steps and between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.problem import StoppingProblem, to_host
from odestop.continuous.root_finding import dip_below_zero
from odestop.solvers import RungeKutta, Step

Array = np.ndarray


@dataclass(frozen=True)
class Crossing:
    """The steps that contain one level's crossings, merged row by row over the batch.

    Attributes
    ----------
    rows
        Trajectories that crossed the level, shape (n,); the other rows of everything below are placeholders.
    step
        The step that contains the crossing.
    index
        Number of accepted steps in the record before that step, shape (n,).
    start_time
        t at the start of that step.
    gap, end_gap
        J - ε at the start of the step and at ``end_fraction`` of it: positive, and not positive.
    end_fraction
        Fraction of the step by which J had fallen to ε.
    """

    rows: Array
    step: Step
    index: Array
    start_time: Array
    gap: Array
    end_gap: Array
    end_fraction: Array


@dataclass(frozen=True)
class TakenStep:
    """A step as the record of it is needed to place a crossing in it.

    Attributes
    ----------
    step
        The step itself.
    index, start_time, value, end_value
        Its place in the record, t at its start, and J at its two ends, each of shape (n,); nan values where a
        trajectory has taken no step yet.
    """

    step: Step
    index: Array
    start_time: Array
    value: Array
    end_value: Array


class CrossingLog:
    """Collects the first crossing of every level by every trajectory.

    Parameters
    ----------
    problem, solver
        The question, and the method whose dense output shows the inside of a step.
    thresholds
        ε, shape (n, levels).
    """

    def __init__(self, problem: StoppingProblem, solver: RungeKutta, thresholds: Array) -> None:
        self._problem, self._solver, self._thresholds = problem, solver, thresholds
        self.crossings: list[Crossing | None] = [None] * thresholds.shape[1]
        self._previous: TakenStep | None = None

    def look(self, taken: TakenStep, rows: Array, pending: Array) -> Array:
        """Find the levels that the given trajectories cross in this step.

        Parameters
        ----------
        taken
            The step.
        rows
            Trajectories whose step was accepted, shape (n,).
        pending
            Levels not crossed yet, shape (n, levels).

        Returns
        -------
        Array
            Levels crossed now, shape (n, levels).
        """
        found = np.zeros_like(pending)
        if not rows.any():
            return found
        for level in range(pending.shape[1]):
            gap = taken.end_value - self._thresholds[:, level]
            crossed = rows & pending[:, level] & (gap <= 0.0)
            if crossed.any():
                self._note(level, crossed, taken, gap, np.ones_like(gap))
            found[:, level] = crossed
        self._look_between(taken, rows, pending & ~found, found)
        self._previous = merge_taken(self._problem, rows, taken, self._previous)
        return found

    def _look_between(self, taken: TakenStep, rows: Array, pending: Array, found: Array) -> None:
        """Search for dips where J turned: it fell before this step's start and rises by its end.

        The minimum lies in the previous step or in this one.
        """
        previous = self._previous
        before = np.full_like(taken.value, np.nan) if previous is None else previous.value
        turned = rows & (np.isnan(before) | (before >= taken.value)) & (taken.end_value > taken.value)
        if not turned.any():
            return
        reach = np.fmax(np.nan_to_num(before, nan=-np.inf), taken.end_value) - taken.value
        for level in range(pending.shape[1]):
            wanted = turned & pending[:, level] & (taken.value - self._thresholds[:, level] <= reach)
            for candidate in (previous, taken):
                if candidate is not None and wanted.any():
                    dipped = self._search(level, candidate, wanted & np.isfinite(candidate.value))
                    found[:, level] |= dipped
                    wanted &= ~dipped

    def _search(self, level: int, taken: TakenStep, wanted: Array) -> Array:
        """Rows whose J dips below the level inside the step."""
        if not wanted.any():
            return wanted
        problem, dense = self._problem, self._solver.dense_output(taken.step)
        threshold = problem.threshold[..., level]

        def gap(fraction: Array) -> Array:
            return to_host(problem.criterion(dense(problem.to_device(fraction))) - threshold)[0]

        epsilon = self._thresholds[:, level]
        fraction = dip_below_zero(gap, taken.value - epsilon, taken.end_value - epsilon, wanted)
        dipped = ~np.isnan(fraction)
        if dipped.any():
            fraction = np.where(dipped, fraction, 1.0)
            self._note(level, dipped, taken, gap(fraction), fraction)
        return dipped

    def _note(self, level: int, rows: Array, taken: TakenStep, end_gap: Array, end_fraction: Array) -> None:
        gap = taken.value - self._thresholds[:, level]
        new = Crossing(rows, taken.step, taken.index, taken.start_time, gap, end_gap, end_fraction)
        self.crossings[level] = _merge_crossings(self._problem, new, self.crossings[level])


def _merge_crossings(problem: StoppingProblem, new: Crossing, old: Crossing | None) -> Crossing:
    """``new`` in its rows, ``old`` elsewhere."""
    if old is None:
        return new
    names = ("index", "start_time", "gap", "end_gap", "end_fraction")
    merged = (np.where(new.rows, getattr(new, name), getattr(old, name)) for name in names)
    return Crossing(new.rows | old.rows, _merge_steps(problem, new.rows, new.step, old.step), *merged)


def merge_taken(problem: StoppingProblem, rows: Array, new: TakenStep, old: TakenStep | None) -> TakenStep:
    """``new`` in the given rows, ``old`` elsewhere."""
    if old is None:
        unknown = np.where(rows, new.value, np.nan)
        return TakenStep(new.step, new.index, new.start_time, unknown, new.end_value)
    names = ("index", "start_time", "value", "end_value")
    merged = (np.where(rows, getattr(new, name), getattr(old, name)) for name in names)
    return TakenStep(_merge_steps(problem, rows, new.step, old.step), *merged)


def _merge_steps(problem: StoppingProblem, rows: Array, new: Step, old: Step) -> Step:
    if rows.all():
        return new
    mask = problem.row_mask(rows)
    wide = mask.unsqueeze(-1)

    def merged(name: str) -> Tensor:
        return torch.where(wide, getattr(new, name), getattr(old, name))

    return Step(
        start=merged("start"),
        end=merged("end"),
        end_slope=merged("end_slope"),
        error=merged("error"),
        step_size=torch.where(mask, new.step_size, old.step_size),
        slopes=tuple(torch.where(wide, a, b) for a, b in zip(new.slopes, old.slopes, strict=True)),
    )
