"""Proposition 1 and Theorem 1 against independent computations, on small instances of Figure 2's problem."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

import odestop
from experiments.gradient_error import pose
from experiments.sensitivities import Question
from odestop.comparison import relative_error
from odestop.discrete import Euler, discrete_stopping_time
from odestop.sweeps import Record, Runner, Sweep

STEP_SIZE = 0.5
DIRECTIONS = 2


@dataclass(frozen=True)
class Cell:
    """One check: ``"unrolled_autograd"`` or ``"central_differences"``."""

    check: str
    dimension: int
    seed: int
    threshold: float


@dataclass(frozen=True)
class Grid:
    """The cells of a scale: every combination."""

    dimensions: tuple[int, ...]
    seeds: tuple[int, ...]
    thresholds: tuple[float, ...]
    checks: tuple[str, ...] = ("unrolled_autograd", "central_differences")

    def cells(self) -> list[Cell]:
        """Return the cells."""
        axes = (self.checks, self.dimensions, self.seeds, self.thresholds)
        return list(itertools.starmap(Cell, itertools.product(*axes)))


GRIDS = {
    "tiny": Grid((5,), (0,), (0.1,)),
    "quick": Grid((10, 100), (0,), (1e-3,)),
    "paper": Grid((10, 100), (0, 1), (1e-3, 1e-4, 1e-5)),
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
        ``verification``: one row per cell; ``difference`` is relative.
    """
    return {"verification": runner.run(Sweep("verification", GRIDS[scale].cells(), solve))}


def solve(cell: Cell) -> Record:
    """Return the relative difference between odestop's gradient and the independent one."""
    check = _CHECKS[cell.check]
    return {"difference": check(pose(cell.dimension, "stored", cell.seed), cell.threshold)}


def _unrolled_autograd(question: Question, threshold: float) -> float:
    """Algorithm 1 against autograd through all Euler steps: both are ∂N/∂θ of Definition 3."""
    step = Euler(question.dynamics, STEP_SIZE)
    solution = discrete_stopping_time(step, question.x0, question.criterion, threshold, on_failure="raise")
    ours = torch.autograd.grad(solution.steps, question.parameters)
    state = previous = question.x0
    for k in range(int(solution.steps)):
        state, previous = step(k, state), state
    decrease = (question.criterion(previous) - question.criterion(state)).detach()
    unrolled = torch.autograd.grad(question.criterion(state) / decrease, question.parameters)
    return relative_error(ours, unrolled)


def _central_differences(question: Question, threshold: float) -> float:
    """∇T of Theorem 1 against T(θ ± δ v) for random unit directions v."""
    time = _tight_time(question, threshold)
    gradient = torch.autograd.grad(time, question.parameters)
    generator = torch.Generator().manual_seed(0)
    derivatives, differences = [], []
    for _ in range(DIRECTIONS):
        direction = _unit([torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in question.parameters])
        derivatives.append(sum((g * v).sum() for g, v in zip(gradient, direction, strict=True)))
        differences.append(_central_difference(question, threshold, direction))
    return relative_error(torch.tensor(differences), torch.tensor(derivatives))


def _central_difference(question: Question, threshold: float, direction: list[Tensor]) -> float:
    """(T(θ + δ v) - T(θ - δ v)) / 2 δ, extrapolated from two values of δ."""

    def difference(delta: float) -> float:
        ahead = _shifted_time(question, threshold, direction, delta)
        return (ahead - _shifted_time(question, threshold, direction, -delta)) / (2 * delta)

    return (4 * difference(1e-3) - difference(2e-3)) / 3


def _unit(direction: list[Tensor]) -> list[Tensor]:
    norm = torch.linalg.vector_norm(torch.cat([part.flatten() for part in direction]))
    return [part / norm for part in direction]


@torch.no_grad()
def _shifted_time(question: Question, threshold: float, direction: list[Tensor], delta: float) -> float:
    originals = [parameter.clone() for parameter in question.parameters]
    try:
        for parameter, v in zip(question.parameters, direction, strict=True):
            parameter += delta * v
        return _tight_time(question, threshold).item()
    finally:
        for parameter, original in zip(question.parameters, originals, strict=True):
            parameter.copy_(original)


def _tight_time(question: Question, threshold: float) -> Tensor:
    return odestop.continuous_stopping_time(
        question.dynamics,
        question.x0,
        question.criterion,
        threshold,
        rtol=1e-9,
        atol=1e-11,
        on_failure="raise",
    ).time


_CHECKS: dict[str, Callable[[Question, float], float]] = {
    "unrolled_autograd": _unrolled_autograd,
    "central_differences": _central_differences,
}
