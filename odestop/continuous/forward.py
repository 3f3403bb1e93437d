"""The forward solve: a batch of trajectories, each with its own steps, up to each one's event.

The state lives on the device of x0 and in its dtype; times, step sizes and decisions live on the host in float64,
with one transfer per step.  Finished trajectories are masked out: they take steps of size zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.event import (
    Crossing,
    Event,
    find_dip,
    locate_event,
    merge_crossings,
    merge_steps,
)
from odestop.continuous.problem import StoppingProblem, to_host
from odestop.solvers import RungeKutta, SpectralRadius, Step
from odestop.solvers.step_control import first_step_size, trial_step_size
from odestop.status import StoppingStatus

Array = np.ndarray

_RUNNING = -1
_SPECTRAL_RADIUS_EVERY = 8
_FIELD_TOLERANCE = 10.0
_ROUNDING = 100.0
_IDLE_STEPS = 50


@dataclass(frozen=True)
class Tolerances:
    """Local error allowed per step.

    Two norms, and the larger counts.  The state norm is the usual root mean square of e / (atol + rtol |x|).  The field
    norm asks ρ‖e‖ ≤ 10 rtol ‖F(x_1)‖ (down to rounding): near a stationary point the event is decided by the small
    ∇f ~ √ε, and an error that is harmless beside x would drown it.
    """

    rtol: float
    atol: float


@dataclass
class AcceptedStep:
    """One accepted step of the batch: rows that did not accept it have size zero."""

    state: Tensor
    start_time: Array
    step_size: Array


@dataclass(frozen=True)
class ForwardSolve:
    """Everything a gradient needs to know about the forward solve; nothing in it carries a graph.

    Attributes
    ----------
    steps
        Accepted steps, oldest first, without each trajectory's last one.
    event
        The last step of each trajectory that reached its event; None if none did.
    time
        T, shape (n,), +inf without an event.
    state
        x(T), or the last state, shape (*batch, d).
    codes
        `StoppingStatus` codes, shape (n,).
    spectral_radius
        Last estimate of the spectral radius of ∂F/∂x, shape (n,).
    """

    steps: list[AcceptedStep]
    event: Event | None
    time: Array
    state: Tensor
    codes: Array
    accepted: Array
    rejected: Array
    spectral_radius: Array


def solve_forward(
    problem: StoppingProblem, solver: RungeKutta, tolerances: Tolerances, t_max: float, max_steps: int
) -> ForwardSolve:
    """Integrate every trajectory of ``problem`` until its event, its horizon, or the reason it cannot go on."""
    integration = _Integration(problem, solver, tolerances, t_max)
    integration.start()
    for _ in range(max_steps):
        if not integration.active.any():
            break
        integration.attempt_step()
    integration.finish(integration.active, StoppingStatus.MAX_STEPS)
    return integration.result()


class _Integration:
    """Mutable state of `solve_forward`."""

    def __init__(
        self, problem: StoppingProblem, solver: RungeKutta, tolerances: Tolerances, t_max: float
    ) -> None:
        self.problem, self.solver, self.tolerances, self.t_max = problem, solver, tolerances, t_max
        self.x = problem.initial_state.detach()
        (self.t,) = to_host(problem.t0)
        (self.threshold,) = to_host(problem.threshold)
        n = self.t.size
        self.codes = np.full(n, _RUNNING)
        self.accepted, self.rejected = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.steps: list[AcceptedStep] = []
        self.crossing: Crossing | None = None
        self.last_step: Step | None = None
        self.last_record = np.full(n, -1)
        self.last_value = np.full(n, np.nan)
        self.previous_error = np.ones(n)
        self.last_finite = np.ones(n, dtype=bool)
        self.radius = np.zeros(n)
        # Far beyond any time scale, and still safe to multiply in the dtype of the state.
        self.largest_step = torch.finfo(self.x.dtype).max ** 0.5
        self.radius_due = 0

    @property
    def active(self) -> Array:
        return self.codes == _RUNNING

    def finish(self, rows: Array, status: StoppingStatus) -> None:
        self.codes[rows & self.active] = status.code

    def start(self) -> None:
        """Evaluate F and J at x0, answer the trajectories that need no step, and choose the first step size."""
        t = self.problem.to_device(self.t)
        self.slope, value = self.problem.initial_slope, self.problem.initial_value
        finite = torch.isfinite(self.slope).all(-1) & torch.isfinite(value)
        self.value, start_finite = to_host(value, finite.to(value.dtype))
        self.finish(start_finite == 0, StoppingStatus.NON_FINITE)
        self.finish(self.value <= self.threshold, StoppingStatus.ALREADY_SATISFIED)
        self.finish(self.t >= self.t_max, StoppingStatus.HORIZON)
        self.mark = self.x
        self.mark_value, self.idle = self.value.copy(), np.zeros_like(self.accepted)
        if self.active.any():
            self.spectral_radius = SpectralRadius(self.problem.field, t, self.x, self.slope)
            (self.radius,) = to_host(self.spectral_radius.value)
            self.h = self._first_step(t)

    def _first_step(self, t: Tensor) -> Array:
        scale = self._scale(self.x, self.x)
        state_size, slope_size = to_host(_rms(self.x / scale), _rms(self.slope / scale))
        trial = np.minimum(trial_step_size(state_size, slope_size), self._cap())
        h = self.problem.to_device(np.where(self.active, trial, 0.0))
        ahead = torch.addcmul(self.x, h.unsqueeze(-1), self.slope)
        change = (self.problem.field(t + h, ahead) - self.slope) / scale
        curvature_size = to_host(_rms(change))[0] / trial
        return first_step_size(state_size, slope_size, curvature_size, trial, self.solver.tableau.error_order)

    def _scale(self, x: Tensor, end: Tensor) -> Tensor:
        return self.tolerances.atol + self.tolerances.rtol * torch.maximum(x.abs(), end.abs())

    def _cap(self) -> Array:
        """Largest step that keeps the stiffest mode decaying."""
        with np.errstate(divide="ignore"):
            return self.solver.stability_fraction * self.solver.tableau.stability_limit / self.radius

    def attempt_step(self) -> None:
        """Attempt one step in every running trajectory, and draw the consequences."""
        remaining = self.t_max - self.t
        wanted = np.minimum(np.minimum(self.h, self._cap()), self.largest_step)
        clipped = wanted >= remaining
        underflow = self.t + wanted <= self.t
        self.finish(underflow & self.last_finite, StoppingStatus.STEP_UNDERFLOW)
        self.finish(underflow, StoppingStatus.NON_FINITE)
        h = self.problem.rounded(np.where(self.active, np.where(clipped, remaining, wanted), 0.0))
        step = self.solver.step(
            self.problem.field,
            self.problem.to_device(self.t),
            self.x,
            self.problem.to_device(h),
            self.slope,
        )
        value, error, displacement, size = self._measure(step)
        acceptable = self.active & np.isfinite(value) & (error <= 1.0)
        crossed = acceptable & (value <= self.threshold)
        if crossed.any():
            self._note_crossing(
                crossed, step, self.t, self.value, np.where(crossed, value, 0.0), np.ones_like(h)
            )
        dipped = self._look_for_dips(step, h, value, acceptable & ~crossed)
        self._adopt(step, h, value, acceptable & ~crossed & ~dipped, clipped)
        self._rest(displacement, size, acceptable)
        self._control(h, error, acceptable)
        self.last_finite = np.isfinite(error) & np.isfinite(value)

    def _measure(self, step: Step) -> tuple[Array, Array, Array, Array]:
        """J at the end, error relative to the tolerances, distance from the mark, and size of the state."""
        norm = torch.linalg.vector_norm
        value, state_error, error, slope, size, displacement = to_host(
            self.problem.criterion(step.end),
            _rms(step.error / self._scale(step.start, step.end)),
            norm(step.error, dim=-1),
            norm(step.end_slope, dim=-1),
            norm(step.end, dim=-1),
            norm(step.end - self.mark, dim=-1),
        )
        noise = _ROUNDING * self.problem.resolution * self.radius * size
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            field_error = self.radius * error / (_FIELD_TOLERANCE * self.tolerances.rtol * slope + noise)
        field_error = np.where(self.radius * error == 0.0, 0.0, field_error)
        total = np.where(np.isfinite(slope), np.maximum(state_error, field_error), np.nan)
        return value, total, displacement, size

    def _note_crossing(
        self, rows: Array, step: Step, start_time: Array, value: Array, end_value: Array, end_fraction: Array
    ) -> None:
        gap, end_gap = value - self.threshold, end_value - self.threshold
        new = Crossing(step, start_time.copy(), gap, end_gap, end_fraction)
        self.crossing = merge_crossings(self.problem, rows, new, self.crossing)
        self.finish(rows, StoppingStatus.REACHED)

    def _look_for_dips(self, step: Step, h: Array, value: Array, rows: Array) -> Array:
        """Crossings between the ends of steps: J fell before and rises now, so its minimum lies in between.

        The minimum is in the step before or in this one; both are searched on their dense output.
        """
        fell = np.isnan(self.last_value) | (self.last_value >= self.value)
        lowest = self.value - self.threshold
        reach = np.fmax(np.nan_to_num(self.last_value, nan=-np.inf), value) - self.value
        turned = rows & fell & (value > self.value) & (lowest <= reach)
        dipped = np.zeros_like(rows)
        if not turned.any():
            return dipped
        if self.last_step is not None and (turned & (self.last_record >= 0)).any():
            wanted = turned & (self.last_record >= 0)
            before = self._search_step(self.last_step, self.last_value, self.value, wanted)
            dipped |= ~np.isnan(before)
            self._rewind(dipped, before)
        here = self._search_step(step, self.value, value, turned & ~dipped)
        in_this_step = ~np.isnan(here)
        if in_this_step.any():
            self._note_crossing(
                in_this_step, step, self.t, self.value, self.threshold, np.where(in_this_step, here, 1.0)
            )
        return dipped | in_this_step

    def _search_step(self, step: Step, value: Array, end_value: Array, rows: Array) -> Array:
        gap, end_gap = value - self.threshold, end_value - self.threshold
        return find_dip(self.problem, self.solver, step, gap, end_gap, rows)

    def _rewind(self, rows: Array, fraction: Array) -> None:
        """Turn the last accepted step of ``rows`` into the step with the crossing."""
        if not rows.any() or self.last_step is None:
            return
        start_time = self.t.copy()
        for row in np.flatnonzero(rows):
            record = self.steps[self.last_record[row]]
            start_time[row] = record.start_time[row]
            record.step_size[row] = 0.0
            self.accepted[row] -= 1
        end_fraction = np.where(rows, fraction, 1.0)
        self._note_crossing(rows, self.last_step, start_time, self.last_value, self.threshold, end_fraction)

    def _adopt(self, step: Step, h: Array, value: Array, rows: Array, clipped: Array) -> None:
        """Move the trajectories whose step was accepted and did not end them."""
        if not rows.any():
            return
        self.steps.append(AcceptedStep(self.x, self.t.copy(), np.where(rows, h, 0.0)))
        self.last_step = merge_steps(self.problem, rows, step, self.last_step)
        if rows.all():
            self.x, self.slope = step.end, step.end_slope
        else:
            mask = torch.from_numpy(rows).to(self.x.device).reshape((*self.problem.batch, 1))
            self.x = torch.where(mask, step.end, self.x)
            self.slope = torch.where(mask, step.end_slope, self.slope)
        self.last_record[rows] = len(self.steps) - 1
        self.last_value = np.where(rows, self.value, self.last_value)
        self.value = np.where(rows, value, self.value)
        self.t = np.where(rows, np.where(clipped, self.t_max, self.t + h), self.t)
        self.accepted[rows] += 1
        self.finish(rows & clipped, StoppingStatus.HORIZON)
        self._refresh_spectral_radius()

    def _refresh_spectral_radius(self) -> None:
        self.radius_due += 1
        if self.radius_due % _SPECTRAL_RADIUS_EVERY == 0 and self.active.any():
            self.spectral_radius.update(self.problem.to_device(self.t), self.x, self.slope)
            (self.radius,) = to_host(self.spectral_radius.value)

    def _rest(self, displacement: Array, size: Array, accepted: Array) -> None:
        """Declare trajectories stationary that have not left the mark for many accepted steps.

        Left means: moved by more than rounding, and by more than atol unless J still falls towards the threshold.
        """
        root_d = self.x.shape[-1] ** 0.5
        still = displacement <= _ROUNDING * self.problem.resolution * size
        falling = self.mark_value - self.value > 1e-8 * (self.value - self.threshold)
        resting = still | ((displacement <= self.tolerances.atol * root_d) & ~falling)
        self.idle = np.where(accepted, np.where(resting, self.idle + 1, 0), self.idle)
        left = accepted & ~resting
        if left.all():
            self.mark = self.x
        elif left.any():
            mask = torch.from_numpy(left).to(self.x.device).reshape((*self.problem.batch, 1))
            self.mark = torch.where(mask, self.x, self.mark)
        self.mark_value = np.where(left, self.value, self.mark_value)
        self.finish(self.idle >= _IDLE_STEPS, StoppingStatus.STATIONARY)

    def _control(self, h: Array, error: Array, accepted: Array) -> None:
        """Choose the next step size."""
        local_order = self.solver.tableau.error_order + 1
        factor = self.solver.controller.factor(error, self.previous_error, accepted, local_order)
        self.previous_error = np.where(accepted, np.maximum(error, 1e-4), self.previous_error)
        self.h = np.where(h > 0, h * factor, self.h)
        self.rejected[self.active & ~accepted] += 1

    def result(self) -> ForwardSolve:
        time = np.full_like(self.t, np.inf)
        state, event = self.x, None
        satisfied = self.codes == StoppingStatus.ALREADY_SATISFIED.code
        (start_time,) = to_host(self.problem.t0)
        time[satisfied] = start_time[satisfied]
        reached = self.codes == StoppingStatus.REACHED.code
        if self.crossing is not None:
            event = locate_event(self.problem, self.solver, self.crossing, reached)
            time[reached] = (event.start_time + event.step_size)[reached]
            mask = torch.from_numpy(reached).to(state.device).reshape((*self.problem.batch, 1))
            state = torch.where(mask, event.end, state)
            tangential = reached & (event.relative_rate <= self.problem.resolution**0.5)
            self.codes[tangential] = StoppingStatus.TANGENTIAL.code
        return ForwardSolve(
            self.steps, event, time, state, self.codes, self.accepted, self.rejected, self.radius
        )


def _rms(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector, dim=-1) / vector.shape[-1] ** 0.5
