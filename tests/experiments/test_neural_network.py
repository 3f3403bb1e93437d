"""Training runs of the network: what is counted, what is chosen, and the figure."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from experiments import neural_network as experiment
from experiments.neural_network import STRENGTHS, Cell
from figures import neural_network as figure
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_tables_hold_every_method_rate_and_batch_size() -> None:
    tables = experiment.run("tiny", Runner())
    measured, tuning = tables["neural_network"], tables["neural_network_tuning"]
    assert set(measured["method"]) == set(STRENGTHS)
    # One step per batch: with all data in it, the form with the same batch is the other one.
    assert len(measured) == 2 * len(STRENGTHS) - 1
    assert len(tuning) == 1 + 3 * 3 + 1 + 3 * 4
    drawn = figure.draw(measured)
    assert len(drawn.axes) == 6


def test_without_adaptation_every_method_is_adam() -> None:
    losses = {
        method: experiment.solve(Cell(256, method, 0.0, 1e-2, 0, 7))["final_loss"]
        for method in STRENGTHS
        if "same batch" not in method
    }
    assert set(losses.values()) == {losses["Adam"]}


def test_the_target_is_met_at_the_first_check_and_each_pass_is_counted() -> None:
    record = experiment.solve(Cell(256, "Adam-OLA, log, same batch", 0.1, 2e-2, 0, 40))
    assert record["steps"] % experiment.CHECKED_EVERY == 0
    assert 0 < record["steps"] < 40
    assert record["gradients"] == 2 * record["steps"]
    assert 0 < record["cpu_seconds"] < 10
    assert record["final_loss"] <= experiment.TARGET
    assert record["test_accuracy"] > 0.9
    assert record["rate_changes"] > 0
    unmet = experiment.solve(Cell(0, "Adam", 0.0, 1e-5, 0, 2))
    assert math.isinf(unmet["steps"])
    assert math.isinf(unmet["cpu_seconds"])


def test_batches_are_the_same_for_every_method_and_cover_the_data_once() -> None:
    first, second = (experiment._batches(4, 12, 0) for _ in range(2))
    batches = [next(first) for _ in range(3)]
    assert torch.cat(batches).sort().values.tolist() == list(range(12))
    assert all(torch.equal(batch, next(second)) for batch in batches)


def test_the_strength_that_meets_the_target_from_most_rates_is_chosen() -> None:
    rows = [
        {"batch_size": 0, "method": "m", "strength": strength, "steps": steps}
        for strength, counts in {1.0: (10, math.inf), 2.0: (90, 80), 3.0: (90, 70)}.items()
        for steps in counts
    ]
    assert experiment.chosen(pd.DataFrame(rows)) == {(0, "m"): 3.0}
