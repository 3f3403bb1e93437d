"""Figures 4 and 6 and Table 1: Adam-OLA against eight other methods on smooth support vector machines.

f(w, b) = ½ Σ_i max(0, 1 - y_i (wᵀ a_i - b))² + ½ λ ‖w‖².  x0 is a normal vector divided by its length, and a method
stops when ‖∇f‖ ≤ 10⁻⁴ or after 1000 iterations.  λ = 0 on the LIBSVM sets, as in the code of HDM's authors, whose
experiment the paper extends (github.com/udellgroup/osgm-best-hypergrad, exp_svm.py: x0, the tolerance and most grids
are there); λ = 1 on the bundled sets, of which one is separable.  Every gradient is that of all rows.

Two protocols, side by side.  ``"paper"``: every method tries the paper's grid, Adam-OLA the paper's η and ε_desc of the
set at the rates of Adam's grid, since the paper does not say where its rate begins.  ``"equal"``: every method tries
the same number of points of a Sobol sequence in its ranges.  Either way what is best on tuning seeds of x0 is measured
on others.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from torch import Tensor

from odestop.data import fetch, load
from odestop.discrete import (
    Adagrad,
    Adam,
    GradientDescent,
    HeavyBall,
    Nesterov,
    NesterovStronglyConvex,
    ObjectiveStepMap,
)
from odestop.objectives import SmoothSupportVectorMachine, bundled_data
from odestop.optim import HDM, AdamHD, AdamOLA
from odestop.sweeps import Record, Runner, Sweep

TOLERANCE = 1e-4
"""A run ends at the first k with ‖∇f(x_k)‖ at or below it."""

PAPER_RATES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Grid of Adagrad and Adam; 1/L comes on top."""

PAPER_ADAM_OLA = {
    "a1a": (1e-2, 1e-5),
    "a2a": (1e-3, 1e-3),
    "a3a": (5e-5, 5e-4),
    "w3a": (5e-3, 5e-9),
    "w8a-4912": (5e-3, 5e-9),
}
"""The paper's η and ε_desc by data set; w8a-4912 takes those of w3a, for which it stands in."""

BUNDLED = ("breast-cancer", "digits")
ROWS = {"w8a-4912": ("w8a", 4912)}
"""Data sets that are the first rows of a file; w3a, which is not at everybody's hand, has 4912 rows as well."""

REFERENCE = "L-BFGS"
TWICE = "Adam-OLA, 2 gradients"
"""Adam-OLA as Algorithm 2 is written: the same iterates, at two gradients each."""

STRONG_CONVEXITY = 1e-4
"""μ of Nesterov's method where λ = 0, as in the code of HDM's authors."""


class Fleet(Protocol):
    """Independent runs of one method, in step."""

    @property
    def positions(self) -> Tensor:
        """x_k of every run, shape (runs, d)."""
        ...

    @property
    def rates(self) -> list[float]:
        """The step size of every run, nan where it has none."""
        ...

    def advance(self, k: int, values: Tensor, gradients: Tensor, running: Tensor) -> None:
        """Go from x_k to x_{k+1}, told f(x_k), shape (runs,), ∇f(x_k), shape (runs, d), and which runs still matter."""
        ...


class StepMapFleet:
    """Runs of a step map whose hyperparameters have shape (runs,)."""

    def __init__(self, step_map: ObjectiveStepMap, x0: Tensor) -> None:
        self._step_map = step_map
        self._state = step_map.initial_state(x0)
        rate = step_map.learning_rate
        self.rates: list[float] = rate.tolist() if isinstance(rate, Tensor) else [math.nan] * len(x0)

    @property
    def positions(self) -> Tensor:
        """x_k of every run, shape (runs, d)."""
        return self._step_map.position(self._state)

    def advance(self, k: int, values: Tensor, gradients: Tensor, running: Tensor) -> None:
        """Go from x_k to x_{k+1}."""
        # The objective remembers ∇f(x_k) for the step map.
        self._state = self._step_map(k, self._state)


