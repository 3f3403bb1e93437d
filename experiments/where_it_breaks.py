"""Where h ∇N is no approximation of ∇T: four ways to leave the assumptions of Theorem 2.

* ``stability``: h up to the largest stable step of Euler, Heun and Runge-Kutta 4 on a quadratic.  The stiffest mode
  decays ever more slowly, until it and not the slowest one decides when J meets ε.
* ``tangency``: ε just above a local minimum of J along a heavy ball, so that J meets it ever more flatly and the
  denominator ∇J·ẋ of ∇T tends to 0.  The error of ∇T itself, at default tolerances, is measured as well.
* ``jump``: T(θ) and h N(θ) of a heavy ball of friction θ, where the first dip of J below ε ends and both jump to the
  next one, at different θ.
* ``rounding``: h towards 0 in single and double precision.  The denominator J(x_N) - J(x_{N-1}) of Definition 3 is a
  difference of nearby numbers, off by about u ‖x‖ ‖∇J‖ / (h |dJ/dt|) for the unit roundoff u.  The minimizer is away
  from 0, as that of most objectives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

import odestop
from experiments.grid import geometric
from experiments.same_crossing import stop_at_same_crossing
from experiments.sensitivities import Question
from odestop.comparison import relative_error
from odestop.criteria import ObjectiveGap, SquaredGradientNorm
from odestop.discrete import Euler, Heun, RungeKutta4, TimeStepMap, discrete_stopping_time
from odestop.dynamics import DiagonallyPreconditionedFlow, HeavyBallFlow
from odestop.objectives import DiagonalQuadratic, log_spaced_spectrum
from odestop.sweeps import Record, Runner, Sweep

# The end of the interval of stability on the negative real axis.
STABILITY: dict[str, tuple[type[TimeStepMap], float]] = {
    "Euler": (Euler, 2.0),
    "Heun": (Heun, 2.0),
    "Runge-Kutta 4": (RungeKutta4, 2.785293563405282),
}
STABILITY_DIMENSION, STABILITY_CONDITION, STABILITY_THRESHOLD = 10, 100.0, 1e-5
EIGENVALUES, FRICTION = (1.0, 3.0), 0.3
JUMP_THRESHOLD, JUMP_FRICTIONS = 0.05, (0.3, 0.9)
ROUNDING_THRESHOLD, MINIMIZER = 0.66, 30.0


@dataclass(frozen=True)
class StabilityCell:
    """``margin`` is 1 - h / h_max; negative beyond the limit."""

    step_map: str
    margin: float


@dataclass(frozen=True)
class TangencyCell:
    """ε = (1 + excess) · (first local minimum of J)."""

    excess: float
    step_size: float


@dataclass(frozen=True)
class JumpCell:
    """The ``index``-th of ``points`` values of the friction, equally spaced."""

    points: int
    step_size: float
    index: int


@dataclass(frozen=True)
class RoundingCell:
    """One step size of ``count`` in geometric progression down to ``smallest``."""

    precision: str
    smallest: float
    count: int
    index: int


@dataclass(frozen=True)
class Grid:
    """The cells of a scale."""

    margins: tuple[float, ...]
    excesses: tuple[float, ...]
    tangency_steps: tuple[float, ...]
    frictions: int
    jump_steps: tuple[float, ...]
    smallest_step: float
    rounding_steps: int

    def stability_cells(self) -> list[StabilityCell]:
        """Return the cells of the first table."""
        return [StabilityCell(name, margin) for name in STABILITY for margin in self.margins]

    def tangency_cells(self) -> list[TangencyCell]:
        """Return the cells of the second table; those that share an ODE solve follow each other."""
        return [TangencyCell(excess, h) for excess in self.excesses for h in self.tangency_steps]

    def jump_cells(self) -> list[JumpCell]:
        """Return the cells of the third table; those of one batch follow each other."""
        return [JumpCell(self.frictions, h, i) for h in self.jump_steps for i in range(self.frictions)]

    def rounding_cells(self) -> list[RoundingCell]:
        """Return the cells of the fourth table; those of one batch follow each other."""
        settings = self.smallest_step, self.rounding_steps
        return [RoundingCell(name, *settings, i) for name in ("float32", "float64") for i in range(settings[1])]


GRIDS = {
    "tiny": Grid((-1.0, 0.1, 0.5), (1e-2, 1.0), (0.02,), 5, (0.05,), 1e-2, 3),
    "quick": Grid(
        (-1.0, *geometric(0.003, 0.9, 20)),
        geometric(1e-5, 1.0, 16),
        (0.04, 0.01, 0.0025),
        161,
        (0.05, 0.0125),
        1e-4,
        13,
    ),
    "paper": Grid(
        (-1.0, *geometric(0.0001, 0.9, 60)),
        geometric(1e-6, 1.0, 61),
        (0.04, 0.01, 0.0025, 0.000625),
        641,
        (0.05, 0.0125),
        3e-5,
        31,
    ),
}


def run(scale: str, runner: Runner) -> dict[str, pd.DataFrame]:
    """Run a scale.

    Parameters
    ----------
    scale
        ``"quick"``, ``"paper"``, or ``"tiny"`` for a test of the machinery.
    runner
        Runs the cells.

    Returns
    -------
    dict
        ``stability``, ``tangency``, ``jump`` and ``rounding``: one row per cell.  Where Euler does not get to the
        threshold, its columns are nan.
    """
    grid = GRIDS[scale]
    sweeps = {
        "stability": Sweep("stability", grid.stability_cells(), near_stability_limit),
        "tangency": Sweep("tangency", grid.tangency_cells(), near_tangency, group=lambda cell: cell.excess),
        "jump": Sweep("jump", grid.jump_cells(), across_jump, group=lambda cell: cell.step_size),
        "rounding": Sweep("rounding", grid.rounding_cells(), near_rounding, group=lambda cell: cell.precision),
    }
    return {name: runner.run(sweep) for name, sweep in sweeps.items()}


def near_stability_limit(cell: StabilityCell) -> Record:
    """Return the relative error of h ∇N (Definition 3) in the preconditioner, N, and how the run ended."""
    question = _stiff_question()
    kind, limit = STABILITY[cell.step_map]
    h = (1 - cell.margin) * limit
    solution = discrete_stopping_time(
        kind(question.dynamics, h), question.x0, question.criterion, STABILITY_THRESHOLD, max_steps=20_000
    )
    error = math.nan
    if bool(solution.reached):
        error = relative_error(torch.autograd.grad(h * solution.steps, question.parameters), _stiff_reference()[1])
    return {
        "step_size": h,
        "time": _stiff_reference()[0],
        "scaled_steps": h * solution.steps.item(),
        "relative_error": error,
        "status": solution.status.name,  # type: ignore[union-attr]
    }


@lru_cache(maxsize=1)
def _stiff_question() -> Question:
    spectrum = log_spaced_spectrum(STABILITY_DIMENSION, STABILITY_CONDITION, 1.0, dtype=torch.float64)
    objective = DiagonalQuadratic(spectrum)
    flow = DiagonallyPreconditionedFlow(objective, torch.ones_like(spectrum))
    return Question(flow, SquaredGradientNorm(objective), torch.ones_like(spectrum), (flow.diagonal,))


@lru_cache(maxsize=1)
def _stiff_reference() -> tuple[float, tuple[Tensor, ...]]:
    return _exact(_stiff_question(), STABILITY_THRESHOLD)


def near_tangency(cell: TangencyCell) -> Record:
    """Return dJ/dt at the event, ‖∇T‖, and the relative errors of ∇T at default tolerances and of h ∇N.

    Gradients are in the friction and x0, and h ∇N is Definition 3 with Euler.
    """
    question = heavy_ball()
    threshold = (1 + cell.excess) * first_minimum()
    time, gradient, rate, error = _tangent_flow(threshold)
    solution = discrete_stopping_time(
        Euler(question.dynamics, cell.step_size), question.x0, question.criterion, threshold, on_failure="raise"
    )
    by_steps = torch.autograd.grad(cell.step_size * solution.steps, question.parameters)
    return {
        "threshold": threshold,
        "time": time,
        "scaled_steps": cell.step_size * solution.steps.item(),
        "criterion_rate": rate,
        "time_gradient_norm": _norm(gradient),
        "time_gradient_error": error,
        "relative_error": relative_error(by_steps, gradient),
        "same_crossing": stop_at_same_crossing(question, threshold, time, cell.step_size),
    }


@lru_cache(maxsize=1)
def _tangent_flow(threshold: float) -> tuple[float, tuple[Tensor, ...], float, float]:
    """Return T, ∇T, dJ/dt there, and the relative error of ∇T at default tolerances."""
    question = heavy_ball()
    time, gradient = _exact(question, threshold)
    usual = odestop.continuous_stopping_time(question.dynamics, question.x0, question.criterion, threshold)
    error = relative_error(torch.autograd.grad(usual.time, question.parameters), gradient)
    return time, gradient, usual.criterion_rate.item(), error


@lru_cache(maxsize=1)
def heavy_ball() -> Question:
    """Return the heavy ball x'' + c x' + Λ x = 0 from (1, 1) at rest, with J = f."""
    objective = DiagonalQuadratic(torch.tensor(EIGENVALUES, dtype=torch.float64))
    flow = HeavyBallFlow(objective, torch.tensor(FRICTION, dtype=torch.float64, requires_grad=True))
    x0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    return Question(flow, ObjectiveGap(objective), x0, (flow.friction, x0))


