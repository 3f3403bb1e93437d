"""Files of what is on screen: a script that runs on its own, tables, and a figure."""

import contextlib
import io
import math
import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from odestop.explorer.answers import answers
from odestop.explorer.controls import changed, problems
from odestop.explorer.export import CSV_KINDS, FIGURE_FORMATS, to_csv, to_figure, to_script
from odestop.explorer.gradient_errors import gradient_errors
from odestop.explorer.paths import paths
from odestop.explorer.presets import PRESETS
from odestop.explorer.scene import Scene
from odestop.explorer.stopping_curves import stopping_curves

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

LINE = re.compile(r"epsilon (\S+): T (\S+) dT (\S+) N (\S+) h\*dN (\S+) N\^ (\S+) h\*dN\^ (\S+) \((.*)\)")

QUICK = replace(PRESETS["figure-1"].scene, thresholds=(1.0, 3.0), step_size=0.2)


def run_here(script, path):
    path.write_text(script, encoding="utf-8")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        runpy.run_path(str(path), run_name="__main__")
    return output.getvalue()


def check_output(text, scene):
    rows = LINE.findall(text)
    assert len(rows) == len(scene.thresholds)
    for k, (row, answer) in enumerate(zip(rows, answers(scene), strict=True)):
        *numbers, words = row
        printed = [float(number) for number in numbers]
        shown = [answer.threshold, answer.time, answer.time_derivative, answer.steps, answer.scaled_steps_derivative,
                 answer.fractional_steps, answer.scaled_fractional_derivative]  # fmt: skip
        derivatives = (2, 4, 6)
        for column, (one, other) in enumerate(zip(printed, shown, strict=True)):
            # On screen only the first threshold has derivatives.
            if k == 0 or column not in derivatives:
                assert one == pytest.approx(other, rel=1e-6, abs=1e-9, nan_ok=True)
        assert answer.words.startswith(words)


# The first part of the way: the rest takes long.  A tangential crossing is another heavy ball.
BEGINNINGS = {
    "figure-1": (0.1, 1.0),
    "nesterov-ripples": (3.0,),
    "overshooting-heavy-ball": (0.5, 1.0),
    "missed-target": (0.01, 1.0),
    "stiff-valley": (50.0,),
    "curved-valley": (2.0,),
    "adam-and-its-flow": (50.0,),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_scripts_of_the_presets_print_the_numbers_on_screen(name, tmp_path):
    scene = replace(PRESETS[name].scene, thresholds=BEGINNINGS[name])
    assert problems(scene) == {}
    check_output(run_here(to_script(scene), tmp_path / "script.py"), scene)


def test_a_script_runs_on_its_own(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(to_script(QUICK), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    result = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert result.stderr == ""
    check_output(result.stdout, QUICK)


@pytest.mark.parametrize(
    "scene",
    [
        replace(QUICK, parameter="threshold", parameter_range=(0.1, 4.0)),
        replace(changed(Scene(), "dynamics", "nesterov"), step_map="nesterov", thresholds=(5.0,)),
        replace(changed(Scene(), "dynamics", "strongly-convex-nesterov"), step_map="nesterov-strongly-convex",
                thresholds=(5.0,)),
        replace(QUICK, thresholds=(20.0,)),
        replace(changed(Scene(), "objective", "lasso"), thresholds=(0.1,)),
    ],
    ids=["threshold", "nesterov", "strongly convex", "already satisfied", "lasso"],
)  # fmt: skip
def test_scripts_of_other_scenes(scene, tmp_path):
    assert problems(scene) == {}
    script = to_script(scene)
    assert len(script.splitlines()) <= 42
    assert max(map(len, script.splitlines())) <= 200
    check_output(run_here(script, tmp_path / "script.py"), scene)


def test_tables_hold_the_numbers_on_screen():
    tables = {kind: pd.read_csv(io.StringIO(to_csv(kind, QUICK))) for kind in CSV_KINDS}
    result, table = paths(QUICK), tables["paths"]
    for curve, times, places, values in (
        ("flow", result.flow_times, result.flow_positions, result.flow_values),
        ("steps", result.step_times, result.step_positions, result.step_values),
    ):
        rows = table[table["curve"] == curve]
        assert rows["time"].to_numpy() == pytest.approx(times)
        assert rows[["x1", "x2"]].to_numpy() == pytest.approx(places)
        assert rows["criterion"].to_numpy() == pytest.approx(values)
    curves, table = stopping_curves(QUICK), tables["stopping_curves"]
    for k, threshold in enumerate(QUICK.thresholds):
        rows = table[(table["curve"] == "flow") & (table["threshold"] == threshold)]
        assert rows["theta"].to_numpy() == pytest.approx(curves.values)
        assert rows["time"].to_numpy() == pytest.approx(curves.times[k])
        assert set(rows["status"]) == {"REACHED"}
        rows = table[(table["curve"] == "steps") & (table["threshold"] == threshold)]
        assert rows["fractional_time"].to_numpy() == pytest.approx(curves.scaled_fractional[k])
    assert tables["gradient_errors"]["definition3"].to_numpy() == pytest.approx(gradient_errors(QUICK).definition3)
    assert tables["answers"]["time"].to_list() == pytest.approx([answer.time for answer in answers(QUICK)])
    with pytest.raises(ValueError, match="kind"):
        to_csv("everything", QUICK)


def test_the_table_of_a_swept_threshold_has_it_once():
    scene = replace(QUICK, parameter="threshold", parameter_range=(0.5, 4.0))
    table = pd.read_csv(io.StringIO(to_csv("stopping_curves", scene)))
    assert list(table.columns) == ["curve", "threshold", "time", "status", "fractional_time"]
    assert (table["threshold"].iloc[0], table["threshold"].iloc[-1]) == (0.5, 4.0)


@pytest.mark.parametrize(
    ("scene", "format"),
    [
        (QUICK, "svg"),
        (replace(PRESETS["missed-target"].scene, thresholds=(0.01,), horizon=2.0, step_size=0.9), "png"),
        (replace(QUICK, parameter="threshold", parameter_range=(0.5, 4.0), thresholds=(20.0,)), "pdf"),
    ],
    ids=["good", "missed, unstable steps", "threshold, already satisfied"],
)
def test_figures_are_files_of_their_kind_even_where_things_go_wrong(scene, format):
    assert format in FIGURE_FORMATS
    content = to_figure(scene, format)
    assert content[:100].lstrip().startswith({"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}[format])
    assert len(content) > 10_000
    if format == "svg":
        # The same scene gives the same bytes.
        assert content == to_figure(scene, format)


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="format"):
        to_figure(QUICK, "gif")
    assert math.isfinite(answers(QUICK)[0].time)
