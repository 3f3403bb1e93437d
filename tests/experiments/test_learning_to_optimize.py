"""The experiment behind Figure 3 at its smallest scale: cells, resumed trainings, tables and claims."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import learning_to_optimize as experiment
from experiments.claims import Verdict, judge
from experiments.learning_to_optimize import SCALES, Cell
from odestop import l2o
from odestop.criteria import ObjectiveGap, StepDecrease
from odestop.discrete import GradientDescent, discrete_stopping_time
from odestop.l2o.problems import LogisticProblems
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.fixture(scope="module", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep unfinished trainings out of the real temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("trainings")))
        yield


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return experiment.run("tiny", Runner())


def test_the_figure_has_every_method_on_both_test_sets(tables: dict[str, pd.DataFrame]) -> None:
    counts = tables["learning_to_optimize"]
    names = ["GD", "NAG", "Adam", "L2O-DM", "RNNprop", "RNNprop-Time", "RNNprop-Level"]
    assert counts["label"].tolist() == [name for name in names for _ in range(2)]
    assert counts["dimension"].tolist() == [8, 32] * len(names)
    curves = tables["learning_to_optimize_curves"]
    assert set(curves["label"]) == set(names)
    assert bool((curves["low"] <= curves["median"]).all() and (curves["median"] <= curves["high"]).all())
    start = curves[curves["iteration"] == 0]
    assert start["median"].tolist() == pytest.approx([math.log(2)] * 14)


def test_counts_of_gradient_descent_are_discrete_stopping_times(tables: dict[str, pd.DataFrame]) -> None:
    settings = SCALES["tiny"]
    generator = torch.Generator().manual_seed(experiment.TEST_SEED)
    objective, x0 = LogisticProblems(settings.dimension, settings.samples).sample(settings.test_problems, generator)
    step = GradientDescent(objective, 1 / objective.smoothness)
    row = tables["learning_to_optimize"].iloc[0]
    with torch.no_grad():
        for name, criterion, threshold in (
            ("steps", StepDecrease(objective), experiment.THRESHOLD),
            ("steps_to_level", ObjectiveGap(objective), experiment.LEVEL_OF_F),
        ):
            steps = discrete_stopping_time(step, x0, criterion, threshold, max_steps=settings.iterations).steps
            ordered = sorted(steps.tolist())
            assert row[f"{name}_median"] == ordered[settings.test_problems // 2 - 1]
            assert row[f"share_{name}"] == np.mean(np.isfinite(ordered))


def test_the_ablation_changes_one_setting_at_a_time() -> None:
    cells = experiment.ablation_cells("quick")
    assert len(set(cells)) == len(cells)
    for criterion, usual in (("decrease", 1e-5), ("value", 1e-3)):
        rows = [cell for cell in cells if cell.criterion == criterion and cell.weight > 0]
        assert {cell.weight for cell in rows if cell.threshold == usual} == {0.01, 0.1, 1.0, 10.0}
        assert sorted(cell.threshold for cell in rows if cell.threshold != usual) == pytest.approx(
            [usual / 10, usual * 10]
        )
        assert [cell.sensitivity for cell in rows].count("interpolated") == 1
    assert sum(cell.weight == 0 for cell in cells) == 1
    assert set(experiment.figure_cells("quick")) & set(cells)


def test_an_interrupted_training_goes_on_to_the_same_record(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("rnnprop", "tiny", 1.0, "value", 1e-3)
    expected = experiment.solve(cell)
    train = l2o.train

    def interrupted(configuration: l2o.TrainingConfiguration, folder: Path, *, resume: bool) -> l2o.Training:
        train(replace(configuration, steps=2), folder, resume=resume)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "SCALES", {"tiny": replace(SCALES["tiny"])})
    monkeypatch.setattr(l2o, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiment.solve(cell)
    folder = experiment._folder(experiment.configuration_of(cell))
    assert (folder / "checkpoint.safetensors").exists()
    steps = []

    def resumed(configuration: l2o.TrainingConfiguration, folder: Path, *, resume: bool) -> l2o.Training:
        before = folder / "history.jsonl"
        steps.append(len(before.read_text().splitlines()))
        return train(configuration, folder, resume=resume)

    monkeypatch.setattr(l2o, "train", resumed)
    record = experiment.solve(cell)
    assert steps == [2]
    assert not folder.exists()
    for name in expected.keys() - {"training_seconds"}:
        assert record[name] == expected[name], name


def test_training_curves_are_kept(tables: dict[str, pd.DataFrame]) -> None:
    training = tables["learning_to_optimize_training"]
    assert training["step"].tolist() == [1, 2, 3] * 4
    assert bool((training["mean_value"] > 0).all())


def test_the_flow_is_trained_through_its_stopping_time(tables: dict[str, pd.DataFrame]) -> None:
    row = tables["learned_flow"].iloc[0]
    assert row["reached_before"] == row["reached_after"] == 1.0
    assert row["time_median_after"] < row["time_median_before"]
    assert row["time_median_before"] == pytest.approx(row["steps_median_before"], rel=0.1)


def results(*, with_penalty: float, f_at_stop: float = 1e-5, level: float = 20.0, adam: float = 30.0) -> pd.DataFrame:
    """Counts as the experiment writes them: 250 iterations without the penalty, f = 1e-5 at the stop."""
    methods = {
        "GD": (300, 1e-3, 900),
        "NAG": (90, 1e-3, 60),
        "Adam": (1, 0.7, adam),
        "L2O-DM": (300, 1e-5, math.inf),
        "RNNprop": (250, 1e-5, 25),
        "RNNprop-Time": (with_penalty, f_at_stop, math.inf),
        "RNNprop-Level": (40, 1e-4, level),
    }
    rows = [
        {
            "label": label,
            "seed": 0,
            "dimension": dimension,
            "steps_median": steps,
            "gap_at_stop_median": value,
            "rose": 0.25,
            "steps_to_level_median": to_level,
        }
        for label, (steps, value, to_level) in methods.items()
        for dimension in (8, 32)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("change", "identifier", "verdict"),
    [
        ({"with_penalty": 120.0}, "figure-3-penalty", Verdict.HOLDS),
        ({"with_penalty": 120.0}, "figure-3-larger", Verdict.HOLDS),
        ({"with_penalty": 160.0}, "figure-3-penalty", Verdict.FAILS),
        ({"with_penalty": 1.0, "f_at_stop": 0.7}, "figure-3-penalty", Verdict.FAILS),
        ({"with_penalty": math.inf}, "figure-3-larger", Verdict.FAILS),
        ({"with_penalty": 120.0}, "figure-3-level", Verdict.HOLDS),
        ({"with_penalty": 120.0, "level": 25.0}, "figure-3-level", Verdict.FAILS),
        ({"with_penalty": 120.0}, "figure-3-classical", Verdict.HOLDS),
        ({"with_penalty": 120.0, "adam": 6.0}, "figure-3-classical", Verdict.FAILS),
    ],
)
def test_claims_hold_and_fail(change: dict[str, float], identifier: str, verdict: Verdict) -> None:
    claims = {claim.identifier: claim for claim in judge({"learning_to_optimize": results(**change)})}
    assert claims[identifier].verdict == verdict


def test_a_claim_says_how_a_network_stops_early() -> None:
    (claim, *_) = judge({"learning_to_optimize": results(with_penalty=1.0, f_at_stop=0.7)})
    assert claim.measured == (
        "d = 8: N from 250 to 1, f at the stop from 1.0e-05 to 7.0e-01; a rise of f stops 25% of the problems"
    )
