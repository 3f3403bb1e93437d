"""Penalties chosen by gradient descent on the validation loss, with the gradients of four estimators.

Inner problems, solved by proximal gradient from zero until ‖gradient mapping‖² ≤ ε: ridge regression and the lasso on
the diabetes data with squares and products, and a linear classifier of the breast-cancer data with 30 % of the training
labels flipped, by the generalised cross-entropy loss and a ridge penalty.  Outer objective: the loss on the other half
of the data, to which the price of the steps, c N, may be added.  The cost counts evaluations of the inner gradient and
products with its derivatives.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from experiments.diabetes_features import diabetes_with_products
from experiments.generalized_cross_entropy import GeneralizedCrossEntropy
from odestop.criteria import SquaredGradientMapping
from odestop.discrete import ProximalGradient, discrete_stopping_time
from odestop.neighbours import GMRES, ConjugateGradient, LinearSolution, SquaredNormPenalty, implicit_gradient
from odestop.objectives import CompositeObjective, Lasso, LeastSquares, bundled_data
from odestop.sweeps import Record, Runner, Sweep

PROBLEMS = ("ridge", "lasso", "noisy labels")
BACKWARD_STEPS = {"unrolled": None, "truncated": 20, "one-step": 1, "implicit": None}
"""How many of the last steps each estimator differentiates; the implicit one needs them for N alone."""
PRICES = {"ridge": 5e-4, "lasso": 5e-4, "noisy labels": 2e-4}
"""What a step costs in the outer objective."""
STEPS_RANGE = (0.03, 0.09)
FLIPPED = 0.3
"""Part of the training labels."""
_STARTS = {"ridge": (1.5,), "lasso": (-1.5,), "noisy labels": (-2.0, -0.5)}
SEED = 0
_LEARNING_RATE = 0.5
_LINEAR_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Cell:
    """One step of one descent: the ``index``-th of ``iterations``."""

    problem: str
    estimator: str
    price: float
    threshold: float
    iterations: int
    index: int


@dataclass(frozen=True)
class StepsCell:
    """N of the lasso at the ``index``-th of ``points`` penalties, spaced equally over `STEPS_RANGE`."""

    threshold: float
    points: int
    index: int


@dataclass(frozen=True)
class Grid:
    """A scale: ε, how long the descents are, and how many penalties N of the lasso is looked at for."""

    threshold: float
    iterations: int
    points: int

    def cells(self) -> list[Cell]:
        """Return the cells; those of one descent follow each other."""
        return [
            Cell(problem, estimator, price, self.threshold, self.iterations, index)
            for problem, estimator in itertools.product(PROBLEMS, BACKWARD_STEPS)
            for price in (0.0, PRICES[problem])
            for index in range(self.iterations)
        ]


GRIDS = {"tiny": Grid(1e-5, 2, 5), "quick": Grid(1e-7, 12, 301), "paper": Grid(1e-7, 60, 3001)}


def run(scale: str, runner: Runner) -> dict[str, pd.DataFrame]:
    """Run the descents of a scale.

    Parameters
    ----------
    scale
        ``"quick"``, ``"paper"``, or ``"tiny"`` for a test of the machinery.
    runner
        Runs the cells.

    Returns
    -------
    dict
        ``bilevel``: one row per step of a descent.  ``bilevel_best``: the best row of each descent.
        ``lasso_steps``: N and the size of the support over a range of penalties.
    """
    grid = GRIDS[scale]
    table = runner.run(
        Sweep(
            "bilevel",
            grid.cells(),
            solve,
            group=lambda cell: (cell.problem, cell.estimator, cell.price),
        )
    )
    steps_cells = [StepsCell(grid.threshold, grid.points, index) for index in range(grid.points)]
    steps = runner.run(Sweep("lasso steps", steps_cells, lasso_steps, group=lambda cell: cell.points))
    table["total_cost"] = table.groupby(["problem", "estimator", "price"], sort=False)["cost"].cumsum()
    best = table.loc[table.groupby(["problem", "price", "estimator"], sort=False)["objective"].idxmin()]
    return {"bilevel": table, "bilevel_best": best.reset_index(drop=True), "lasso_steps": steps}


def solve(cell: Cell) -> Record:
    """Return one step of a descent."""
    return _descent(cell.problem, cell.estimator, cell.price, cell.threshold, cell.iterations)[cell.index]


@lru_cache(maxsize=1)
def _descent(problem: str, estimator: str, price: float, threshold: float, iterations: int) -> list[Record]:
    """Minimise the outer objective by Adam with falling rates; its normalised steps need no scale of the gradient."""
    hyperparameters = torch.tensor(_STARTS[problem], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([hyperparameters], lr=_LEARNING_RATE)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda index: (1 + index) ** -0.5)
    records = []
    for _ in range(iterations):
        records.append(evaluate(problem, estimator, price, threshold, hyperparameters))
        optimizer.step()
        scheduler.step()
    return records


def evaluate(problem: str, estimator: str, price: float, threshold: float, hyperparameters: Tensor) -> Record:
    """Return the outer objective and what it and its gradient cost; the gradient goes to ``hyperparameters.grad``.

    Parameters
    ----------
    problem, estimator
        Names; see `PROBLEMS` and `BACKWARD_STEPS`.
    price
        c of the outer objective, validation loss + c N.
    threshold
        ε of the inner run.
    hyperparameters
        log λ, and for noisy labels logit q as well, shape (1,) or (2,), a leaf.
    """
    hyperparameters.grad = None
    inner = INNER[problem]()
    objective = inner.build(hyperparameters)
    x0 = torch.zeros(inner.dimension, dtype=torch.float64)
    solution = discrete_stopping_time(
        ProximalGradient(objective, lambda k: inner.step_size),
        x0,
        SquaredGradientMapping(objective, inner.step_size),
        threshold,
        sensitivity="interpolated",
        backward_steps=BACKWARD_STEPS[estimator],
        max_steps=20_000,
        on_failure="raise",
    )
    solves: list[LinearSolution] = []
    x = solution.position
    if estimator == "implicit":
        x = implicit_gradient(
            lambda x, u: x - inner.build(u).proximal_step(x, inner.step_size),
            x,
            hyperparameters,
            solver=inner.solver,
            on_solve=solves.append,
        )
    validation = inner.validation(x)
    outer = validation + price * solution.steps if price > 0 else validation
    outer.backward()
    assert hyperparameters.grad is not None
    # One more for the products of an implicit gradient with the derivative in the hyperparameters.
    products = sum(solve.products + 1 for solve in solves)
    return {
        "penalty": float(hyperparameters[0].detach().exp()),
        "exponent": float(hyperparameters[1].detach().sigmoid()) if len(hyperparameters) > 1 else None,
        "validation": float(validation.detach()),
        "steps": float(solution.steps.detach()),
        "objective": float(outer.detach()),
        "gradient": float(hyperparameters.grad[0]),
        "cost": solution.stats.nfe + solution.stats.vjps + products,
    }


def lasso_steps(cell: StepsCell) -> Record:
    """Return N of the lasso at one penalty."""
    penalties, steps, support = _lasso_steps(cell.threshold, cell.points)
    return {"penalty": penalties[cell.index], "steps": steps[cell.index], "support": support[cell.index]}


@lru_cache(maxsize=1)
def _lasso_steps(threshold: float, points: int) -> tuple[list[float], list[float], list[int]]:
    """Return penalties, N and the sizes of the support, from one batch that goes on to the solution."""
    inner, penalties = INNER["lasso"](), torch.linspace(*STEPS_RANGE, points, dtype=torch.float64)
    objective = inner.build(penalties.log().unsqueeze(0))
    step_map = ProximalGradient(objective, lambda k: inner.step_size)
    criterion = SquaredGradientMapping(objective, inner.step_size)
    x0 = torch.zeros(points, inner.dimension, dtype=torch.float64)
    with torch.no_grad():
        stopped, solved = (
            discrete_stopping_time(step_map, x0, criterion, target, sensitivity="interpolated")
            for target in (threshold, 1e-16)
        )
    return penalties.tolist(), stopped.steps.tolist(), (solved.position != 0).sum(-1).tolist()


@dataclass(frozen=True)
class Inner:
    """An inner problem and the loss that judges its solution.

    Attributes
    ----------
    build
        Hyperparameters -> the inner objective.
    validation
        x -> the loss on the data held out.
    dimension, step_size
        Of x, and of proximal gradient.
    solver
        Of the implicit gradient.
    """

    build: Callable[[Tensor], CompositeObjective]
    validation: Callable[[Tensor], Tensor]
    dimension: int
    step_size: float
    solver: ConjugateGradient | GMRES


@lru_cache(maxsize=1)
def _regression(kind: str) -> Inner:
    features, targets = diabetes_with_products()
    train, held_out = _halves(len(targets))
    smooth = LeastSquares(features[train], targets[train])
    judge = LeastSquares(features[held_out], targets[held_out])

    def build(hyperparameters: Tensor) -> CompositeObjective:
        penalty = hyperparameters[0].exp()
        if kind == "ridge":
            return SquaredNormPenalty(smooth, penalty)
        return Lasso(features[train], targets[train], penalty)

    solver = ConjugateGradient(_LINEAR_TOLERANCE) if kind == "ridge" else GMRES(_LINEAR_TOLERANCE)
    return Inner(build, judge.value, features.shape[1], 1 / _known(smooth.smoothness), solver)


@lru_cache(maxsize=1)
def _noisy_classification() -> Inner:
    features, labels = bundled_data("breast-cancer", dtype=torch.float64)
    signs = torch.where(labels > 0, 1.0, -1.0).double()
    train, held_out = _halves(len(labels))
    flipped = torch.rand(len(train), generator=torch.Generator().manual_seed(SEED)) < FLIPPED
    noisy = torch.where(flipped, -signs[train], signs[train])

    def build(hyperparameters: Tensor) -> CompositeObjective:
        smooth = GeneralizedCrossEntropy(features[train], noisy, hyperparameters[1].sigmoid())
        return SquaredNormPenalty(smooth, hyperparameters[0].exp())

    def validation(x: Tensor) -> Tensor:
        return functional.softplus(-(features[held_out] @ x) * signs[held_out]).mean()

    smoothness = _known(build(torch.zeros(2, dtype=torch.float64)).smooth.smoothness)
    return Inner(build, validation, features.shape[1], 1 / smoothness, ConjugateGradient(_LINEAR_TOLERANCE))


INNER: dict[str, Callable[[], Inner]] = {
    "ridge": partial(_regression, "ridge"),
    "lasso": partial(_regression, "lasso"),
    "noisy labels": _noisy_classification,
}


def _halves(count: int) -> tuple[Tensor, Tensor]:
    """Return the rows to train on and those held out."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SEED))
    return order[: count // 2], order[count // 2 :]


def _known(smoothness: float | Tensor | None) -> float:
    assert isinstance(smoothness, float)
    return smoothness
