"""Algorithm 1: the adjoint of the discrete run, one recomputed step at a time, behind an ordinary ``backward()``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from odestop._functions import TrackedFunction
from odestop.discrete.pullback import pull_back, refuse_detached_step
from odestop.discrete.sensitivity import Sensitivity
from odestop.discrete.solution import DiscreteStats
from odestop.discrete.trajectory import StoppedRun
from odestop.status import StoppingStatus, statuses_reached


def discrete_adjoint(
    step_map: Callable[[int, Tensor], Tensor],
    trajectory: Sequence[Tensor],
    cotangent: Float[Tensor, "*batch m"],
    parameters: Sequence[Tensor] = (),
    *,
    steps: Int[Tensor, "*batch"] | None = None,
    previous_cotangent: Float[Tensor, "*batch m"] | None = None,
) -> tuple[Float[Tensor, "*batch m"], tuple[Tensor, ...]]:
    """Pull a cotangent of x_N back to x_0 and to the parameters (Alg. 1 of arXiv 2505.22509).

    λ ← cotangent, S ← 0; for k = N-1, …, 0, with Φ_k the step from x_k:  S ← S + (∂Φ_k/∂θ)ᵀ λ,  λ ← (∂Φ_k/∂x)ᵀ λ.
    For Euler, Φ_k(x) = x - h A(θ, x, t_k), this is the paper's recursion.  With the cotangent ∇J(x_N) it ends in
    S = ∇J(x_N)ᵀ ∂x_N/∂θ and λ = ∇J(x_N)ᵀ ∂x_N/∂x_0 (Prop. 1).  Memory: the trajectory and the graph of one step.

    Parameters
    ----------
    step_map
        ``(k, state) -> state``.
    trajectory
        x_0, …, x_{N-1}, each of shape (*batch, m); as long as the largest N of a batch.
    cotangent
        λ at x_N, shape (*batch, m).
    parameters
        θ: tensors that the step map uses.
    steps
        N of each trajectory, shape (*batch,); the length of ``trajectory`` for all of them by default.
    previous_cotangent
        A cotangent of x_{N-1} to add on the way, shape (*batch, m).

    Returns
    -------
    tuple
        λ at x_0, shape (*batch, m), and S, one tensor per parameter; zero for parameters that do not enter.

    Raises
    ------
    RuntimeError
        If the step map hides its dependence on the state from autograd.

    Examples
    --------
    >>> import torch
    >>> rate = torch.tensor(0.5, requires_grad=True)
    >>> halve = lambda k, x: x - rate * x
    >>> trajectory = [torch.tensor([8.0]), torch.tensor([4.0]), torch.tensor([2.0])]
    >>> discrete_adjoint(halve, trajectory, torch.ones(1), [rate])  # x_3 = (1 - rate)³ 8
    (tensor([0.1250]), (tensor(-6.),))
    """
    if steps is None:
        steps = torch.full(cotangent.shape[:-1], len(trajectory), device=cotangent.device)
    counts = steps.flatten().tolist()
    shortest, longest = min(counts), max(counts)
    donor, stops = counts.index(longest), set(counts)
    adjoint = torch.zeros_like(cotangent)
    sums = tuple(torch.zeros_like(parameter) for parameter in parameters)
    for k in reversed(range(longest)):
        state = trajectory[k] if k < shortest else _with_stand_ins(trajectory[k], steps > k, donor)
        if k + 1 in stops:
            adjoint = torch.where((steps == k + 1).unsqueeze(-1), cotangent, adjoint)
        step = partial(step_map, k)
        pulled, *gradients = pull_back(step, state, parameters, adjoint)
        if k + 1 == longest:
            refuse_detached_step(step, state, adjoint, pulled)
        adjoint = torch.zeros_like(cotangent) if pulled is None else pulled
        for total, gradient in zip(sums, gradients, strict=True):
            if gradient is not None:
                total += gradient
        if previous_cotangent is not None and k + 1 in stops:
            adjoint = torch.where((steps == k + 1).unsqueeze(-1), adjoint + previous_cotangent, adjoint)
    return (adjoint if shortest > 0 else torch.where((steps == 0).unsqueeze(-1), cotangent, adjoint)), sums


def _with_stand_ins(
    states: Float[Tensor, "*batch m"], healthy: Bool[Tensor, "*batch"], donor: int
) -> Float[Tensor, "*batch m"]:
    """Give trajectories without a cotangent a healthy one's state: their 0 · NaN would poison shared parameters."""
    return torch.where(healthy.unsqueeze(-1), states, states.reshape(-1, states.shape[-1])[donor])


@dataclass(frozen=True)
class StoppingSteps:
    """A finished run and the functions that produced it: all that its gradient needs."""

    run: StoppedRun
    step: TrackedFunction
    criterion: TrackedFunction
    sensitivity: Sensitivity
    stats: DiscreteStats

    def attach(
        self, initial_state: Float[Tensor, "*batch m"], threshold: Float[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch m"]]:
        """Return the step count and x_N as differentiable tensors."""
        return _AttachGradient.apply(
            self, initial_state, threshold, *self.step.parameters, *self.criterion.parameters
        )

    def steps(self, threshold: Tensor) -> Tensor:
        """Step count of each trajectory: 0 where it is met at the start, +inf where it never is."""
        run = self.run
        steps = self.sensitivity.steps(run.count, run.previous_value, run.final_value, threshold)
        steps = torch.where(run.codes == StoppingStatus.ALREADY_SATISFIED.code, 0.0, steps)
        return torch.where(statuses_reached(run.codes), steps, torch.inf)

    def pull_back(
        self,
        steps_cotangent: Tensor | None,
        state_cotangent: Tensor | None,
        threshold: Tensor,
        needed: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        """Cotangents of x_0, the threshold, the step map's parameters and the criterion's parameters."""
        criterion_sums = [torch.zeros_like(parameter) for parameter in self.criterion.parameters]
        threshold_gradient = None
        final, previous = self._state_cotangent(state_cotangent), None
        crossed = self.run.codes == StoppingStatus.REACHED.code
        if steps_cotangent is not None and bool(crossed.any()):
            self._refuse_detached_criterion()
            weights = self.sensitivity.weights(self.run.previous_value, self.run.final_value, threshold)
            scaled = [None if w is None else torch.where(crossed, w * steps_cotangent, 0.0) for w in weights]
            at_final, at_previous, threshold_gradient = scaled
            final = final + self._through_criterion(self.run.final_state, crossed, at_final, criterion_sums)
            if at_previous is not None:
                previous = self._through_criterion(
                    self.run.previous_state, crossed, at_previous, criterion_sums
                )
        swept = self._through_steps(final, previous, needed)
        return swept[0], threshold_gradient, *swept[1], *criterion_sums
