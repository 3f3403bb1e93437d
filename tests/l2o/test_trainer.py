"""Trainings learn, are deterministic, and survive being killed; several processes make the steps of one."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console

from odestop.l2o import TrainingConfiguration, load, load_metadata, train
from odestop.l2o.files import read_tensors
from odestop.l2o.records import Records
from odestop.l2o.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
SMALL = TrainingConfiguration(
    {"kind": "rnnprop", "hidden": 4},
    {"kind": "quadratic", "dimension": 4},
    steps=3,
    batch=4,
    horizon=8,
    segment=3,
    validate_every=2,
)


def curve(table):
    """A history or validation table without its times."""
    return table.drop(columns="seconds", errors="ignore")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of the trainings in processes of their own."""
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "tests.l2o.killed_training", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return folder


def test_a_killed_training_continues_to_the_same_curve_bit_by_bit(runs):
    for name in ("history.jsonl", "validation.jsonl"):
        killed, whole = (pd.DataFrame(Records(runs / run / name).rows()) for run in ("killed", "uninterrupted"))
        pd.testing.assert_frame_equal(curve(killed), curve(whole), check_exact=True)
    for name in ("best.safetensors", "last.safetensors", "checkpoint.safetensors"):
        assert (runs / "killed" / name).read_bytes() == (runs / "uninterrupted" / name).read_bytes()


def test_two_processes_have_the_gradient_of_the_joint_batch(runs):
    """Adam's first moment after one update is a tenth of the gradient."""
    (two, _), (one, _) = (read_tensors(runs / run / "checkpoint.safetensors") for run in ("two", "one"))
    moments = [name for name in one if name.endswith("exp_avg")]
    assert len(moments) == 4
    for name in moments:
        assert one[name].abs().max() > 0
        torch.testing.assert_close(two[name], one[name], rtol=1e-12, atol=1e-12 * one[name].abs().max().item())
    joint, alone = (Records(runs / run / "history.jsonl").rows()[0] for run in ("two", "one"))
    for name in ("loss", "mean_value", "final_value", "stopping_steps", "stopped"):
        assert joint[name] == pytest.approx(alone[name], rel=1e-12)


@pytest.mark.parametrize("kind", ["rnnprop", "l2o-dm"])
def test_a_network_learns(kind, tmp_path):
    configuration = dataclasses.replace(
        SMALL,
        network={"kind": kind, "hidden": 6},
        steps=12,
        horizon=15,
        segment=5,
        stopping_weight=0,
        learning_rate=1e-2,
    )
    training = train(configuration, tmp_path)
    losses = training.validation["loss"].tolist()
    assert losses[-1] < 0.8 * losses[0]
    assert training.validation["step"].tolist() == [2, 4, 6, 8, 10, 12]
    assert training.history["step"].tolist() == list(range(1, 13))


def test_the_best_network_of_the_validation_is_kept(tmp_path):
    # Steps far too long, so that a later network is worse.
    configuration = dataclasses.replace(SMALL, learning_rate=0.3, steps=5, validate_every=1, stopping_weight=0)
    training = train(configuration, tmp_path)
    losses = training.validation["loss"]
    best = losses.idxmin()
    assert best < len(losses) - 1
    assert training.validation["best"].tolist() == [
        loss < min([math.inf, *losses[:i]]) for i, loss in enumerate(losses)
    ]
    trainer = Trainer(configuration)
    trainer.network = training.network
    assert trainer.validate()["loss"] == losses[best]
    trainer.network = load(tmp_path / "last.safetensors")
    assert trainer.validate()["loss"] == losses.iloc[-1]
    metadata = load_metadata(tmp_path / "best.safetensors")
    assert metadata["validation"]["loss"] == losses[best]
    assert TrainingConfiguration.from_dict(metadata["configuration"]) == configuration