@lru_cache(maxsize=1)
def first_minimum() -> float:
    """Return the first local minimum of J along `heavy_ball`, from the closed form of its oscillations.

    Examples
    --------
    >>> round(first_minimum(), 6)
    0.172721
    """

    def value(time: float) -> float:
        frequencies = [math.sqrt(eigenvalue - FRICTION**2 / 4) for eigenvalue in EIGENVALUES]
        x = [
            math.exp(-FRICTION * time / 2) * (math.cos(w * time) + FRICTION / (2 * w) * math.sin(w * time))
            for w in frequencies
        ]
        return sum(eigenvalue * x_i**2 / 2 for eigenvalue, x_i in zip(EIGENVALUES, x, strict=True))

    return float(minimize_scalar(value, bounds=(0.5, 1.6), method="bounded", options={"xatol": 1e-10}).fun)


def across_jump(cell: JumpCell) -> Record:
    """Return T, h N and their derivatives in the friction θ; one batch serves all θ."""
    low, high = JUMP_FRICTIONS
    columns = _sweep(cell.points, cell.step_size)
    friction = low + (high - low) * cell.index / (cell.points - 1)
    return {"friction": friction, **{name: values[cell.index].item() for name, values in columns.items()}}


@lru_cache(maxsize=1)
def _sweep(points: int, step_size: float) -> dict[str, Tensor]:
    """Return T, dT/dθ, h N and its derivative by Definition 3, each of shape (points,)."""
    friction = torch.linspace(*JUMP_FRICTIONS, points, dtype=torch.float64, requires_grad=True)
    objective = DiagonalQuadratic(torch.tensor(EIGENVALUES, dtype=torch.float64))
    flow, x0 = HeavyBallFlow(objective, friction), torch.ones(points, 2, dtype=torch.float64)
    target = x0, ObjectiveGap(objective), JUMP_THRESHOLD
    time = odestop.continuous_stopping_time(flow, *target, rtol=1e-9, on_failure="raise").time
    scaled_steps = step_size * discrete_stopping_time(Euler(flow, step_size), *target, on_failure="raise").steps
    return {
        "time": time.detach(),
        "time_derivative": torch.autograd.grad(time.sum(), flow.friction)[0],
        "scaled_steps": scaled_steps.detach(),
        "scaled_steps_derivative": torch.autograd.grad(scaled_steps.sum(), flow.friction)[0],
    }


