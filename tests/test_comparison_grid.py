"""The grid of comparisons: its cells, what it refuses, and its numbers against direct calls."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import odestop
from odestop.comparison_grid import (
    ComparisonGrid,
    grid_from_toml,
    make_grid,
    problem_columns,
    problem_in_words,
    solve,
    summarize,
)
from odestop.discrete.step_maps import Heun
from odestop.registry import CRITERIA, DYNAMICS, OBJECTIVES
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

MY_FLOW = '''
import torch
from torch import nn

class MyFlow(nn.Module):
    """Gradient flow with a speed per coordinate."""

    def __init__(self, objective, dimension, theta=2.0):
        super().__init__()
        self.objective = objective
        self.scale = nn.Parameter(theta * (0.5 + torch.rand(dimension)))

    def forward(self, t, x):
        return -self.scale * self.objective.gradient(x)
'''


@pytest.fixture
def my_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_file.py"
    path.write_text(MY_FLOW)
    return path


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    grid = make_grid(
        {
            "objective": "diagonal-quadratic",
            "dynamics": ["gradient-flow", "heavy-ball"],
            "threshold": [1e-2, 1e-3],
            "step_size": [0.08, 0.16, 0.32],
            "step_map": ["euler", "heun"],
            "parameters": {"dimension": [2, 3], "condition_number": 4},
        }
    )
    return Runner().run(grid.sweep())


def test_every_combination_is_a_row(table: pd.DataFrame) -> None:
    axes = ["dynamics", "dimension", "threshold", "step_map", "step_size"]
    assert len(table) == 2 * 2 * 2 * 2 * 3
    assert not table.duplicated(axes).any()
    assert (table["condition_number"] == 4).all()


def test_a_row_is_what_direct_calls_say(table: pd.DataFrame) -> None:
    row = table[
        (table["dynamics"] == "heavy-ball")
        & (table["dimension"] == 3)
        & (table["threshold"] == 1e-3)
        & (table["step_map"] == "heun")
        & (table["step_size"] == 0.16)
    ].iloc[0]
    dtype = torch.float64
    objective = OBJECTIVES["diagonal-quadratic"].build(dimension=3, condition_number=4.0, dtype=dtype)
    flow = DYNAMICS["heavy-ball"].build(objective=objective, dtype=dtype)
    question = (torch.ones(3, dtype=dtype), CRITERIA["squared-gradient-norm"].build(objective=objective), 1e-3)
    parameters = list(flow.parameters())
    continuous = odestop.continuous_stopping_time(flow, *question)
    discrete = odestop.discrete_stopping_time(Heun(flow, 0.16), *question)
    comparison = odestop.compare_gradients(continuous, discrete, 0.16, parameters)
    assert row["time"] == continuous.time.item()
    assert row["steps"] == discrete.steps.item()
    assert row["relative_error"] == pytest.approx(comparison.relative_error, rel=1e-12)
    assert row["nfe_discrete"] == discrete.stats.nfe == 2 * row["steps"]
    assert row["nfe_ratio"] == pytest.approx(comparison.nfe_ratio)
    assert row["number_of_parameters"] == sum(parameter.numel() for parameter in parameters)


def test_the_summary_has_a_row_per_curve_with_its_order(table: pd.DataFrame) -> None:
    summary = summarize(table)
    assert problem_columns(table) == ["objective", "dynamics", "dimension"]
    assert len(summary) == 2 * 2 * 2 * 2
    assert (summary["cells"] == 3).all()
    curve = table[
        (table["dynamics"] == "gradient-flow")
        & (table["dimension"] == 2)
        & (table["threshold"] == 1e-2)
        & (table["step_map"] == "euler")
    ]
    row = summary.iloc[0]
    fit = odestop.fit_order(curve["step_size"].to_numpy(), curve["relative_error"].to_numpy())
    assert (row["order"], row["low"], row["high"]) == (fit.order, fit.low, fit.high)
    assert row["relative_error_largest"] == curve["relative_error"].max()
    assert row["nfe_ratio_smallest"] == curve["nfe_ratio"].min()


def test_a_threshold_that_is_not_reached_is_a_row_without_gradients() -> None:
    grid = make_grid({"objective": "diagonal-quadratic", "dynamics": "gradient-flow", "t_max": 0.1, "max_steps": 5})
    table = Runner().run(grid.sweep())
    assert (table["time"] == math.inf).all()
    assert (table["status_continuous"] == "HORIZON").all()
    assert table["relative_error"].isna().all()
    summary = summarize(table)
    assert summary["compared"].tolist() == [0]
    assert math.isnan(summary["order"].iloc[0])


def test_a_parameter_of_some_of_the_dynamics_leaves_the_others_alone() -> None:
    grid = make_grid(
        {"dynamics": ["gradient-flow", "heavy-ball"], "step_size": 0.1, "parameters": {"friction": [0.5, 1.0]}}
    )
    cells = grid.cells()
    assert [(cell.dynamics, dict(cell.parameters)) for cell in cells] == [
        ("gradient-flow", {}),
        ("heavy-ball", {"friction": 0.5}),
        ("heavy-ball", {"friction": 1.0}),
    ]


def test_a_class_in_a_file_is_a_dynamics(my_file: Path) -> None:
    values = {
        "dynamics": f"{my_file}:MyFlow",
        "seed": [0, 1],
        "step_size": [0.1, 0.2, 0.4],
        "parameters": {"dimension": 5, "theta": [1, 2]},
    }
    table = Runner().run(make_grid(values).sweep())
    assert len(table) == 12
    assert (table["number_of_parameters"] == 5).all()
    assert table.groupby(["seed", "theta"])["time"].nunique().tolist() == [1, 1, 1, 1]
    assert table["time"].nunique() == 4
    assert (summarize(table)["order"] > 0.7).all()
    again = Runner().run(make_grid(values).sweep())
    assert again["time"].equals(table["time"])
    my_file.write_text(MY_FLOW.replace("0.5 +", "1.5 +"))
    changed = make_grid(values).sweep()
    assert not {changed.key(cell) for cell in changed.cells} & {
        make_grid(values).sweep().key(cell) for cell in make_grid(values | {"seed": 3}).cells()
    }
    assert (Runner().run(changed)["time"] < table["time"]).all()


def test_a_file_gives_the_same_grid_as_values(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        'dynamics = ["gradient-flow", "heavy-ball"]\nthreshold = [1e-3, 1e-4]\nstep_size = 0.1\nseed = [0, 1]\n'
        "rtol = 1e-8\nt_max = inf\n[parameters]\ndimension = 1e1\ncondition_number = [10, 100.0]\n"
    )
    expected = ComparisonGrid(
        dynamics=("gradient-flow", "heavy-ball"),
        threshold=(1e-3, 1e-4),
        step_size=(0.1,),
        seed=(0, 1),
        rtol=1e-8,
        parameters=(("dimension", (10,)), ("condition_number", (10, 100))),
    )
    assert make_grid(grid_from_toml(path)) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dynamics": "no-such-flow"}, "dynamics must be one of"),
        ({"dynamics": "nowhere.py:MyFlow"}, r"dynamics must be in a file that can be read, got nowhere\.py"),
        ({"sensitivity": "exact"}, "sensitivity must be one of"),
        ({"step_map": "leapfrog"}, "step_map must be one of"),
        ({"method": "ode45"}, "method must be one of"),
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"step_size": [0.1, -0.2]}, "step_size must be"),
        ({"step_size": []}, "step_size must have at least one value, got none"),
        ({"step_size": "abc"}, "step_size must be a finite number such as 100 or 1e-3, got 'abc'"),
        ({"threshold": True}, "threshold must be a number, got True"),
        ({"seed": 0.5}, r"seed must be a whole number, got 0\.5"),
        ({"objective": 3}, "objective must be text, got 3"),
        ({"parameters": {"speed": 1}}, "speed is not a parameter of"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_grids_that_cannot_be_run_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_grid(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("threshold = [", "grid must be a TOML file"),
        ("thresholds = 1", "grid must have fields among objective, .*, got 'thresholds'"),
        ("parameters = 3", r"parameters must be a table, such as \[parameters\]"),
    ],
)
def test_files_that_are_no_grid_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        grid_from_toml(path)
    with pytest.raises(ValueError, match="grid must be a file that can be read"):
        grid_from_toml(tmp_path / "missing.toml")


def test_cells_are_pure() -> None:
    cell = make_grid({"objective": "diagonal-quadratic", "dynamics": "gradient-flow", "step_size": 0.1}).cells()[0]
    assert solve(cell) == solve(cell)


def test_problems_are_named_by_what_varies() -> None:
    values = {"objective": "quadratic", "dynamics": "heavy-ball", "friction": 0.5, "dimension": math.nan}
    assert problem_in_words(values) == "heavy-ball on quadratic, friction 0.5"
