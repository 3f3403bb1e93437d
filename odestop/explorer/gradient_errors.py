"""How far h ∂N/∂θ is from ∂T/∂θ at the scene's θ, against h (Thm. 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from odestop.comparison import fit_order
from odestop.explorer.answers import derivative_of, solved_flow
from odestop.explorer.modules import build_family
from odestop.explorer.scene import Scene
from odestop.explorer.solving import Cancelled, most_steps, solve_steps

ERRORS_STEP_BUDGET = 1_000


@dataclass(frozen=True)
class GradientErrors:
    """|h ∂N/∂θ - ∂T/∂θ| / |∂T/∂θ| at several step sizes, with the fitted power of h.

    Attributes
    ----------
    step_sizes
        h, shape (k,), descending.
    definition3, interpolated
        The relative errors of Definition 3 and of N̂'s exact derivative, shape (k,); nan where N is infinite.
    order, order_low, order_high
        Slope of log(error of Definition 3) against log h, with its 95 % interval; nan if it cannot be fitted.
    words
        The same in words, or why there is nothing.
    """

    step_sizes: np.ndarray
    definition3: np.ndarray
    interpolated: np.ndarray
    order: float
    order_low: float
    order_high: float
    words: str


def gradient_errors(scene: Scene, points: int = 5, cancelled: Cancelled | None = None) -> GradientErrors:
    """Return the relative errors at h, h/2, h/4, …, of the first threshold.

    Parameters
    ----------
    scene
        One without problems.
    points
        Number of step sizes; those that would take more steps than the budget are left out.
    cancelled
        Asked between the evaluations of the dynamics.

    Raises
    ------
    CancelledError
        Once ``cancelled`` says so.

    Examples
    --------
    >>> errors = gradient_errors(Scene(dynamics_values={"theta": 0.5}))
    >>> 0.8 < errors.order < 1.3
    True
    """
    reference = derivative_of(solved_flow(scene, cancelled))
    step_sizes = _step_sizes(scene, points)
    if not math.isfinite(reference) or reference == 0.0:
        reason = "the threshold is not met" if math.isinf(_time(scene)) else "dT/dθ is zero or does not exist"
        missing = np.full(len(step_sizes), np.nan)
        return GradientErrors(step_sizes, missing, missing, *(math.nan,) * 3, f"no relative error: {reason}")
    definition3, interpolated = (
        np.abs(_derivatives(scene, step_sizes, rule, cancelled) - reference) / abs(reference)
        for rule in ("definition3", "interpolated")
    )
    return GradientErrors(step_sizes, definition3, interpolated, *_fitted(step_sizes, definition3))


def _time(scene: Scene) -> float:
    return float(solved_flow(scene).solution.time[0].detach())


def _step_sizes(scene: Scene, points: int) -> np.ndarray:
    """Return h, h/2, h/4, …, without those that need more than the budget of steps to get to T."""
    halved = scene.step_size / 2.0 ** np.arange(points)
    time = min(_time(scene), scene.horizon)
    affordable = time / halved <= ERRORS_STEP_BUDGET
    return halved[affordable] if affordable.any() else halved[:1]


def _derivatives(scene: Scene, step_sizes: np.ndarray, rule: str, cancelled: Cancelled | None) -> np.ndarray:
    """Return h ∂N/∂θ of every step size, by one batched run; nan where N is infinite."""
    h = torch.from_numpy(step_sizes)
    modules = build_family(scene, torch.full_like(h, scene.theta))
    solution = solve_steps(
        modules.step_map(scene.step_map, h),
        modules.x0,
        modules.criterion,
        modules.threshold,
        sensitivity=rule,
        max_steps=most_steps(scene, float(step_sizes.min()), ERRORS_STEP_BUDGET),
        cancelled=cancelled,
    )
    if not solution.steps.requires_grad:
        return np.full(len(step_sizes), np.nan)
    (slopes,) = torch.autograd.grad(solution.steps.sum(), modules.theta, allow_unused=True, materialize_grads=True)
    return np.where(solution.reached.numpy(), (h * slopes).numpy(), np.nan)


def _fitted(step_sizes: np.ndarray, errors: np.ndarray) -> tuple[float, float, float, str]:
    usable = np.isfinite(errors) & (errors > 0)
    if usable.sum() < 3:
        return math.nan, math.nan, math.nan, "too few step sizes for a slope"
    fit = fit_order(step_sizes[usable], errors[usable])
    return fit.order, fit.low, fit.high, f"slope {fit.order:.2f} (95 % interval {fit.low:.2f} to {fit.high:.2f})"
