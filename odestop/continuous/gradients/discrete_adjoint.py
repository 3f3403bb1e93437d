"""The default gradient: the adjoint of the accepted steps, one recomputed step at a time.

T is the number at which the *numerical* trajectory meets the threshold.  With the accepted step sizes held fixed, it
solves J(Φ_{h'}(x_k)) = ε with T = t_k + h', so the implicit function theorem (Thm. 1) applies to the numerical map
itself: the gradient is exact for the number that was returned, up to the dependence of the step sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odestop._functions import first_order_only
from odestop.continuous.forward import ForwardSolve
from odestop.continuous.problem import StoppingProblem
from odestop.continuous.solution import ContinuousStats
from odestop.solvers import RungeKutta
from odestop.status import StoppingStatus


@dataclass(frozen=True)
class DiscreteAdjoint:
    """Adjoint of the accepted Runge-Kutta steps.  Alias ``"discrete_adjoint"``, the default.

    The forward solve keeps only the accepted (t_k, h_k, x_k).  The backward pass walks over them from the event to t0,
    rebuilds each step with a graph, pulls λ through it and throws the graph away.

    * Cost: one vector-Jacobian product per evaluation of the accepted steps.
    * Memory: one state per accepted step, and the graph of one step.
    * Accuracy: that of the solve; the error of ∇T is typically 1e2 to 1e4 times the error of T.
    * First derivatives only.
    """

    def attach(
        self, problem: StoppingProblem, solver: RungeKutta, solve: ForwardSolve, stats: ContinuousStats
    ) -> tuple[Tensor, Tensor]:
        """T and x(T) as differentiable tensors."""
        sweep = _Sweep(problem, solver, solve, stats)
        return _StoppingTime.apply(
            sweep,
            problem.initial_state,
            problem.threshold,
            problem.t0,
            *problem.dynamics.parameters,
            *problem.criterion.parameters,
        )


class _StoppingTime(torch.autograd.Function):
    """Hands the forward solve to autograd, with `_Sweep.pull_back` as its backward."""

    @staticmethod
    def forward(ctx: Any, sweep: _Sweep, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.sweep = sweep
        # Saved so that torch refuses a backward after an in-place change of any of them.
        ctx.save_for_backward(*inputs)
        # A fresh tensor: the state may be x0 itself, and an input must not be returned as an output.
        return sweep.problem.to_device(sweep.solve.time), sweep.solve.state.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        with torch.no_grad():
            gradients = ctx.sweep.pull_back(*cotangents, needed=ctx.needs_input_grad[1:])
        return None, *first_order_only(gradients, inputs, "no gradient method has more yet")


@dataclass(frozen=True)
class _Sweep:
    """The backward pass for cotangents of T and x(T)."""

    problem: StoppingProblem
    solver: RungeKutta
    solve: ForwardSolve
    stats: ContinuousStats

    def pull_back(
        self, time_cotangent: Tensor, state_cotangent: Tensor, needed: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients with respect to x0, ε, t0, the dynamics' parameters and the criterion's parameters."""
        problem = self.problem
        self._check_graphs()
        dynamics_parameters, criterion_parameters = problem.dynamics.parameters, problem.criterion.parameters
        reached = self._rows(StoppingStatus.REACHED)
        satisfied = self._rows(StoppingStatus.ALREADY_SATISFIED)
        state_gradient = torch.where(satisfied.unsqueeze(-1), state_cotangent, 0.0)
        time_gradient = torch.where(satisfied, time_cotangent, 0.0)
        threshold_gradient = torch.zeros_like(problem.threshold)
        parameter_gradients = [torch.zeros_like(p) for p in dynamics_parameters]
        criterion_gradients: Sequence[Tensor] = [torch.zeros_like(p) for p in criterion_parameters]
        if bool(reached.any()):
            last = self._through_event(
                torch.where(reached, time_cotangent, 0.0),
                torch.where(reached.unsqueeze(-1), state_cotangent, 0.0),
                reached,
            )
            threshold_gradient, criterion_gradients = last.threshold, last.criterion
            if needed[0] or needed[2] or any(needed[3 : 3 + len(dynamics_parameters)]):
                swept = self._through_steps(last, reached, parameter_gradients)
                state_gradient = state_gradient + swept[0]
                time_gradient = time_gradient + swept[1]
        gradients = [
            state_gradient,
            threshold_gradient,
            time_gradient,
            *parameter_gradients,
            *criterion_gradients,
        ]
        return [g if wanted else None for g, wanted in zip(gradients, needed, strict=True)]

    def _check_graphs(self) -> None:
        """Refuse functions whose dependence on the state is hidden from autograd."""
        for function, depends in (
            (self.problem.criterion, True),
            (self.problem.dynamics, bool((self.solve.spectral_radius > 0).any())),
        ):
            if depends and not function.tracks_state:
                raise RuntimeError(
                    f"{function.name} depends on x, but its value carries no gradient with respect to x: it detaches "
                    "its argument, or calls autograd inside without create_graph=True"
                )

    def _rows(self, status: StoppingStatus) -> Tensor:
        mask = torch.from_numpy(self.solve.codes == status.code)
        return mask.to(self.problem.initial_state.device).reshape(self.problem.batch)

    def _through_event(
        self, time_cotangent: Tensor, state_cotangent: Tensor, rows: Tensor
    ) -> _EventCotangents:
        """Implicit function theorem at the event: move every cotangent to the end of the last step.

        With D = ∇J·∂Φ/∂h' and c = τ + v·∂Φ/∂h', the end of the last step (at fixed h') receives v - (c/D) ∇J, the
        criterion's parameters -(c/D) ∂J/∂φ and the threshold c/D.
        """
        problem, event = self.problem, self.solve.event
        assert event is not None
        end = _donate(event.end, rows).requires_grad_()
        value = problem.criterion.with_graph(end)
        (criterion_gradient,) = _gradients(value, (end,), torch.ones_like(value), retain_graph=True)
        x, t, h = self._leaves(event.start, event.start_time, event.step_size, rows)
        end_with_graph = self._rebuild(t, x, h)
        (rate,) = _gradients(end_with_graph, (h,), criterion_gradient, retain_graph=True)
        (drift,) = _gradients(end_with_graph, (h,), state_cotangent, retain_graph=True)
        weight = (time_cotangent + drift) / torch.where(rows, rate, 1.0)
        weight = torch.where(rows, weight, 0.0)
        criterion = _gradients(value, problem.criterion.parameters, -weight)
        cotangent = state_cotangent - weight.unsqueeze(-1) * criterion_gradient
        return _EventCotangents(cotangent, time_cotangent, weight, criterion, end_with_graph, (x, t))

    def _through_steps(
        self, last: _EventCotangents, rows: Tensor, parameter_gradients: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Pull λ from the event back to t0; returns the gradients of x0 and t0 and fills those of the parameters."""
        cotangent, time_gradient = last.state, last.time.clone()
        end, leaves = last.end_with_graph, last.leaves
        steps = reversed(self.solve.steps)
        while True:
            cotangent, time_part = self._pull_through(end, leaves, cotangent, parameter_gradients)
            time_gradient += time_part
            step = next(steps, None)
            if step is None:
                return torch.where(rows.unsqueeze(-1), cotangent, 0.0), time_gradient
            x, t, h = self._leaves(step.state, step.start_time, step.step_size, rows)
            end = self._rebuild(t, x, h.detach())
            leaves = (x, t)

    def _pull_through(
        self, end: Tensor, leaves: tuple[Tensor, Tensor], cotangent: Tensor, parameter_gradients: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        x, t = leaves
        inputs = (
            (x, t, *self.problem.dynamics.parameters)
            if t.requires_grad
            else (x, *self.problem.dynamics.parameters)
        )
        gradients = list(_gradients(end, inputs, cotangent))
        self.stats.vjps += self.solver.evaluations_per_step
        state_part = gradients.pop(0)
        time_part = gradients.pop(0) if t.requires_grad else torch.zeros_like(t)
        for total, part in zip(parameter_gradients, gradients, strict=True):
            total += part
        return state_part, time_part

    def _rebuild(self, t: Tensor, x: Tensor, h: Tensor) -> Tensor:
        """One step with its graph."""
        with torch.enable_grad():
            return self.solver.advance(self.problem.field_with_graph, t, x, h)[0]

    def _leaves(
        self, state: Tensor, time: np.ndarray, step_size: np.ndarray, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Leaf tensors x, t, h of one step; rows without an event are given a harmless row's values."""
        x = _donate(state, rows)
        t = _donate(self.problem.to_device(time).unsqueeze(-1), rows).squeeze(-1)
        h = torch.where(rows, self.problem.to_device(step_size), 0.0)
        return x.requires_grad_(), t.requires_grad_(self.problem.t0.requires_grad), h.requires_grad_()


def _donate(state: Tensor, rows: Tensor) -> Tensor:
    """``state`` detached, with the first of ``rows`` in place of every row outside: there, nan × 0 must not happen."""
    state = state.detach()
    if bool(rows.all()):
        return state
    donor = int(rows.reshape(-1).nonzero()[0])
    return torch.where(rows.unsqueeze(-1), state, state.reshape(-1, state.shape[-1])[donor])


@dataclass(frozen=True)
class _EventCotangents:
    """Cotangents just before the event, and the graph of the last step they enter."""

    state: Tensor
    time: Tensor
    threshold: Tensor
    criterion: Sequence[Tensor]
    end_with_graph: Tensor
    leaves: tuple[Tensor, Tensor]


def _gradients(
    output: Tensor, inputs: Sequence[Tensor], cotangent: Tensor, *, retain_graph: bool = False
) -> tuple[Tensor, ...]:
    """Vector-Jacobian product, with zeros for inputs that do not enter."""
    if not inputs:
        return ()
    return torch.autograd.grad(
        output, inputs, cotangent, retain_graph=retain_graph, allow_unused=True, materialize_grads=True
    )
