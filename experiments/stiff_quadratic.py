"""T and ∇T of the problem of Figure 2 at any condition number: what the measurements of accuracy and cost ask for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import odestop
from experiments.benchmark.cases import Case, pose
from experiments.gradient_methods import joined
from odestop.comparison import relative_error
from odestop.solvers import Automatic, OneStepMethod


@dataclass(frozen=True)
class Answer:
    """T, ∇T for the parameters of the preconditioner, and the evaluations and vector-Jacobian products they took."""

    time: float
    gradient: Tensor
    evaluations: int
    vjps: int

    def errors(self, exact: Answer) -> tuple[float, float]:
        """Return the relative errors of T and ∇T."""
        return abs(self.time / exact.time - 1.0), relative_error(self.gradient, exact.gradient)


def answer(
    dimension: int,
    condition_number: float,
    threshold: float,
    method: str | OneStepMethod | Automatic,
    rtol: float,
    atol: float,
) -> Answer:
    """Solve a dense quadratic with a learned preconditioner until ‖∇f‖² is at the threshold."""
    problem = pose(Case(dimension, condition_number))
    solution = odestop.continuous_stopping_time(
        problem.dynamics,
        problem.x0[0],
        problem.criterion,
        threshold,
        method=method,
        rtol=rtol,
        atol=atol,
        max_steps=1_000_000,
    )
    gradient = joined(torch.autograd.grad(solution.time, problem.parameters))
    return Answer(solution.time.item(), gradient, solution.stats.nfe, solution.stats.vjps)
