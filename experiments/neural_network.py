"""A small network trained by Adam-OLA, Adam-HD and Adam from a range of initial rates.

64-32-10 with tanh on four fifths of the digits that scikit-learn bundles, cross-entropy, float32, from full gradients
and from minibatches.  A run meets its target when the loss on all training data is at most 0.1.  Every method that
adapts its rate tries three strengths of the adaptation on one seed; the one that meets the target from most of the
initial rates, and then with the fewest steps, is measured on other seeds.  Seconds are those of one processor, without
the evaluations of the loss that only tell whether the target is met.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.grid import geometric
from odestop.objectives import bundled_data
from odestop.optim import AdamHD, AdamOLA
from odestop.sweeps import Record, Runner, Sweep

TARGET = 0.1
WIDTH = 32
TRAINING_SHARE = 0.8
CHECKED_EVERY = 5
"""Steps between evaluations of the loss on all training data, where the gradients are from minibatches."""

STRENGTHS: dict[str, tuple[float, ...]] = {
    "Adam": (0.0,),
    "Adam-HD": (1e-7, 1e-6, 1e-5),
    "Adam-OLA": (0.01, 0.1, 0.5),
    "Adam-OLA, log": (0.01, 0.03, 0.1),
    "Adam-OLA, log, same batch": (0.01, 0.03, 0.1),
}
"""β of Adam-HD, η / rate² of Adam-OLA, η of its logarithmic form, where an update at most doubles or halves α."""


@dataclass(frozen=True)
class Cell:
    """One training run; a batch size of 0 stands for all training data."""

    batch_size: int
    method: str
    strength: float
    rate: float
    seed: int
    max_steps: int


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    batch_sizes: tuple[int, ...] = (0, 128)
    tuning_seed: int = 100
    max_steps: int = 300


GRIDS = {
    "tiny": Scale((1e-2,), (0,), (0, 256), max_steps=6),
    "quick": Scale(geometric(1e-4, 1e-2, 3), (0,), max_steps=200),
    "paper": Scale(geometric(1e-5, 1e-1, 5), (0, 1)),
}


def run(scale: str, runner: Runner) -> dict[str, pd.DataFrame]:
    """Choose the strengths, and measure from every initial rate.

    Parameters
    ----------
    scale
        ``"quick"``, ``"paper"``, or ``"tiny"`` for a test of the machinery.
    runner
        Runs the cells.

    Returns
    -------
    dict
        ``neural_network``: one row per run measured.  ``neural_network_tuning``: one row per run of the choice.
    """
    grid = GRIDS[scale]
    tuning = runner.run(_sweep("neural network, tuning", _tuning_cells(grid)))
    measured = runner.run(_sweep("neural network", _measuring_cells(grid, chosen(tuning))))
    return {"neural_network": measured, "neural_network_tuning": tuning}


def _sweep(name: str, cells: list[Cell]) -> Sweep:
    return Sweep(name, cells, solve, cost=lambda cell: cell.max_steps, alone=True)


def _methods(batch_size: int) -> list[str]:
    """Return the methods; with all data in every batch, the last two are the same."""
    return [name for name in STRENGTHS if batch_size > 0 or "same batch" not in name]


def _tuning_cells(grid: Scale) -> list[Cell]:
    return [
        Cell(batch_size, method, strength, rate, grid.tuning_seed, grid.max_steps)
        for batch_size in grid.batch_sizes
        for method in _methods(batch_size)
        for strength in STRENGTHS[method]
        for rate in grid.rates
    ]


def _measuring_cells(grid: Scale, best: Mapping[Any, Any]) -> list[Cell]:
    return [
        Cell(batch_size, method, best[batch_size, method], rate, seed, grid.max_steps)
        for batch_size in grid.batch_sizes
        for method in _methods(batch_size)
        for rate in grid.rates
        for seed in grid.seeds
    ]


def chosen(tuning: pd.DataFrame) -> dict[Any, Any]:
    """Return the strength by batch size and method."""
    counted = tuning.assign(missed=tuning["steps"].isin([math.inf]), steps=tuning["steps"].clip(upper=1e6))
    best = {}
    for key, rows in counted.groupby(["batch_size", "method"], sort=False):
        sums = rows.groupby("strength")[["missed", "steps"]].sum()
        best[key] = min(sums.itertuples(), key=lambda row: (row.missed, row.steps)).Index
    return best


def solve(cell: Cell) -> Record:
    """Train once; steps, gradients and seconds are those to the target, inf where it is not met."""
    inputs, labels, test_inputs, test_labels = _data()
    network = _network(cell.seed)
    optimizer = _optimizer(network, cell)
    batches = _batches(cell.batch_size, len(inputs), cell.seed)
    passes = 2 if "same batch" in cell.method else 1
    record = {"steps": math.inf, "gradients": math.inf, "cpu_seconds": math.inf}
    spent, updates = 0.0, 0
    for k in range(cell.max_steps + 1):
        if k % CHECKED_EVERY == 0 or cell.batch_size == 0:
            loss = _loss(network, inputs, labels)
            if loss <= TARGET and math.isinf(record["steps"]):
                record = {"steps": k, "gradients": passes * k, "cpu_seconds": spent}
        if k == cell.max_steps:
            break
        rows, rate = next(batches), optimizer.param_groups[0]["lr"]
        batch = (inputs, labels) if rows is None else (inputs[rows], labels[rows])
        begun = time.thread_time()
        _step(network, optimizer, *batch)
        spent += time.thread_time() - begun
        updates += optimizer.param_groups[0]["lr"] != rate
    with torch.no_grad():
        accuracy = (network(test_inputs).argmax(-1) == test_labels).double().mean().item()
    last = optimizer.param_groups[0]["lr"]
    return {**record, "final_loss": loss, "test_accuracy": accuracy, "last_rate": last, "rate_changes": updates}


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor) -> None:
    def closure() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(inputs), labels)
        loss.backward()
        return loss.item()

    optimizer.step(closure)


def _loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float(functional.cross_entropy(network(inputs), labels))


def _optimizer(network: nn.Module, cell: Cell) -> torch.optim.Optimizer:
    if cell.method == "Adam":
        return torch.optim.Adam(network.parameters(), lr=cell.rate)
    if cell.method == "Adam-HD":
        return AdamHD(network.parameters(), lr=cell.rate, hypergradient_rate=cell.strength)
    if cell.method == "Adam-OLA":
        return AdamOLA(network.parameters(), lr=cell.rate, adaptation_rate=cell.strength * cell.rate**2)
    return AdamOLA(
        network.parameters(),
        lr=cell.rate,
        adaptation_rate=cell.strength,
        log_rate=True,
        max_relative_change=1.0,
        reevaluate="same batch" in cell.method,
    )


def _network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 10))


def _batches(size: int, rows: int, seed: int) -> Iterator[Tensor | None]:
    """Yield row numbers of shuffled passes over the data, or None for all; the same for all methods."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(rows, generator=generator)
        yield from [None] if size == 0 else order[: rows // size * size].split(size)


@lru_cache(maxsize=1)
def _data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return features and labels for training, and those for the test."""
    features, labels = bundled_data("digits", intercept=False, dtype=torch.float32)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    training, test = order.split([count := int(TRAINING_SHARE * len(labels)), len(labels) - count])
    return features[training], labels[training], features[test], labels[test]