class OptimizerFleet:
    """Runs of torch optimizers, each with a parameter of its own."""

    def __init__(self, build: Callable[[Tensor, Sequence[float]], torch.optim.Optimizer], x0: Tensor, settings: Tensor):
        self._parameters = [row.clone().requires_grad_() for row in x0]
        self._optimizers = [build(p, row) for p, row in zip(self._parameters, settings.tolist(), strict=True)]

    @property
    def positions(self) -> Tensor:
        """x_k of every run, shape (runs, d)."""
        return torch.stack([p.detach() for p in self._parameters])

    @property
    def rates(self) -> list[float]:
        """The step size of every run."""
        return [optimizer.param_groups[0]["lr"] for optimizer in self._optimizers]

    def advance(self, k: int, values: Tensor, gradients: Tensor, running: Tensor) -> None:
        """Go from x_k to x_{k+1}."""
        for run in running.nonzero().flatten().tolist():
            self._advance(self._parameters[run], self._optimizers[run], values[run], gradients[run])

    def _advance(self, p: Tensor, optimizer: torch.optim.Optimizer, value: Tensor, gradient: Tensor) -> None:
        p.grad = gradient
        optimizer.step(loss=value) if isinstance(optimizer, AdamOLA) else optimizer.step()


class HDMFleet(OptimizerFleet):
    """Runs of HDM, which evaluates f at points of its own choice."""

    def __init__(self, objective: SmoothSupportVectorMachine, x0: Tensor, settings: Tensor) -> None:
        smoothness = _smoothness(objective)
        super().__init__(
            lambda p, row: HDM([p], lr=row[0] / smoothness, momentum_rate=row[1], smoothness=smoothness), x0, settings
        )
        self._objective = objective

    def _advance(self, p: Tensor, optimizer: torch.optim.Optimizer, value: Tensor, gradient: Tensor) -> None:
        def closure() -> float:
            optimizer.zero_grad()
            loss = self._objective(p)
            loss.backward()
            return loss.item()

        optimizer.step(closure)


@dataclass(frozen=True)
class Method:
    """A method and what is tuned of it.

    Attributes
    ----------
    settings
        Names of what is tuned.
    ranges
        Where a random draw looks, log-uniformly, for each of them.
    grid
        The paper's values, a function of 1/L and the name of the data set; None for a method that is not the paper's.
    build
        Returns the runs, given f, x0 of shape (runs, d) and the settings, shape (runs, number of settings).
    """

    settings: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    grid: Callable[[float, str], list[tuple[float, ...]]] | None
    build: Callable[[SmoothSupportVectorMachine, Tensor, Tensor], Fleet]


_RATE = (1e-3, 10.0)
_RATE_TIMES_L = (0.1, 100.0)


def _adam_rates(inverse: float, name: str) -> list[tuple[float, ...]]:
    return [(rate,) for rate in (*PAPER_RATES, inverse)]


def _adam_hd(p: Tensor, row: Sequence[float]) -> AdamHD:
    return AdamHD([p], lr=row[0], hypergradient_rate=row[1])


def _adam_ola(p: Tensor, row: Sequence[float]) -> AdamOLA:
    return AdamOLA([p], lr=row[0], adaptation_rate=row[1] * row[0] ** 2, descent_tolerance=row[2])


def _adam_ola_log(p: Tensor, row: Sequence[float]) -> AdamOLA:
    return AdamOLA([p], lr=row[0], adaptation_rate=row[1], descent_tolerance=row[2], log_rate=True)


