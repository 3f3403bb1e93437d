"""The order in h of every sensitivity of N with step maps of order 1, 2 and 4.

x' = -D(t) ∇f(x) with f(x) = x₁²/2 + 2 x₂² + (x₁⁴ + x₂⁴)/10 and D(t) = diag(θ₁ e^{-t/10}, θ₂ (1 + sin(t)/2)),
J = ‖∇f‖² and x0 = (1, 1): nothing in it is linear, and time matters.  ∇T is taken in θ and x0.  The error of a
fractional step depends on where in the last step the crossing lies, so that many step sizes are needed for an order.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache, partial

import pandas as pd
import torch
from torch import Tensor, nn

import odestop
from experiments.grid import geometric
from experiments.orders import fitted_orders
from odestop.comparison import relative_error
from odestop.discrete import Euler, Heun, RungeKutta4, TimeStepMap, discrete_stopping_time
from odestop.sweeps import Record, Runner, Sweep

THRESHOLD = 0.05
THETA = (1.0, 0.7)
START = (1.0, 1.0)
STEP_MAPS: dict[str, type[TimeStepMap]] = {"Euler": Euler, "Heun": Heun, "Runge-Kutta 4": RungeKutta4}
SENSITIVITIES = ("definition3", "interpolated", "hermite")


@dataclass(frozen=True)
class Cell:
    """One comparison of h ∇N with ∇T."""

    step_map: str
    sensitivity: str
    step_size: float


@dataclass(frozen=True)
class Grid:
    """The cells of a scale: every step map and every sensitivity at every step size."""

    step_sizes: tuple[float, ...]

    def cells(self) -> list[Cell]:
        """Return the cells."""
        return list(itertools.starmap(Cell, itertools.product(STEP_MAPS, SENSITIVITIES, self.step_sizes)))


GRIDS = {
    "tiny": Grid(geometric(0.1, 0.2, 5)),
    "quick": Grid(geometric(0.01, 0.2, 150)),
    "paper": Grid(geometric(0.005, 0.2, 300)),
}


class Flow(nn.Module):
    """The dynamics of a batch; θ has shape (*batch, 2), so that every trajectory has a gradient of its own."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(THETA, dtype=torch.float64).repeat(batch, 1))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return dx/dt."""
        rates = torch.cat([torch.exp(-0.1 * t), 1 + 0.5 * torch.sin(t)], dim=-1)
        return -self.theta * rates * gradient(x)


def gradient(x: Tensor) -> Tensor:
    """Return ∇f(x)."""
    return torch.stack([x[..., 0], 4 * x[..., 1]], dim=-1) + 0.4 * x**3


def criterion(x: Tensor) -> Tensor:
    """Return ‖∇f(x)‖²."""
    return (gradient(x) ** 2).sum(-1)


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
        ``sensitivity_orders``: one row per cell.  ``sensitivity_orders_fitted``: the orders in h, of h ∇N
        (``quantity`` is ``"gradient"``) and of h N itself (``"time"``).
    """
    grid = GRIDS[scale]
    table = runner.run(
        Sweep(
            "sensitivity orders",
            grid.cells(),
            partial(solve, step_sizes=grid.step_sizes),
            group=lambda cell: (cell.step_map, cell.sensitivity),
        )
    )
    errors = {"gradient": "relative_error", "time": "relative_time_error"}
    fits = [
        fitted_orders(table, by=["step_map", "sensitivity"], y=column).assign(quantity=quantity)
        for quantity, column in errors.items()
    ]
    return {"sensitivity_orders": table, "sensitivity_orders_fitted": pd.concat(fits, ignore_index=True)}


def solve(cell: Cell, step_sizes: tuple[float, ...]) -> Record:
    """Return T and h N, their relative difference, and that of h ∇N from ∇T.

    Cells that differ in h alone share one run, as the trajectories of a batch; ``step_sizes`` are those of the batch.
    """
    time, gradient_of_time = _reference()
    scaled_steps, gradients = _run_all(cell.step_map, cell.sensitivity, step_sizes)
    row = step_sizes.index(cell.step_size)
    steps = scaled_steps[row].item()
    return {
        "time": time,
        "scaled_steps": steps,
        "relative_time_error": abs(steps - time) / time,
        "relative_error": relative_error(gradients[row], gradient_of_time),
    }


@lru_cache(maxsize=1)
def _run_all(step_map: str, sensitivity: str, step_sizes: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return h N, shape (n,), and its gradient in (θ, x0), shape (n, 4)."""
    flow, x0, h = Flow(len(step_sizes)), _start(len(step_sizes)), torch.tensor(step_sizes, dtype=torch.float64)
    solution = discrete_stopping_time(
        STEP_MAPS[step_map](flow, h), x0, criterion, THRESHOLD, sensitivity=sensitivity, on_failure="raise"
    )
    scaled_steps = h * solution.steps
    return scaled_steps.detach(), torch.cat(torch.autograd.grad(scaled_steps.sum(), (flow.theta, x0)), dim=-1)


@lru_cache(maxsize=1)
def _reference() -> tuple[float, Tensor]:
    """T and its gradient in (θ, x0), at tolerances far below the errors measured."""
    flow, x0 = Flow(1), _start(1)
    solution = odestop.continuous_stopping_time(
        flow, x0, criterion, THRESHOLD, method="dopri8", rtol=1e-13, atol=1e-14, on_failure="raise"
    )
    return solution.time.item(), torch.cat(torch.autograd.grad(solution.time, (flow.theta, x0)), dim=-1)[0]


def _start(batch: int) -> Tensor:
    return torch.tensor(START, dtype=torch.float64).repeat(batch, 1).requires_grad_()
