"""Accuracy against cost: the error of every way to ∇T, against evaluations, wall time and memory.

Three questions: the learned preconditioner of Figure 2 (d = 100, 1000 parameters), logistic regression on real data (2
parameters) and a stiff quadratic of condition number 10⁴ (1 parameter).  The adaptive methods are run over a range of
rtol, with atol = rtol/100; finite differences over a range of widths; h ∇N of Algorithm 1 over a range of h, with
Definition 3 for Euler and the Hermite fractional step for Heun and Runge-Kutta 4.  The error is relative to ∇T of an
eighth-order solve at rtol 1e-12, which torchdiffeq at the same tolerance and, where there is one, a closed form check.

An evaluation is one call of the dynamics, in the forward solve or in the gradient; a pull-back is one
vector-Jacobian product through such a call, a batch of them counting as one.  Time is measured without any counting.
Every round goes through all cells, every second one backward, and the median over the rounds is taken.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
import torchdiffeq
from scipy.optimize import brentq
from torch import Tensor, nn

import odestop
from experiments import gradient_methods
from experiments.gradient_methods import Question, accurate_gradient, joined
from experiments.peak_memory import PeakMemory
from odestop.comparison import relative_error
from odestop.continuous.gradients import Backsolve, FiniteDifference, GradientMethod
from odestop.discrete import Euler, Heun, RungeKutta4, TimeStepMap, discrete_stopping_time
from odestop.dynamics import CoordinatewisePreconditioner, PreconditionedFlow
from odestop.objectives import Quadratic
from odestop.sweeps import Record, Runner, Sweep

LEARNED, LOGISTIC, STIFF = "learned preconditioner, d = 100", "logistic regression", "stiff quadratic, κ = 1e4"
NATIVE = ("discrete_adjoint", "continuous_adjoint", "forward_sensitivity", "unrolled", "backsolve")
TORCHDIFFEQ = ("odeint_event", "odeint_adjoint")
# Name: step map, sensitivity, and how many times larger than for Euler the smallest h is.
STEPPED: dict[str, tuple[type[TimeStepMap], str, int]] = {
    "Euler": (Euler, "definition3", 1),
    "Heun": (Heun, "hermite", 4),
    "Runge-Kutta 4": (RungeKutta4, "hermite", 8),
}
# Where x is integrated backward and blows up, there is no use in more steps than this.
_BACKWARD_STEPS = 200

# With many parameters these two cost as many solves, or tangents: minutes for 1000 of them.
_PER_PARAMETER = ("forward_sensitivity", "finite_difference")


@dataclass(frozen=True)
class Cell:
    """One way to ∇T: ``setting`` is rtol, the width of the differences, or h.

    Round 0 counts evaluations and memory, the others measure time.
    """

    question: str
    method: str
    setting: float
    round: int


@dataclass(frozen=True)
class Reference:
    """One question whose reference is checked."""

    question: str


@dataclass(frozen=True)
class Grid:
    """The settings of a scale."""

    questions: tuple[str, ...]
    tolerances: tuple[float, ...]
    widths: tuple[float, ...]
    halvings: int
    rounds: int
    many_tangents: bool

    def cells(self) -> list[Cell]:
        """Return the cells of all rounds, every second round backward."""
        ways = [(name, *way) for name in self.questions for way in self._ways(name)]
        rounds = [ways if number % 2 else ways[::-1] for number in range(self.rounds + 1)]
        return [Cell(*way, number) for number, ordered in enumerate(rounds) for way in ordered]

    def _ways(self, question: str) -> list[tuple[str, float]]:
        few = question != LEARNED
        ways = [
            (method, tolerance)
            for method in (*NATIVE, *TORCHDIFFEQ)
            if few or self.many_tangents or method not in _PER_PARAMETER
            for tolerance in self.tolerances
        ]
        if few:
            ways += [("finite_difference", width) for width in self.widths]
        for name, (_, _, coarser) in STEPPED.items():
            halvings = max(self.halvings - int(math.log2(coarser)), 1)
            ways += [(name, LARGEST_STEP[question] / 2**k) for k in range(halvings + 1)]
        return ways


LARGEST_STEP = {LEARNED: 1.6, LOGISTIC: 0.2, STIFF: 1.8}
GRIDS = {
    "tiny": Grid((LOGISTIC,), (1e-6,), (1e-3,), 0, 1, many_tangents=False),
    "quick": Grid((LEARNED, LOGISTIC, STIFF), (1e-4, 1e-7), (1e-1, 1e-2, 1e-3), 3, 2, many_tangents=False),
    "paper": Grid(
        (LEARNED, LOGISTIC, STIFF),
        (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9),
        (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
        6,
        5,
        many_tangents=True,
    ),
}


def run(scale: str, runner: Runner) -> dict[str, pd.DataFrame]:
    """Run a scale.

    Parameters
    ----------
    scale
        ``"quick"``, ``"paper"``, or ``"tiny"`` for a test of the machinery.
    runner
        Runs the cells.

    Returns
    -------
    dict
        ``accuracy_and_cost``: one row per question, method and setting, with the relative error of ∇T, evaluations,
        pull-backs, ``gradient_seconds`` (median, solve and gradient) and ``peak_bytes``; nan where the method gives up.
        ``reference_checks``: relative differences of the reference from independent answers.
    """
    grid = GRIDS[scale]
    # Cells of equal cost are solved in their order.
    table = runner.run(Sweep("accuracy and cost", grid.cells(), solve, alone=True))
    keys = ["question", "method", "setting"]
    counted = table[table["round"] == 0].drop(columns=["round", "seconds", "gradient_seconds"])
    timed = table[table["round"] > 0].groupby(keys, sort=False)["gradient_seconds"].median()
    checks = runner.run(Sweep("reference checks", [Reference(name) for name in grid.questions], check_reference))
    return {
        "accuracy_and_cost": counted.join(timed, on=keys).sort_values(keys, ignore_index=True),
        "reference_checks": checks,
    }


def solve(cell: Cell) -> Record:
    """Compute ∇T or h ∇N once, and count or time it."""
    question = pose(cell.question)
    exact = _reference(cell.question)
    counter = CallCounter(question.dynamics)
    counts = {"evaluations": math.nan, "pullbacks": math.nan, "peak_bytes": math.nan, "gradient_seconds": math.nan}
    try:
        if cell.round == 0:
            counted = Question(counter, question.x0, question.criterion, question.threshold)
            with PeakMemory() as memory:
                approximation = _differentiate(counted, cell.method, cell.setting)
            counts |= {"evaluations": counter.evaluations, "pullbacks": counter.pullbacks}
            counts |= {"peak_bytes": memory.peak_bytes}
        else:
            start = time.perf_counter()
            approximation = _differentiate(question, cell.method, cell.setting)
            counts |= {"gradient_seconds": time.perf_counter() - start}
    except (RuntimeError, AssertionError) as failure:
        return {"parameters": exact.numel(), "relative_error": math.nan, **counts, "note": str(failure)}
    error = relative_error(approximation, exact)
    return {"parameters": exact.numel(), "relative_error": error, **counts, "note": ""}


class CallCounter(nn.Module):
    """A dynamics that counts its calls and the pull-backs through them.

    Parameters
    ----------
    dynamics
        ``(t, x) -> dx/dt``.

    Attributes
    ----------
    evaluations, pullbacks
        Calls so far, and gradients that have arrived at their results.
    """

    def __init__(self, dynamics: nn.Module) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.evaluations, self.pullbacks = 0, 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return dx/dt."""
        self.evaluations += 1
        velocity = self.dynamics(t, x)
        if velocity.requires_grad:
            velocity.register_hook(self._count)
        return velocity

    def _count(self, cotangent: Tensor) -> None:
        self.pullbacks += 1


