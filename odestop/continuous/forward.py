"""The forward solve: a batch of trajectories, each with its own steps, up to each one's last event.

The state lives on the device of x0 and in its dtype; times, step sizes and decisions live on the host in float64,
with one transfer per step.  Finished trajectories are masked out: they take steps of size zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.approach import Approach
from odestop.continuous.attempt import Attempt, root_mean_square
from odestop.continuous.crossings import CrossingLog, TakenStep
from odestop.continuous.event import Event, locate_event
from odestop.continuous.problem import StoppingProblem, scatter, select, to_host
from odestop.continuous.rest import RestDetector
from odestop.continuous.step_record import StepRecord
from odestop.solvers import Automatic, OneStepMethod, SpectralRadius, Step
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
    compile
        Compile the steps.
    """

    rtol: float
    atol: float
    t_max: float
    max_steps: int
    keep_every: int = 1
    compile: bool = False


@dataclass(frozen=True)
class ForwardSolve:
    """Everything a gradient needs to know about the forward solve; nothing in it carries a graph.

    Attributes
    ----------
    solver
        The method of all steps.
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

    solver: OneStepMethod
    steps: StepRecord
    events: list[Event | None]
    time: Array
    state: Tensor
    codes: Array
    accepted: Array
    rejected: Array
    settings: SolveSettings


def solve_forward(problem: StoppingProblem, method: OneStepMethod | Automatic, settings: SolveSettings) -> ForwardSolve:
    """Integrate every trajectory of ``problem`` until its last event, its horizon, or what keeps it from going on."""
    choice = method if isinstance(method, Automatic) else None
    integration = _Integration(problem, method.mild if isinstance(method, Automatic) else method, settings)
    integration.start()
    for _ in range(settings.max_steps):
        if not integration.active.any():
            break
        integration.attempt_step()
        if choice is not None and integration.favours_stiff(choice):
            return solve_forward(problem, choice.stiff, settings)
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
        # Levels without an answer yet, and the trajectories that have such levels; only `finish` changes them.
        self.pending: Array = np.ones_like(self.codes, dtype=bool)
        self.active: Array = np.ones(n, dtype=bool)
        self.attempt = Attempt(problem, solver, settings.rtol, settings.atol, settings.compile)
        self.log = CrossingLog(problem, solver, self.thresholds)
        self.approach = Approach(self.thresholds)
        self.steps = StepRecord(problem, solver, settings.keep_every)
        self.accepted, self.rejected = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.previous_error, self.last_error = np.ones(n), np.zeros(n)
        # Far beyond any time scale, and still safe to multiply in the dtype of the state.
        self.largest_step = torch.finfo(self.x.dtype).max ** 0.5

    def finish(self, rows: Array, status: StoppingStatus) -> None:
        """Give the pending levels of ``rows``, shape (n,) or (n, levels), their status."""
        if not rows.any():
            return
        rows = rows if rows.ndim == 2 else rows[:, None]
        self.codes[rows & self.pending] = status.code
        self.pending = self.codes == _RUNNING
        self.active = np.any(self.pending, axis=-1)

    def start(self) -> None:
        """Answer the trajectories that need no step, and choose the first step size of the others."""
        self.slope, value = self.problem.initial_slope, self.problem.initial_value
        finite = torch.isfinite(self.slope).all(-1) & torch.isfinite(value)
        self.value, start_finite = to_host(value, finite.to(value.dtype))
        self.finish(start_finite == 0, StoppingStatus.NON_FINITE)
        self.finish(self.log.gaps(self.value) <= 0.0, StoppingStatus.ALREADY_SATISFIED)
        self.rest = RestDetector(self.problem, self.settings.atol, self.thresholds, self.value)
        self.know_radius(np.zeros_like(self.t))
        if self.solver.fixed_step_size is not None:
            self.h = np.where(self.active, self.solver.fixed_step_size, 0.0)
        elif self.active.any():
            t = self.problem.to_device(self.t)
            self.spectral_radius = SpectralRadius(self.problem.field, t, self.x, self.slope)
            self.know_radius(*to_host(self.spectral_radius.value))
            self.h = self._first_step(t)

    def know_radius(self, radius: Array) -> None:
        """Note the spectral radius, with the largest step that it allows and the rounding of F beside ‖x‖."""
        self.radius, self.evaluated_since = radius, 0
        with np.errstate(divide="ignore"):
            cap = self.solver.stability_fraction * self.solver.stability_limit / radius
        self.longest = np.minimum(cap, self.largest_step)
        self.noise = _ROUNDING * self.problem.resolution * radius

    def _first_step(self, t: Tensor) -> Array:
        scale = self.settings.atol + self.settings.rtol * self.x.abs()
        state_size, slope_size = to_host(root_mean_square(self.x / scale), root_mean_square(self.slope / scale))
        trial = np.minimum(trial_step_size(state_size, slope_size), self.longest)
        h = self.problem.to_device(np.where(self.active, trial, 0.0))
        ahead = torch.addcmul(self.x, h.unsqueeze(-1), self.slope)
        change = (self.problem.field(t + h, ahead) - self.slope) / scale
        curvature_size = to_host(root_mean_square(change))[0] / trial
        first = first_step_size(slope_size, curvature_size, trial, self.solver.error_order)
        return np.where(self.active, first, 0.0)

    def attempt_step(self) -> None:
        """Attempt one step in every running trajectory, and draw the consequences."""
        h, at_horizon = self._next_step()
        step, measured = self._take(h)
        value, _, _, _, size, displacement = measured
        error = self._relative_error(step, measured)
        acceptable = self.active & (error <= 1.0)
        self.approach.expect(acceptable, self.t, h, self.value, value)
        acceptable &= ~self._is_too_fast(h, value)
        taken = TakenStep(step, np.full(h.size, len(self.steps)), self.t, h, self.value, value)
        self.finish(self.log.look(taken, acceptable, self.pending), StoppingStatus.REACHED)
        going_on = acceptable & self.active
        self._adopt(step, h, value, going_on, at_horizon)
        at_rest = self.rest.resting(going_on, self.x, self.value, self.pending, displacement, size)
        self.finish(at_rest, StoppingStatus.STATIONARY)
        self._control(h, error, acceptable)

    def _next_step(self) -> tuple[Array, Array]:
        """Step sizes to attempt, zero for finished trajectories, and which of them end at the horizon."""
        wanted = np.minimum(self.h, self.longest)
        wanted = np.minimum(wanted, self.approach.longest_step(self.t, self.radius, self.pending))
        underflow = self.active & (self.t + wanted <= self.t)
        if underflow.any():
            self.finish(underflow & np.isfinite(self.last_error), StoppingStatus.STEP_UNDERFLOW)
            self.finish(underflow, StoppingStatus.NON_FINITE)
            wanted = np.where(underflow, 0.0, wanted)
        remaining = self.settings.t_max - self.t
        return self.problem.rounded(np.minimum(wanted, remaining)), wanted >= remaining

    def _is_too_fast(self, h: Array, value: Array) -> Array:
        """Rows that a long step takes to a level, because J moved faster than expected."""
        long = self.approach.is_too_fast(h, self.radius)
        if not long.any():
            return long
        crosses = self.pending & (self.log.gaps(value) <= 0.0)
        return crosses.any(axis=-1) & long

    def _take(self, h: Array) -> tuple[Step, list[Array]]:
        """One step of every trajectory, with its numbers (see `Attempt`); only of running ones where that pays."""
        problem = self.problem
        t, h_tensor = problem.to_device(self.t), problem.to_device(h)
        stages = self.solver.stages_for(h, self.radius)
        if self.settings.compile or not problem.worth_selecting(self.active):
            return self.attempt(t, self.x, h_tensor, self.slope, self.rest.mark, stages)
        rows = torch.from_numpy(np.flatnonzero(self.active)).to(self.x.device)
        x, slope, mark = (select(states, rows) for states in (self.x, self.slope, self.rest.mark))
        t, h_rows = t.reshape(-1)[rows], h_tensor.reshape(-1)[rows]
        part, measured = self.attempt(t, x, h_rows, slope, mark, stages[self.active])
        return self._scattered(part, rows, h_tensor, stages), self._spread(measured)

    def _scattered(self, part: Step, rows: Tensor, step_size: Tensor, stages: Array) -> Step:
        """The step of all trajectories, of which ``part`` are the running ones, with the flat indices ``rows``."""
        still = torch.zeros_like(self.x)
        return Step(
            start=self.x,
            end=scatter(part.end, rows, self.x),
            end_slope=scatter(part.end_slope, rows, self.slope),
            error=scatter(part.error, rows, still),
            step_size=step_size,
            slopes=tuple(scatter(slope, rows, still) for slope in part.slopes),
            stages=stages,
            slope_error=None if part.slope_error is None else scatter(part.slope_error, rows, still),
        )

    def _spread(self, measured: list[Array]) -> list[Array]:
        """Numbers of the running trajectories, with zeros for the others."""
        spread = np.zeros((len(measured), self.active.size))
        spread[:, self.active] = measured
        return list(spread)

    def _relative_error(self, step: Step, measured: list[Array]) -> Array:
        """The local error in the norm in which it counts more, relative to what is allowed; nan for a failed step."""
        value, state_error, error, slope, size, _ = measured
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            error = self.radius * error if step.slope_error is None else error
            field_error = error / (_FIELD_TOLERANCE * self.settings.rtol * slope + self.noise * size)
            finite = np.isfinite(value + slope)
        field_error = np.where(error == 0.0, 0.0, field_error)
        return np.where(finite, np.maximum(state_error, field_error), np.nan)

    def _adopt(self, step: Step, h: Array, value: Array, rows: Array, at_horizon: Array) -> None:
        """Move the trajectories whose step was accepted and did not end them."""
        moving = np.count_nonzero(rows)
        if moving == 0:
            return
        start, start_time = self.x, self.t
        end_time = np.where(at_horizon, self.settings.t_max, self.t + h)
        if moving == rows.size:
            self.x, self.slope, self.value, self.t = step.end, step.end_slope, value, end_time
        else:
            mask = self.problem.row_mask(rows).unsqueeze(-1)
            self.x = torch.where(mask, step.end, self.x)
            self.slope = torch.where(mask, step.end_slope, self.slope)
            self.value, self.t, h = np.where(rows, [value, end_time, h], [self.value, self.t, np.zeros_like(h)])
        self.steps.append(start, start_time, h, step.stages)
        self.accepted += rows
        self.finish(rows & at_horizon, StoppingStatus.HORIZON)
        self.evaluated_since += self.solver.evaluations(step.stages[rows])
        if self.evaluated_since >= _SPECTRAL_RADIUS_EVERY * self.solver.fewest_stages:
            self._update_radius()

    def _update_radius(self) -> None:
        """Refine the spectral radius where the trajectories are, for one evaluation."""
        if self.solver.fixed_step_size is None and self.active.any():
            self.spectral_radius.update(self.problem.to_device(self.t), self.x, self.slope)
            self.know_radius(*to_host(self.spectral_radius.value))

    def _control(self, h: Array, error: Array, accepted: Array) -> None:
        """Choose the next step size."""
        local_order = self.solver.error_order + 1
        factor = self.solver.controller.factor(error, self.previous_error, accepted, local_order)
        self.previous_error, self.last_error = np.where(accepted, np.maximum(error, 1e-4), self.previous_error), error
        self.h = np.where(self.active, h * factor, 0.0)
        rejected = self.active & ~accepted
        self.rejected += rejected
        if self.solver.fixed_step_size is not None:
            # Only a non-finite step of a fixed size is ever rejected, and repeating it would not help.
            self.finish(rejected, StoppingStatus.NON_FINITE)

    def favours_stiff(self, choice: Automatic) -> bool:
        """Whether the steps so far show that the stiff method of the two is the better choice."""
        if not self.active.any() or self.accepted.max() < choice.first_look:
            return False
        (start,) = to_host(self.problem.t0)
        rows = self.active
        left = self.approach.time_left(self.t)
        farthest = np.where(self.pending & np.isfinite(left), left, 0.0).max(axis=-1)
        elapsed, remaining = self.t - start, np.minimum(farthest, self.settings.t_max - self.t)
        return choice.prefers_stiff(elapsed[rows], remaining[rows], self.h[rows], self.radius[rows])

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
            self.solver,
            self.steps,
            events,
            time,
            torch.stack(states, dim=-2),
            codes,
            self.accepted,
            self.rejected,
            self.settings,
        )
