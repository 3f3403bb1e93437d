"""Real data: h ∇N against ∇T for logistic regression on the breast-cancer data that scikit-learn bundles.

f is the mean logistic loss with λ = 10⁻² over 569 patients and 31 coefficients, x0 = 0, J = ‖∇f‖², and the flow is
x' = -diag(θ) ∇f(x) at θ = (1, …, 1).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd
import torch

from experiments.grid import geometric
from experiments.orders import fitted_orders
from experiments.sensitivities import FlowAnswer, Question, answer_by_flow, answer_by_steps
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import DiagonallyPreconditionedFlow
from odestop.objectives import breast_cancer
from odestop.sweeps import Record, Runner, Sweep

REGULARIZATION = 1e-2


@dataclass(frozen=True)
class Cell:
    """One comparison."""

    threshold: float
    step_size: float
    sensitivity: str


@dataclass(frozen=True)
class Grid:
    """The cells of a scale: every combination."""

    thresholds: tuple[float, ...]
    step_sizes: tuple[float, ...]
    sensitivities: tuple[str, ...] = ("definition3", "interpolated")

    def cells(self) -> list[Cell]:
        """Return the cells; those that share an ODE solve follow each other."""
        axes = (self.thresholds, self.step_sizes, self.sensitivities)
        return list(itertools.starmap(Cell, itertools.product(*axes)))


# The error depends on where in its last step Euler crosses the threshold, so that many step sizes are needed to see
# its order.
GRIDS = {
    "tiny": Grid((1e-2,), (0.1, 0.2, 0.4)),
    "quick": Grid((1e-3, 1e-4), geometric(0.015, 0.24, 9)),
    "paper": Grid((1e-3, 1e-4, 1e-5), geometric(0.0075, 0.24, 11)),
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
        ``real_data``: one row per cell.  ``real_data_orders``: the fitted orders in h.
    """
    table = runner.run(
        Sweep(
            "real data",
            GRIDS[scale].cells(),
            solve,
            cost=lambda cell: 1 / cell.step_size,
            group=lambda cell: cell.threshold,
        )
    )
    return {
        "real_data": table,
        "real_data_orders": fitted_orders(table, by=["threshold", "sensitivity"]),
    }


def solve(cell: Cell) -> Record:
    """Compare h ∇N with ∇T; cells that differ in h or in the sensitivity alone share one ODE solve."""
    flow = _answer_by_flow(cell.threshold)
    return answer_by_steps(pose(), flow, cell.threshold, cell.step_size, cell.sensitivity)


@lru_cache(maxsize=1)
def pose() -> Question:
    """Load the data and set up the flow."""
    objective = breast_cancer(regularization=REGULARIZATION, dtype=torch.float64)
    dimension = objective.features.shape[1]
    flow = DiagonallyPreconditionedFlow(objective, torch.ones(dimension, dtype=torch.float64))
    return Question(
        dynamics=flow,
        criterion=SquaredGradientNorm(objective),
        x0=torch.zeros(dimension, dtype=torch.float64),
        parameters=(flow.diagonal,),
    )


@lru_cache(maxsize=1)
def _answer_by_flow(threshold: float) -> FlowAnswer:
    return answer_by_flow(pose(), threshold, differentiate_torchdiffeq=True)
