"""The benchmark compares like with like and writes what it measured."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import brentq

from experiments.benchmark import measurements, together
from experiments.benchmark.__main__ import as_table
from experiments.benchmark.cases import SCHEDULE, SCHEDULE_PARAMETERS, Case, pose, reference
from experiments.benchmark.measurements import PEERS
from odestop.comparison import relative_error
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(together, "REPETITIONS", 1)


def test_both_sides_give_the_same_times():
    for comparison in (
        together.level_comparison(5, 3),
        together.batch_comparison(5, 4, "unlike"),
    ):
        assert comparison.error < 1e-6
        assert comparison.together.evaluations < comparison.apart.evaluations
        assert comparison.ratio > 0.0


def test_the_table_and_the_record_hold_every_comparison():
    rows = [together.level_comparison(5, 3)]
    assert together.as_table(rows).row_count == 1
    record = json.loads(together.as_json(rows, "quick"))
    assert record["rows"][0]["question"] == "thresholds"
    assert record["versions"]["torch"]


@pytest.mark.parametrize("name", [name for name in PEERS if "diffrax" not in name and "compiled" not in name])
def test_every_peer_answers_the_same_question(name):
    case = Case(2, 10.0, parameters=SCHEDULE)
    time, gradient = reference(case)
    answer = PEERS[name].answer(case, 1e-9)
    assert relative_error(answer.time, time) < 1e-7
    assert relative_error(answer.gradient, gradient) < 1e-4
    assert answer.evaluations > 20


def test_the_reference_is_that_of_the_closed_form():
    # x' = -θ1 e^(-θ2 t) Q x: the time s = θ1 (1 - e^(-θ2 t)) / θ2 is that of x' = -Q x, whatever θ.
    case = Case(2, 10.0, parameters=SCHEDULE)
    scale, rate = SCHEDULE_PARAMETERS
    eigenvalues, vectors = np.linalg.eigh(pose(case).matrix.numpy())
    weights = (eigenvalues * vectors.sum(0)) ** 2
    s = brentq(lambda t: weights @ np.exp(-2 * eigenvalues * t) - case.threshold, 0.0, 1e3, xtol=1e-13)
    time, gradient = reference(case)
    assert time.item() == pytest.approx(-math.log1p(-rate * s / scale) / rate, rel=1e-9)
    # Differentiate s(T; θ) = constant.
    speed = math.exp(-rate * time.item())
    by_scale = -(1 - speed) / rate / (scale * speed)
    assert gradient[0].item() == pytest.approx(by_scale, rel=1e-7)


def test_peers_are_compared_at_equal_accuracy():
    tables = measurements.run("tiny", Runner())
    rows = tables["benchmark_ratios"]
    assert (rows["time_error"] <= measurements.TIME_ERROR).all()
    assert (rows["gradient_error"] <= measurements.GRADIENT_ERROR).all()
    fastest = rows.loc[rows["peer"] == rows["peer_against"], "ratio"]
    assert fastest.tolist() == [1.0]
    ours = tables["benchmark"]["peer"].str.startswith("odestop")
    assert (tables["benchmark"].loc[ours, "floor_seconds"] > 0).all()
    assert as_table(rows).row_count == len(rows)