def near_rounding(cell: RoundingCell) -> Record:
    """Return the relative error of h ∇N in x0 at one h; one batch of trajectories serves all h of a precision."""
    h, errors = _errors_by_precision(cell.precision, cell.smallest, cell.count)
    return {"step_size": h[cell.index], "relative_error": errors[cell.index]}


@lru_cache(maxsize=1)
def _errors_by_precision(precision: str, smallest: float, count: int) -> tuple[Sequence[float], Sequence[float]]:
    dtype = getattr(torch, precision)
    step_sizes = geometric(smallest, 0.1, count)
    minimizer = torch.full((2,), MINIMIZER, dtype=torch.float64)
    objective = DiagonalQuadratic(torch.tensor((1.0, 4.0), dtype=torch.float64), minimizer)
    flow = DiagonallyPreconditionedFlow(objective, torch.ones(2, dtype=torch.float64))
    start = (minimizer + 1).requires_grad_()
    _, exact = _exact(Question(flow, SquaredGradientNorm(objective), start, (start,)), ROUNDING_THRESHOLD)
    objective, flow = objective.to(dtype), flow.to(dtype)
    h, x0 = torch.tensor(step_sizes, dtype=dtype), start.detach().to(dtype).repeat(count, 1).requires_grad_()
    solution = discrete_stopping_time(
        Euler(flow, h), x0, SquaredGradientNorm(objective), ROUNDING_THRESHOLD, on_failure="raise"
    )
    (gradients,) = torch.autograd.grad((h * solution.steps).sum(), x0)
    return step_sizes, [relative_error(gradient, exact[0]) for gradient in gradients]


def _exact(question: Question, threshold: float) -> tuple[float, tuple[Tensor, ...]]:
    """Return T and ∇T from an eighth-order solve at rtol 1e-12."""
    solution = odestop.continuous_stopping_time(
        question.dynamics,
        question.x0,
        question.criterion,
        threshold,
        method="dopri8",
        rtol=1e-12,
        atol=1e-14,
        on_failure="raise",
    )
    return solution.time.item(), torch.autograd.grad(solution.time, question.parameters)


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.cat([tensor.flatten() for tensor in tensors])))
