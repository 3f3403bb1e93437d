"""The benchmark compares like with like and writes what it measured."""

import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from scipy.optimize import brentq
from typer.testing import CliRunner

from experiments.benchmark import measurements, scaling, timing, together
from experiments.benchmark.__main__ import as_table, main
from experiments.benchmark.cases import SCHEDULE, SCHEDULE_PARAMETERS, Case, pose, reference
from experiments.benchmark.measurements import PEERS, Cell
from figures import benchmark_scaling
from odestop.comparison import relative_error
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(together, "REPETITIONS", 1)


@pytest.mark.parametrize("device", DEVICES)
def test_both_sides_give_the_same_times(device):
    for comparison in (
        together.level_comparison(5, 3, device),
        together.batch_comparison(5, 4, "unlike", device),
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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [name for name in PEERS if "diffrax" not in name and "compiled" not in name])
def test_every_peer_answers_the_same_question(name, device):
    case = Case(2, 10.0, parameters=SCHEDULE, device=device)
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


@pytest.mark.parametrize("device", DEVICES)
def test_peers_are_compared_at_equal_accuracy(device):
    tables = measurements.run("tiny", Runner(), device)
    rows = tables["benchmark_ratios"]
    assert (rows["time_error"] <= measurements.TIME_ERROR).all()
    assert (rows["gradient_error"] <= measurements.GRADIENT_ERROR).all()
    fastest = rows.loc[rows["peer"] == rows["peer_against"], "ratio"]
    assert fastest.tolist() == [1.0]
    ours = tables["benchmark"]["peer"].str.startswith("odestop")
    assert (tables["benchmark"].loc[ours, "floor_seconds"] > 0).all()
    seen = ours & (tables["benchmark"]["peer"] != "odestop tsit5, compiled")
    assert (tables["benchmark"].loc[seen, "peak_bytes"] > 0).all()
    assert as_table(rows).row_count == len(rows)


def test_first_calls_of_large_cases_are_not_repeated(monkeypatch):
    calls = []
    answer = PEERS["odestop tsit5"].answer(Case(2, 10.0), 1e-3)

    class Recorded:
        def answer(self, case, tolerance):
            calls.append(case)
            return answer

    monkeypatch.setitem(PEERS, "odestop tsit5", Recorded())
    monkeypatch.setattr(measurements, "reference", lambda case: (answer.time, answer.gradient))
    small, large = Case(2, 10.0), Case(2, 1e5)
    for case in (small, large):
        record = measurements.measure(Cell(case, "odestop tsit5", 1e-3, 0))
        assert (record["time_error"], record["gradient_error"]) == (0.0, 0.0)
    assert calls == [small, small, large]


def test_the_floor_evaluates_the_gradient_every_time(monkeypatch):
    case = Case(3, 10.0)
    objective, calls = pose(case).criterion.objective, []
    gradient = objective._gradient
    monkeypatch.setattr(type(objective), "_gradient", lambda self, x: calls.append(1) or gradient(x))
    monkeypatch.setattr(measurements, "_FLOOR_SECONDS", 0.0)
    costs = measurements.bare_costs(case)
    # Five evaluations, and five with their pull-backs.
    assert len(calls) == 10
    assert 0.0 < costs["evaluation_seconds"] < costs["pullback_seconds"]


def test_a_gpu_has_finished_when_its_clock_is_read(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("synchronize"))
    result, seconds = timing.timed(lambda: events.append("call") or 7, "cuda")
    assert (result, events) == (7, ["synchronize", "call", "synchronize"])
    assert seconds >= 0.0
    assert timing.unit_on("cuda").symbol == "ms"


def test_all_libraries_get_one_processor():
    script = (
        "import os, torch; from experiments.benchmark.command import keep_to_one_processor as keep; keep(); "
        "print(torch.get_num_threads(), len(getattr(os, 'sched_getaffinity', lambda _: [0])(0)))"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["1", "1"]


@pytest.mark.parametrize("command", [main, together.main])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "huge"], "scale must be quick or full, got 'huge'"),
        (["--device", "tpu"], "device must be cpu or cuda, got 'tpu'"),
        (["--device", "cuda"], "PyTorch sees no CUDA device here"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(command, arguments, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    application = typer.Typer()
    application.command()(command)
    result = CliRunner().invoke(application, arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 2
    assert message in result.output


def power_laws() -> pd.DataFrame:
    """Evaluations like κ^0.5 and seconds like d^2, with cases off the axes and a peer of two points."""
    rows = [
        {
            "dimension": dimension,
            "condition_number": condition_number,
            "batch": batch,
            "parameters": parameters,
            "peer": peer,
            "evaluations": 40.0 * condition_number**0.5,
            "answer_seconds": 1e-5 * max(dimension, 50) ** 2,
        }
        for dimension, condition_number, batch, parameters in (
            *((d, 1e2, 1, "10 d") for d in (2, 100, 1000, 10_000)),
            *((100, kappa, 1, "10 d") for kappa in (1e3, 1e4)),
            (1000, 1e2, 1, "2"),
            (1000, 1e3, 1, "10 d"),
        )
        for peer in ("odestop rock4", "torchdiffeq dopri5")
        if peer == "odestop rock4" or dimension * condition_number < 1e5
    ]
    return pd.DataFrame(rows)


def test_exponents_are_those_of_the_largest_cases_on_each_axis():
    along = scaling.along_axes(power_laws())
    assert set(along["axis"]) == {"dimension", "condition_number"}
    assert sorted(along.loc[along["axis"] == "condition_number", "x"].unique()) == [1e2, 1e3, 1e4]
    fits = scaling.exponents(scaling.along_axes(power_laws())).set_index(["quantity", "axis", "peer"])["exponent"]
    # The overhead at d = 2 is not part of the power law.
    assert fits["answer_seconds", "dimension", "odestop rock4"] == pytest.approx(2.0)
    assert fits["evaluations", "condition_number", "odestop rock4"] == pytest.approx(0.5)
    assert ("evaluations", "condition_number", "torchdiffeq dopri5") not in fits
    assert scaling.as_table(scaling.exponents(scaling.along_axes(power_laws()))).row_count == 2


def test_the_scaling_figure_says_the_exponents_and_the_unit():
    along = scaling.along_axes(power_laws())
    figure = benchmark_scaling.draw(along, scaling.exponents(along), 1e-3, "ms")
    texts = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert texts == [["0.00"], ["0.50"], ["2.00"], ["0.00"]]
    lowest = figure.axes[2].get_lines()[0]
    assert figure.axes[2].get_ylabel().endswith("in ms")
    assert lowest.get_ydata()[0] == pytest.approx(25.0)


def test_without_two_cases_on_an_axis_there_is_nothing_to_fit():
    along = scaling.along_axes(power_laws()[:1])
    assert along.empty
    assert scaling.exponents(along).empty
