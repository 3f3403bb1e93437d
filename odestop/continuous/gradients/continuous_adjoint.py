"""The adjoint equation of Theorem 1, integrated backward in time along the dense output of x(t)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop._validation import check_count, check_positive
from odestop.continuous.dense_trajectory import DenseTrajectory, TrajectoryWindow
from odestop.continuous.forward import ForwardSolve
from odestop.continuous.gradients.at_event import EventCotangents, pull_through_criterion, received_at_events
from odestop.continuous.gradients.first_order import (
    StoppingGradients,
    add_to,
    attach_first_order,
    vector_jacobian_product,
)
from odestop.continuous.gradients.rows import donate
from odestop.continuous.problem import StoppingProblem, to_host
from odestop.continuous.solution import ContinuousStats
from odestop.solvers import OneStepMethod, SpectralRadius, Step

Array = np.ndarray

_SPECTRAL_RADIUS_EVERY = 8
_GAUSS_NODES = (0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5)
_GAUSS_WEIGHTS = (5 / 18, 8 / 18, 5 / 18)


@dataclass(frozen=True)
class ContinuousAdjoint:
    """The adjoint equation with steps and tolerances of its own.  Alias ``"continuous_adjoint"``.

    dλ/dt = -(∂F/∂x)ᵀλ runs from the last event back to t0, with the method of the forward solve and x(t) from its dense
    output; x is never integrated backward.  At every level's event λ jumps by that level's cotangent.  The gradient of
    θ is ∫ (∂F/∂θ)ᵀλ dt, by three-point Gauss quadrature on every step; that of x0 is λ(t0), and that of t0 is
    -λ(t0)·F(t0, x0).

    * Cost: one vector-Jacobian product per evaluation of the backward steps, three more per step for θ, and the
      evaluations of the forward solve a second time for the dense output.
    * Memory: one state per accepted step, and the graph of one evaluation.
    * Accuracy: 0.1 to 10 times ``rtol``, down to a floor set by the forward solve, event and dense output included.
      On a preconditioned 100-d quadratic of condition number 1e4 with ``rtol=1e-7`` forward, the default is within
      4e-8 of the true gradient for 1.4 times the products of the discrete adjoint, which is within 6e-9; the floor is
      2e-8.  The long steps of ``"dopri8"`` show their dense output: the floor is 2e-8 where the discrete adjoint has
      2e-10.  Unlike the latter, this is not the exact gradient of the number that was returned.
    * When to use it: where one step's graph is too large to hold, where a rough gradient of a tight solve is enough,
      or for a second opinion on the discrete adjoint, which is faster on short and middling solves.
    * First derivatives only.

    A method that takes fixed steps takes them backward as well, without error control.

    Parameters
    ----------
    rtol
        Error of λ allowed per step, relative to ‖λ‖.
    atol
        The same in absolute terms.  λ is proportional to the cotangents that come in: zero suits all of them.
    max_steps
        Step attempts allowed per trajectory.

    Raises
    ------
    RuntimeError
        In the backward pass, if the steps become too small or too many.

    Examples
    --------
    >>> import torch, odestop
    >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -rate * x,
    ...     torch.ones(1, dtype=torch.float64),
    ...     lambda x: x[..., 0],
    ...     threshold=0.1,
    ...     gradient=odestop.gradients.ContinuousAdjoint(rtol=1e-8),
    ... )
    >>> solution.time.backward()
    >>> round(rate.grad.item(), 6)  # -ln(10) / 4
    -0.575646
    """

    rtol: float = 1e-6
    atol: float = 0.0
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        check_positive("rtol", self.rtol)
        check_positive("atol", self.atol, allow_zero=True)
        check_count("max_steps", self.max_steps)

    def attach(
        self, problem: StoppingProblem, solver: OneStepMethod, solve: ForwardSolve, stats: ContinuousStats
    ) -> tuple[Tensor, Tensor]:
        """T of shape (*batch, levels) and x(T) of shape (*batch, levels, d), as differentiable tensors."""

        def pull_back(time_cotangent: Tensor, state_cotangent: Tensor) -> StoppingGradients:
            tolerances = AdjointTolerances(self.rtol, self.atol, self.max_steps)
            return _AlongDenseOutput(problem, solver, solve, stats, tolerances).run(time_cotangent, state_cotangent)

        return attach_first_order(problem, solve, pull_back)


@dataclass(frozen=True)
class AdjointTolerances:
    """Error allowed per step of λ, relative to its norm and absolute, and step attempts allowed."""

    rtol: float
    atol: float
    max_steps: int


@dataclass(frozen=True)
class _Jump:
    """What λ receives as the sweep passes one level's events: in ``rows``, at ``time``, shape (n,)."""

    rows: Array
    time: Array
    cotangent: Tensor
    state: Tensor


