"""x(t) between the steps of a finished solve, rebuilt from its record when somebody looks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.forward import ForwardSolve
from odestop.continuous.problem import StoppingProblem
from odestop.solvers import DenseOutput, HermiteOutput, OneStepMethod

Array = np.ndarray

_WINDOW = 4
_ROUNDING = 16.0


class DenseTrajectory:
    """The solution x(t) on [t0, T], for plots and for whoever integrates along it; not differentiable.

    It is the dense output of the accepted steps and of the last step, which ends at the event: exact at the ends of
    the steps and of the order of the method's dense output between them.  A trajectory with a level it never reached
    ends where its solve gave up.

    * Cost: looking at a step evaluates the dynamics as often as taking it did, plus once; nothing is evaluated before
      somebody looks, and ``stats.nfe`` does not count it.
    * Memory: the states at the starts of the steps, which live as long as this object does.

    Examples
    --------
    >>> import torch, odestop
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -x, torch.ones(1, dtype=torch.float64), lambda x: x[..., 0], 0.1
    ... )
    >>> t = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    >>> x = solution.trajectory(t)
    >>> x.shape, torch.allclose(x[:, 0], torch.exp(-t), rtol=1e-5)
    (torch.Size([3, 1]), True)
    """

    def __init__(self, problem: StoppingProblem, solver: OneStepMethod, solve: ForwardSolve) -> None:
        self._problem, self._solver, self._solve = problem, solver, solve
        self._versions = self._parameter_versions()

    def __call__(self, t: Tensor) -> Tensor:
        """State at the given times, the same for every trajectory.

        Parameters
        ----------
        t
            Times, shape (m,), in any order.

        Returns
        -------
        Tensor
            Shape (m, *batch, d), the whole state where the dynamics has a hidden one.  A trajectory of a batch rests
            at x0 before its own t0, and at its last state after its own T.

        Raises
        ------
        ValueError
            For times before the first t0 or after the last T.
        RuntimeError
            If parameters of the dynamics were changed in place since the solve: the steps could not be rebuilt.
        """
        if not isinstance(t, Tensor) or t.ndim != 1:
            raise ValueError(f"t must be a tensor of shape (m,), got {_described(t)}")
        if self._parameter_versions() != self._versions:
            raise RuntimeError("parameters of the dynamics were changed in place since the solve; look before, or copy")
        times = t.detach().cpu().double().numpy()
        self._check_range(times)
        states = torch.empty(len(times), *self._problem.initial_state.shape).to(self._problem.initial_state)
        window = TrajectoryWindow(self)
        # From late to early, so that each step is rebuilt once.
        for position in np.argsort(-times):
            states[position] = window(np.clip(times[position], self.start_times, self.end_times))
        return states

    @property
    def times(self) -> Tensor | list[Tensor]:
        """t0, the ends of the accepted steps, and T: one tensor, or for a batch a list of them, one per trajectory."""
        record = self._record
        rows = []
        for row in range(self.start_times.size):
            starts = record.start_time[record.step_size[:, row] > 0, row]
            known = np.concatenate([starts, self.end_times[row : row + 1]])
            rows.append(torch.from_numpy(known).to(self._problem.initial_state))
        return rows if self._problem.batch else rows[0]

    @property
    def states(self) -> Tensor | list[Tensor]:
        """The states at `times`, shape (len(times), d), or a list of them; nothing is evaluated for them."""
        record, latest = self._record, self._solve.time.argmax(axis=1)
        size = self._problem.initial_state.shape[-1]
        starts = torch.stack([*(step.state for step in self._solve.steps), record.last_start])
        starts = starts.reshape(len(record.step_size), -1, size)
        ends = self._solve.state.reshape(len(latest), -1, size)
        rows = [
            torch.cat([starts[torch.from_numpy(record.step_size[:, row] > 0), row], ends[row, latest[row], None]])
            for row in range(len(latest))
        ]
        return rows if self._problem.batch else rows[0]

    @cached_property
    def start_times(self) -> Array:
        """t0 of every trajectory, shape (n,)."""
        return self._problem.t0.detach().reshape(-1).cpu().double().numpy()

    @cached_property
    def end_times(self) -> Array:
        """End of every trajectory, shape (n,): T, or the time of the last accepted step where a level was missed."""
        record = self._record
        ends = np.where(record.step_size > 0, record.start_time + record.step_size, -np.inf)
        return np.maximum(ends.max(axis=0), self.start_times)

    def locate(self, time: Array) -> Array:
        """Number in the record of the step that contains, or ends at, each trajectory's ``time``, shape (n,)."""
        record = self._record
        taken = record.step_size > 0
        before = taken & (record.start_time < time)
        latest = len(taken) - 1 - np.argmax(before[::-1], axis=0)
        return np.where(before.any(axis=0), latest, np.argmax(taken, axis=0))

    def before(self, index: Array) -> Array:
        """Number in the record of the step before each trajectory's step ``index``, shape (n,)."""
        return self.locate(self._record.start_time[index, np.arange(index.size)])

    def segment(self, index: Array) -> Segment:
        """Rebuild one step of every trajectory, numbered as by `locate`."""
        problem, rows = self._problem, np.arange(index.size)
        start_time, size = self._record.start_time[index, rows], self._record.step_size[index, rows]
        state, t = self._starts(index), problem.to_device(start_time)
        h, stages = problem.to_device(size), self._record.stages[index, rows]
        step = self._solver.step(problem.field_again, t, state, h, problem.field_again(t, state), stages)
        return Segment(problem, index, start_time, size, self._solver.dense_output(step))

    def _starts(self, index: Array) -> Tensor:
        states = self._record.last_start
        for k in np.unique(index[index < len(self._solve.steps)]).tolist():
            mask = self._problem.row_mask(index == k).unsqueeze(-1)
            states = torch.where(mask, self._solve.steps[k].state, states)
        return states

    @cached_property
    def _record(self) -> _Record:
        """Record of the solve with one more entry, the last step of the trajectories that met all their levels."""
        solve, n = self._solve, self._solve.accepted.size
        complete = np.isfinite(solve.time).all(axis=1)
        last_time = np.where(np.isfinite(solve.time), solve.time, -np.inf).max(axis=1)
        times = solve.steps.times
        start_time = np.stack([*(start_time for start_time, _, _ in times), self.start_times])
        size = np.stack([*(step_size for _, step_size, _ in times), np.zeros(n)])
        stages = np.stack([*(stages for _, _, stages in times), np.full(n, self._solver.fewest_stages)])
        last_start = self._problem.initial_state.detach()
        for event in solve.events:
            if event is None:
                continue
            rows = event.rows & complete & (event.time == last_time)
            start_time[-1] = np.where(rows, event.start_time, start_time[-1])
            size[-1] = np.where(rows, event.step_size, size[-1])
            stages[-1] = np.where(rows, event.stages, stages[-1])
            last_start = torch.where(self._problem.row_mask(rows).unsqueeze(-1), event.start, last_start)
        return _Record(start_time, size, stages, last_start)

    def _check_range(self, times: Array) -> None:
        low, high = self.start_times.min(), self.end_times.max()
        slack = _ROUNDING * self._problem.resolution * max(abs(low), abs(high))
        outside = ~((times >= low - slack) & (times <= high + slack))
        if outside.any():
            raise ValueError(f"t must lie in [{low}, {high}], the times that were solved; got {times[outside][0]}")

    def _parameter_versions(self) -> tuple[int, ...]:
        return tuple(parameter._version for parameter in self._problem.dynamics.parameters)


