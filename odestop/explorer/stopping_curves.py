"""T(θ) and h N(θ) on a grid of θ."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from odestop.explorer.answers import Answer, answers
from odestop.explorer.modules import DTYPE, build_family
from odestop.explorer.scene import Scene, is_logarithmic, swept_parameter
from odestop.explorer.solving import (
    CURVE_ATOL,
    CURVE_FLOW_BUDGET,
    CURVE_RTOL,
    CURVE_STEP_BUDGET,
    Cancelled,
    Store,
    most_steps,
    solve_flow,
    solve_steps,
    statuses,
)


@dataclass(frozen=True)
class StoppingCurves:
    """T and h N over a range of θ; inf where the threshold is not met.

    Attributes
    ----------
    parameter, symbol, logarithmic
        θ: its name, its symbol, and whether the grid has equal ratios.
    theta
        The scene's own θ.
    thresholds
        ε of the curves: the scene's; the first one alone where θ is the threshold.
    values, times, statuses
        θ, shape (n,); T, shape (curves, n); names of its `odestop.StoppingStatus`, shape (curves, n).
    step_values, scaled_steps, scaled_fractional
        θ, shape (m,); h N and h N̂, shape (curves, m).
    answers
        The numbers at the scene's θ, one per threshold of the scene.
    """

    parameter: str
    symbol: str
    logarithmic: bool
    theta: float
    thresholds: tuple[float | int, ...]
    values: np.ndarray
    times: np.ndarray
    statuses: np.ndarray
    step_values: np.ndarray
    scaled_steps: np.ndarray
    scaled_fractional: np.ndarray
    answers: tuple[Answer, ...]


def stopping_curves(
    scene: Scene, points: int = 65, step_points: int = 129, cancelled: Cancelled | None = None
) -> StoppingCurves:
    """Return T(θ) by one batched solve and N(θ) by one batched run, with the numbers at the scene's own θ.

    The curves are kept for scenes that differ in nothing they depend on, such as in θ itself.

    Parameters
    ----------
    scene
        One without problems.
    points, step_points
        Numbers of values of θ for T and for N.
    cancelled
        Asked between the evaluations of the dynamics.

    Raises
    ------
    CancelledError
        Once ``cancelled`` says so.

    Examples
    --------
    >>> curves = stopping_curves(Scene(), points=3, step_points=5)
    >>> curves.times.shape, curves.scaled_steps.shape
    ((3, 3), (3, 5))
    """
    parameter = swept_parameter(scene)
    low, high = scene.parameter_range
    thetas, step_thetas = _grid(low, high, points), _grid(low, high, step_points)
    times, names = flow_curve(scene, thetas, cancelled)
    whole, fractional = steps_curve(scene, step_thetas, cancelled)
    return StoppingCurves(
        parameter=parameter.name,
        symbol=parameter.symbol,
        logarithmic=is_logarithmic(low, high),
        theta=scene.theta,
        thresholds=_thresholds(scene),
        values=np.array(thetas),
        times=times,
        statuses=names,
        step_values=np.array(step_thetas),
        scaled_steps=scene.step_size * whole,
        scaled_fractional=scene.step_size * fractional,
        answers=answers(scene, cancelled),
    )


def flow_curve(
    scene: Scene, thetas: tuple[float, ...], cancelled: Cancelled | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return T and the names of its statuses, both of shape (curves, n), at values of θ."""

    def solve() -> tuple[np.ndarray, np.ndarray]:
        modules = build_family(scene, torch.tensor(thetas, dtype=DTYPE))
        sweeps_threshold = scene.parameter == "threshold"
        levels = modules.theta.unsqueeze(-1) if sweeps_threshold else torch.tensor(scene.thresholds, dtype=DTYPE)
        with torch.no_grad():
            solution = solve_flow(
                scene,
                modules,
                levels,
                levels=True,
                rtol=CURVE_RTOL,
                atol=CURVE_ATOL,
                max_steps=CURVE_FLOW_BUDGET,
                cancelled=cancelled,
            )
        names = np.array([status.name for status in statuses(solution)]).reshape(len(thetas), -1)
        return solution.time.numpy().T, names.T

    return _FLOW_CURVES.get((replace(_without_theta(scene), step_size=1.0, step_map=""), thetas), solve)


def steps_curve(
    scene: Scene, thetas: tuple[float, ...], cancelled: Cancelled | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return N and N̂, both of shape (curves, n), at values of θ."""

    def run() -> tuple[np.ndarray, np.ndarray]:
        thresholds = torch.tensor(_thresholds(scene), dtype=DTYPE)
        # One row for every θ and ε: each stops at its own N.
        grid = torch.tensor(thetas, dtype=DTYPE).repeat(len(thresholds))
        modules = build_family(scene, grid)
        step_map = modules.step_map(scene.step_map, torch.tensor(scene.step_size, dtype=DTYPE))
        sweeps_threshold = scene.parameter == "threshold"
        with torch.no_grad():
            solution = solve_steps(
                step_map,
                modules.x0,
                modules.criterion,
                modules.theta if sweeps_threshold else thresholds.repeat_interleave(len(thetas)),
                sensitivity="interpolated",
                max_steps=most_steps(scene, scene.step_size, CURVE_STEP_BUDGET),
                cancelled=cancelled,
            )
        fractional = solution.steps.reshape(len(thresholds), -1).numpy()
        # N - 1 < N̂ ≤ N.
        return np.ceil(fractional), fractional

    return _STEP_CURVES.get((replace(_without_theta(scene), method=""), thetas), run)


_FLOW_CURVES: Store[tuple[np.ndarray, np.ndarray]] = Store()
_STEP_CURVES: Store[tuple[np.ndarray, np.ndarray]] = Store()


def _without_theta(scene: Scene) -> Scene:
    """Return the scene with everything at one value that no curve depends on."""
    return replace(scene.with_theta(0.0), plane="", parameter_range=(0.0, 1.0))


def _thresholds(scene: Scene) -> tuple[float | int, ...]:
    return scene.thresholds[:1] if scene.parameter == "threshold" else scene.thresholds


def _grid(low: float | int, high: float | int, points: int) -> tuple[float, ...]:
    spacing = np.geomspace if is_logarithmic(low, high) else np.linspace
    grid = spacing(low, high, points)
    # The ends exactly: rounding may leave the range.
    grid[0], grid[-1] = low, high
    return tuple(grid.tolist())
