"""Algorithm 1: the adjoint of the discrete run, one recomputed step at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from odestop.discrete.checkpoints import Trajectory
from odestop.discrete.pullback import own_pull_back, pull_back, refuse_detached_step


def discrete_adjoint(
    step_map: Callable[[int, Tensor], Tensor],
    trajectory: Trajectory,
    cotangent: Float[Tensor, "*batch m"],
    parameters: Sequence[Tensor] = (),
    *,
    steps: Int[Tensor, "*batch"] | None = None,
    previous_cotangent: Float[Tensor, "*batch m"] | None = None,
    backward_steps: int | None = None,
) -> tuple[Float[Tensor, "*batch m"], tuple[Tensor, ...]]:
    """Pull a cotangent of x_N back to x_0 and to the parameters (Alg. 1 of arXiv 2505.22509).

    With Φ_k the step from x_k:  λ ← cotangent, S ← 0;  for k = N-1, …, 0:  S ← S + (∂Φ_k/∂θ)ᵀ λ and
    λ ← (∂Φ_k/∂x)ᵀ λ.  For Euler, Φ_k(x) = x - h A(θ, x, t_k), this is the paper's recursion.  Started from
    ∇J(x_N), it ends in S = ∇J(x_N)ᵀ ∂x_N/∂θ and λ = ∇J(x_N)ᵀ ∂x_N/∂x_0 (Prop. 1).  In memory: the trajectory
    and the graph of one step.

    Parameters
    ----------
    step_map
        ``(k, state) -> state``; its ``pull_back``, if it has one, does the work where it can (see `StepMap`).
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
    backward_steps
        m to stop each trajectory's recursion after its last m steps: x_{N-m} counts as a constant, and λ at x_0 is
        zero where N > m.  Of ``trajectory``, only these m iterates are used.  All steps by default.

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
    depth = longest if backward_steps is None else backward_steps
    cuts = {count - depth for count in counts if count > depth}
    analytic = own_pull_back(step_map)
    adjoint = torch.zeros_like(cotangent)
    sums = tuple(torch.zeros_like(parameter) for parameter in parameters)
    for k in differentiated_steps(steps, backward_steps):
        state = trajectory[k] if k < shortest else with_stand_ins(trajectory[k], steps > k, donor)
        if k + 1 in stops:
            adjoint = torch.where((steps == k + 1).unsqueeze(-1), cotangent, adjoint)
        step = partial(step_map, k)
        with torch.no_grad():
            answer = analytic(k, state, adjoint, parameters)
        pulled, gradients = answer or pull_back(step, state, parameters, adjoint)
        if k + 1 == longest and (pulled is None or torch.equal(pulled, adjoint)):
            refuse_detached_step(step, state)
        adjoint = torch.zeros_like(cotangent) if pulled is None else pulled
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient
        if previous_cotangent is not None and k + 1 in stops:
            adjoint = torch.where((steps == k + 1).unsqueeze(-1), adjoint + previous_cotangent, adjoint)
        if k in cuts:
            adjoint = torch.where((steps == k + depth).unsqueeze(-1), 0.0, adjoint)
    return (adjoint if shortest > 0 else torch.where((steps == 0).unsqueeze(-1), cotangent, adjoint)), sums


def differentiated_steps(steps: Int[Tensor, "*batch"], backward_steps: int | None = None) -> list[int]:
    """Return the k of the steps that `discrete_adjoint` goes through, each for the whole batch, in falling order."""
    counts = sorted(set(steps.flatten().tolist()), reverse=True)
    chosen: list[int] = []
    lowest = counts[0]
    for count in counts:
        first = 0 if backward_steps is None else max(count - backward_steps, 0)
        chosen.extend(reversed(range(first, min(count, lowest))))
        lowest = min(lowest, first)
    return chosen


def with_stand_ins(
    states: Float[Tensor, "*batch m"], healthy: Bool[Tensor, "*batch"], donor: int
) -> Float[Tensor, "*batch m"]:
    """Give the others a healthy trajectory's state: 0 · NaN of theirs would poison shared parameters."""
    return torch.where(healthy.unsqueeze(-1), states, states.reshape(-1, states.shape[-1])[donor])