@dataclass(frozen=True)
class _Record:
    """Every step of every trajectory, all of shape (steps, n); size zero where it did not take it."""

    start_time: Array
    step_size: Array
    stages: Array
    last_start: Tensor


@dataclass(frozen=True)
class Segment:
    """One rebuilt step of every trajectory, each its own."""

    problem: StoppingProblem
    index: Array
    start_time: Array
    step_size: Array
    dense: DenseOutput | HermiteOutput

    def state(self, time: Array) -> Tensor:
        """State at each trajectory's ``time`` inside its step, shape (n,)."""
        elapsed = time - self.start_time
        fraction = np.divide(elapsed, self.step_size, out=np.zeros_like(elapsed), where=self.step_size > 0)
        return self.dense(self.problem.to_device(np.clip(fraction, 0.0, 1.0)))


class TrajectoryWindow:
    """x(t) for a sweep from late to early times, at one time per trajectory.

    The few steps rebuilt last are kept.  When one trajectory enters a step, the others rebuild, in the same
    evaluations, the step they will enter next.
    """

    def __init__(self, trajectory: DenseTrajectory) -> None:
        self._trajectory = trajectory
        self._segments: list[Segment] = []

    def __call__(self, time: Array) -> Tensor:
        """State at each trajectory's ``time``, shape (n,), inside its own [t0, T]."""
        index = self._trajectory.locate(time)
        if _missing(index, self._segments).any():
            self._rebuild(index)
        newest, *older = self._segments
        state = newest.state(time)
        for segment in older:
            rows = (segment.index == index) & (newest.index != index)
            if rows.any():
                mask = newest.problem.row_mask(rows).unsqueeze(-1)
                state = torch.where(mask, segment.state(time), state)
        return state

    def _rebuild(self, index: Array) -> None:
        kept = self._segments[: _WINDOW - 1]
        missing = _missing(index, kept)
        if not missing.all():
            index = np.where(missing, index, self._trajectory.before(index))
        self._segments = [self._trajectory.segment(index), *kept]


def _missing(index: Array, segments: list[Segment]) -> Array:
    """Trajectories whose step ``index`` is in none of the segments."""
    missing = np.ones(index.shape, dtype=bool)
    for segment in segments:
        missing &= segment.index != index
    return missing


def _described(thing: object) -> str:
    return f"shape {tuple(thing.shape)}" if isinstance(thing, Tensor) else type(thing).__name__
