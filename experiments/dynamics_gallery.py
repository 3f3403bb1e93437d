"""Every registered dynamics: T against its main hyperparameter, with the gradient, and its path on two landscapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import odestop
from experiments.grid import Record, Tracker, run_cells, untracked
from odestop.dynamics import RescaledGradientFlow
from odestop.objectives import Objective
from odestop.registry import DYNAMICS, OBJECTIVES, Entry, Parameter

THRESHOLD = 1e-2
HORIZON = 60.0
LANDSCAPES = ("diagonal-quadratic", "himmelblau")
_SAMPLES = 121
_LOGARITHMIC_FROM = 20.0


@dataclass(frozen=True)
class TimeCell:
    """T of one dynamics at one value of its main hyperparameter."""

    dynamics: str
    parameter: str
    symbol: str
    logarithmic: bool
    value: float


@dataclass(frozen=True)
class PathPoint:
    """One point of a path: the ``index``-th of equally spaced times in [t0, T]."""

    dynamics: str
    objective: str
    index: int


@dataclass(frozen=True)
class Grid:
    """Values per hyperparameter, and points per path."""

    values: int
    points: int

    def time_cells(self) -> list[TimeCell]:
        """Return the cells of the first table."""
        return [
            TimeCell(entry.name, parameter.name, parameter.symbol, _is_logarithmic(parameter), float(value))
            for entry in DYNAMICS.values()
            if (parameter := main_parameter(entry)) is not None
            for value in _spread(parameter, self.values)
        ]

    def path_points(self) -> list[PathPoint]:
        """Return the cells of the second table; those of one path follow each other."""
        return [
            PathPoint(name, objective, index)
            for name in DYNAMICS
            if not _is_rescaled(name)
            for objective in LANDSCAPES
            for index in range(self.points)
        ]


GRIDS = {"tiny": Grid(2, 3), "quick": Grid(13, _SAMPLES), "paper": Grid(25, _SAMPLES)}


def run(scale: str, track: Tracker = untracked) -> dict[str, pd.DataFrame]:
    """Run a scale.

    Returns
    -------
    dict
        ``dynamics_times``: one row per dynamics and value, with T and dT/dθ, infinite and 0 where the threshold is not
        reached.  ``dynamics_paths``: one row per dynamics, landscape and point.  ``landscapes``: f on a grid.
    """
    grid = GRIDS[scale]
    path.cache_clear()
    return {
        "dynamics_times": run_cells("stopping times", grid.time_cells(), stopping_time, track),
        "dynamics_paths": run_cells("paths", grid.path_points(), lambda cell: point(cell, grid.points), track),
        "landscapes": landscapes(),
    }


def main_parameter(entry: Entry[nn.Module]) -> Parameter | None:
    """Return the first hyperparameter that T can be differentiated in; None for a dynamics without one."""
    return next((parameter for parameter in entry.parameters if parameter.is_differentiable), None)


def stopping_time(cell: TimeCell) -> Record:
    """Return T and its derivative in the hyperparameter, on the quadratic."""
    value = torch.tensor(cell.value, dtype=torch.float64, requires_grad=True)
    objective, x0 = _landscape(LANDSCAPES[0])
    solution = _solve(cell.dynamics, objective, x0, **{cell.parameter: value})
    (slope,) = torch.autograd.grad(solution.time, value, allow_unused=True, materialize_grads=True)
    assert isinstance(solution.status, odestop.StoppingStatus)
    return {"time": solution.time.item(), "slope": slope.item(), "status": solution.status.name}


def point(cell: PathPoint, points: int) -> Record:
    """Return a point of a path, and how the path ended."""
    places, status, family = path(cell.dynamics, cell.objective, points)
    x1, x2 = places[cell.index]
    return {"x1": float(x1), "x2": float(x2), "status": status, "family": family}


@lru_cache(maxsize=1)
def path(dynamics: str, objective_name: str, points: int) -> tuple[np.ndarray, str, str]:
    """Return the positions at equally spaced times, the status, and the module that the dynamics is in."""
    objective, x0 = _landscape(objective_name)
    with torch.no_grad():
        solution = _solve(dynamics, objective, x0)
        assert solution.trajectory is not None
        known = solution.trajectory.times
        assert isinstance(known, torch.Tensor)
        states = solution.trajectory(torch.linspace(float(known[0]), float(known[-1]), points, dtype=torch.float64))
        flow = _flow(dynamics, objective)
        positions = getattr(flow, "position", lambda state: state)(states)
    assert isinstance(solution.status, odestop.StoppingStatus)
    return positions.numpy(), solution.status.name, type(flow).__module__.rpartition(".")[2]


def landscapes() -> pd.DataFrame:
    """Return the objectives on grids that cover the paths."""
    tables = []
    for name, (low, high) in zip(LANDSCAPES, ((-0.8, 1.2), (-1.5, 4.5)), strict=True):
        objective, _ = _landscape(name)
        axis = torch.linspace(low, high, 101, dtype=torch.float64)
        x = torch.cartesian_prod(axis, axis)
        with torch.no_grad():
            values = objective(x)
        tables.append(pd.DataFrame({"objective": name, "x1": x[:, 0], "x2": x[:, 1], "value": values}))
    return pd.concat(tables, ignore_index=True)


def _solve(name: str, objective: Objective, x0: torch.Tensor, **parameters: Any) -> odestop.ContinuousSolution:
    flow = _flow(name, objective, **parameters)
    criterion = odestop.criteria.ObjectiveGap(objective)
    return odestop.continuous_stopping_time(flow, x0, criterion, THRESHOLD, t_max=HORIZON, rtol=1e-6)


def _flow(name: str, objective: Objective, **parameters: Any) -> nn.Module:
    return DYNAMICS[name].build(objective=objective, dtype=torch.float64, **parameters)


def _is_rescaled(name: str) -> bool:
    """Whether the dynamics takes the paths of gradient flow, at another speed."""
    return isinstance(_flow(name, _landscape(LANDSCAPES[0])[0]), RescaledGradientFlow)


@lru_cache
def _landscape(name: str) -> tuple[Objective, torch.Tensor]:
    objective = OBJECTIVES[name].build(dtype=torch.float64)
    start = (1.0, 1.0) if name == LANDSCAPES[0] else (0.0, 0.0)
    return objective, torch.tensor(start, dtype=torch.float64)


def _is_logarithmic(parameter: Parameter) -> bool:
    return parameter.low > 0 and parameter.high / parameter.low >= _LOGARITHMIC_FROM


def _spread(parameter: Parameter, count: int) -> np.ndarray:
    """Return values over the range worth exploring."""
    spacing = np.geomspace if _is_logarithmic(parameter) else np.linspace
    return spacing(parameter.low, parameter.high, count)
