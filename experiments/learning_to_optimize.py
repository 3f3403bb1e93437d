"""Figure 3: learned optimizers with the stopping time in their loss, against gradient descent, Nesterov and Adam.

Synthetic logistic regression as in section 5 of arXiv 2505.22509.  Networks are trained at one dimension and tested
there and at the fourfold, on problems that they have not seen, for K iterations from x = 0.  Three counts are kept of
each run: N of the paper's criterion f(x_{k-1}) - f(x_k) ≤ ε; when f moves no more by ε for good; and when f comes to a
level, f* being 0 (see `odestop.l2o.problems.LogisticProblems`).  The first is met by a step on which f rises, and a
network that pays for N finds that out; so one more is trained that pays for the iterations to the level.

A flow is trained beside them through T itself: the coefficients of `odestop.l2o.flows.LearnedInertialFlow`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import odestop
from odestop import l2o
from odestop.criteria import ObjectiveGap
from odestop.discrete import Euler, discrete_stopping_time
from odestop.l2o.evaluation import classical_step_maps, objective_values, stopping_report
from odestop.l2o.flows import (
    Coefficients,
    InertialCoefficients,
    LearnedInertialFlow,
    stopping_times,
    train_inertial_flow,
)
from odestop.l2o.problems import LogisticProblems
from odestop.sweeps import Record, Runner, Sweep

CLASSICAL = ("GD", "NAG", "Adam")
TEST_SEED = 1_000_003
"""Of the test problems; a training has its own streams."""
LARGER = 4
"""The second test set has this many times the dimension and the samples."""
FLOW_TIMES = tuple(float(t) for t in range(0, 61, 2))
"""Where the coefficients of the flow are kept."""
QUARTILES = {"low": 0.25, "median": 0.5, "high": 0.75}
COUNTS = ("steps", "settled", "steps_to_level")
THRESHOLD, LEVEL_OF_F = 1e-5, 1e-3
"""ε of the decrease, the paper's, and the value of f that counts as reached."""
DECREASE, LEVEL = "decrease", "value"
"""Criteria that a network is trained with: J = f(x_{k-1}) - f(x_k) ≤ ε, or f(x_k) ≤ ε."""


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes
    ----------
    dimension, samples
        d and n of the training problems, and of the smaller test set.
    hidden
        Width of the two LSTM layers.
    training_steps, batch, horizon, segment, learning_rate
        As in `odestop.l2o.TrainingConfiguration`.
    seeds
        One training of each network of the figure per seed.
    test_problems, iterations
        Size of a test set, and K there.
    flow_dimension, flow_steps, flow_batch
        The same for the flow, which is solved in float64 to its tolerances.
    ablation
        Whether other λ, ε and sensitivities are trained as well, which is three times as many networks again.
    """

    dimension: int
    samples: int
    hidden: int
    training_steps: int
    batch: int
    horizon: int
    segment: int
    learning_rate: float
    seeds: tuple[int, ...]
    test_problems: int
    iterations: int
    flow_dimension: int
    flow_steps: int
    flow_batch: int
    ablation: bool = True


SCALES = {
    # Seconds, for a test of the machinery.
    "tiny": Scale(8, 4, 4, 3, 4, 10, 5, 1e-2, (0,), 8, 100, 4, 2, 2),
    # Some 7 minutes on two cores.
    "quick": Scale(32, 16, 8, 100, 16, 100, 20, 3e-3, (0, 1), 64, 1000, 32, 30, 8),
    # About 40 minutes on two cores.
    "middle": Scale(256, 128, 20, 300, 32, 100, 20, 3e-3, (0,), 64, 1000, 64, 40, 16, ablation=False),
    # The paper's sizes: a GPU, or a day of patience.
    "paper": Scale(512, 256, 30, 500, 64, 100, 20, 3e-3, (0,), 64, 1000, 64, 60, 32),
}


@dataclass(frozen=True)
class Cell:
    """One optimizer, trained if it learns, and tested on both test sets.

    Attributes
    ----------
    method
        One of `CLASSICAL`, or a key of `odestop.l2o.NETWORKS`.
    scale
        Key of `SCALES`.
    weight, criterion, threshold, sensitivity
        λ, J, ε and the derivative of N in the training loss; at their defaults for classical methods.
    seed
        Of the training.
    """

    method: str
    scale: str
    weight: float = 0.0
    criterion: str = DECREASE
    threshold: float = THRESHOLD
    sensitivity: str = "definition3"
    seed: int = 0


@dataclass(frozen=True)
class FlowCell:
    """The learned flow of a scale."""

    scale: str
    seed: int


def figure_methods(scale: str) -> dict[str, Cell]:
    """Return the lines of Figure 3 by their names, for the training seed 0."""
    return {
        **{name: Cell(name, scale) for name in CLASSICAL},
        "L2O-DM": Cell("l2o-dm", scale),
        "RNNprop": Cell("rnnprop", scale),
        "RNNprop-Time": Cell("rnnprop", scale, 1.0, DECREASE, THRESHOLD),
        "RNNprop-Level": Cell("rnnprop", scale, 1.0, LEVEL, LEVEL_OF_F),
    }


def figure_cells(scale: str) -> dict[Cell, str]:
    """Return the cells of Figure 3, with the names of their lines."""
    return {
        replace(cell, seed=seed): name
        for name, cell in figure_methods(scale).items()
        for seed in (SCALES[scale].seeds if cell.method not in CLASSICAL else (0,))
    }


def ablation_cells(scale: str) -> list[Cell]:
    """Return RNNprop with every λ, ε and sensitivity, one changed at a time, for both criteria and the first seed."""
    lines = figure_methods(scale)
    cells = [lines["RNNprop"]]
    for name in ("RNNprop-Time", "RNNprop-Level") if SCALES[scale].ablation else ():
        cells += [replace(lines[name], weight=weight) for weight in (0.01, 0.1, 1.0, 10.0)]
        cells += [
            replace(lines[name], threshold=float(f"{lines[name].threshold * factor:.3g}")) for factor in (0.1, 10)
        ]
        cells += [replace(lines[name], sensitivity="interpolated")]
    return [replace(cell, seed=SCALES[scale].seeds[0]) for cell in cells]


def run(scale: str, runner: Runner) -> dict[str, pd.DataFrame]:
    """Train the networks and the flow, and test them.

    Parameters
    ----------
    scale
        A key of `SCALES`: ``"quick"``, ``"middle"``, ``"paper"``, or ``"tiny"`` for a test of the machinery.
    runner
        Runs the cells; a training that is done is not done again.

    Returns
    -------
    dict
        ``learning_to_optimize``: counts of every method on both test sets, one row per training seed.
        ``learning_to_optimize_curves``: quartiles of f along the runs.
        ``learning_to_optimize_training``: curves of the trainings.
        ``learning_to_optimize_ablation``: as the first, over λ, ε and sensitivities.
        ``learned_flow``: T and iterations before and after its training.
        ``learned_flow_coefficients``: a, β and ω before and after.
    """
    names = figure_cells(scale)
    cells = list(dict.fromkeys([*names, *ablation_cells(scale)]))
    solved = runner.run(Sweep("learning to optimize", cells, solve, cost=_cost))
    settings = [setting.name for setting in fields(Cell)]
    labels = [names.get(Cell(*row), "") for row in solved[settings].itertuples(index=False, name=None)]
    solved = solved.assign(label=labels)
    shown, ablated = solved[solved["label"] != ""], solved[solved["method"] == "rnnprop"]
    flows = runner.run(Sweep("learned flow", [FlowCell(scale, seed) for seed in SCALES[scale].seeds], solve_flow))
    tables = {
        "learning_to_optimize": _counts(shown),
        "learning_to_optimize_curves": _curves(shown),
        "learning_to_optimize_training": _training(shown),
        "learning_to_optimize_ablation": _counts(ablated).drop(columns="label"),
        "learned_flow": flows[[name for name in flows.columns if name != "scale" and "#" not in name]],
        "learned_flow_coefficients": _coefficients(flows),
    }
    for table in tables.values():
        table.attrs = table.attrs or solved.attrs
    return tables


def solve(cell: Cell) -> Record:
    """Train, if there is something to train, and test."""
    settings = SCALES[cell.scale]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record: dict[str, Any] = {}
    network = None
    if cell.method not in CLASSICAL:
        network, record = _trained(cell, device)
    for factor in (1, LARGER):
        distribution = LogisticProblems(factor * settings.dimension, factor * settings.samples)
        generator = torch.Generator(device).manual_seed(TEST_SEED)
        objective, x0 = distribution.sample(settings.test_problems, generator, dtype=torch.float32)
        step_map = network.optimizer(objective) if network else classical_step_maps(objective)[cell.method]
        values = objective_values(step_map, objective, x0, settings.iterations)
        tested = _summary(values.cpu())
        record |= {f"{name}@{distribution.dimension}": value for name, value in tested.items()}
    return record


def _trained(cell: Cell, device: str) -> tuple[l2o.LearnedOptimizer, dict[str, Any]]:
    """Train a network; one that was interrupted goes on from its last checkpoint."""
    configuration = configuration_of(cell, device)
    folder = _folder(configuration)
    network, history, validation = l2o.train(configuration, folder, resume=True)
    shutil.rmtree(folder, ignore_errors=True)
    record: dict[str, Any] = {"training_seconds": float(history["seconds"].sum())}
    for row in _records(history.iloc[:: max(1, len(history) // 50)]):
        record |= {f"{name}%{int(row['step'])}": row[name] for name in ("mean_value", "stopping_steps", "stopped")}
    best = validation[validation["best"]].iloc[-1]
    return network, {**record, "best_step": int(best["step"]), "best_loss": float(best["loss"])}


def configuration_of(cell: Cell, device: str = "cpu") -> l2o.TrainingConfiguration:
    """Return the settings of a cell's training."""
    settings = SCALES[cell.scale]
    return l2o.TrainingConfiguration(
        network={"kind": cell.method, "hidden": settings.hidden},
        problems={"kind": "logistic", "dimension": settings.dimension, "samples": settings.samples},
        steps=settings.training_steps,
        batch=settings.batch,
        horizon=settings.horizon,
        segment=settings.segment,
        stopping_weight=cell.weight,
        criterion=cell.criterion,
        threshold=cell.threshold,
        sensitivity=cell.sensitivity,
        learning_rate=settings.learning_rate,
        gradient_clip=1.0,
        seed=cell.seed,
        device=device,
    )


