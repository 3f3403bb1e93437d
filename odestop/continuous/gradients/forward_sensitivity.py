"""The gradient by tangents: ∂x/∂(inputs) carried forward through the accepted steps."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop._validation import check_count
from odestop.continuous.event import Event
from odestop.continuous.forward import ForwardSolve
from odestop.continuous.gradients.at_event import EventCotangents, pull_through_criterion
from odestop.continuous.gradients.first_order import StoppingGradients, attach_first_order
from odestop.continuous.gradients.rows import donate
from odestop.continuous.problem import StoppingProblem
from odestop.continuous.solution import ContinuousStats
from odestop.solvers import OneStepMethod


@dataclass(frozen=True)
class ForwardSensitivity:
    """Tangents of the accepted Runge-Kutta steps.  Alias ``"forward_sensitivity"``.

    One column per scalar that the trajectory depends on is carried through the accepted steps: the entries of the
    dynamics' parameters, the d entries of x0 and t0, as far as they require a gradient.  Thresholds and the
    criterion's parameters enter at the event alone and need no column.  A step's Jacobian-vector products are the
    derivative of its vector-Jacobian product, so every function that autograd can differentiate twice will do.

    * Cost: per accepted step one vector-Jacobian product, and its derivative for all columns at once; paid by the first
      backward pass, further ones (the rows of a Jacobian) cost next to nothing.
    * Memory: the columns of one state, and the graph of one step for each column; independent of the number of steps.
    * Accuracy: the same numbers as `DiscreteAdjoint`, up to rounding.  First derivatives only.
    * When to use it: few inputs and many outputs, for example many trajectories or levels with a handful of
      parameters.

    Parameters
    ----------
    max_columns
        More columns than this are an error.

    Examples
    --------
    >>> import torch, odestop
    >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -rate * x,
    ...     torch.ones(1, dtype=torch.float64),
    ...     lambda x: x[..., 0],
    ...     threshold=0.1,
    ...     gradient="forward_sensitivity",
    ... )
    >>> solution.time.backward()
    >>> round(rate.grad.item(), 6)  # -ln(10) / 4
    -0.575646
    """

    max_columns: int = 1000

    def __post_init__(self) -> None:
        check_count("max_columns", self.max_columns)

    def attach(
        self, problem: StoppingProblem, solver: OneStepMethod, solve: ForwardSolve, stats: ContinuousStats
    ) -> tuple[Tensor, Tensor]:
        """T of shape (*batch, levels) and x(T) of shape (*batch, levels, d), as differentiable tensors."""
        columns = _Columns(problem)
        if columns.count > self.max_columns:
            raise ValueError(
                f'gradient="forward_sensitivity" would carry {columns.count} tangents, more than max_columns = '
                f'{self.max_columns}; gradient="discrete_adjoint" costs the same for any number of inputs'
            )
        return attach_first_order(problem, solve, _Sensitivities(problem, solver, solve, stats, columns).pull_back)


class _Columns:
    """Which tangent belongs to which scalar: the entries of x0, then t0, then the entries of the parameters."""

    def __init__(self, problem: StoppingProblem) -> None:
        self.problem = problem
        self.state = problem.initial_state.shape[-1] if problem.initial_state.requires_grad else 0
        self.time = int(problem.t0.requires_grad)
        self.count = self.state + self.time + sum(p.numel() for p in problem.dynamics.parameters)

    def tangents(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Tangents of x0 (columns, *batch, d), of t0 (columns, *batch) and of the parameters (columns, *shape)."""
        initial_state, parameters = self.problem.initial_state, self.problem.dynamics.parameters
        state = initial_state.new_zeros(self.count, *initial_state.shape)
        for column in range(self.state):
            state[column, ..., column] = 1.0
        time = initial_state.new_zeros(self.count, *self.problem.batch)
        time[self.state : self.state + self.time] = 1.0
        identity = torch.eye(self.count, device=initial_state.device)[:, self.state + self.time :]
        blocks = identity.split([p.numel() for p in parameters], dim=1)
        shaped = [block.to(p).reshape(self.count, *p.shape) for block, p in zip(blocks, parameters, strict=True)]
        return state, time, shaped

    def add(self, products: Tensor, gradients: StoppingGradients) -> None:
        """Add what every column (columns, *batch) contributes to a scalar to the gradients it belongs to."""
        by_state, by_time, by_parameter = products.split([self.state, self.time, self.count - self.state - self.time])
        if self.state:
            gradients.initial_state += by_state.movedim(0, -1)
        gradients.t0 += by_time.sum(0)
        totals = by_parameter.reshape(len(by_parameter), self.problem.batch.numel()).sum(-1)
        for gradient, part in zip(
            gradients.dynamics, totals.split([g.numel() for g in gradients.dynamics]), strict=True
        ):
            gradient += part.reshape(gradient.shape)


@dataclass(frozen=True)
class _AtEvent:
    """What one level's last steps depend on.

    ``usable`` (*batch,) says where there is a gradient, ``columns`` (columns, *batch, d) are the tangents of x(T) at
    fixed h', and ``drift`` (*batch, d) is its derivative in h'.
    """

    event: Event
    usable: Tensor
    columns: Tensor
    drift: Tensor