METHODS: dict[str, Method] = {
    "GD": Method(
        ("rate · L",),
        (_RATE_TIMES_L,),
        lambda inverse, name: [(1.0,)],
        lambda f, x0, s: StepMapFleet(GradientDescent(f, s[:, 0] / _smoothness(f)), x0),
    ),
    "heavy ball": Method(
        ("rate · L", "1 - momentum"),
        (_RATE_TIMES_L, (1e-3, 1.0)),
        lambda inverse, name: [(1.0, 1 - momentum) for momentum in (0.1, 0.5, 0.9, 1.0)],
        lambda f, x0, s: StepMapFleet(HeavyBall(f, s[:, 0] / _smoothness(f), 1 - s[:, 1]), x0),
    ),
    "NAG": Method(
        ("rate · L",),
        (_RATE_TIMES_L,),
        lambda inverse, name: [(1.0,)],
        lambda f, x0, s: StepMapFleet(Nesterov(f, s[:, 0] / _smoothness(f)), x0),
    ),
    "NAG-SC": Method(
        ("rate · L", "strong convexity"),
        (_RATE_TIMES_L, (1e-4, 1e2)),
        lambda inverse, name: [(1.0, STRONG_CONVEXITY)],
        lambda f, x0, s: StepMapFleet(NesterovStronglyConvex(f, s[:, 0] / _smoothness(f), s[:, 1]), x0),
    ),
    "Adagrad": Method(("rate",), (_RATE,), _adam_rates, lambda f, x0, s: StepMapFleet(Adagrad(f, s[:, 0]), x0)),
    "Adam": Method(("rate",), (_RATE,), _adam_rates, lambda f, x0, s: StepMapFleet(Adam(f, s[:, 0]), x0)),
    "Adam-HD": Method(
        ("rate", "β"),
        (_RATE, (1e-9, 1e-3)),
        lambda inverse, name: list(itertools.product((*PAPER_RATES, inverse), (1e-3, 1e-4, 1e-5, 1e-6))),
        lambda f, x0, s: OptimizerFleet(_adam_hd, x0, s),
    ),
    "HDM": Method(
        ("rate · L", "momentum rate"),
        (_RATE_TIMES_L, (1.0, 100.0)),
        None,
        HDMFleet,
    ),
    "Adam-OLA": Method(
        ("rate", "η / rate²", "ε_desc"),
        (_RATE, (1e-4, 1.0), (1e-9, 1e-3)),
        lambda inverse, name: [
            (rate, PAPER_ADAM_OLA[name][0] / rate**2, PAPER_ADAM_OLA[name][1]) for rate in (*PAPER_RATES, inverse)
        ],
        lambda f, x0, s: OptimizerFleet(_adam_ola, x0, s),
    ),
    "Adam-OLA, log": Method(
        ("rate", "η", "ε_desc"),
        (_RATE, (1e-4, 1.0), (1e-9, 1e-3)),
        None,
        lambda f, x0, s: OptimizerFleet(_adam_ola_log, x0, s),
    ),
}

Run = tuple[tuple[float, ...], int]
"""Settings and the seed of x0."""


@dataclass(frozen=True)
class Cell:
    """One run out of a fleet; ``points`` of its curve are kept, evenly spaced up to ``max_steps``."""

    dataset: str
    protocol: str
    method: str
    fleet: tuple[Run, ...]
    index: int
    max_steps: int
    points: int


@dataclass(frozen=True)
class Scale:
    """How much is run: data sets, where they are at hand, and the number of settings tried in the equal protocol."""

    datasets: tuple[str, ...]
    budget: int
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    max_steps: int = 1000
    points: int = 101


GRIDS = {
    "tiny": Scale(("made-up",), 2, (100,), (0, 1), max_steps=30, points=4),
    "quick": Scale((*BUNDLED, "a1a"), 6, (100,), (0, 1)),
    "paper": Scale((*BUNDLED, "a1a", "a2a", "a3a", "w3a", "w8a-4912"), 12, (100,), (0, 1, 2, 3, 4)),
}


@dataclass(frozen=True)
class Problem:
    """f and its minimum, from a run of L-BFGS to rounding errors."""

    objective: SmoothSupportVectorMachine
    minimum: float


@dataclass(frozen=True)
class History:
    """f(x_k), ‖∇f(x_k)‖ and the step size along a run, and how many gradients the method took to get to each x_k."""

    values: np.ndarray
    norms: np.ndarray
    rates: np.ndarray
    evaluations: np.ndarray


def run(scale: str, runner: Runner) -> dict[str, pd.DataFrame]:
    """Tune every method, and measure what was best.

    Parameters
    ----------
    scale
        ``"quick"``, ``"paper"``, or ``"tiny"`` for a test of the machinery on made-up data.
    runner
        Runs the cells.

    Returns
    -------
    dict
        ``online_adaptation``: one row per run measured.  ``online_adaptation_tuning``: one row per run of the tuning.
        ``online_adaptation_curves``: f - f*, ‖∇f‖ and the gradients taken along the runs measured.
        ``online_adaptation_summary``: medians and ranges over the seeds, and ranks.
    """
    grid = GRIDS[scale]
    datasets = [name for name in grid.datasets if at_hand(name)]
    tuning = runner.run(_sweep("online adaptation, tuning", tuning_cells(grid, datasets)))
    measured = runner.run(_sweep("online adaptation", measuring_cells(grid, datasets, chosen(tuning))))
    curves = with_literal_form(curves_of(measured))
    measured = with_literal_form(_readable(measured[[column for column in measured.columns if "@" not in column]]))
    return {
        "online_adaptation": measured,
        "online_adaptation_tuning": _readable(tuning),
        "online_adaptation_curves": curves,
        "online_adaptation_summary": summary_of(measured),
    }


