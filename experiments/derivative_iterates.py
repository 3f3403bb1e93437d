"""Derivatives of iterates: how fast ∂x_k/∂λ tends to ∂x*/∂λ, and what happens where the support changes.

Proximal gradient with step sizes that change at every step, s_k = (0.9 + 0.5 cos k) / L, and FISTA with s = 1/L, from
x_0 = 0; the lasso on the diabetes data with squares and products (442 × 64), and ℓ2-regularised logistic regression on
the breast-cancer data (569 × 31).  The reference is the implicit function theorem on the active manifold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.diabetes_features import diabetes_with_products
from odestop.discrete import FISTA, ObjectiveStepMap, ProximalGradient
from odestop.neighbours import SquaredNormPenalty, derivative_iterates, lasso_derivative
from odestop.objectives import CompositeObjective, Lasso, LogisticRegression, bundled_data
from odestop.sweeps import Record, Runner, Sweep

PENALTIES = {"lasso": 0.03, "logistic": 0.1}
ALGORITHMS = ("proximal gradient", "FISTA")
_FLOOR = 1e-11
_WINDOW = 0.01


@dataclass(frozen=True)
class IterateCell:
    """One iterate of a run of ``steps`` steps."""

    problem: str
    algorithm: str
    steps: int
    k: int


@dataclass(frozen=True)
class SupportCell:
    """One penalty near a change of support: the ``index``-th of ``points``, after ``steps`` steps of FISTA."""

    steps: int
    points: int
    index: int


@dataclass(frozen=True)
class Grid:
    """A scale: run lengths by algorithm, iterates shown of each, and the penalties near a change of support."""

    proximal_gradient_steps: int
    fista_steps: int
    shown: int
    support_steps: tuple[int, ...]
    support_points: int

    def iterate_cells(self) -> list[IterateCell]:
        """Return the cells of the first table; those of one run follow each other."""
        lengths = dict(zip(ALGORITHMS, (self.proximal_gradient_steps, self.fista_steps), strict=True))
        return [
            IterateCell(problem, algorithm, steps, k)
            for problem in PENALTIES
            for algorithm, steps in lengths.items()
            for k in sorted({round(k) for k in np.linspace(0, steps, self.shown)})
        ]

    def support_cells(self) -> list[SupportCell]:
        """Return the cells of the second table."""
        return [
            SupportCell(steps, self.support_points, index)
            for steps in self.support_steps
            for index in range(self.support_points)
        ]


GRIDS = {
    "tiny": Grid(120, 80, 41, (20,), 5),
    "quick": Grid(1500, 600, 301, (20, 60, 200), 81),
    "paper": Grid(4000, 1500, 801, (20, 60, 200, 600), 321),
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
        ``derivative_iterates``: errors of x_k and ∂x_k/∂λ, a row per iterate.  ``derivative_rates``: the fitted
        and the predicted rates.  ``support_change``: derivatives on both sides of a change of support.
    """
    grid = GRIDS[scale]
    iterates = runner.run(
        Sweep(
            "derivative iterates",
            grid.iterate_cells(),
            solve,
            cost=lambda cell: cell.steps,
            group=lambda cell: (cell.problem, cell.algorithm),
        )
    )
    support = runner.run(
        Sweep("support change", grid.support_cells(), near_support_change, group=lambda cell: cell.steps)
    )
    return {
        "derivative_iterates": iterates,
        "derivative_rates": fitted_rates(iterates),
        "support_change": support,
    }


def solve(cell: IterateCell) -> Record:
    """Return the relative errors of one iterate and of its derivative."""
    curves = _curves(cell.problem, cell.algorithm, cell.steps)
    return {
        "error": curves.errors[cell.k],
        "derivative_error": curves.derivative_errors[cell.k],
        "identified_at": curves.identified_at,
        "predicted_rate": curves.predicted_rate,
    }