class _Sensitivities:
    """The tangents of a forward solve, computed when first asked for."""

    def __init__(
        self,
        problem: StoppingProblem,
        solver: OneStepMethod,
        solve: ForwardSolve,
        stats: ContinuousStats,
        columns: _Columns,
    ) -> None:
        self.problem, self.solver, self.solve, self.stats, self.columns = problem, solver, solve, stats, columns

    def pull_back(self, time_cotangent: Tensor, state_cotangent: Tensor) -> StoppingGradients:
        """Contract the tangents with cotangents of T (*batch, levels) and x(T) (*batch, levels, d)."""
        gradients = StoppingGradients.zeros(self.problem)
        for level, at_event in enumerate(self.at_events):
            if at_event is not None:
                time, state = time_cotangent[..., level], state_cotangent[..., level, :]
                self._contract(at_event, EventCotangents(at_event.event, level, time, state), gradients)
        return gradients

    def _contract(self, at_event: _AtEvent, received: EventCotangents, gradients: StoppingGradients) -> None:
        (cotangents,) = pull_through_criterion(
            self.problem, [received], lambda states: [(state * at_event.drift).sum(-1) for state in states], gradients
        )
        gradients.t0 += cotangents.time
        products = (at_event.columns * cotangents.state).sum(-1)
        self.columns.add(torch.where(at_event.usable, products, 0.0), gradients)

    @functools.cached_property
    def at_events(self) -> list[_AtEvent | None]:
        """Carry the tangents from t0 to the events."""
        events = [event for event in self.solve.events if event is not None]
        if not events:
            return [None] * len(self.solve.events)
        rows = self.problem.row_mask(np.any([event.rows for event in events], axis=0))
        state, time, parameters = self.columns.tangents()
        starts = [state] * len(self.solve.events)
        last = max(int(event.index[event.rows].max()) for event in events) if self.columns.count else 0
        for k in range(last):
            step = self.solve.steps[k]
            x, t, h = self._leaves(step.state, step.start_time, step.step_size, rows)
            inputs = (x, t, *self.problem.dynamics.parameters)
            state = self._push(x, t, h, step.stages, inputs, (state, time, *parameters))
            for level, event in enumerate(self.solve.events):
                if event is not None:
                    arrived = self.problem.row_mask(event.index == k + 1).unsqueeze(-1)
                    starts[level] = torch.where(arrived, state, starts[level])
        return [
            None if event is None else self._through_event(event, (start, time, *parameters))
            for event, start in zip(self.solve.events, starts, strict=True)
        ]

    def _through_event(self, event: Event, tangents: Sequence[Tensor]) -> _AtEvent:
        """The last step, with one more column for h'."""
        usable = self.problem.row_mask(event.rows & ~event.tangential)
        x, t, h = self._leaves(event.start, event.start_time, event.step_size, usable)
        inputs = (x, t, *self.problem.dynamics.parameters, h)
        padded = [torch.cat([tangent, tangent.new_zeros(1, *tangent.shape[1:])]) for tangent in tangents]
        step_size = h.new_zeros(self.columns.count + 1, *h.shape)
        step_size[-1] = 1.0
        pushed = self._push(x, t, h, event.stages, inputs, (*padded, step_size))
        return _AtEvent(event, usable, pushed[:-1], pushed[-1])

    def _push(
        self,
        x: Tensor,
        t: Tensor,
        h: Tensor,
        stages: np.ndarray,
        inputs: Sequence[Tensor],
        tangents: Sequence[Tensor],
    ) -> Tensor:
        """Tangents of the end of a step from those of what it depends on."""
        with torch.enable_grad():
            end = self.solver.advance(self.problem.field_with_graph, t, x, h, stages=stages)[0]
        self.stats.vjps += self.solver.evaluations(stages) * (1 + len(tangents[0]))
        return _jacobian_vector_products(end, inputs, tangents)

    def _leaves(
        self, state: Tensor, time: np.ndarray, step_size: np.ndarray, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Leaf tensors x, t, h of one step; rows without an event are given a harmless row's values."""
        x = donate(state, rows).detach()
        t = donate(self.problem.to_device(time), rows)
        h = torch.where(rows, self.problem.to_device(step_size), 0.0)
        return x.requires_grad_(), t.requires_grad_(), h.requires_grad_()


def _jacobian_vector_products(output: Tensor, inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """Directional derivatives of ``output`` along columns of tangents, one leading dimension more than the inputs.

    The pull-back u ↦ Jᵀu is linear in u, and the pull-back of that is J.
    """
    cotangent = torch.zeros_like(output, requires_grad=True)
    pulled = torch.autograd.grad(output, inputs, cotangent, create_graph=True, allow_unused=True)
    entering = [(p, v) for p, v in zip(pulled, tangents, strict=True) if p is not None and p.requires_grad]
    products = torch.autograd.grad([p for p, _ in entering], cotangent, [v for _, v in entering], is_grads_batched=True)
    return products[0]