def at_hand(name: str) -> bool:
    """Tell whether the data can be loaded without a download."""
    if name in (*BUNDLED, "made-up"):
        return True
    try:
        fetch(ROWS.get(name, (name,))[0], download=False)
    except FileNotFoundError:
        return False
    return True


def tuning_cells(grid: Scale, datasets: Sequence[str]) -> list[Cell]:
    """Return one cell for each method, protocol, candidate and tuning seed."""
    cells = []
    for dataset in datasets:
        for protocol, method in _combinations(dataset):
            fleet = tuple(itertools.product(candidates(protocol, method, dataset, grid.budget), grid.tuning_seeds))
            cells += _cells(dataset, protocol, method, fleet, grid.max_steps, 0)
    return cells


def measuring_cells(grid: Scale, datasets: Sequence[str], best: Mapping[Any, Any]) -> list[Cell]:
    """Return one cell for each method, protocol and seed, and those of L-BFGS."""
    cells = []
    for dataset in datasets:
        for protocol, method in [*_combinations(dataset), ("reference", REFERENCE)]:
            settings = best.get((dataset, protocol, method), ())
            fleet = tuple((settings, seed) for seed in grid.seeds)
            cells += _cells(dataset, protocol, method, fleet, grid.max_steps, grid.points)
    return cells


def _cells(dataset: str, protocol: str, method: str, fleet: tuple[Run, ...], steps: int, points: int) -> list[Cell]:
    return [Cell(dataset, protocol, method, fleet, index, steps, points) for index in range(len(fleet))]


def _combinations(dataset: str) -> list[tuple[str, str]]:
    """Return the protocols and methods of a data set; the paper's settings are for its own data sets alone."""
    paper = [("paper", name) for name, method in METHODS.items() if method.grid and dataset in PAPER_ADAM_OLA]
    return [*paper, *(("equal", name) for name in METHODS)]


def candidates(protocol: str, method: str, dataset: str, budget: int) -> list[tuple[float, ...]]:
    """Return the settings that a method may choose from."""
    rule = METHODS[method]
    if protocol == "paper" and rule.grid is not None:
        return rule.grid(1 / _smoothness(problem(dataset).objective), dataset)
    low, high = torch.tensor(rule.ranges, dtype=torch.float64).log().T
    sobol = torch.quasirandom.SobolEngine(len(rule.ranges), scramble=True, seed=0)
    points = (low + (high - low) * sobol.draw(budget, dtype=torch.float64)).exp()
    return [tuple(float(f"{value:.3g}") for value in row) for row in points.tolist()]


def chosen(tuning: pd.DataFrame) -> dict[Any, Any]:
    """Return the best settings of each data set, protocol and method.

    That is the fewest iterations to the tolerance, and among equals the lowest f at the end.
    """
    settings = [fleet[index][0] for fleet, index in zip(tuning["fleet"], tuning["index"], strict=True)]
    table = tuning.assign(settings=settings, end_gap=tuning["end_gap"].fillna(math.inf))
    best = {}
    for key, rows in table.groupby(["dataset", "protocol", "method"], sort=False):
        medians = rows.groupby("settings", sort=False)[["steps", "end_gap"]].median()
        best[key] = min(medians.itertuples(), key=lambda row: (row.steps, row.end_gap)).Index
    return best


def _sweep(name: str, cells: list[Cell]) -> Sweep:
    return Sweep(
        name,
        cells,
        solve,
        cost=lambda cell: cell.max_steps * (5 if cell.method == "HDM" else 1),
        group=lambda cell: replace(cell, index=0),
    )


def solve(cell: Cell) -> Record:
    """Run the whole fleet, once for all of its cells, and report on one run."""
    setting, seed = cell.fleet[cell.index]
    minimum = problem(cell.dataset).minimum
    history = _histories(cell.dataset, cell.method, cell.fleet, cell.max_steps)[cell.index]
    record = {"seed": seed, "settings": _named(cell.method, setting), **report(history, minimum)}
    for k in np.linspace(0, cell.max_steps, cell.points).round().astype(int):
        if k < len(history.values):
            record[f"gap@{k}"] = max(float(history.values[k]) - minimum, 0.0)
            record[f"norm@{k}"] = float(history.norms[k])
            record[f"evaluations@{k}"] = int(history.evaluations[k])
    return record


