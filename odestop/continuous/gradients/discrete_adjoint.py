"""The default gradient: the adjoint of the accepted steps, one recomputed step at a time.

T is the number at which the *numerical* trajectory meets the threshold.  With the accepted step sizes held fixed, it
solves J(Φ_{h'}(x_k)) = ε with T = t_k + h', so the implicit function theorem (Thm. 1) applies to the numerical map
itself: the gradient is exact for the number that was returned, up to the dependence of the step sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop._compilation import CompiledFunction
from odestop._validation import check_count
from odestop.continuous.forward import ForwardSolve
from odestop.continuous.gradients.at_event import EventCotangents, pull_through_criterion, received_at_events
from odestop.continuous.gradients.first_order import (
    StoppingGradients,
    add_to,
    attach_first_order,
)
from odestop.continuous.gradients.linearized_steps import (
    LinearizedSteps,
    LinearizedSweep,
    has_shortcut,
)
from odestop.continuous.gradients.rows import donate
from odestop.continuous.problem import StoppingProblem, scatter, select
from odestop.continuous.solution import ContinuousStats
from odestop.continuous.step_record import AcceptedStep
from odestop.solvers import OneStepMethod


@dataclass(frozen=True)
class DiscreteAdjoint:
    """Adjoint of the accepted Runge-Kutta steps.  Alias ``"discrete_adjoint"``, the default.

    The forward solve keeps only the accepted (t_k, h_k, x_k).  The backward pass walks over them from the last event to
    t0, rebuilds each step with a graph, pulls λ through it and throws the graph away.  Every level's cotangent joins λ
    as the sweep passes its event, so one sweep serves any scalar loss over all of them.

    Where the dynamics knows its own vector-Jacobian products (see `odestop.dynamics.GradientDrivenFlow`), the steps are
    recomputed block by block, side by side, and no graph leads through ∇f.

    * Cost: one vector-Jacobian product per evaluation of the accepted steps, and of one more step per level.
    * Memory: one state per accepted step, and the graph of one step or block; with checkpoints, N/m + m states for N
      steps.
    * Accuracy: that of the solve; the error of ∇T is typically 1e2 to 1e4 times the error of T.
    * First derivatives only.

    Parameters
    ----------
    checkpoints
        m: the forward solve keeps the state of every m-th accepted step, and the backward pass retraces the steps
        between, at the price of their evaluations once more.  The default keeps every state.

    Examples
    --------
    >>> import torch, odestop
    >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -rate * x,
    ...     torch.ones(1, dtype=torch.float64),
    ...     lambda x: x[..., 0],
    ...     threshold=0.1,
    ...     gradient=odestop.gradients.DiscreteAdjoint(checkpoints=5),
    ... )
    >>> solution.time.backward()
    >>> round(rate.grad.item(), 6)  # -ln(10) / 4
    -0.575646
    """

    checkpoints: int = 1

    def __post_init__(self) -> None:
        check_count("checkpoints", self.checkpoints)

    def attach(
        self, problem: StoppingProblem, solver: OneStepMethod, solve: ForwardSolve, stats: ContinuousStats
    ) -> tuple[Tensor, Tensor]:
        """T of shape (*batch, levels) and x(T) of shape (*batch, levels, d), as differentiable tensors."""

        def pull_back(time_cotangent: Tensor, state_cotangent: Tensor) -> StoppingGradients:
            sweep = _Sweep(problem, solver, solve, stats)
            return sweep.run(time_cotangent, state_cotangent)

        return attach_first_order(problem, solve, pull_back)


class _Sweep:
    """One backward pass, for cotangents of T and x(T)."""

    def __init__(
        self, problem: StoppingProblem, solver: OneStepMethod, solve: ForwardSolve, stats: ContinuousStats
    ) -> None:
        self.problem, self.solver, self.solve, self.stats = problem, solver, solve, stats
        self.gradients = StoppingGradients.zeros(problem)
        reached = np.zeros(solve.accepted.shape, dtype=bool)
        for event in solve.events:
            reached |= event is not None and event.rows
        self.reached = problem.row_mask(reached)
        self.shortcut = (
            LinearizedSweep(problem, solver, solve, self.reached, self.gradients)
            if has_shortcut(problem, solve)
            else None
        )
        self.compiled: CompiledFunction | None = None
        if self.shortcut is None and solve.settings.compile and solver.fixed_stages:
            field = problem.field_with_graph
            self.compiled = CompiledFunction(
                "a step of the gradient", lambda x, t, h: solver.advance(field, t, x, h)[0]
            )

    def run(self, time_cotangent: Tensor, state_cotangent: Tensor) -> StoppingGradients:
        """Move every level's cotangents to the start of its last step, then sweep over the accepted steps."""
        arrivals = self._arrivals(received_at_events(self.solve, time_cotangent, state_cotangent))
        latest = max((int(index.max()) for index, _ in arrivals), default=-1)
        adjoint = torch.zeros_like(self.problem.initial_state)
        for k in range(latest, -1, -1):
            for index, arriving in arrivals:
                if (index == k).any():
                    adjoint = adjoint + torch.where(self.problem.row_mask(index == k).unsqueeze(-1), arriving, 0.0)
            if k > 0:
                adjoint = self._through_step(k - 1, adjoint)
        if self.shortcut is not None:
            self.shortcut.gather()
        if latest >= 0:
            self.gradients.initial_state += torch.where(self.reached.unsqueeze(-1), adjoint, 0.0)
        return self.gradients

    def _through_step(self, k: int, adjoint: Tensor) -> Tensor:
        """Pull λ through accepted step k; the rows that did not take it pass unchanged."""
        pulled = None if self.shortcut is None else self.shortcut.pull_back(k, adjoint)
        if pulled is None:
            return self._through_rebuilt(self.solve.steps[k], adjoint)
        _, step_size, stages = self.solve.steps.times[k]
        self.stats.vjps += self.solver.evaluations(stages[step_size > 0])
        return pulled

    def _through_rebuilt(self, step: AcceptedStep, adjoint: Tensor) -> Tensor:
        """The same by autograd."""
        x, t, h = self._leaves(step.state, step.start_time, step.step_size, self.reached)
        moved = step.step_size > 0
        if self.compiled is not None or not self.problem.worth_selecting(moved):
            rebuilt = RebuiltStep(self.problem, self.solver, t, x, h.detach(), step.stages, self.compiled)
            return self._pull_through(rebuilt, adjoint)
        rows = torch.from_numpy(np.flatnonzero(moved)).to(x.device)
        t = t.detach().reshape(-1)[rows].requires_grad_(t.requires_grad)
        h = h.detach().reshape(-1)[rows]
        rebuilt = RebuiltStep(self.problem, self.solver, t, select(x, rows), h, step.stages[moved])
        return scatter(self._pull_through(rebuilt, select(adjoint, rows), rows), rows, adjoint)

    def _arrivals(self, received: Sequence[EventCotangents]) -> list[tuple[np.ndarray, Tensor]]:
        """Pull every level's cotangents through its last steps: indices of these steps, and λ at their start."""
        if not received:
            return []
        blocks = [received] if self.shortcut is None else self.shortcut.blocks(received)
        arriving = [state for block in blocks for state in self._through_events(block)]
        return [
            (np.where(each.rows, each.event.index, -1), state) for each, state in zip(received, arriving, strict=True)
        ]

    def _through_events(self, received: Sequence[EventCotangents]) -> list[Tensor]:
        """Pull cotangents of T and x(T) through last steps, side by side where there is a shortcut."""
        steps = [self._last_step(each) for each in received]
        linear = self._linearized(steps, received)
        if linear is None:
            return [self._through_event(each, *step) for each, step in zip(received, steps, strict=True)]
        pulled = []
        cotangents = pull_through_criterion(self.problem, received, linear.along_step_sizes, self.gradients)
        for index, each in enumerate(cotangents):
            self.gradients.t0 += each.time
            self.stats.vjps += self.solver.evaluations(each.event.stages)
            pulled.append(linear.pull_back(index, each.state))
        by_time, by_parameter = linear.gathered(self.problem.dynamics.parameters)
        self.gradients.t0 += torch.stack(by_time).sum((0, 1))
        add_to(self.gradients.dynamics, by_parameter)
        return pulled

    def _last_step(self, received: EventCotangents) -> tuple[Tensor, Tensor, Tensor]:
        """x, t and h' of the steps that end at a level."""
        event = received.event
        return self._leaves(event.start, event.start_time, event.step_size, self.problem.row_mask(received.rows))

    def _linearized(
        self, steps: Sequence[tuple[Tensor, Tensor, Tensor]], received: Sequence[EventCotangents]
    ) -> LinearizedSteps | None:
        """The last steps side by side; None without a shortcut."""
        if self.shortcut is None:
            return None
        x, t, h = (torch.stack(part).detach() for part in zip(*steps, strict=True))
        return self.shortcut.linearized(t, x, h, np.stack([each.event.stages for each in received]), with_time=True)

    def _through_event(self, received: EventCotangents, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        """The same for one level by autograd."""
        rebuilt = RebuiltStep(self.problem, self.solver, t, x, h, received.event.stages)
        (cotangents,) = pull_through_criterion(
            self.problem,
            [received],
            lambda states: [rebuilt.pull_back(state, (h,), again=True)[1] for state in states],
            self.gradients,
        )
        self.gradients.t0 += cotangents.time
        return self._pull_through(rebuilt, cotangents.state)

    def _pull_through(self, rebuilt: RebuiltStep, cotangent: Tensor, rows: Tensor | None = None) -> Tensor:
        """Pull a cotangent from the end of a rebuilt step to its start, collecting the gradients on the way.

        ``rows`` are the flat indices of the trajectories, if the step was rebuilt for some of them only.
        """
        self.stats.vjps += self.solver.evaluations(rebuilt.stages)
        times = (rebuilt.t,) if rebuilt.t.requires_grad else ()
        state_part, *others = rebuilt.pull_back(cotangent, (*times, *self.problem.dynamics.parameters))
        if times:
            flat = self.gradients.t0.reshape(-1)
            flat[slice(None) if rows is None else rows] += others.pop(0).reshape(-1)
        add_to(self.gradients.dynamics, others)
        return state_part

    def _leaves(
        self, state: Tensor, time: np.ndarray, step_size: np.ndarray, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x, and leaf tensors t and h, of one step; rows without an event are given a harmless row's values."""
        x = donate(state, rows).detach()
        t = donate(self.problem.to_device(time), rows).detach()
        h = torch.where(rows, self.problem.to_device(step_size), 0.0)
        return x, t.requires_grad_(self.problem.t0.requires_grad), h.requires_grad_()


class RebuiltStep:
    """One step of every trajectory, a segment of it at a time with its graph.

    A method of few stages has one segment, whose graph is kept until this object goes.  A method of many stages has
    several: what they hand on is computed once without a graph, and each is evaluated again for every cotangent that is
    pulled through it, so that memory holds the graph of one segment however many stages there are.

    Parameters
    ----------
    problem, solver, t, x, h, stages
        The step.
    compiled
        The step from (x, t, h) as one compiled function, if there is one; its graph takes a single cotangent.

    Attributes
    ----------
    t, stages
        Times at the start of the step, shape (*batch,), and numbers of stages, shape (n,).
    """

    def __init__(
        self,
        problem: StoppingProblem,
        solver: OneStepMethod,
        t: Tensor,
        x: Tensor,
        h: Tensor,
        stages: np.ndarray,
        compiled: CompiledFunction | None = None,
    ) -> None:
        self.t, self.stages = t, stages
        self._segments = solver.segments(problem.field_with_graph, t, h, stages)
        if compiled is not None:
            self._segments = [lambda carry: (compiled(carry[0], t, h),)]
        self._carries: list[tuple[Tensor, ...]] = [(x.detach(),)]
        with torch.no_grad():
            for segment in solver.segments(problem.field_again, t, h, stages)[:-1]:
                self._carries.append(segment(self._carries[-1]))
        self._kept = self._evaluated(0) if len(self._segments) == 1 else None

    def pull_back(self, cotangent: Tensor, inputs: Sequence[Tensor], *, again: bool = False) -> list[Tensor]:
        """Pull a cotangent of x_1 back to x, and to each of ``inputs``; ``again`` if another one is to follow."""
        cotangents: tuple[Tensor, ...] = (cotangent,)
        totals = [torch.zeros_like(tensor) for tensor in inputs]
        for index in reversed(range(len(self._segments))):
            leaves, outputs = self._kept or self._evaluated(index)
            # A field that depends on nothing hands on slopes without a graph.
            connected = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
            found = torch.autograd.grad(
                [output for output, _ in connected],
                (*leaves, *inputs),
                [cotangent for _, cotangent in connected],
                retain_graph=again,
                allow_unused=True,
                materialize_grads=True,
            )
            cotangents = found[: len(leaves)]
            add_to(totals, found[len(leaves) :])
        return [*cotangents, *totals]

    def _evaluated(self, index: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Leaves and outputs of one segment with its graph."""
        leaves = tuple(tensor.detach().requires_grad_() for tensor in self._carries[index])
        with torch.enable_grad():
            return leaves, self._segments[index](leaves)
