"""Which step of which trajectory crosses which level: first passages, seen at the ends of steps and between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.problem import StoppingProblem, to_host
from odestop.continuous.root_finding import dip_below_zero
from odestop.solvers import OneStepMethod, Step

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
        J - ε, or ε - J for a rise, at the start of the step and at ``end_fraction`` of it: positive, and not positive.
    end_fraction
        Fraction of the step by which J had come to ε.
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
    index, start_time, step_size, value, end_value
        Its place in the record, t at its start, its size, and J at its two ends, each of shape (n,).
    """

    step: Step
    index: Array
    start_time: Array
    step_size: Array
    value: Array
    end_value: Array


class CrossingLog:
    """Collects the first crossing of every level by every trajectory.

    The ends of a step show most crossings.  A dip to the level that is over before the step ends shows on the dense
    output; it is looked for where a level is no further away than J has lately moved in a step.

    Parameters
    ----------
    problem, solver
        The question, and the method whose dense output shows the inside of a step.
    thresholds
        ε, shape (n, levels).
    """

    def __init__(self, problem: StoppingProblem, solver: OneStepMethod, thresholds: Array) -> None:
        self._problem, self._solver, self._thresholds = problem, solver, thresholds
        self.crossings: list[Crossing | None] = [None] * thresholds.shape[1]
        n = len(thresholds)
        self._variation, self._step_size = np.full(n, np.inf), np.ones(n)

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
        if not rows.any():
            return np.zeros_like(pending)
        gaps = self.gaps(taken.end_value)
        found = rows[:, None] & pending & (gaps <= 0.0)
        for level in np.flatnonzero(found.any(axis=0)).tolist():
            self._note(level, found[:, level], taken, gaps[:, level], np.ones_like(taken.value))
        near = rows[:, None] & pending & ~found & self._within_reach(taken, rows)
        return found | self._look_inside(taken, near) if near.any() else found

    def gaps(self, value: Array) -> Array:
        """J - ε, positive on the side of the level that a trajectory comes from, shape (n, levels)."""
        return self._problem.orientation * (value[:, None] - self._thresholds)

    def _within_reach(self, taken: TakenStep, rows: Array) -> Array:
        """Whether a turn of J inside the step could take it to a level, shape (n, levels).

        At a minimum J moves with the square of the step size, so a longer step than the last one reaches further.
        """
        growth = np.maximum(taken.step_size / self._step_size, 1.0) ** 2
        moved = np.abs(taken.end_value - taken.value)
        variation = np.maximum(moved, self._variation * growth)
        remembered = np.where(np.isfinite(variation), np.maximum(moved, 0.5 * variation), moved)
        self._variation = np.where(rows, remembered, self._variation)
        self._step_size = np.where(rows, taken.step_size, self._step_size)
        nearest = np.minimum(self.gaps(taken.value), self.gaps(taken.end_value))
        return nearest <= variation[:, None]

    def _look_inside(self, taken: TakenStep, near: Array) -> Array:
        """Search the step for dips, between points where J is lower than at their neighbours."""
        found = np.zeros_like(near)
        values_at = self._values_inside(taken)
        edge = self._problem.resolution ** (1 / 3)
        fractions = (0.0, edge, 1 / 3, 2 / 3, 1.0 - edge, 1.0)
        inside = values_at(*(np.full_like(taken.value, fraction) for fraction in fractions[1:-1]))
        values = np.stack([taken.value, *inside, taken.end_value])
        variation = np.abs(np.diff(values, axis=0)).sum(axis=0)
        # What was seen here says more about the steps to come than what J did before.
        self._variation = np.where(near.any(axis=-1) & np.isfinite(variation), variation, self._variation)
        gaps = [self.gaps(value) for value in values]
        for i, level in itertools.product(range(1, len(inside) + 1), range(near.shape[1])):
            left, middle, right = (gap[:, level] for gap in gaps[i - 1 : i + 2])
            wanted = near[:, level] & ~found[:, level] & (middle < left) & (middle <= right)
            if wanted.any():
                bracket = fractions[i - 1], fractions[i + 1]
                found[:, level] |= self._search(level, taken, values_at, bracket, (left, right), wanted)
        return found

    def _values_inside(self, taken: TakenStep) -> Callable[..., list[Array]]:
        """J on the dense output, as a function of any number of fractions of the step."""
        problem, step = self._problem, taken.step
        dense, start_time = self._solver.dense_output(step), problem.to_device(taken.start_time)

        def value_at(fraction: Tensor) -> Tensor:
            return problem.criterion(torch.addcmul(start_time, fraction, step.step_size), dense(fraction))

        return lambda *fractions: to_host(*(value_at(problem.to_device(fraction)) for fraction in fractions))

    def _search(
        self,
        level: int,
        taken: TakenStep,
        values_at: Callable[..., list[Array]],
        bracket: tuple[float, float],
        end_gaps: tuple[Array, Array],
        wanted: Array,
    ) -> Array:
        """Rows whose J dips to the level inside the bracket."""

        def gap(fraction: Array) -> Array:
            return self.gaps(values_at(fraction)[0])[:, level]

        fraction = dip_below_zero(gap, *bracket, *end_gaps, wanted)
        dipped = ~np.isnan(fraction)
        if dipped.any():
            fraction = np.where(dipped, fraction, 1.0)
            self._note(level, dipped, taken, gap(fraction), fraction)
        return dipped

    def _note(self, level: int, rows: Array, taken: TakenStep, end_gap: Array, end_fraction: Array) -> None:
        gap = self.gaps(taken.value)[:, level]
        new = Crossing(rows, taken.step, taken.index, taken.start_time, gap, end_gap, end_fraction)
        self.crossings[level] = _merge_crossings(self._problem, new, self.crossings[level])


def _merge_crossings(problem: StoppingProblem, new: Crossing, old: Crossing | None) -> Crossing:
    """``new`` in its rows, ``old`` elsewhere."""
    if old is None:
        return new
    names = ("index", "start_time", "gap", "end_gap", "end_fraction")
    merged = (np.where(new.rows, getattr(new, name), getattr(old, name)) for name in names)
    return Crossing(new.rows | old.rows, _merge_steps(problem, new.rows, new.step, old.step), *merged)


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
        stages=np.where(rows, new.stages, old.stages),
    )