def fitted_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Fit C k^p ρ^k to the errors of x_k and ∂x_k/∂λ, over the tail of every run: from the support to rounding.

    The power p is that of theory, see `power`.

    Returns
    -------
    pandas.DataFrame
        One row per problem and algorithm: ``rate``, ``derivative_rate`` and ``predicted_rate``, the ρ of the two fits
        and of theory, and ``identified_at``.
    """
    rows = []
    for (problem, algorithm), run_rows in table.groupby(["problem", "algorithm"], sort=False):
        tail = run_rows[run_rows["k"] > run_rows["identified_at"]]
        first = tail.iloc[0]
        rates = {
            name: _rate(tail["k"], tail[column], power(str(problem), str(algorithm), is_derivative))
            for name, column, is_derivative in (
                ("rate", "error", False),
                ("derivative_rate", "derivative_error", True),
            )
        }
        identified = {"identified_at": int(first["identified_at"])}
        predicted = {"predicted_rate": first["predicted_rate"]}
        rows.append({"problem": problem, "algorithm": algorithm, **rates, **predicted, **identified})
    return pd.DataFrame(rows)


def power(problem: str, algorithm: str, is_derivative: bool) -> float:
    """Return p of the error C k^p ρ^k.

    The momentum of FISTA, 1 - 3/k, gives k^{-3/2}.  The derivative has another factor k if the linearised step depends
    on λ: that of the ridge penalty does, and that of the lasso on its support does not.
    """
    return (-1.5 if algorithm == "FISTA" else 0.0) + (1.0 if is_derivative and problem == "logistic" else 0.0)


def _rate(k: pd.Series, error: pd.Series, power: float) -> float:
    """Return ρ, from the later half of what lies above the rounding error."""
    count = int((error.cummin() > _FLOOR).sum())
    half = slice(count // 2, count)
    slope, _ = np.polyfit(k[half], np.log(error[half]) - power * np.log(k[half]), 1)
    return math.exp(slope)


@dataclass(frozen=True)
class Curves:
    """Relative errors along one run, the step from which the support stays, and the rate that theory gives."""

    errors: list[float]
    derivative_errors: list[float]
    identified_at: int
    predicted_rate: float


@lru_cache(maxsize=1)
def _curves(problem: str, algorithm: str, steps: int) -> Curves:
    penalty = torch.tensor(PENALTIES[problem], dtype=torch.float64)
    solution, derivative = solution_and_derivative(problem)
    start = torch.zeros_like(solution)
    found = derivative_iterates(lambda level: step_map(problem, algorithm, level), start, penalty, steps)
    wrong_sign = (found.positions.sign() != solution.sign()).any(-1).nonzero()
    return Curves(
        errors=_relative_distances(found.positions, solution),
        derivative_errors=_relative_distances(found.derivatives, derivative),
        # Signs of a smooth problem identify nothing.
        identified_at=int(wrong_sign[-1]) + 1 if problem == "lasso" and len(wrong_sign) else 0,
        predicted_rate=predicted_rate(problem, algorithm, steps),
    )


def _relative_distances(points: Tensor, reference: Tensor) -> list[float]:
    return ((points - reference).norm(dim=-1) / reference.norm()).tolist()


def make_objective(problem: str, penalty: Tensor | float) -> CompositeObjective:
    """Return f = g + r with the given penalty weight."""
    if problem == "lasso":
        return Lasso(*_data(problem), penalty)
    return SquaredNormPenalty(LogisticRegression(*_data(problem)), penalty)


@lru_cache(maxsize=2)
def _data(problem: str) -> tuple[Tensor, Tensor]:
    return diabetes_with_products() if problem == "lasso" else bundled_data("breast-cancer", dtype=torch.float64)


@lru_cache(maxsize=2)
def _smoothness(problem: str) -> float:
    smoothness = make_objective(problem, 0.0).smooth.smoothness
    assert isinstance(smoothness, float)
    return smoothness


def step_sizes(algorithm: str, smoothness: float, k: Tensor) -> Tensor:
    """Return s_k, for one k or many."""
    return (0.9 + 0.5 * torch.cos(k)) / smoothness if algorithm == "proximal gradient" else 0 * k + 1 / smoothness


def step_map(problem: str, algorithm: str, penalty: Tensor) -> ObjectiveStepMap:
    """Return the algorithm at a penalty."""
    smoothness = _smoothness(problem)
    kind = ProximalGradient if algorithm == "proximal gradient" else FISTA
    return kind(make_objective(problem, penalty), lambda k: step_sizes(algorithm, smoothness, k))


@lru_cache(maxsize=2)
def solution_and_derivative(problem: str) -> tuple[Tensor, Tensor]:
    """Return x* to rounding and ∂x*/∂λ on the active manifold."""
    penalty = PENALTIES[problem]
    if problem == "lasso":
        solution = lasso_solution(torch.tensor([penalty], dtype=torch.float64))[0]
        return solution, lasso_derivative(Lasso(*_data(problem), penalty), solution)
    objective = make_objective(problem, penalty)
    solution = torch.zeros(_data(problem)[0].shape[1], dtype=torch.float64)
    for _ in range(30):
        gradient = objective.smooth.gradient(solution) + penalty * solution
        solution = solution - torch.linalg.solve(_hessian(problem, solution), gradient)
    return solution, -torch.linalg.solve(_hessian(problem, solution), solution)


def lasso_solution(penalties: Tensor, steps: int = 600) -> Tensor:
    """Return the minimizers of the lasso at some penalties, to rounding: FISTA for the support, then a linear system.

    Shapes: penalties (points,), minimizers (points, 64).
    """
    features, targets = _data("lasso")
    with torch.no_grad():
        step = step_map("lasso", "FISTA", penalties)
        state = step.initial_state(torch.zeros(len(penalties), features.shape[1], dtype=torch.float64))
        for k in range(steps):
            state = step(k, state)
        solutions = step.position(state).clone()
    for penalty, solution in zip(penalties, solutions, strict=True):
        support = solution != 0
        active = features[:, support]
        right = active.T @ targets / len(features) - penalty * solution[support].sign()
        solution[support] = torch.linalg.solve(active.T @ active / len(features), right)
    return solutions


def _hessian(problem: str, x: Tensor) -> Tensor:
    """Return the Hessian of g on the support of the lasso, and of f for the logistic regression."""
    smooth = make_objective(problem, PENALTIES[problem]).smooth
    basis = torch.eye(len(x), dtype=x.dtype)
    hessian = smooth.hessian_vector_product(x.expand_as(basis), basis).detach()
    if problem == "lasso":
        return hessian[x != 0][:, x != 0]
    return hessian + PENALTIES[problem] * basis


def predicted_rate(problem: str, algorithm: str, steps: int) -> float:
    """Return the slowest factor per step of the linearised algorithm at x*.

    For an eigenvalue q of the Hessian of g on the manifold, a proximal gradient step multiplies the error by
    (1 - s_k q) / (1 + s_k λ₂), λ₂ the ridge penalty; the mean over k is geometric.  FISTA, whose momentum tends to 1,
    has complex modes of modulus √((1 - s q) / (1 + s λ₂)) instead.
    """
    solution, _ = solution_and_derivative(problem)
    ridge = 0.0 if problem == "lasso" else PENALTIES[problem]
    curvatures = torch.linalg.eigvalsh(_hessian(problem, solution)) - ridge
    sizes = step_sizes(algorithm, _smoothness(problem), torch.arange(steps, dtype=torch.float64)).unsqueeze(1)
    factors = ((1 - sizes * curvatures).abs() / (1 + sizes * ridge)).log().mean(0).exp()
    slowest = float(factors.max())
    return slowest if algorithm == "proximal gradient" else math.sqrt(slowest)


def near_support_change(cell: SupportCell) -> Record:
    """Return x_j and ∂x_j/∂λ near the λ at which coordinate j leaves: of the K-th iterate, and of the solution."""
    change, coordinate = support_change()
    levels, solutions = _solutions_near_change(cell.points)
    positions, derivatives = _iterates_near_change(cell.steps, cell.points)
    level, solution = float(levels[cell.index]), solutions[cell.index]
    below, above = max(cell.index - cell.points // 20, 0), min(cell.index + cell.points // 20, cell.points - 1)
    difference = (solutions[above] - solutions[below]) / (levels[above] - levels[below])
    return {
        "penalty": level,
        "change": change,
        "coordinate": coordinate,
        "solution": float(solution[coordinate]),
        "iterate": float(positions[cell.index, coordinate]),
        "derivative": float(lasso_derivative(Lasso(*_data("lasso"), level), solution)[coordinate]),
        "finite_difference": float(difference[coordinate]),
        "iterate_derivative": float(derivatives[cell.index, coordinate]),
    }


@lru_cache(maxsize=1)
def _solutions_near_change(points: int) -> tuple[Tensor, Tensor]:
    """Return equally spaced penalties around the change, and the solutions there."""
    change, _ = support_change()
    levels = torch.linspace(change * (1 - _WINDOW), change * (1 + _WINDOW), points, dtype=torch.float64)
    return levels, lasso_solution(levels)


@lru_cache(maxsize=1)
def _iterates_near_change(steps: int, points: int) -> tuple[Tensor, Tensor]:
    """Return x_K and ∂x_K/∂λ for all penalties at once."""
    levels, _ = _solutions_near_change(points)
    start = torch.zeros(points, _data("lasso")[0].shape[1], dtype=torch.float64)
    found = derivative_iterates(lambda level: step_map("lasso", "FISTA", level), start, levels, steps)
    return found.positions[-1], found.derivatives[-1]


@lru_cache(maxsize=1)
def support_change() -> tuple[float, int]:
    """Return the first λ above that of the lasso at which a coordinate leaves the support, and which one.

    The support is linear in λ between changes: x_j(λ + δ) = x_j + δ ∂x_j/∂λ.
    """
    solution, derivative = solution_and_derivative("lasso")
    support = solution != 0
    distances = torch.where(support & (solution * derivative < 0), -solution / derivative, math.inf)
    coordinate = int(distances.argmin())
    return PENALTIES["lasso"] + float(distances[coordinate]), coordinate
