"""Where a trajectory crosses the threshold: found on the dense output, then settled on the re-taken last step.

Two stages, because the dense output is of lower order than the step.  The first brackets the crossing on the dense
output of the step that contains it.  The second re-takes that step itself with h' in place of h until J(x(t + h')) = ε
to rounding, so that the stopping time has the order of the method and an exact discrete derivative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.problem import StoppingProblem, broadcast_time, to_host
from odestop.continuous.root_finding import bracketed_root, dip_below_zero
from odestop.solvers import RungeKutta, Step

Array = np.ndarray

_DENSE_TOLERANCE = 1e-7
_SETTLING_ROUNDS = 10


@dataclass(frozen=True)
class Crossing:
    """The steps that contain the crossings, merged row by row over the batch.

    Attributes
    ----------
    step
        The step of each trajectory that crossed; the others' rows are placeholders of size zero.
    start_time
        t at the start of that step, shape (n,).
    value, end_value
        J - ε at the start of the step and at ``end_fraction`` of it.
    end_fraction
        Fraction of the step by which J had fallen to ε.
    """

    step: Step
    start_time: Array
    value: Array
    end_value: Array
    end_fraction: Array


@dataclass(frozen=True)
class Event:
    """The last, shortened step of each trajectory, which ends at J = ε.

    Attributes
    ----------
    start, end
        States at the start of the last step and at the event, shape (*batch, d).
    start_time, step_size
        t_k and h' = T - t_k, shape (n,).
    rate, relative_rate
        dJ/dt = ∇J·F at the event, and its size relative to the mean rate of fall over the last step, shape (n,).
    """

    start: Tensor
    end: Tensor
    start_time: Array
    step_size: Array
    rate: Array
    relative_rate: Array


def merge_steps(problem: StoppingProblem, rows: Array, new: Step, old: Step | None) -> Step:
    """``new`` in the given rows, ``old`` elsewhere."""
    if old is None or rows.all():
        return new
    mask = torch.from_numpy(rows).to(new.start.device).reshape(problem.batch)
    wide = mask.unsqueeze(-1)
    return Step(
        start=torch.where(wide, new.start, old.start),
        end=torch.where(wide, new.end, old.end),
        end_slope=torch.where(wide, new.end_slope, old.end_slope),
        error=new.error,
        step_size=torch.where(mask, new.step_size, old.step_size),
        slopes=tuple(torch.where(wide, a, b) for a, b in zip(new.slopes, old.slopes, strict=True)),
    )


def merge_crossings(problem: StoppingProblem, rows: Array, new: Crossing, old: Crossing | None) -> Crossing:
    """``new`` in the given rows, ``old`` elsewhere."""
    if old is None:
        return new
    return Crossing(
        merge_steps(problem, rows, new.step, old.step),
        *(
            np.where(rows, getattr(new, name), getattr(old, name))
            for name in ("start_time", "value", "end_value", "end_fraction")
        ),
    )


def find_dip(
    problem: StoppingProblem, solver: RungeKutta, step: Step, value: Array, end_value: Array, wanted: Array
) -> Array:
    """Fraction of ``step`` at which J is below ε although it is above at both ends; nan where it is not."""
    dense = solver.dense_output(step)

    def gap(fraction: Array) -> Array:
        return to_host(problem.criterion(dense(problem.to_device(fraction))) - problem.threshold)[0]

    return dip_below_zero(gap, value, end_value, wanted)


def locate_event(problem: StoppingProblem, solver: RungeKutta, crossing: Crossing, rows: Array) -> Event:
    """Locate the event of every trajectory in ``rows``; the other rows keep a step of size zero."""
    fraction = np.where(rows, _crossing_on_dense_output(problem, solver, crossing, rows), 0.0)
    (whole_step,) = to_host(crossing.step.step_size)
    event = _settle_on_retaken_step(problem, solver, crossing, fraction * whole_step, rows)
    rate = _criterion_rate(problem, event)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative_rate = np.abs(rate) * event.step_size / crossing.value
    return replace(event, rate=rate, relative_rate=relative_rate)


def _scaled_gap(value: Tensor, threshold: Tensor) -> Tensor:
    """J - ε, or log(J/ε) where that is defined: a decay is nearly linear in the logarithm."""
    positive = (value > 0) & (threshold > 0)
    ratio = torch.where(positive, value / torch.where(positive, threshold, torch.ones_like(threshold)), 1.0)
    return torch.where(positive, torch.log(ratio), value - threshold)


def _crossing_on_dense_output(
    problem: StoppingProblem, solver: RungeKutta, crossing: Crossing, rows: Array
) -> Array:
    dense = solver.dense_output(crossing.step)

    def gap(fraction: Array) -> Array:
        value = problem.criterion(dense(problem.to_device(fraction)))
        return np.where(rows, to_host(_scaled_gap(value, problem.threshold))[0], 0.0)

    low, high = np.zeros_like(crossing.end_fraction), crossing.end_fraction
    return bracketed_root(gap, low, high, gap(low), gap(high), _DENSE_TOLERANCE)


def _settle_on_retaken_step(
    problem: StoppingProblem, solver: RungeKutta, crossing: Crossing, step_size: Array, rows: Array
) -> Event:
    """Secant iteration on h', kept inside the bracket, until J = ε to rounding or no further progress."""
    step, start_time = crossing.step, problem.to_device(crossing.start_time)

    def retake(h: Array) -> tuple[Tensor, Array]:
        end, _ = solver.advance(problem.field, start_time, step.start, problem.to_device(h), step.slopes[0])
        (gap,) = to_host(_scaled_gap(problem.criterion(end), problem.threshold))
        return end, np.where(rows, gap, 0.0)

    dense = solver.dense_output(step)
    low, high = np.zeros_like(step_size), step_size * 0 + to_host(step.step_size)[0] * crossing.end_fraction
    h = problem.rounded(step_size)
    end, gap = retake(h)
    best_h, best_gap, best_end = h, np.abs(gap), end
    slope = _slope_on_dense_output(problem, dense, h, to_host(step.step_size)[0])
    for _ in range(_SETTLING_ROUNDS):
        low, high = np.where(gap > 0, h, low), np.where(gap > 0, high, h)
        with np.errstate(divide="ignore", invalid="ignore"):
            proposal = h - gap / slope
        inside = (proposal >= low) & (proposal <= high)
        proposal = problem.rounded(np.where(inside, proposal, 0.5 * (low + high)))
        if np.all((proposal == h) | (best_gap <= problem.resolution) | ~rows):
            break
        previous_h, previous_gap = h, gap
        h = proposal
        end, gap = retake(h)
        better = rows & (np.abs(gap) < best_gap)
        best_end = torch.where(_row_mask(problem, better), end, best_end)
        best_h, best_gap = np.where(better, h, best_h), np.where(better, np.abs(gap), best_gap)
        with np.errstate(divide="ignore", invalid="ignore"):
            secant = (gap - previous_gap) / (h - previous_h)
        informative = np.abs(gap - previous_gap) > 1e4 * problem.resolution
        slope = np.where(informative & np.isfinite(secant), secant, slope)
    nothing = np.zeros_like(best_h)
    return Event(step.start, best_end, crossing.start_time, best_h, rate=nothing, relative_rate=nothing)


