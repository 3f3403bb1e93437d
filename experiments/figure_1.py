"""Figure 1: the flow x' = -diag(1, θ) ∇f(x) of f(x) = x₁²/2 + 2 x₂², and its Euler steps.

J = ‖∇f‖² and x0 = (1, 1).  Both coordinates decay on their own, at rates 1 and 4 θ: for small θ the second one
decides when J meets ε, for large θ the first.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

import odestop
from experiments.grid import geometric
from odestop.criteria import SquaredGradientNorm
from odestop.discrete import Euler, discrete_stopping_time
from odestop.dynamics import DiagonallyPreconditionedFlow
from odestop.objectives import DiagonalQuadratic
from odestop.sweeps import Record, Runner, Sweep

EIGENVALUES = (1.0, 4.0)
START = (1.0, 1.0)


@dataclass(frozen=True)
class TrajectoryGrid:
    """Fig. 1a: values of θ, one threshold and one step size, and how many points of the flow to sample."""

    thetas: tuple[float, ...] = (0.5, 2.5)
    threshold: float = 0.1
    step_size: float = 0.12
    flow_points: int = 120

    def cells(self) -> list[TrajectoryCell]:
        """Return one cell per point of either curve."""
        return [
            TrajectoryCell(theta, self.threshold, self.step_size, self.flow_points, path, index)
            for theta in self.thetas
            for path in ("flow", "euler")
            for index in range(len(_path(theta, self.threshold, self.step_size, self.flow_points, path)))
        ]


@dataclass(frozen=True)
class TrajectoryCell:
    """One point: ``index`` counts the levels of J along the flow, or the Euler steps."""

    theta: float
    threshold: float
    step_size: float
    flow_points: int
    path: str
    index: int


@dataclass(frozen=True)
class StoppingGrid:
    """Fig. 1b: every combination."""

    thetas: tuple[float, ...]
    thresholds: tuple[float, ...]
    step_sizes: tuple[float, ...]

    def cells(self) -> list[StoppingCell]:
        """Return the cells; those that share an ODE solve follow each other."""
        return list(itertools.starmap(StoppingCell, itertools.product(self.thresholds, self.thetas, self.step_sizes)))


@dataclass(frozen=True)
class StoppingCell:
    """T and N at one θ."""

    threshold: float
    theta: float
    step_size: float


TRAJECTORY_GRIDS = {
    "tiny": TrajectoryGrid(flow_points=5),
    "quick": TrajectoryGrid(),
    "paper": TrajectoryGrid(),
}
STOPPING_GRIDS = {
    "tiny": StoppingGrid(geometric(0.2, 3.2, 4), (1e-1,), (0.1, 0.05)),
    "quick": StoppingGrid(geometric(0.2, 3.2, 21), (1.0, 1e-1, 1e-2), (0.1, 0.05, 0.025)),
    "paper": StoppingGrid(geometric(0.2, 3.2, 41), (1.0, 1e-1, 1e-2), (0.1, 0.05, 0.025, 0.0125)),
}


def run(scale: str, runner: Runner) -> dict[str, pd.DataFrame]:
    """Run both grids of a scale.

    Parameters
    ----------
    scale
        ``"quick"``, ``"paper"``, or ``"tiny"`` for a test of the machinery.
    runner
        Runs the cells.

    Returns
    -------
    dict
        ``figure_1a``: one row per point of a trajectory.  ``figure_1b``: one row per θ, ε and h.
    """
    trajectories = TRAJECTORY_GRIDS[scale].cells()
    stopping_times = STOPPING_GRIDS[scale].cells()
    return {
        "figure_1a": runner.run(Sweep("figure 1a", trajectories, point, group=lambda cell: replace(cell, index=0))),
        "figure_1b": runner.run(
            Sweep(
                "figure 1b",
                stopping_times,
                stopping_time,
                cost=lambda cell: 3 + 0.1 / cell.step_size,
                group=lambda cell: (cell.theta, cell.threshold),
            )
        ),
    }


class Point(NamedTuple):
    """A time and a place."""

    time: float
    x1: float
    x2: float


def point(cell: TrajectoryCell) -> Record:
    """Return the point of a cell, J there, and whether it is the last one."""
    path = _path(cell.theta, cell.threshold, cell.step_size, cell.flow_points, cell.path)
    place = path[cell.index]
    criterion = SquaredGradientNorm(_objective())
    value = criterion(torch.tensor([place.x1, place.x2], dtype=torch.float64)).item()
    return {**place._asdict(), "criterion": value, "is_end": cell.index == len(path) - 1}


def stopping_time(cell: StoppingCell) -> Record:
    """Return T, N and their derivatives in θ."""
    time, time_derivative = _flow_answer(cell.theta, cell.threshold)
    flow, theta = _flow(cell.theta)
    solution = discrete_stopping_time(
        Euler(flow, cell.step_size),
        _start(),
        SquaredGradientNorm(_objective()),
        cell.threshold,
        on_failure="raise",
    )
    (derivative,) = torch.autograd.grad(cell.step_size * solution.steps, theta)
    scaled_steps = cell.step_size * solution.steps.item()
    return {
        "time": time,
        "time_derivative": time_derivative,
        "steps": solution.steps.item(),
        "scaled_steps": scaled_steps,
        "scaled_steps_derivative": derivative.item(),
        "difference": abs(scaled_steps - time),
    }


@lru_cache
def _path(theta: float, threshold: float, step_size: float, flow_points: int, path: str) -> list[Point]:
    if path == "flow":
        return _flow_path(theta, threshold, flow_points)
    return _euler_path(theta, threshold, step_size)


def _flow_path(theta: float, threshold: float, points: int) -> list[Point]:
    """Return the start, and where the flow meets levels of J, spaced logarithmically down to the threshold."""
    flow, _ = _flow(theta)
    criterion = SquaredGradientNorm(_objective())
    start_level = criterion(_start()).item()
    levels = torch.logspace(0.0, 1.0, points, base=threshold / start_level, dtype=torch.float64)[1:] * start_level
    with torch.no_grad():
        solution = odestop.continuous_stopping_time(flow, _start().expand(len(levels), 2), criterion, levels)
    rows = torch.cat([solution.time.unsqueeze(-1), solution.state], dim=-1)
    return [Point(0.0, *START), *(Point(*row) for row in rows.tolist())]


def _euler_path(theta: float, threshold: float, step_size: float) -> list[Point]:
    flow, _ = _flow(theta)
    step = Euler(flow, step_size)
    state = _start()
    with torch.no_grad():
        count = discrete_stopping_time(step, state, SquaredGradientNorm(_objective()), threshold).steps
        points = [Point(0.0, *START)]
        for k in range(int(count)):
            state = step(k, state)
            points.append(Point((k + 1) * step_size, *state.tolist()))
    return points


@lru_cache(maxsize=1)
def _flow_answer(theta: float, threshold: float) -> tuple[float, float]:
    flow, parameter = _flow(theta)
    solution = odestop.continuous_stopping_time(
        flow, _start(), SquaredGradientNorm(_objective()), threshold, on_failure="raise"
    )
    (derivative,) = torch.autograd.grad(solution.time, parameter)
    return solution.time.item(), derivative.item()


def _flow(theta: float) -> tuple[DiagonallyPreconditionedFlow, Tensor]:
    parameter = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    diagonal = torch.stack([torch.ones_like(parameter), parameter])
    return DiagonallyPreconditionedFlow(_objective(), diagonal), parameter


@lru_cache(maxsize=1)
def _objective() -> DiagonalQuadratic:
    return DiagonalQuadratic(EIGENVALUES, dtype=torch.float64)


def _start() -> Tensor:
    return torch.tensor(START, dtype=torch.float64)