@cache
def pose(name: str) -> Question:
    """Return a question in float64."""
    if name == LEARNED:
        objective = Quadratic.with_condition_number(100, 100.0, seed=0, dtype=torch.float64)
        flow = PreconditionedFlow(objective, CoordinatewisePreconditioner(100, dtype=torch.float64))
        criterion = odestop.criteria.SquaredGradientNorm(objective)
        return Question(flow, torch.ones(100, dtype=torch.float64), criterion, 1e-3)
    names = {LOGISTIC: "logistic regression", STIFF: "stiff linear, κ = 1e4"}
    return gradient_methods.QUESTIONS[names[name]]()


@cache
def _reference(name: str) -> Tensor:
    return accurate_gradient(pose(name))


def check_reference(cell: Reference) -> Record:
    """Return the relative differences of the reference from torchdiffeq's ∇T and from a closed form, nan without."""
    question, exact = pose(cell.question), _reference(cell.question)
    other = odestop.torchdiffeq_stopping_time(
        question.dynamics,
        question.x0,
        question.criterion,
        question.threshold,
        method="dopri8",
        rtol=1e-12,
        atol=1e-14,
        event_scale=1e6,
    )
    by_torchdiffeq = joined(torch.autograd.grad(other.time, list(question.dynamics.parameters())))
    closed = relative_error(_closed_form(question), exact) if cell.question == STIFF else math.nan
    return {"torchdiffeq": relative_error(by_torchdiffeq, exact), "closed_form": closed}