def report(history: History, minimum: float) -> Record:
    """Return what a table says about a run."""
    reached = bool(history.norms[-1] <= TOLERANCE)
    rises = history.values[1:] > history.values[:-1] * (1 + 1e-12)
    return {
        "steps": float(len(history.values) - 1) if reached else math.inf,
        "evaluations": float(history.evaluations[-1]) if reached else math.inf,
        "end_gap": max(float(history.values[-1]) - minimum, 0.0),
        "end_norm": float(history.norms[-1]),
        # The share of iterations on which f rose by more than rounding errors.
        "rising": float(rises.mean()) if len(rises) else 0.0,
        "first_rate": float(history.rates[0]),
        "largest_rate": float(history.rates.max()),
        "last_rate": float(history.rates[-1]),
    }


def _smoothness(objective: SmoothSupportVectorMachine) -> float:
    """Return L."""
    if not isinstance(objective.smoothness, float):
        raise ValueError("the smoothness of the objective must be known")
    return objective.smoothness


def _dimension(objective: SmoothSupportVectorMachine) -> int:
    """Return d, the number of features and one more."""
    return objective.features.shape[1] + 1


def _named(method: str, setting: tuple[float, ...]) -> str:
    names = METHODS[method].settings if method in METHODS else ()
    return ", ".join(f"{name} = {value:.3g}" for name, value in zip(names, setting, strict=True))


@lru_cache(maxsize=1)
def _histories(dataset: str, method: str, fleet: tuple[Run, ...], max_steps: int) -> list[History]:
    objective = problem(dataset).objective
    x0 = torch.stack([start(_dimension(objective), seed) for _, seed in fleet])
    if method == REFERENCE:
        return [lbfgs_history(objective, x, max_steps) for x in x0]
    settings = torch.tensor([setting for setting, _ in fleet], dtype=torch.float64)
    with torch.no_grad():
        return histories(objective, METHODS[method].build(objective, x0, settings), max_steps, extra=method == "HDM")


def histories(objective: SmoothSupportVectorMachine, fleet: Fleet, max_steps: int, extra: bool) -> list[History]:
    """Advance a fleet until every run met the tolerance, is not finite, or took ``max_steps`` steps.

    One gradient per iteration is counted, and with ``extra`` one at the start; a ∇f(x_k) that only serves to tell the
    norm is not.
    """
    values, norms, rates = [], [], []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "an update would have taken", RuntimeWarning)
        for k in range(max_steps + 1):
            x = fleet.positions
            value, gradient = objective(x), objective.gradient(x)
            values.append(value)
            norms.append(torch.linalg.vector_norm(gradient, dim=-1))
            rates.append(fleet.rates)
            # Not true of nan either.
            running = norms[-1] > TOLERANCE
            if k == max_steps or not bool(running.any()):
                break
            fleet.advance(k, value, gradient, running)
    columns = [torch.stack(values).numpy(), torch.stack(norms).numpy(), np.array(rates)]
    return [_cut(v, n, r, extra) for v, n, r in zip(*(column.T for column in columns), strict=True)]


def _cut(values: np.ndarray, norms: np.ndarray, rates: np.ndarray, extra: bool) -> History:
    """End a run where it met the tolerance."""
    met = np.flatnonzero(norms <= TOLERANCE)
    end = met[0] + 1 if len(met) else len(norms)
    return History(values[:end], norms[:end], rates[:end], np.arange(end) + extra)


def lbfgs_history(
    objective: SmoothSupportVectorMachine, x0: Tensor, max_steps: int, tolerance: float = TOLERANCE
) -> History:
    """Run scipy's L-BFGS-B with 10 pairs; its line search may take several gradients per iteration."""
    values, norms, evaluations, count = [], [], [], 0

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal count
        count += 1
        point = torch.from_numpy(x.copy())
        with torch.no_grad():
            return float(objective(point)), objective.gradient(point).numpy()

    def note(x: np.ndarray) -> None:
        nonlocal count
        before = count
        value, gradient = evaluate(x)
        count = before
        values.append(value)
        norms.append(float(np.linalg.norm(gradient)))
        evaluations.append(count)
        if norms[-1] <= tolerance:
            raise StopIteration

    note(x0.numpy())
    minimize(  # type: ignore[call-overload]
        evaluate,
        x0.numpy(),
        jac=True,
        method="L-BFGS-B",
        callback=note,
        options={"maxiter": max_steps, "maxfun": 10 * max_steps, "maxcor": 10, "ftol": 0.0, "gtol": 0.0},
    )
    return History(np.array(values), np.array(norms), np.full(len(values), math.nan), np.array(evaluations))