class AdjointSweep:
    """Integrates λ backward in time, every trajectory with its own steps, none of them across an event.

    Subclasses say where x(t) comes from.  What is integrated, y of shape (*batch, m d), starts with λ; a subclass may
    join x to it.  The sweep runs in elapsed time: dy/ds with s = -t, so that λ' = (∂F/∂x)ᵀλ and x' = -F.
    """

    def __init__(
        self,
        problem: StoppingProblem,
        solver: OneStepMethod,
        solve: ForwardSolve,
        stats: ContinuousStats,
        tolerances: AdjointTolerances,
    ) -> None:
        self.problem, self.solver, self.solve, self.stats = problem, solver, solve, stats
        self.rtol = max(tolerances.rtol, 10.0 * problem.resolution)
        self.atol, self.max_steps = tolerances.atol, tolerances.max_steps
        self.dimension = problem.initial_state.shape[-1]
        self.gradients = StoppingGradients.zeros(problem)
        (self.t0,) = to_host(problem.t0)

    def joined(self, adjoint: Tensor, state: Tensor) -> Tensor:
        """What is integrated, or its slope, from the part of λ and the part of x."""
        raise NotImplementedError

    def state(self, time: Array, y: Tensor) -> Tensor:
        """State x at each trajectory's ``time``, where y was reached."""
        raise NotImplementedError

    def run(self, time_cotangent: Tensor, state_cotangent: Tensor) -> StoppingGradients:
        """Gradients for cotangents of T (*batch, levels) and x(T) (*batch, levels, d)."""
        self.jumps = [
            self._jump(received) for received in received_at_events(self.solve, time_cotangent, state_cotangent)
        ]
        if self.jumps:
            self._start()
            self._sweep()
            self._arrive()
        return self.gradients

    def _jump(self, received: EventCotangents) -> _Jump:
        """The cotangent by which λ jumps at one level's events, where x(T) drifts with F."""
        rows, event = received.rows, received.event
        usable = self.problem.row_mask(rows)
        end = donate(event.end.detach(), usable)
        slope = self.problem.field_again(donate(self.problem.to_device(event.time), usable), end)
        (cotangents,) = pull_through_criterion(
            self.problem, [received], lambda states: [(state * slope).sum(-1) for state in states], self.gradients
        )
        return _Jump(rows, event.time, cotangents.state, end)

    def _start(self) -> None:
        """Put every trajectory at its last event, with λ = 0 and a first guess of its step size."""
        self.pending = [jump.rows.copy() for jump in self.jumps]
        self.started = np.logical_or.reduce(self.pending)
        self.t = self._next_event(self.t0)
        self.y = self.joined(torch.zeros_like(self.problem.initial_state), self.problem.initial_state.detach())
        self.slope = torch.zeros_like(self.y)
        self.h = (self.t - self.t0) / (self.solve.accepted + 1)
        self.radius = np.zeros_like(self.t)
        self.previous_error = np.ones_like(self.t)
        self.spectral_radius: SpectralRadius | None = None

    def _next_event(self, otherwise: Array) -> Array:
        """Time of each trajectory's next event in the backward direction, or ``otherwise``."""
        times = otherwise
        for rows, jump in zip(self.pending, self.jumps, strict=True):
            times = np.where(rows, np.maximum(times, jump.time), times)
        return times

    def _sweep(self) -> None:
        for attempt in range(self.max_steps):
            self._pass_events()
            active = self.started & (self.t > self.t0)
            if not active.any():
                return
            if attempt % _SPECTRAL_RADIUS_EVERY == 0 and self.solver.fixed_step_size is None:
                self._update_radius()
            self._attempt_step(active)
        raise RuntimeError(f"the adjoint equation needs more than max_steps = {self.max_steps} steps")

    def _pass_events(self) -> None:
        """Add the cotangents of the events that the trajectories have arrived at."""
        passed = False
        for rows, jump in zip(self.pending, self.jumps, strict=True):
            here = rows & (jump.time >= self.t)
            if here.any():
                mask = self.problem.row_mask(here).unsqueeze(-1)
                jumped = self.joined(self._adjoint(self.y) + jump.cotangent, jump.state)
                self.y, passed = torch.where(mask, jumped, self.y), True
                rows &= ~here
        if passed:
            self.slope = self._field(torch.zeros_like(self.problem.t0), self.y)

    def _update_radius(self) -> None:
        """Spectral radius for the stability limit: that of ∂F/∂x along the trajectory."""
        x, t = self._donated(self.state(self.t, self.y), self.t, self.started)
        slope = self.problem.field_again(t, x)
        if self.spectral_radius is None:
            self.spectral_radius = SpectralRadius(self.problem.field_again, t, x, slope)
        else:
            self.spectral_radius.update(t, x, slope)
        (self.radius,) = to_host(self.spectral_radius.value)

    def _attempt_step(self, active: Array) -> None:
        target = self._next_event(self.t0)
        with np.errstate(divide="ignore"):
            cap = self.solver.stability_fraction * self.solver.stability_limit / self.radius
        wanted, remaining = np.minimum(self.h, cap), self.t - target
        at_target = wanted >= remaining
        if (active & ~at_target & (self.t - wanted >= self.t)).any():
            raise RuntimeError("the adjoint equation needs steps below the resolution of time")
        h = self.problem.rounded(np.where(active, np.minimum(wanted, remaining), 0.0))
        elapsed, stages = torch.zeros_like(self.problem.t0), self.solver.stages_for(h, self.radius)
        step = self.solver.step(self._field, elapsed, self.y, self.problem.to_device(h), self.slope, stages)
        error = self._error(step)
        accepted = active & (error <= 1.0)
        if accepted.any():
            self._integrate_parameters(step, h, accepted)
            self._adopt(step, np.where(at_target, target, self.t - h), accepted)
        self._control(h, error, accepted, at_target)

    def _adopt(self, step: Step, time: Array, accepted: Array) -> None:
        mask = self.problem.row_mask(accepted).unsqueeze(-1)
        self.y = torch.where(mask, step.end, self.y)
        self.slope = torch.where(mask, step.end_slope, self.slope)
        self.t = np.where(accepted, time, self.t)

    def _error(self, step: Step) -> Array:
        """Local error of λ, and of x where it is integrated as well, relative to the tolerance."""
        sizes = []
        for part in zip(*(y.split(self.dimension, dim=-1) for y in (step.start, step.end, step.error)), strict=True):
            start, end, error = torch.linalg.vector_norm(torch.stack(part), dim=-1)
            allowed = self.atol + self.rtol * torch.maximum(start, end)
            sizes.append(torch.where(error == 0, error, error / allowed))
        return to_host(torch.stack(sizes).amax(dim=0))[0]

    def _control(self, h: Array, error: Array, accepted: Array, at_target: Array) -> None:
        """Choose the next step size; a step that an event cut short does not shrink it."""
        if self.solver.fixed_step_size is not None and not np.isfinite(error[h > 0]).all():
            raise RuntimeError("the adjoint equation became non-finite")
        local_order = self.solver.error_order + 1
        factor = self.solver.controller.factor(error, self.previous_error, accepted, local_order)
        proposed = np.where(accepted & at_target, np.maximum(self.h, h * factor), h * factor)
        self.previous_error = np.where(accepted, np.maximum(error, 1e-4), self.previous_error)
        self.h = np.where(h > 0, proposed, self.h)

    def _integrate_parameters(self, step: Step, h: Array, rows: Array) -> None:
        """Add the step's part of ∫ (∂F/∂θ)ᵀλ dt for the given trajectories."""
        parameters = self.problem.dynamics.parameters
        if not parameters:
            return
        dense, size = self.solver.dense_output(step), self.problem.to_device(h)
        mask = self.problem.row_mask(rows).unsqueeze(-1)
        for node, weight in zip(_GAUSS_NODES, _GAUSS_WEIGHTS, strict=True):
            y, time = dense(torch.full_like(size, node)), self.t - node * h
            x, t = self._donated(self.state(time, y), time, rows)
            cotangent = torch.where(mask, weight * size.unsqueeze(-1) * self._adjoint(y), 0.0)
            self.stats.vjps += 1
            add_to(
                self.gradients.dynamics,
                vector_jacobian_product(self.problem.field_with_graph(t, x), parameters, cotangent),
            )

    def _field(self, elapsed: Tensor, y: Tensor) -> Tensor:
        """Slope of y, ``elapsed`` before the present times."""
        time = self.t - to_host(elapsed)[0]
        x, t = self._donated(self.state(time, y), time, self.started)
        x = x.detach().requires_grad_()
        slope = self.problem.field_with_graph(t, x)
        self.stats.vjps += 1
        (pulled_back,) = vector_jacobian_product(slope, (x,), self._adjoint(y))
        return self.joined(pulled_back, -slope.detach())

    def _adjoint(self, y: Tensor) -> Tensor:
        return y[..., : self.dimension]

    def _donated(self, state: Tensor, time: Array, rows: Array) -> tuple[Tensor, Tensor]:
        """State and time, with those of one of ``rows`` in all the others."""
        mask = self.problem.row_mask(rows)
        return donate(state, mask), donate(self.problem.to_device(time), mask)

    def _arrive(self) -> None:
        """Gradients of x0 and t0: later starts at the same x0 are starts from x0 - F dt0."""
        mask = self.problem.row_mask(self.started)
        adjoint = torch.where(mask.unsqueeze(-1), self._adjoint(self.y), 0.0)
        self.gradients.initial_state += adjoint
        self.gradients.t0 -= torch.where(mask, (adjoint * self.problem.initial_slope).sum(-1), 0.0)


class _AlongDenseOutput(AdjointSweep):
    """x(t) from the dense output of the forward solve; only λ is integrated."""

    def _start(self) -> None:
        super()._start()
        self.window = TrajectoryWindow(DenseTrajectory(self.problem, self.solver, self.solve))

    def joined(self, adjoint: Tensor, state: Tensor) -> Tensor:
        return adjoint

    def state(self, time: Array, y: Tensor) -> Tensor:
        return self.window(time)
