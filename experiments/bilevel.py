"""Penalties chosen by gradient descent on the validation loss, with the gradients of four estimators.

Inner problems, solved by proximal gradient from zero until ‖gradient mapping‖² ≤ ε: ridge regression and the lasso on
the diabetes data with squares and products, and a linear classifier of the breast-cancer data whose training labels are
partly flipped, with the generalised cross-entropy loss and a ridge penalty.  Outer objective: the loss on the other half
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
from odestop.discrete import ProximalGradient, discrete_stopping_time
from odestop.neighbours import GMRES, ConjugateGradient, LinearSolution, SquaredNormPenalty, implicit_gradient
from odestop.objectives import CompositeObjective, Lasso, LeastSquares, bundled_data
from odestop.sweeps import Record, Runner, Sweep

PROBLEMS = ("ridge", "lasso", "noisy labels")
BACKWARD_STEPS = {"unrolled": None, "truncated": 20, "one-step": 1, "implicit": None}
"""How many of the last steps each estimator differentiates; the implicit one needs them for N alone."""
THRESHOLD = 1e-8
PRICES = {"ridge": 5e-4, "lasso": 5e-4, "noisy labels": 5e-4}
"""What a step costs in the outer objective."""
FLIPPED = 0.3
"""Part of the training labels."""
_STARTS = {"ridge": (0.0,), "lasso": (-1.0,), "noisy labels": (-3.0, -1.5)}
_SEED = 0
_LEARNING_RATE = 0.3
_LINEAR_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Cell:
    """One step of one descent: the ``index``-th of ``iterations``."""

    problem: str
    estimator: str
    price: float
    iterations: int
    index: int


@dataclass(frozen=True)
class Grid:
    """A scale: how long the descents are."""

    iterations: int

    def cells(self) -> list[Cell]:
        """Return the cells; those of one descent follow each other."""
        return [
            Cell(problem, estimator, price, self.iterations, index)
            for problem, estimator in itertools.product(PROBLEMS, BACKWARD_STEPS)
            for price in (0.0, PRICES[problem])
            for index in range(self.iterations)
        ]


GRIDS = {"tiny": Grid(2), "quick": Grid(16), "paper": Grid(60)}


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
    """
    table = runner.run(
        Sweep(
            "bilevel",
            GRIDS[scale].cells(),
            solve,
            group=lambda cell: (cell.problem, cell.estimator, cell.price),
        )
    )
    table["total_cost"] = table.groupby(["problem", "estimator", "price"], sort=False)["cost"].cumsum()
    best = table.loc[table.groupby(["problem", "price", "estimator"], sort=False)["objective"].idxmin()]
    return {"bilevel": table, "bilevel_best": best.reset_index(drop=True)}


def solve(cell: Cell) -> Record:
    """Return one step of a descent."""
    return _descent(cell.problem, cell.estimator, cell.price, cell.iterations)[cell.index]


@lru_cache(maxsize=1)
def _descent(problem: str, estimator: str, price: float, iterations: int) -> list[Record]:
    """Minimise the outer objective by Adam; its normalised steps need no scale of the gradient."""
    hyperparameters = torch.tensor(_STARTS[problem], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([hyperparameters], lr=_LEARNING_RATE)
    records = []
    for _ in range(iterations):
        records.append(evaluate(problem, estimator, price, hyperparameters))
        optimizer.step()
    return records


def evaluate(problem: str, estimator: str, price: float, hyperparameters: Tensor) -> Record:
    """Return the outer objective and what it and its gradient cost; the gradient goes to ``hyperparameters.grad``.

    Parameters
    ----------
    problem, estimator
        Names; see `PROBLEMS` and `BACKWARD_STEPS`.
    price
        c of the outer objective, validation loss + c N.
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
        lambda x: objective.gradient_mapping(x, inner.step_size).square().sum(-1),
        THRESHOLD,
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
    flipped = torch.rand(len(train), generator=torch.Generator().manual_seed(_SEED)) < FLIPPED
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
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_SEED))
    return order[: count // 2], order[count // 2 :]


def _known(smoothness: float | None) -> float:
    assert smoothness is not None
    return smoothness
