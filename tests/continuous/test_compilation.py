"""compile=True gives the eager answer, compiles a kind of step once, and gives up in one warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import odestop
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import CoordinatewisePreconditioner, PreconditionedFlow
from odestop.objectives import DiagonalQuadratic
from odestop.solvers import Heun

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


class Question:
    """A learned flow in three dimensions with ‖∇f‖² as its criterion."""

    def __init__(self, seed: int = 0) -> None:
        objective = DiagonalQuadratic(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))
        preconditioner = CoordinatewisePreconditioner(3, seed=seed, dtype=torch.float64)
        self.dynamics, self.criterion = PreconditionedFlow(objective, preconditioner), SquaredGradientNorm(objective)

    def solve(
        self, threshold: float = 1e-2, start: float | Tensor = 1.0, **options: object
    ) -> odestop.continuous.ContinuousSolution:
        x0 = torch.as_tensor(start, dtype=torch.float64).unsqueeze(-1) * torch.tensor([1.0, -0.5, 2.0]).double()
        return odestop.continuous_stopping_time(self.dynamics, x0, self.criterion, threshold, **options)

    def answers(self, *arguments: object, **options: object) -> list[Tensor]:
        solution = self.solve(*arguments, **options)
        gradients = torch.autograd.grad(solution.time.sum(), list(self.dynamics.parameters()))
        return [solution.time.detach(), solution.state.detach(), *gradients]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_one_code_serves_every_time_step_threshold_and_tolerance(compilations: list[Callable]) -> None:
    question = Question()
    question.solve(compile=True, max_steps=5)
    compiled = len(compilations)
    assert compiled >= 1
    for options in ({}, {"threshold": 1e-1}, {"t0": 0.5}, {"rtol": 1e-5, "atol": 1e-6}, {"start": 0.7}):
        question.solve(compile=True, **options)
    Question(seed=1).solve(compile=True)
    assert len(compilations) == compiled


@pytest.mark.parametrize("method", ["dopri5", "rkc2", Heun(step_size=0.05)])
def test_answers_gradients_and_counts_are_those_of_an_eager_solve(
    compilations: list[Callable], method: str | odestop.solvers.OneStepMethod
) -> None:
    question, options = Question(), {"method": method, "rtol": 1e-2, "atol": 1e-3}
    assert_same(question.answers(compile=True, **options), question.answers(**options))
    compiled, eager = question.solve(compile=True, **options).stats, question.solve(**options).stats
    assert (compiled.nfe, compiled.criterion_evaluations) == (eager.nfe, eager.criterion_evaluations)
    assert compilations


def test_trajectories_of_a_batch_finish_one_after_the_other_in_one_code(compilations: list[Callable]) -> None:
    question = Question()
    starts = torch.tensor([0.3, 1.0, 3.0, 10.0, 30.0])
    question.solve(start=starts, compile=True, max_steps=5)
    compiled = len(compilations)
    found = question.solve(start=starts, compile=True)
    assert len(compilations) == compiled
    torch.testing.assert_close(found.time, question.solve(start=starts).time, rtol=1e-10, atol=0.0)


@pytest.mark.usefixtures("without_compiler")
def test_where_compilation_fails_one_warning_says_so() -> None:
    question = Question()
    message = r"compile=True had no effect on the step, because.*no working C\+\+ compiler"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        found = question.solve(compile=True)
    assert len(caught) == 1
    eager = question.solve()
    assert torch.equal(found.time, eager.time)
    assert found.stats.nfe == eager.stats.nfe


def test_a_criterion_that_calls_autograd_is_evaluated_as_it_is(compilations: list[Callable]) -> None:
    def steepness(x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad((x**4).sum(), x, create_graph=True)
        return (gradient**2).sum(-1)

    x0 = torch.ones(2, dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match="compile=True had no effect on the step"):
        solution = odestop.continuous_stopping_time(lambda t, x: -x, x0, steepness, 1e-3, compile=True)
    # J = 32 exp(-6 t)
    torch.testing.assert_close(solution.time, torch.tensor(32e3, dtype=torch.float64).log() / 6, rtol=1e-6, atol=0.0)


def test_the_default_backend_compiles() -> None:
    torch.compiler.reset()
    rate = torch.tensor(2.0, dtype=torch.float64)
    x0 = torch.ones(2, dtype=torch.float64)
    times = []
    with warnings.catch_warnings():
        # A machine without a compiler still has to give the right answer.
        warnings.filterwarnings("ignore", message="compile=True had no effect")
        for compile in (True, False):
            solution = odestop.continuous_stopping_time(
                lambda t, x: -rate * x, x0, lambda x: x[..., 0], 0.1, method=Heun(step_size=0.1), compile=compile
            )
            times.append(solution.time)
    torch.testing.assert_close(*times, rtol=1e-13, atol=0.0)