def _closed_form(question: Question) -> Tensor:
    """Return dT/ds = -T/s of x' = -s Q x at s = 1, with T from Σ λ_i² c_i² exp(-2 λ_i T) = ε."""
    objective = question.criterion.objective
    assert isinstance(objective, Quadratic)
    eigenvalues, vectors = np.linalg.eigh(objective.matrix.numpy())
    weights = (eigenvalues * (vectors.T @ question.x0.numpy())) ** 2
    time = brentq(lambda t: weights @ np.exp(-2 * eigenvalues * t) - question.threshold, 0.0, 1e6, xtol=1e-12)
    return torch.tensor([-time], dtype=torch.float64)


def _differentiate(question: Question, method: str, setting: float) -> Tensor:
    """Return ∇T, or h ∇N, in one vector."""
    if method in STEPPED:
        return _by_steps(question, method, setting)
    if method in TORCHDIFFEQ:
        return _by_torchdiffeq(question, method, setting)
    if method == "finite_difference":
        return gradient_methods.gradient(question, gradient=FiniteDifference(setting))[0]
    way: str | GradientMethod = method
    if method == "backsolve":
        way = Backsolve(rtol=setting, max_steps=_BACKWARD_STEPS)
    return gradient_methods.gradient(question, gradient=way, rtol=setting, atol=setting / 100)[0]


def _by_steps(question: Question, method: str, step_size: float) -> Tensor:
    kind, sensitivity, _ = STEPPED[method]
    solution = discrete_stopping_time(
        kind(question.dynamics, step_size),
        question.x0,
        question.criterion,
        question.threshold,
        sensitivity=sensitivity,
        on_failure="raise",
    )
    return joined(torch.autograd.grad(step_size * solution.steps, list(question.dynamics.parameters())))


def _by_torchdiffeq(question: Question, method: str, tolerance: float) -> Tensor:
    """Differentiate the event time of torchdiffeq, as its users call it."""
    interface: Callable[..., object] = torchdiffeq.odeint_adjoint if method == "odeint_adjoint" else torchdiffeq.odeint
    time, _ = torchdiffeq.odeint_event(
        question.dynamics,
        question.x0,
        torch.zeros((), dtype=question.x0.dtype),
        event_fn=lambda t, x: question.criterion(x) - question.threshold,
        odeint_interface=interface,
        rtol=tolerance,
        atol=tolerance / 100,
        **({"adjoint_options": {"max_num_steps": _BACKWARD_STEPS}} if method == "odeint_adjoint" else {}),
    )
    return joined(torch.autograd.grad(time, list(question.dynamics.parameters())))


assert set(itertools.chain(NATIVE, ("finite_difference",))) == set(gradient_methods.METHODS)
