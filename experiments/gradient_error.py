"""Figures 2 and 5: h ∇N against ∇T, and what both cost, on quadratics with a learned preconditioner.

f(x) = ½ xᵀ Q x with condition number 100, J = ‖∇f‖², x0 = (1, …, 1), and the preconditioner with 10 d parameters.
The largest eigenvalue of Q is 1, so that Euler is stable for h up to about 2.  Q is stored and has uniformly random
eigenvectors up to d = 1000.  Above, it is a `HartleyQuadratic`: with a stored 10⁴ × 10⁴ matrix the grid would take
hours.  A few cells are computed with both, to see whether the one can stand for the other.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd
import torch

from experiments.hartley_quadratic import HartleyQuadratic
from experiments.orders import fitted_orders
from experiments.sensitivities import FlowAnswer, Question, answer_by_flow, answer_by_steps
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import CoordinatewisePreconditioner, PreconditionedFlow
from odestop.objectives import Quadratic
from odestop.sweeps import Record, Runner, Sweep

CONDITION_NUMBER = 100.0
LARGEST_STORED_DIMENSION = 1000
THRESHOLDS = (1e-3, 1e-4, 1e-5)
SENSITIVITIES = ("definition3", "interpolated")


@dataclass(frozen=True)
class Cell:
    """One comparison."""

    dimension: int
    matrix: str
    seed: int
    threshold: float
    step_size: float
    sensitivity: str


@dataclass(frozen=True)
class Grid:
    """The cells of a scale: every combination, and the dimension where both kinds of matrices are compared."""

    dimensions: tuple[int, ...]
    seeds: tuple[int, ...]
    thresholds: tuple[float, ...]
    step_sizes: tuple[float, ...]
    compared_dimension: int
    sensitivities: tuple[str, ...] = SENSITIVITIES

    def cells(self) -> list[Cell]:
        """Return the cells; those that share an ODE solve follow each other."""
        axes = (self.dimensions, self.seeds, self.thresholds, self.step_sizes, self.sensitivities)
        return [
            Cell(dimension, "stored" if dimension <= LARGEST_STORED_DIMENSION else "hartley", seed, threshold, h, rule)
            for dimension, seed, threshold, h, rule in itertools.product(*axes)
        ]

    def compared_cells(self) -> list[Cell]:
        """Return a few cells with a stored matrix and with a fast basis."""
        axes = (("stored", "hartley"), self.step_sizes[-3:])
        first = self.seeds[0], self.thresholds[0]
        return [
            Cell(self.compared_dimension, matrix, *first, h, "definition3") for matrix, h in itertools.product(*axes)
        ]


_STEP_SIZES = (0.05, 0.08, 0.13, 0.22, 0.36, 0.6, 1.0, 1.6)
GRIDS = {
    "tiny": Grid((10,), (0,), (1e-1, 1e-2), (0.2, 0.4, 0.8), 10),
    "quick": Grid((100, 1000), (0,), THRESHOLDS, (0.1, 0.2, 0.4, 0.8, 1.6), 1000),
    "paper": Grid((100, 1000, 10_000), (0, 1, 2, 3, 4), THRESHOLDS, _STEP_SIZES, 10_000, ("definition3",)),
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
        ``gradient_error``: one row per cell.  ``gradient_error_orders``: the fitted orders in h.
        ``gradient_error_matrices``: one row per cell of those with both kinds of matrices.
    """
    grid = GRIDS[scale]
    table, compared = (
        runner.run(
            Sweep(
                "gradient error",
                cells,
                solve,
                cost=_cost,
                group=lambda cell: (cell.dimension, cell.matrix, cell.seed, cell.threshold),
            )
        )
        for cells in (grid.cells(), grid.compared_cells())
    )
    return {
        "gradient_error": table,
        "gradient_error_orders": fitted_orders(table, by=["dimension", "threshold", "sensitivity"]),
        "gradient_error_matrices": compared,
    }


def solve(cell: Cell) -> Record:
    """Compare h ∇N with ∇T; cells that differ in h or in the sensitivity alone share one ODE solve."""
    question = pose(cell.dimension, cell.matrix, cell.seed)
    flow = _answer_by_flow(cell.dimension, cell.matrix, cell.seed, cell.threshold)
    return answer_by_steps(question, flow, cell.threshold, cell.step_size, cell.sensitivity)


@lru_cache(maxsize=1)
def pose(dimension: int, matrix: str, seed: int) -> Question:
    """Draw the quadratic and the preconditioner."""
    kind = Quadratic if matrix == "stored" else HartleyQuadratic
    objective = kind.with_condition_number(dimension, CONDITION_NUMBER, seed, dtype=torch.float64)
    preconditioner = CoordinatewisePreconditioner(dimension, seed=seed, dtype=torch.float64)
    return Question(
        dynamics=PreconditionedFlow(objective, preconditioner),
        criterion=SquaredGradientNorm(objective),
        x0=torch.ones(dimension, dtype=torch.float64),
        parameters=tuple(preconditioner.parameters()),
    )


@lru_cache(maxsize=1)
def _answer_by_flow(dimension: int, matrix: str, seed: int, threshold: float) -> FlowAnswer:
    return answer_by_flow(
        pose(dimension, matrix, seed), threshold, differentiate_torchdiffeq=dimension <= LARGEST_STORED_DIMENSION
    )


def _cost(cell: Cell) -> float:
    """Return the number of steps times the time of one, both up to a factor, as fitted to measured times."""
    stopping_time = max(math.log10(cell.dimension / cell.threshold) - 4.2, 1.0)
    product = cell.dimension**2 / 1e6 if cell.matrix == "stored" else 1.0
    return stopping_time / cell.step_size * (cell.dimension**0.42 + 10.0 * product)
