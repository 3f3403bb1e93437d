"""How the gradient methods stand dissipation: error of ∇T against the stiffness-time product S = T ρ.

A gradient flow forgets its past like e^(-ρt) in the stiffest mode, so integrating the state backward multiplies
rounding by e^S.  The methods that keep the states of the forward solve do not notice.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pandas as pd
import torch

import odestop
from odestop.sweeps import Record, Runner, Sweep

DIMENSION = 20
CONDITION_NUMBER = 100.0
METHODS = ("discrete_adjoint", "continuous_adjoint", "backsolve")


@dataclass(frozen=True)
class Cell:
    """One gradient: a threshold and a method."""

    threshold: float
    method: str


@dataclass(frozen=True)
class Grid:
    """The cells of a scale: every combination."""

    thresholds: tuple[float, ...]
    methods: tuple[str, ...] = METHODS

    def cells(self) -> list[Cell]:
        """Return the cells."""
        return list(itertools.starmap(Cell, itertools.product(self.thresholds, self.methods)))


_LEVELS = tuple(10.0 ** (-k / 4) for k in range(0, 17))

GRIDS = {"tiny": Grid((1e-1, 1e-2)), "quick": Grid(_LEVELS), "paper": Grid(_LEVELS)}


def run(scale: str, runner: Runner) -> dict[str, pd.DataFrame]:
    """Run a scale; returns the table ``dissipation``, one row per threshold and method."""
    return {"dissipation": runner.run(Sweep("dissipation", GRIDS[scale].cells(), solve))}


def solve(cell: Cell) -> Record:
    """Error of the gradient of T with respect to a diagonal preconditioner at one."""
    objective = odestop.objectives.Quadratic.with_condition_number(
        DIMENSION, CONDITION_NUMBER, seed=0, dtype=torch.float64
    )
    flow = odestop.dynamics.DiagonallyPreconditionedFlow(objective, torch.ones(DIMENSION, dtype=torch.float64))

    def gradient(**arguments: object) -> tuple[float, torch.Tensor]:
        solution = odestop.continuous_stopping_time(
            flow,
            torch.ones(DIMENSION, dtype=torch.float64),
            odestop.criteria.SquaredGradientNorm(objective),
            cell.threshold,
            **arguments,  # type: ignore[arg-type]
        )
        return solution.time.item(), torch.autograd.grad(solution.time, flow.diagonal)[0]

    time, exact = gradient(method="dopri8", rtol=1e-12, atol=1e-15)
    record: Record = {"time": time, "stiffness_time": time * float(objective.eigenvalues.max())}
    try:
        measured = gradient(gradient=cell.method)[1]
    except RuntimeError:
        return record | {"relative_error": math.inf}
    return record | {"relative_error": float((measured - exact).norm() / exact.norm())}