def start(dimension: int, seed: int) -> Tensor:
    """Return x0: a normal vector divided by its length, shape (d,)."""
    x = torch.randn(dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / torch.linalg.vector_norm(x)


@lru_cache(maxsize=2)
def problem(dataset: str) -> Problem:
    """Load the data and minimise f."""
    features, labels, regularization = _data(dataset)
    objective = SmoothSupportVectorMachine(features, labels, regularization)
    zero = torch.zeros(_dimension(objective), dtype=torch.float64)
    return Problem(objective, float(lbfgs_history(objective, zero, 5000, 1e-9).values.min()))


def _data(dataset: str) -> tuple[Tensor, Tensor, float]:
    """Return features (n, d), labels ±1 (n,) and λ."""
    if dataset == "made-up":
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(40, 5, generator=generator, dtype=torch.float64)
        noise = torch.randn(40, generator=generator, dtype=torch.float64)
        return features, torch.where(features.sum(-1) + noise > 0, 1.0, -1.0), 1.0
    if dataset == "digits":
        features, digit = bundled_data("digits", intercept=False, dtype=torch.float64)
        return features, 2.0 * (digit % 2) - 1, 1.0
    name, rows = ROWS.get(dataset, (dataset, None))
    data = load(name, download=False)
    return data.features[:rows], data.labels[:rows], 1.0 if dataset in BUNDLED else 0.0


def curves_of(measured: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run and kept iteration."""
    rows = []
    quantities = ("gap", "norm", "evaluations")
    kept = [int(column.removeprefix("gap@")) for column in measured.columns if column.startswith("gap@")]
    for run in measured.to_dict("records"):
        for k in kept:
            if not math.isnan(run[f"gap@{k}"]):
                keys = {name: run[name] for name in ("dataset", "protocol", "method", "seed")}
                rows.append({**keys, "iteration": k, **{name: run[f"{name}@{k}"] for name in quantities}})
    return pd.DataFrame(rows)


def with_literal_form(table: pd.DataFrame) -> pd.DataFrame:
    """Add Adam-OLA as Algorithm 2 is written, with two gradients per iteration and the same iterates."""
    twice = table[table["method"] == "Adam-OLA"]
    twice = twice.assign(method=TWICE, evaluations=2 * twice["evaluations"])
    complete = pd.concat([table, twice], ignore_index=True)
    complete.attrs = table.attrs
    return complete


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["fleet", "index", "points"])


def summary_of(measured: pd.DataFrame) -> pd.DataFrame:
    """Return medians and ranges over the seeds, and the rank of each method in its data set and protocol.

    Methods are ranked by the median of the iterations to the tolerance, and where none met it by that of f - f* at the
    end; L-BFGS and the literal form of Adam-OLA have no rank.
    """
    keys = ["dataset", "protocol", "method"]
    groups = measured.assign(end_gap=measured["end_gap"].fillna(math.inf)).groupby(keys, sort=False)
    summary = groups.agg(
        steps=("steps", "median"),
        fewest_steps=("steps", "min"),
        most_steps=("steps", "max"),
        evaluations=("evaluations", "median"),
        end_gap=("end_gap", "median"),
        smallest_end_gap=("end_gap", "min"),
        largest_end_gap=("end_gap", "max"),
        end_norm=("end_norm", "median"),
        rising=("rising", "median"),
        first_rate=("first_rate", "median"),
        largest_rate=("largest_rate", "median"),
        last_rate=("last_rate", "median"),
        settings=("settings", "first"),
        runs=("seed", "size"),
    ).reset_index()
    ranked = summary[~summary["method"].isin([REFERENCE, TWICE])].sort_values(["steps", "end_gap"], kind="stable")
    summary["rank"] = ranked.groupby(["dataset", "protocol"]).cumcount() + 1
    return summary
