"""What the gradient methods with first derivatives share: how a pull-back of cotangents becomes a ``backward()``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odestop._functions import first_order_only
from odestop.continuous.forward import ForwardSolve
from odestop.continuous.problem import StoppingProblem
from odestop.status import StoppingStatus


@dataclass
class StoppingGradients:
    """Gradients of a scalar with respect to everything T and x(T) depend on.

    ``initial_state`` (*batch, d), ``threshold`` (*batch, levels), ``t0`` (*batch,), and one tensor per parameter.
    """

    initial_state: Tensor
    threshold: Tensor
    t0: Tensor
    dynamics: list[Tensor]
    criterion: list[Tensor]

    @classmethod
    def zeros(cls, problem: StoppingProblem) -> StoppingGradients:
        """Gradients to add to."""
        return cls(
            torch.zeros_like(problem.initial_state),
            torch.zeros_like(problem.threshold),
            torch.zeros_like(problem.t0),
            [torch.zeros_like(parameter) for parameter in problem.dynamics.parameters],
            [torch.zeros_like(parameter) for parameter in problem.criterion.parameters],
        )


PullBack = Callable[[Tensor, Tensor], StoppingGradients]
"""Cotangents of T (*batch, levels) and x(T) (*batch, levels, d) to gradients, for the trajectories that reached."""


def attach_first_order(problem: StoppingProblem, solve: ForwardSolve, pull_back: PullBack) -> tuple[Tensor, Tensor]:
    """T and x(T) of a forward solve as tensors whose backward is ``pull_back``."""
    return _StoppingTime.apply(
        problem,
        solve,
        pull_back,
        problem.initial_state,
        problem.threshold,
        problem.t0,
        *problem.dynamics.parameters,
        *problem.criterion.parameters,
    )


class _StoppingTime(torch.autograd.Function):
    """Hands a forward solve to autograd."""

    @staticmethod
    def forward(
        ctx: Any, problem: StoppingProblem, solve: ForwardSolve, pull_back: PullBack, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.problem, ctx.solve, ctx.pull_back = problem, solve, pull_back
        # Saved so that torch refuses a backward after an in-place change of any of them.
        ctx.save_for_backward(*inputs)
        return problem.levels_to_device(solve.time), solve.state.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        inputs: Sequence[Tensor] = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        with torch.no_grad():
            ctx.problem.refuse_hidden_dependence()
            gradients = ctx.pull_back(*cotangents)
            _add_satisfied(ctx.problem, ctx.solve, gradients, *cotangents)
        found = (
            gradients.initial_state,
            gradients.threshold,
            gradients.t0,
            *gradients.dynamics,
            *gradients.criterion,
        )
        wanted = [gradient if need else None for gradient, need in zip(found, needed, strict=True)]
        advice = 'use gradient="unrolled" for higher ones'
        return None, None, None, *first_order_only(wanted, inputs, advice)


def _add_satisfied(
    problem: StoppingProblem,
    solve: ForwardSolve,
    gradients: StoppingGradients,
    time_cotangent: Tensor,
    state_cotangent: Tensor,
) -> None:
    """Where J(x0) ≤ ε already, T = t0 and x(T) = x0."""
    codes = torch.from_numpy(solve.codes == StoppingStatus.ALREADY_SATISFIED.code)
    satisfied = codes.to(time_cotangent.device).reshape(time_cotangent.shape)
    gradients.t0 += torch.where(satisfied, time_cotangent, 0.0).sum(-1)
    gradients.initial_state += torch.where(satisfied.unsqueeze(-1), state_cotangent, 0.0).sum(-2)


def vector_jacobian_product(
    output: Tensor, inputs: Sequence[Tensor], cotangent: Tensor, *, retain_graph: bool = False
) -> tuple[Tensor, ...]:
    """(∂ output/∂ inputs)ᵀ cotangent, with zeros for inputs that do not enter."""
    if not inputs or not output.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    return torch.autograd.grad(
        output, inputs, cotangent, retain_graph=retain_graph, allow_unused=True, materialize_grads=True
    )


def add_to(totals: Sequence[Tensor], parts: Sequence[Tensor]) -> None:
    """Add to each gradient its part, in place."""
    for total, part in zip(totals, parts, strict=True):
        total += part
