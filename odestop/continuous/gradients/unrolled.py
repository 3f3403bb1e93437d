"""The gradient by autograd itself: the accepted steps once more, with their graph kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop._validation import check_count
from odestop.continuous.event import Event
from odestop.continuous.forward import ForwardSolve
from odestop.continuous.gradients.rows import donate
from odestop.continuous.problem import StoppingProblem
from odestop.continuous.solution import ContinuousStats
from odestop.solvers import OneStepMethod
from odestop.status import StoppingStatus


@dataclass(frozen=True)
class Unrolled:
    """The accepted Runge-Kutta steps with their whole graph, for derivatives of any order.  Alias ``"unrolled"``.

    The steps of the forward solve are taken once more with autograd watching.  The size h' of the last one solves
    J(Φ_{h'}(x_k)) = ε; differentiable Newton corrections, started at the solution as a constant, carry the dependence
    of h' on everything else.  Each correction doubles the number of correct terms of the Taylor series of T, so that k
    corrections make all derivatives up to order 2^k - 1 exact: one would give a right gradient and a wrong Hessian.

    * Cost: the evaluations of the accepted steps a second time, 1 + ``corrections`` more steps per level, and the
      backward passes of autograd, which ``stats.vjps`` does not count.
    * Memory: the graph of every accepted step.
    * Accuracy: derivatives of the number that was returned, at fixed step sizes; the first ones are those of
      `DiscreteAdjoint`.  Every order of derivative asks for a tighter solve.
    * When to use it: for Hessians, Hessian-vector products and gradients of gradients, on short solves.

    Parameters
    ----------
    corrections
        Newton corrections k; two are exact up to third derivatives, three up to seventh ones.

    Examples
    --------
    >>> import torch, odestop
    >>> def time(rate):
    ...     return odestop.continuous_stopping_time(
    ...         lambda t, x: -rate * x,
    ...         torch.ones(1, dtype=torch.float64),
    ...         lambda x: x[..., 0],
    ...         threshold=0.1,
    ...         gradient="unrolled",
    ...     ).time
    >>> rate = torch.tensor(2.0, dtype=torch.float64)
    >>> round(torch.autograd.functional.hessian(time, rate).item(), 5)  # ln(10) / 4
    0.57565
    """

    corrections: int = 2

    def __post_init__(self) -> None:
        check_count("corrections", self.corrections)

    def attach(
        self, problem: StoppingProblem, solver: OneStepMethod, solve: ForwardSolve, stats: ContinuousStats
    ) -> tuple[Tensor, Tensor]:
        """T of shape (*batch, levels) and x(T) of shape (*batch, levels, d), as differentiable tensors."""
        time, state = problem.levels_to_device(solve.time), solve.state.clone()
        inputs = _inputs(problem)
        if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in inputs):
            return time, state
        problem.refuse_hidden_dependence()
        replay = _Replay(problem, solver, solve, self.corrections)
        time_part, state_part = replay.answers()
        # The values stay those of the forward solve; only the derivatives are added.
        connection = sum(_empty_sum(tensor).to(time) for tensor in inputs)
        time = time + (time_part - time_part.detach()) + connection
        return time, state + (state_part - state_part.detach()) + connection


def _inputs(problem: StoppingProblem) -> tuple[Tensor, ...]:
    parameters = (*problem.dynamics.parameters, *problem.criterion.parameters)
    return (problem.initial_state, problem.threshold, problem.t0, *parameters)


def _empty_sum(tensor: Tensor) -> Tensor:
    """Zero, with a zero gradient: a time that depends on nothing still has derivatives."""
    return tensor.reshape(-1)[:0].sum()


class _Replay:
    """The accepted steps and the events of a forward solve, with a graph."""

    def __init__(self, problem: StoppingProblem, solver: OneStepMethod, solve: ForwardSolve, corrections: int) -> None:
        self.problem, self.solver, self.solve, self.corrections = problem, solver, solve, corrections
        self.shift = problem.t0 - problem.t0.detach()

    def answers(self) -> tuple[Tensor, Tensor]:
        """T (*batch, levels), up to constants, and x(T) (*batch, levels, d); constant where they have no gradient."""
        times, states = [], []
        for level, (event, start) in enumerate(zip(self.solve.events, self.last_step_starts(), strict=True)):
            satisfied = self.solve.codes[:, level] == StoppingStatus.ALREADY_SATISFIED.code
            rows = self.problem.row_mask(satisfied)
            time = self.shift.where(rows, 0.0)
            state = self.problem.initial_state.where(rows.unsqueeze(-1), 0.0)
            if event is not None:
                usable = self.problem.row_mask(event.rows & ~event.tangential)
                step_size, end = self.through_event(event, self.problem.threshold[..., level], usable, start)
                time = torch.where(usable, self.shift + step_size, time)
                state = torch.where(usable.unsqueeze(-1), end, state)
            times.append(time)
            states.append(state)
        return torch.stack(times, dim=-1), torch.stack(states, dim=-2)

    def last_step_starts(self) -> list[Tensor]:
        """For every level, the states from which the last steps start."""
        indices = [_steps_before(event, self.solve.accepted.size) for event in self.solve.events]
        last = np.max(indices, axis=0)
        reached = np.any([event.rows for event in self.solve.events if event is not None], axis=0)
        rows = self.problem.row_mask(np.broadcast_to(reached, last.shape).copy())
        x = donate(self.problem.initial_state, rows)
        starts = [x] * len(indices)
        for k in range(int(last.max())):
            step = self.solve.steps[k]
            h = self.problem.to_device(np.where(k < last, step.step_size, 0.0))
            x = self.advance(donate(self.at(step.start_time), rows), x, h, step.stages)
            for level, index in enumerate(indices):
                if (index == k + 1).any():
                    starts[level] = torch.where(self.problem.row_mask(index == k + 1).unsqueeze(-1), x, starts[level])
        return starts

    def through_event(self, event: Event, threshold: Tensor, usable: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The last step size h' and x(T), as functions of everything."""
        start, t = donate(start, usable), donate(self.at(event.start_time), usable)
        h = torch.where(usable, self.problem.to_device(event.step_size), 0.0).requires_grad_()
        for _ in range(self.corrections):
            value = self.problem.criterion.with_graph(t + h, self.advance(t, start, h, event.stages))
            (rate,) = torch.autograd.grad(value, h, torch.ones_like(value), create_graph=True)
            gap = torch.where(usable, value - threshold, 0.0)
            h = h - gap / torch.where(usable, rate, 1.0)
        return h, self.advance(t, start, h, event.stages)

    def at(self, time: np.ndarray) -> Tensor:
        """Host times, which move with t0."""
        return self.problem.to_device(time) + self.shift

    def advance(self, t: Tensor, x: Tensor, step_size: Tensor, stages: np.ndarray) -> Tensor:
        return self.solver.advance(self.problem.field_with_graph, t, x, step_size, stages=stages)[0]


def _steps_before(event: Event | None, trajectories: int) -> np.ndarray:
    """Number of accepted steps before each trajectory's event; 0 without one."""
    return np.zeros(trajectories, dtype=np.int64) if event is None else np.where(event.rows, event.index, 0)
