"""h ∇N against ∇T where the paper did not look: inertial, adaptive and learned dynamics, and real data.

Every dynamics is asked on every objective when J = ‖∇f‖² has fallen to a fraction of its first value.  The step size is
a fraction of T, so that all of them take about as many steps.  J need not fall all the way to the threshold: along an
inertial flow it has dips, and near the edge of one the flow may stop in it while Euler misses it, or the other way
round.  T and h N are then times of different events, |T - h N| is not O(h), and Theorem 2 says nothing.  Such cells
are found by J between the two times, where it only falls if the events are the same, and left out of the fitted
orders, not of the table.  Gradients are those in the parameters of the dynamics and x0 together.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd
import torch

from experiments.grid import geometric
from experiments.orders import fitted_orders
from experiments.same_crossing import stop_at_same_crossing
from experiments.sensitivities import FlowAnswer, Question, answer_by_flow, answer_by_steps
from odestop.criteria import SquaredGradientNorm
from odestop.registry import DYNAMICS, OBJECTIVES
from odestop.sweeps import Record, Runner, Sweep

CONDITION_NUMBER = 20.0
DIMENSION = 20
FAMILIES = {
    "inertial": ("heavy-ball", "nesterov", "hessian-damped"),
    "adaptive": ("adam", "rmsprop", "adagrad"),
    "learned": ("learned-mlp", "learned-preconditioner"),
}
"""Dynamics of the registry, with its hyperparameters, by what they have in common."""

REAL_DATA = (
    "logistic-regression",
    "softmax-regression",
    "smooth-support-vector-machine",
    "huber-regression",
    "multilayer-perceptron",
)
"""Objectives of the registry on data that scikit-learn bundles."""

# The Hessian of these two jumps, and with it the right-hand side of this flow: solving it takes 10⁴ to 10⁵ steps.
TOO_ROUGH = {("hessian-damped", "smooth-support-vector-machine"), ("hessian-damped", "huber-regression")}
_FEWEST_POINTS = 3


@dataclass(frozen=True)
class Cell:
    """One comparison; ``reduction`` is ε / J(x0) and ``step_fraction`` is h / T."""

    dynamics: str
    objective: str
    reduction: float
    step_fraction: float
    sensitivity: str


@dataclass(frozen=True)
class Grid:
    """The cells of a scale: every combination that can be solved."""

    dynamics: tuple[str, ...]
    objectives: tuple[str, ...]
    reductions: tuple[float, ...]
    step_fractions: tuple[float, ...]
    sensitivities: tuple[str, ...] = ("definition3", "hermite")

    def cells(self) -> list[Cell]:
        """Return the cells; those that share an ODE solve follow each other."""
        axes = (self.dynamics, self.objectives, self.reductions, self.step_fractions, self.sensitivities)
        cells = itertools.starmap(Cell, itertools.product(*axes))
        return [cell for cell in cells if (cell.dynamics, cell.objective) not in TOO_ROUGH]


ALL_DYNAMICS = tuple(itertools.chain.from_iterable(FAMILIES.values()))
GRIDS = {
    "tiny": Grid(("heavy-ball",), ("quadratic",), (1e-1,), (0.02, 0.03, 0.05)),
    "quick": Grid(
        ALL_DYNAMICS,
        ("quadratic", "logistic-regression", "multilayer-perceptron"),
        (1e-2,),
        geometric(0.008, 0.04, 6),
    ),
    "paper": Grid(
        ALL_DYNAMICS,
        ("quadratic", *REAL_DATA),
        (1e-1, 1e-2),
        geometric(0.00125, 0.04, 16),
        ("definition3", "interpolated", "hermite"),
    ),
}


def run(scale: str, runner: Runner) -> dict[str, pd.DataFrame]:
    """Run the grid of a scale.

    Parameters
    ----------
    scale
        ``"quick"``, ``"paper"``, or ``"tiny"`` for a test of the machinery.
    runner
        Runs the cells.

    Returns
    -------
    dict
        ``beyond_quadratics``: one row per cell.  ``beyond_quadratics_orders``: the orders in h, fitted to the cells in
        which the flow and Euler stop at the same crossing.
    """
    table = runner.run(
        Sweep(
            "beyond quadratics",
            GRIDS[scale].cells(),
            solve,
            cost=lambda cell: 1 / cell.step_fraction,
            group=lambda cell: (cell.dynamics, cell.objective, cell.reduction),
        )
    )
    by = ["dynamics", "objective", "reduction", "sensitivity"]
    curves = table[table["same_crossing"]].groupby(by).filter(lambda curve: len(curve) >= _FEWEST_POINTS)
    return {
        "beyond_quadratics": table,
        "beyond_quadratics_orders": fitted_orders(curves, by, x="step_fraction"),
    }


def solve(cell: Cell) -> Record:
    """Compare h ∇N with ∇T; cells that differ in h or in the sensitivity alone share one ODE solve."""
    question = pose(cell.dynamics, cell.objective)
    threshold = _threshold(question, cell.reduction)
    flow = _answer_by_flow(cell.dynamics, cell.objective, cell.reduction)
    step_size = cell.step_fraction * flow.time
    record = answer_by_steps(question, flow, threshold, step_size, cell.sensitivity)
    return {
        "family": next(family for family, members in FAMILIES.items() if cell.dynamics in members),
        "dimension": question.x0.numel(),
        "parameters": sum(parameter.numel() for parameter in question.parameters),
        "threshold": threshold,
        "step_size": step_size,
        "same_crossing": _same_crossing(cell.dynamics, cell.objective, threshold, flow.time, step_size),
        **record,
    }


@lru_cache(maxsize=1)
def pose(dynamics: str, objective: str) -> Question:
    """Build a dynamics on an objective, both with the registry's defaults, and start where the registry starts."""
    entry = OBJECTIVES[objective]
    shape: dict[str, Any] = (
        {"dimension": DIMENSION, "condition_number": CONDITION_NUMBER} if objective == "quadratic" else {}
    )
    f = entry.build(dtype=torch.float64, **shape)
    flow = DYNAMICS[dynamics].build(objective=f, dtype=torch.float64)
    x0 = entry.start(f.dimension or DIMENSION).to(torch.float64).requires_grad_()
    return Question(flow, SquaredGradientNorm(f), x0, (*flow.parameters(), x0))


def _threshold(question: Question, reduction: float) -> float:
    with torch.no_grad():
        return reduction * question.criterion(question.x0).item()


@lru_cache(maxsize=1)
def _answer_by_flow(dynamics: str, objective: str, reduction: float) -> FlowAnswer:
    question = pose(dynamics, objective)
    return answer_by_flow(question, _threshold(question, reduction), differentiate_torchdiffeq=False)


@lru_cache(maxsize=1)
def _same_crossing(dynamics: str, objective: str, threshold: float, time: float, step_size: float) -> bool:
    return stop_at_same_crossing(pose(dynamics, objective), threshold, time, step_size)
