"""T, N and their derivatives in θ at the scene's own θ: the numbers that stand beside the picture.

The ODE is solved with the tolerances `RTOL` and `ATOL`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from odestop.continuous import ContinuousSolution
from odestop.discrete import DiscreteSolution
from odestop.explorer.modules import DTYPE, Modules, build
from odestop.explorer.scene import Scene
from odestop.explorer.solving import (
    ATOL,
    RTOL,
    Cancelled,
    Store,
    in_words,
    most_steps,
    solve_flow,
    solve_steps,
    statuses,
)
from odestop.status import StoppingStatus

__all__ = [
    "ATOL",
    "NEARLY_TANGENTIAL",
    "RTOL",
    "Answer",
    "Solved",
    "answers",
    "derivative_of",
    "solved_flow",
    "solved_steps",
]

NEARLY_TANGENTIAL = 0.02
"""A crossing is called so below this part of J's mean rate of fall."""

Solution = TypeVar("Solution", ContinuousSolution, DiscreteSolution)


@dataclass(frozen=True)
class Answer:
    """T and N at one threshold; inf where it is never met, and nan where there is no derivative.

    Derivatives are those of the first threshold, and nan for the others.

    Attributes
    ----------
    threshold
        ε.
    time, time_derivative
        T and dT/dθ.
    status, words
        Name of the `odestop.StoppingStatus` of T, and what it means.
    steps, scaled_steps, scaled_steps_derivative
        N, h N and h ∂N/∂θ with the sensitivity of Definition 3.
    fractional_steps, scaled_fractional, scaled_fractional_derivative
        N̂, h N̂ and its exact derivative in θ.
    steps_status, steps_words
        The status of N.
    """

    threshold: float | int
    time: float
    time_derivative: float
    status: str
    words: str
    steps: float
    scaled_steps: float
    scaled_steps_derivative: float
    fractional_steps: float
    scaled_fractional: float
    scaled_fractional_derivative: float
    steps_status: str
    steps_words: str


def answers(scene: Scene, cancelled: Cancelled | None = None) -> tuple[Answer, ...]:
    """Return T, N and their derivatives, one for each threshold in the order of the scene's.

    Parameters
    ----------
    scene
        One without problems.
    cancelled
        Asked between the evaluations of the dynamics.

    Raises
    ------
    CancelledError
        Once ``cancelled`` says so.

    Examples
    --------
    >>> answer = answers(Scene(dynamics_values={"theta": 2.5}))[0]
    >>> round(answer.time, 4), round(answer.time_derivative, 4), answer.steps  # T = ln(10)/2, whatever θ
    (1.1513, -0.0, 11.0)
    """
    flow, whole = solved_flow(scene, cancelled), solved_steps(scene, cancelled)
    fractional = _run(scene, "interpolated", cancelled)
    flow_slope, whole_slope, fractional_slope = (derivative_of(solved) for solved in (flow, whole, fractional))
    times = flow.solution.time.tolist()
    counts, parts = whole.solution.steps.tolist(), fractional.solution.steps.tolist()
    h = scene.step_size
    return tuple(
        Answer(
            threshold=threshold,
            time=times[k],
            time_derivative=flow_slope if k == 0 else math.nan,
            status=flow.statuses[k].name,
            words=_in_words(flow, k),
            steps=counts[k],
            scaled_steps=h * counts[k],
            scaled_steps_derivative=h * whole_slope if k == 0 else math.nan,
            fractional_steps=parts[k],
            scaled_fractional=h * parts[k],
            scaled_fractional_derivative=h * fractional_slope if k == 0 else math.nan,
            steps_status=whole.statuses[k].name,
            steps_words=in_words(whole.statuses[k], steps=True),
        )
        for k, threshold in enumerate(scene.thresholds)
    )


@dataclass(frozen=True)
class Solved(Generic[Solution]):
    """A solution up to all thresholds, and the modules it is of.

    Attributes
    ----------
    modules
        At the scene's θ.
    solution
        Of the flow, with a level per threshold; or of the steps, with a row per threshold.
    iterates
        x_0, x_1, … of the row that runs longest, shape (k + 1, d), and J there, shape (k + 1,); None of the flow.
    """

    modules: Modules
    solution: Solution
    iterates: tuple[Tensor, Tensor] | None = None

    @property
    def statuses(self) -> list[StoppingStatus]:
        """One per threshold."""
        return statuses(self.solution)