def test_a_training_is_deterministic_by_its_seed(tmp_path):
    tables = [
        curve(train(dataclasses.replace(SMALL, seed=seed), tmp_path / str(run)).history)
        for run, seed in enumerate([1, 1, 2])
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    assert tables[0]["mean_value"].tolist() != tables[2]["mean_value"].tolist()


def test_every_step_has_other_problems_and_every_validation_the_same(tmp_path):
    configuration = dataclasses.replace(SMALL, learning_rate=1e-12, validate_every=1, dtype="float64")
    training = train(configuration, tmp_path)
    assert training.history["mean_value"].nunique() == 3
    assert training.validation["mean_value"].max() == pytest.approx(training.validation["mean_value"].min(), rel=1e-9)


@pytest.mark.parametrize(("update", "updates"), [("segment", 3), ("unroll", 1)])
def test_weights_move_after_each_segment_or_after_the_unroll(update, updates):
    trainer = Trainer(dataclasses.replace(SMALL, update=update))
    trainer.train_step()
    assert {int(moments["step"]) for moments in trainer.adam.state.values()} == {updates}


def test_long_gradients_are_scaled_back():
    free, clipped = (
        Trainer(dataclasses.replace(SMALL, update="unroll", gradient_clip=clip, dtype="float64"))
        for clip in (None, 1e-3)
    )
    norm = free.train_step()["gradient_norm"]
    assert norm > 1e-3
    assert clipped.train_step()["gradient_norm"] == norm
    moments = [
        torch.cat([moments["exp_avg"].flatten() for moments in trainer.adam.state.values()])
        for trainer in (free, clipped)
    ]
    torch.testing.assert_close(moments[1], moments[0] * 1e-3 / norm, rtol=1e-4, atol=0)


def test_a_gradient_that_is_not_finite_moves_nothing():
    trainer = Trainer(SMALL)
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    trainer._problems = BrokenProblems()
    row = trainer.train_step()
    assert row["skipped_updates"] == 3
    for parameter, old in zip(trainer.network.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


class BrokenProblems:
    """Problems whose values are no numbers."""

    def sample(self, batch, generator, dtype):
        objective, x0 = SMALL.build_problems().sample(batch, generator, dtype=dtype)
        return objective, x0 * torch.nan


def test_a_folder_that_holds_a_training_is_not_overwritten(tmp_path):
    train(SMALL, tmp_path)
    before = (tmp_path / "history.jsonl").read_text()
    with pytest.raises(ValueError, match=r"output must be a folder without a training.*resume=True"):
        train(SMALL, tmp_path)
    with pytest.raises(ValueError, match=r"batch must be 4, as in the training that is resumed, got 6"):
        train(dataclasses.replace(SMALL, batch=6), tmp_path, resume=True)
    assert (tmp_path / "history.jsonl").read_text() == before
    longer = train(dataclasses.replace(SMALL, steps=5), tmp_path, resume=True)
    assert longer.history["step"].tolist() == [1, 2, 3, 4, 5]
    assert json.loads((tmp_path / "configuration.json").read_text())["steps"] == 5


def test_a_trained_network_can_go_on_from_its_file(tmp_path):
    first = train(SMALL, tmp_path / "first")
    path = str(tmp_path / "first" / "best.safetensors")
    trainer = Trainer(dataclasses.replace(SMALL, network={"file": path}, stopping_weight=0.0))
    for one, other in zip(trainer.network.parameters(), first.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_tensorboard_has_the_curves(tmp_path):
    training = train(dataclasses.replace(SMALL, tensorboard=True), tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("training/loss")]
    assert losses == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in training.history[["step", "loss"]].values]
    assert [event.step for event in events.Scalars("validation/stopping_steps")] == [2, 3]


def test_the_bar_shows_loss_value_steps_and_time(tmp_path):
    with (tmp_path / "console").open("w") as stream:
        console = Console(file=stream, force_terminal=True, width=120)
        row = train(SMALL, tmp_path / "out", console=console).history.iloc[-1]
    shown = (tmp_path / "console").read_text()
    for text in (
        "3/3",
        f"loss {row['loss']:.4g}",
        f"f {row['final_value']:.4g}",
        f"N {row['stopping_steps']:.1f}",
        "left",
    ):
        assert text in shown


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="device must be one that PyTorch finds here, got 'cuda'"):
        train(dataclasses.replace(SMALL, device="cuda"), tmp_path)
    assert not any(tmp_path.iterdir())


def test_problems_that_cannot_be_shared_are_refused():
    from odestop.l2o.workers import Workers

    with pytest.raises(ValueError, match="batch must be a multiple of the number of processes, 3, got 4"):
        Trainer(SMALL, Workers(count=3))
