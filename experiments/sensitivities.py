"""One stopping-time question, answered by the flow and by its Euler steps, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import odestop
from odestop.comparison import cosine_similarity, relative_error
from odestop.continuous import ContinuousSolution
from odestop.discrete import Euler, discrete_stopping_time
from odestop.sweeps import Record


@dataclass(frozen=True)
class Question:
    """When the flow of ``dynamics`` from ``x0`` meets J(x) ≤ ε, and how that depends on θ.

    Attributes
    ----------
    dynamics
        ``(t, x) -> dx/dt``.
    criterion
        J.
    x0
        Initial point, shape (d,).
    parameters
        θ.
    """

    dynamics: nn.Module
    criterion: nn.Module
    x0: Tensor
    parameters: tuple[Tensor, ...]


@dataclass(frozen=True)
class FlowAnswer:
    """T and ∇T at one threshold by `odestop.continuous_stopping_time`, and what torchdiffeq says.

    Attributes
    ----------
    time, gradient
        T and ∇T.
    status
        Name of the status.
    nfe
        Evaluations of the dynamics.
    nfe_torchdiffeq
        The same for torchdiffeq's dopri5, at the same tolerances: its defaults, and ours.
    torchdiffeq_time_difference, torchdiffeq_gradient_difference
        Relative differences of torchdiffeq's T and ∇T from ours; nan where it was not differentiated.
    """

    time: float
    gradient: tuple[Tensor, ...]
    status: str
    nfe: int
    nfe_torchdiffeq: int
    torchdiffeq_time_difference: float
    torchdiffeq_gradient_difference: float


def answer_by_flow(question: Question, threshold: float, differentiate_torchdiffeq: bool) -> FlowAnswer:
    """Solve the ODE to the threshold with odestop and with torchdiffeq.

    Parameters
    ----------
    question
        The flow and its target.
    threshold
        ε.
    differentiate_torchdiffeq
        Whether to compute torchdiffeq's gradient, which keeps the graph of the whole solve, as well.

    Returns
    -------
    FlowAnswer
        T, ∇T and the differences.
    """
    solution = odestop.continuous_stopping_time(
        question.dynamics, question.x0, question.criterion, threshold, on_failure="raise"
    )
    gradient = torch.autograd.grad(solution.time, question.parameters)
    with nullcontext() if differentiate_torchdiffeq else torch.no_grad():
        other = odestop.torchdiffeq_stopping_time(question.dynamics, question.x0, question.criterion, threshold)
    time = solution.time.item()
    return FlowAnswer(
        time=time,
        gradient=gradient,
        status=_name(solution),
        nfe=solution.stats.nfe,
        nfe_torchdiffeq=other.stats.nfe,
        torchdiffeq_time_difference=abs(other.time.item() - time) / abs(time),
        torchdiffeq_gradient_difference=_difference(other, question.parameters, gradient),
    )


def answer_by_steps(
    question: Question, flow: FlowAnswer, threshold: float, step_size: float, sensitivity: str
) -> Record:
    """Run Euler to the threshold and compare h ∇N with ∇T (Thm. 2).

    Parameters
    ----------
    question
        The flow and its target.
    flow
        Its answer by the flow, at the same threshold.
    threshold
        ε.
    step_size
        h.
    sensitivity
        ``"definition3"`` or ``"interpolated"``.

    Returns
    -------
    dict
        T, N, the sizes of both gradients, their relative error and cosine, evaluations of the dynamics, statuses.
    """
    solution = discrete_stopping_time(
        Euler(question.dynamics, step_size),
        question.x0,
        question.criterion,
        threshold,
        sensitivity=sensitivity,
        on_failure="raise",
    )
    gradient = torch.autograd.grad(step_size * solution.steps, question.parameters)
    nfe = solution.stats.nfe
    return {
        "time": flow.time,
        "steps": solution.steps.item(),
        "scaled_steps": step_size * solution.steps.item(),
        "time_gradient_norm": _norm(flow.gradient),
        "scaled_steps_gradient_norm": _norm(gradient),
        "relative_error": relative_error(gradient, flow.gradient),
        "cosine": cosine_similarity(gradient, flow.gradient),
        "nfe_euler": nfe,
        "nfe_native": flow.nfe,
        "nfe_torchdiffeq": flow.nfe_torchdiffeq,
        "nfe_ratio": nfe / flow.nfe_torchdiffeq,
        "nfe_ratio_native": nfe / flow.nfe,
        "torchdiffeq_time_difference": flow.torchdiffeq_time_difference,
        "torchdiffeq_gradient_difference": flow.torchdiffeq_gradient_difference,
        "status_continuous": flow.status,
        "status_discrete": solution.status.name,  # type: ignore[union-attr]
    }


def _difference(other: ContinuousSolution, parameters: Sequence[Tensor], gradient: Sequence[Tensor]) -> float:
    if not other.time.requires_grad:
        return float("nan")
    return relative_error(torch.autograd.grad(other.time, parameters), gradient)


def _name(solution: ContinuousSolution) -> str:
    return solution.status.name  # type: ignore[union-attr]


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.cat([tensor.flatten() for tensor in tensors])))