def solved_flow(scene: Scene, cancelled: Cancelled | None = None) -> Solved[ContinuousSolution]:
    """Return the solution of the flow up to all thresholds; kept for whoever asks again."""

    def solve() -> Solved[ContinuousSolution]:
        modules = build(scene)
        return Solved(
            modules, solve_flow(scene, modules, _thresholds(scene, modules), levels=True, cancelled=cancelled)
        )

    # What the flow does not depend on is at one value in the key.
    return _FLOWS.get(replace(scene, step_size=1.0, step_map="", plane="", parameter_range=(0.0, 1.0)), solve)


def solved_steps(scene: Scene, cancelled: Cancelled | None = None) -> Solved[DiscreteSolution]:
    """Return the run of the step map up to all thresholds, by Definition 3; kept for whoever asks again."""
    return _STEPS.get(
        replace(scene, method="", plane="", parameter_range=(0.0, 1.0)), lambda: _run(scene, "definition3", cancelled)
    )


_FLOWS: Store[Solved[ContinuousSolution]] = Store()
_STEPS: Store[Solved[DiscreteSolution]] = Store()


def _in_words(flow: Solved[ContinuousSolution], level: int) -> str:
    """Return what the status of a level means, with a warning if J hardly falls where it meets the threshold."""
    status, solution = flow.statuses[level], flow.solution
    if status is not StoppingStatus.REACHED:
        return in_words(status)
    modules = flow.modules
    with torch.no_grad():
        fall = float(modules.criterion(modules.x0) - modules.criterion(solution.position[level]))
        mean_rate = fall / float(solution.time[level])
    share = abs(float(solution.criterion_rate[level])) / mean_rate
    if share >= NEARLY_TANGENTIAL:
        return in_words(status)
    return (
        f"{in_words(status)}, nearly tangentially: at {100 * share:.2g} % of its mean rate, so that T may jump close by"
    )


def _thresholds(scene: Scene, modules: Modules) -> Tensor:
    """Return the thresholds, the first of which is θ where that is swept."""
    return torch.cat([modules.threshold.reshape(1), torch.tensor(scene.thresholds[1:], dtype=DTYPE)])


def _run(scene: Scene, sensitivity: str, cancelled: Cancelled | None) -> Solved[DiscreteSolution]:
    modules = build(scene)
    step_map = modules.step_map(scene.step_map, torch.tensor(scene.step_size, dtype=DTYPE))
    recorder = _Recorder(modules.criterion, row=int(np.argmin(scene.thresholds)))
    solution = solve_steps(
        step_map,
        modules.x0.expand(len(scene.thresholds), -1),
        recorder,
        _thresholds(scene, modules),
        sensitivity=sensitivity,
        max_steps=most_steps(scene, scene.step_size),
        cancelled=cancelled,
    )
    return Solved(modules, solution, recorder.iterates())


class _Recorder(nn.Module):
    """A criterion that keeps one row's positions and values of J; a run evaluates it once at every iterate."""

    def __init__(self, criterion: nn.Module, row: int) -> None:
        super().__init__()
        self.criterion, self.row = criterion, row
        self._seen: list[tuple[Tensor, Tensor]] | None = []

    def forward(self, x: Tensor) -> Tensor:
        """Return J(x)."""
        values = self.criterion(x)
        if self._seen is not None:
            self._seen.append((x[self.row].detach(), values[self.row].detach()))
        return values

    def iterates(self) -> tuple[Tensor, Tensor]:
        """Return what was seen, and see no more."""
        assert self._seen is not None
        positions, values = zip(*self._seen, strict=True)
        self._seen = None
        return torch.stack(positions), torch.stack(values)


def derivative_of(solved: Solved) -> float:
    """Return the derivative of the first threshold's T or N in θ; nan where there is none."""
    if solved.statuses[0] not in (StoppingStatus.REACHED, StoppingStatus.ALREADY_SATISFIED):
        return math.nan
    solution = solved.solution
    quantity = solution.time[0] if isinstance(solution, ContinuousSolution) else solution.steps[0]
    if not quantity.requires_grad:
        return 0.0
    (slope,) = torch.autograd.grad(
        quantity, solved.modules.theta, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return float(slope)
