"""The forward solve: a batch of trajectories, each with its own steps, up to each one's last event.

The state lives on the device of x0 and in its dtype; times, step sizes and decisions live on the host in float64,
with one transfer per step.  Finished trajectories are masked out: they take steps of size zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.crossings import CrossingLog, TakenStep
from odestop.continuous.event import Event, locate_event
from odestop.continuous.problem import StoppingProblem, scatter, select, to_host
from odestop.continuous.rest import RestDetector
from odestop.continuous.step_record import StepRecord
from odestop.solvers import OneStepMethod, SpectralRadius, Step
from odestop.solvers.step_control import first_step_size, trial_step_size
from odestop.status import StoppingStatus

Array = np.ndarray

_RUNNING = -1
_SPECTRAL_RADIUS_EVERY = 8
_FIELD_TOLERANCE = 10.0
_ROUNDING = 100.0


@dataclass(frozen=True)
class SolveSettings:
    """How accurate, how far and how long a forward solve goes.

    The local error is held to the tolerances in two norms, and the larger counts.  The state norm is the usual root
    mean square of e / (atol + rtol |x|).  The field norm asks ρ‖e‖ ≤ 10 rtol ‖F(x_1)‖ (down to rounding): near a
    stationary point the event is decided by the small ∇f ~ √ε, and an error that is harmless beside x would drown it.

    Attributes
    ----------
    rtol, atol
        Local error allowed per step.
    t_max
        Horizon.
    max_steps
        Step attempts per trajectory.
    keep_every
        Keep the state of every m-th accepted step.
    """

    rtol: float
    atol: float
    t_max: float
    max_steps: int
    keep_every: int = 1


@dataclass(frozen=True)
class ForwardSolve:
    """Everything a gradient needs to know about the forward solve; nothing in it carries a graph.

    Attributes
    ----------
    steps
        Accepted steps, oldest first, without the ones that were cut short by a trajectory's last event.
    events
        One per level; None for a level that no trajectory reached.
    time
        T, shape (n, levels), +inf without an event.
    state
        x(T), or the last state, shape (*batch, levels, d).
    codes
        `StoppingStatus` codes, shape (n, levels).
    accepted, rejected
        Numbers of steps, shape (n,).
    settings
        What it was solved with.
    """

    steps: StepRecord
    events: list[Event | None]
    time: Array
    state: Tensor
    codes: Array
    accepted: Array
    rejected: Array
    settings: SolveSettings


def solve_forward(problem: StoppingProblem, solver: OneStepMethod, settings: SolveSettings) -> ForwardSolve:
    """Integrate every trajectory of ``problem`` until its last event, its horizon, or what keeps it from going on."""
    integration = _Integration(problem, solver, settings)
    integration.start()
    for _ in range(settings.max_steps):
        if not integration.active.any():
            break
        integration.attempt_step()
    integration.finish(integration.active, StoppingStatus.MAX_STEPS)
    return integration.result()


class _Integration:
    """Mutable state of `solve_forward`."""

    def __init__(self, problem: StoppingProblem, solver: OneStepMethod, settings: SolveSettings) -> None:
        self.problem, self.solver, self.settings = problem, solver, settings
        self.x = problem.initial_state.detach()
        (self.t,) = to_host(problem.t0)
        self.thresholds = np.stack(to_host(*problem.threshold.unbind(-1)), axis=-1)
        n = self.t.size
        self.codes = np.full(self.thresholds.shape, _RUNNING)
        self.log = CrossingLog(problem, solver, self.thresholds)
        self.steps = StepRecord(problem, solver, settings.keep_every)
        self.accepted, self.rejected = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.previous_error = np.ones(n)
        self.last_finite = np.ones(n, dtype=bool)
        # Far beyond any time scale, and still safe to multiply in the dtype of the state.
        self.largest_step = torch.finfo(self.x.dtype).max ** 0.5

    @property
    def pending(self) -> Array:
        """Levels without an answer yet, shape (n, levels)."""
        return self.codes == _RUNNING

    @property
    def active(self) -> Array:
        """Trajectories that still have such levels, shape (n,)."""
        return np.any(self.pending, axis=-1)

    def gaps(self) -> Array:
        """J - ε where every trajectory is, shape (n, levels)."""
        return self.value[:, None] - self.thresholds

    def finish(self, rows: Array, status: StoppingStatus) -> None:
        """Give the pending levels of ``rows``, shape (n,) or (n, levels), their status."""
        rows = rows if rows.ndim == 2 else rows[:, None]
        self.codes[rows & self.pending] = status.code

    def start(self) -> None:
        """Answer the trajectories that need no step, and choose the first step size of the others."""
        self.slope, value = self.problem.initial_slope, self.problem.initial_value
        finite = torch.isfinite(self.slope).all(-1) & torch.isfinite(value)
        self.value, start_finite = to_host(value, finite.to(value.dtype))
        self.finish(start_finite == 0, StoppingStatus.NON_FINITE)
        self.finish(self.problem.orientation * self.gaps() <= 0.0, StoppingStatus.ALREADY_SATISFIED)
        self.rest = RestDetector(self.problem, self.settings.atol, self.value)
        self.radius, self.evaluated_since = np.zeros_like(self.t), 0
        if self.solver.fixed_step_size is not None:
            self.h = np.full_like(self.t, self.solver.fixed_step_size)
        elif self.active.any():
            t = self.problem.to_device(self.t)
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
        return first_step_size(slope_size, curvature_size, trial, self.solver.error_order)

    def _scale(self, x: Tensor, end: Tensor) -> Tensor:
        return self.settings.atol + self.settings.rtol * torch.maximum(x.abs(), end.abs())

    def _cap(self) -> Array:
        """Largest step that keeps the stiffest mode decaying."""
        with np.errstate(divide="ignore"):
            return self.solver.stability_fraction * self.solver.stability_limit / self.radius

    def attempt_step(self) -> None:
        """Attempt one step in every running trajectory, and draw the consequences."""
        h, at_horizon = self._next_step()
        step, value_tensor = self._take(h)
        value, error, displacement, size = self._measure(step, value_tensor)
        acceptable = self.active & np.isfinite(value) & (error <= 1.0)
        taken = TakenStep(step, np.full(h.size, len(self.steps)), self.t, h, self.value, value)
        self.finish(self.log.look(taken, acceptable, self.pending), StoppingStatus.REACHED)
        going_on = acceptable & self.active
        self._adopt(step, h, value, going_on, at_horizon)
        gaps = np.where(self.pending, self.gaps(), np.inf)
        at_rest = self.rest.resting(going_on, self.x, self.value, gaps, displacement, size)
        self.finish(at_rest, StoppingStatus.STATIONARY)
        self._control(h, error, acceptable)
        self.last_finite = np.isfinite(error) & np.isfinite(value)

    def _next_step(self) -> tuple[Array, Array]:
        """Step sizes to attempt, zero for finished trajectories, and which of them end at the horizon."""
        wanted = np.minimum(np.minimum(self.h, self._cap()), self.largest_step)
        remaining = self.settings.t_max - self.t
        at_horizon = wanted >= remaining
        underflow = self.t + wanted <= self.t
        self.finish(underflow & self.last_finite, StoppingStatus.STEP_UNDERFLOW)
        self.finish(underflow, StoppingStatus.NON_FINITE)
        return self.problem.rounded(np.where(self.active, np.where(at_horizon, remaining, wanted), 0.0)), at_horizon

    def _take(self, h: Array) -> tuple[Step, Tensor]:
        """One step of every trajectory and J at its end; only the running ones are evaluated where that pays."""
        problem = self.problem
        t, h_tensor = problem.to_device(self.t), problem.to_device(h)
        stages = self.solver.stages_for(h, self.radius)
        if not problem.worth_selecting(self.active):
            step = self.solver.step(problem.field, t, self.x, h_tensor, self.slope, stages)
            return step, problem.criterion(t + h_tensor, step.end)
        rows = torch.from_numpy(np.flatnonzero(self.active)).to(self.x.device)
        t, h_rows = t.reshape(-1)[rows], h_tensor.reshape(-1)[rows]
        own = stages[self.active]
        part = self.solver.step(problem.field, t, select(self.x, rows), h_rows, select(self.slope, rows), own)
        still = torch.zeros_like(self.x)
        step = Step(
            start=self.x,
            end=scatter(part.end, rows, self.x),
            end_slope=scatter(part.end_slope, rows, self.slope),
            error=scatter(part.error, rows, still),
            step_size=h_tensor,
            slopes=tuple(scatter(slope, rows, still) for slope in part.slopes),
            stages=stages,
            slope_error=None if part.slope_error is None else scatter(part.slope_error, rows, still),
        )
        ends = problem.criterion(t + h_rows, part.end)
        return step, problem.to_device(self.value).reshape(-1).index_copy(0, rows, ends).reshape(problem.batch)

    def _measure(self, step: Step, value_tensor: Tensor) -> tuple[Array, Array, Array, Array]:
        """J at the end, error relative to the tolerances, distance from the mark, and size of the state."""
        norm = torch.linalg.vector_norm
        value, state_error, error, slope, size, displacement = to_host(
            value_tensor,
            _rms(step.error / self._scale(step.start, step.end)),
            norm(step.error if step.slope_error is None else step.slope_error, dim=-1),
            norm(step.end_slope, dim=-1),
            norm(step.end, dim=-1),
            norm(step.end - self.rest.mark, dim=-1),
        )
        noise = _ROUNDING * self.problem.resolution * self.radius * size
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            error = self.radius * error if step.slope_error is None else error
            field_error = error / (_FIELD_TOLERANCE * self.settings.rtol * slope + noise)
        field_error = np.where(error == 0.0, 0.0, field_error)
        total = np.where(np.isfinite(slope), np.maximum(state_error, field_error), np.nan)
        return value, total, displacement, size

    def _adopt(self, step: Step, h: Array, value: Array, rows: Array, at_horizon: Array) -> None:
        """Move the trajectories whose step was accepted and did not end them."""
        if not rows.any():
            return
        self.steps.append(self.x, self.t, np.where(rows, h, 0.0), step.stages)
        if rows.all():
            self.x, self.slope = step.end, step.end_slope
        else:
            mask = self.problem.row_mask(rows).unsqueeze(-1)
            self.x = torch.where(mask, step.end, self.x)
            self.slope = torch.where(mask, step.end_slope, self.slope)
        self.value = np.where(rows, value, self.value)
        self.t = np.where(rows, np.where(at_horizon, self.settings.t_max, self.t + h), self.t)
        self.accepted[rows] += 1
        self.finish(rows & at_horizon, StoppingStatus.HORIZON)
        self.evaluated_since += self.solver.evaluations(step.stages[rows])
        if self.evaluated_since >= _SPECTRAL_RADIUS_EVERY * self.solver.fewest_stages:
            self._update_radius()

    def _update_radius(self) -> None:
        """Refine the spectral radius where the trajectories are, for one evaluation."""
        if self.solver.fixed_step_size is None and self.active.any():
            self.spectral_radius.update(self.problem.to_device(self.t), self.x, self.slope)
            (self.radius,), self.evaluated_since = to_host(self.spectral_radius.value), 0

    def _control(self, h: Array, error: Array, accepted: Array) -> None:
        """Choose the next step size."""
        local_order = self.solver.error_order + 1
        factor = self.solver.controller.factor(error, self.previous_error, accepted, local_order)
        self.previous_error = np.where(accepted, np.maximum(error, 1e-4), self.previous_error)
        self.h = np.where(h > 0, h * factor, self.h)
        rejected = self.active & ~accepted
        self.rejected[rejected] += 1
        if self.solver.fixed_step_size is not None:
            # Only a non-finite step of a fixed size is ever rejected, and repeating it would not help.
            self.finish(rejected, StoppingStatus.NON_FINITE)

    def result(self) -> ForwardSolve:
        """Locate the events and collect the answers."""
        problem, codes = self.problem, self.codes
        time = np.full(codes.shape, np.inf)
        satisfied = codes == StoppingStatus.ALREADY_SATISFIED.code
        time[satisfied] = np.broadcast_to(to_host(problem.t0)[0][:, None], codes.shape)[satisfied]
        states: list[Tensor] = []
        events: list[Event | None] = []
        for level, crossing in enumerate(self.log.crossings):
            at_start = problem.row_mask(satisfied[:, level]).unsqueeze(-1)
            state, event = torch.where(at_start, problem.initial_state, self.x), None
            if crossing is not None:
                event = locate_event(problem, self.solver, crossing, level)
                time[event.rows, level] = event.time[event.rows]
                state = torch.where(problem.row_mask(event.rows).unsqueeze(-1), event.end, state)
                codes[event.tangential, level] = StoppingStatus.TANGENTIAL.code
            states.append(state.detach())
            events.append(event)
        return ForwardSolve(
            self.steps, events, time, torch.stack(states, dim=-2), codes, self.accepted, self.rejected, self.settings
        )


def _rms(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector, dim=-1) / vector.shape[-1] ** 0.5