def _folder(configuration: l2o.TrainingConfiguration) -> Path:
    """Where an unfinished training waits: a name for its settings and the code that it runs."""
    digest = hashlib.sha256(json.dumps(configuration.to_dict(), sort_keys=True).encode())
    for source in sorted(Path(odestop.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return Path(tempfile.gettempdir()) / f"odestop-training-{digest.hexdigest()[:20]}"


def _summary(values: torch.Tensor) -> dict[str, Any]:
    """Return quartiles over the problems of what `stopping_report` counts and of f, and the shares of what happened."""
    report = stopping_report(values, THRESHOLD, LEVEL_OF_F, minimum=0.0)
    report = report.rename(columns={"steps_to_gap": "steps_to_level"})
    summary: dict[str, Any] = {
        "rose": float(report["rose"].mean()),
        **{f"share_{name}": float(np.isfinite(report[name]).mean()) for name in COUNTS},
    }
    for name in (*COUNTS, "gap_at_stop", "final_gap"):
        summary |= {f"{name}_{key}": value for key, value in _quartiles(report[name].to_numpy()).items()}
    for k in kept_iterations(len(values) - 1):
        summary |= {f"f_{key}#{k}": value for key, value in _quartiles(values[k].numpy()).items()}
    return summary


def _quartiles(values: np.ndarray) -> dict[str, float]:
    """Return values that occur, so that infinite ones cause no trouble; nan counts as infinite."""
    values = np.where(np.isnan(values), np.inf, values)
    return {key: float(np.quantile(values, q, method="inverted_cdf")) for key, q in QUARTILES.items()}


def kept_iterations(iterations: int, points: int = 60) -> list[int]:
    """Return the k whose f(x_k) is kept: 0, and up to ``points`` more, evenly on a logarithmic scale."""
    return [0, *sorted({round(k) for k in np.geomspace(1, iterations, points)})]


def _cost(cell: Cell) -> float:
    return 1.0 if cell.method in CLASSICAL else 10.0


def solve_flow(cell: FlowCell) -> Record:
    """Train the coefficients through T, and measure T and the iterations of Euler on other problems."""
    settings = SCALES[cell.scale]
    distribution = LogisticProblems(settings.flow_dimension, settings.flow_dimension // 2)
    target, t_max = LEVEL_OF_F, 1000.0
    coefficients = InertialCoefficients(seed=cell.seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(TEST_SEED)
    objective, x0 = distribution.sample(settings.test_problems, generator, dtype=torch.float64)

    def measured(when: str) -> Record:
        with torch.no_grad():
            curves = zip(
                *(curve.tolist() for curve in coefficients(torch.tensor(FLOW_TIMES, dtype=torch.float64))), strict=True
            )
            time, reached = stopping_times(coefficients, objective, x0, ObjectiveGap, target, t_max)
            step = Euler(LearnedInertialFlow(objective, coefficients), 1.0)
            steps = discrete_stopping_time(step, x0, ObjectiveGap(objective), target, max_steps=int(t_max)).steps
        return {
            **{
                f"{when}#{t}": ",".join(f"{value:.6g}" for value in row)
                for t, row in zip(FLOW_TIMES, curves, strict=True)
            },
            f"reached_{when}": float(reached.double().mean()),
            **{f"time_{key}_{when}": value for key, value in _quartiles(time.numpy()).items()},
            **{f"steps_{key}_{when}": value for key, value in _quartiles(steps.numpy()).items()},
        }

    record = measured("before")
    history = train_inertial_flow(
        coefficients,
        distribution,
        ObjectiveGap,
        target,
        t_max=t_max,
        steps=settings.flow_steps,
        batch=settings.flow_batch,
        learning_rate=0.1,
        seed=cell.seed,
    )
    nesterov = discrete_stopping_time(
        classical_step_maps(objective)["NAG"], x0, ObjectiveGap(objective), target, max_steps=int(t_max)
    )
    return {
        "dimension": distribution.dimension,
        "target": target,
        "training_steps": len(history),
        **record,
        **measured("after"),
        "nesterov_steps_median": _quartiles(nesterov.steps.detach().numpy())["median"],
        "alpha": float(coefficients.alpha.detach()),
    }


_OF_A_ROW = ("label", "method", "weight", "criterion", "threshold", "sensitivity", "seed")


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _counts(solved: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell and test set."""
    rows = []
    for cell in _records(solved):
        for dimension in _dimensions(solved):
            suffix = f"@{dimension}"
            tested = {
                name.removesuffix(suffix): value
                for name, value in cell.items()
                if name.endswith(suffix) and not name.startswith("f_")
            }
            training = {name: cell.get(name) for name in ("best_step", "best_loss", "training_seconds")}
            rows.append({**{name: cell[name] for name in _OF_A_ROW}, "dimension": dimension, **tested, **training})
    return pd.DataFrame(rows)


def _dimensions(solved: pd.DataFrame) -> list[int]:
    return sorted(int(name.removeprefix("rose@")) for name in solved.columns if name.startswith("rose@"))


def _curves(solved: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell, test set and kept iteration."""
    rows = []
    for cell in _records(solved):
        for dimension in _dimensions(solved):
            keys = {"label": cell["label"], "seed": cell["seed"], "dimension": dimension}
            for iteration in kept_iterations(SCALES[cell["scale"]].iterations):
                quartiles = {key: cell[f"f_{key}#{iteration}@{dimension}"] for key in QUARTILES}
                rows.append({**keys, "iteration": iteration, **quartiles})
    return pd.DataFrame(rows)


def _training(solved: pd.DataFrame) -> pd.DataFrame:
    """Return one row per network and kept training step."""
    rows = []
    for cell in _records(solved):
        for name, value in cell.items():
            if name.startswith("mean_value%") and not pd.isna(value):
                step = int(name.removeprefix("mean_value%"))
                means = {key: cell[f"{key}%{step}"] for key in ("mean_value", "stopping_steps", "stopped")}
                rows.append({"label": cell["label"], "seed": cell["seed"], "step": step, **means})
    return pd.DataFrame(rows)


def _coefficients(flows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per training and kept time, before and after."""
    rows = []
    for cell in _records(flows):
        for when in ("before", "after"):
            for t in FLOW_TIMES:
                values = map(float, cell[f"{when}#{t}"].split(","))
                named = dict(zip(Coefficients._fields, values, strict=True))
                rows.append({"seed": cell["seed"], "when": when, "time": t, **named})
    return pd.DataFrame(rows)