def _row_mask(problem: StoppingProblem, rows: Array) -> Tensor:
    return torch.from_numpy(rows).to(problem.initial_state.device).reshape((*problem.batch, 1))


def _slope_on_dense_output(problem: StoppingProblem, dense: object, h: Array, whole_step: Array) -> Array:
    """d(scaled gap)/dh by a one-sided difference along the dense output."""
    whole = np.where(whole_step > 0, whole_step, 1.0)
    fraction = h / whole
    width = problem.resolution**0.5

    def gap(at: Array) -> Array:
        state = dense(problem.to_device(at))  # type: ignore[operator]
        return to_host(_scaled_gap(problem.criterion(state), problem.threshold))[0]

    return (gap(fraction) - gap(fraction - width)) / (width * whole)


def _criterion_rate(problem: StoppingProblem, event: Event) -> Array:
    """∇J·F at the event; nan for a criterion that carries no gradient."""
    slope = problem.field(problem.to_device(event.start_time + event.step_size), event.end)
    if not problem.criterion.tracks_state:
        return np.full_like(event.step_size, np.nan)
    state = event.end.detach().requires_grad_()
    value = problem.criterion.with_graph(state)
    (gradient,) = torch.autograd.grad(value, state, torch.ones_like(value))
    return to_host((gradient * slope).sum(-1))[0]
