"""``odestop compare`` and ``odestop results`` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from odestop.cli import app, main
from odestop.sweeps import FailedCellsWarning, Runner, Store, Sweep
from tests.sweeps.cells import Troublemaker, misbehave
from tests.test_comparison_grid import MY_FLOW

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

QUESTION = ["--objective", "diagonal-quadratic", "--dynamics", "gradient-flow,heavy-ball", "--threshold", "1e-2,1e-3"]
GRID = [*QUESTION, "--step-size", "0.04,0.08,0.16", "--workers", "1"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "140"})


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("a folder") / "results"
    return output, run("compare", *GRID, "--output", output)


def test_a_comparison_leaves_a_store_a_table_and_a_figure(compared: tuple[Path, Result]) -> None:
    output, result = compared
    assert result.exit_code == 0, result.output
    names = {"comparison.csv", "comparison.json", "comparison.pdf", "comparison.png", "sweeps.sqlite"}
    assert {path.name for path in output.iterdir()} == names
    table = pd.read_csv(output / "comparison.csv")
    assert len(table) == 12
    assert (table["status_continuous"] == "REACHED").all()
    record = json.loads((output / "comparison.json").read_text())
    assert record["grid"]["step_size"] == [0.04, 0.08, 0.16]
    assert record["versions"]["torch"]
    assert record["grid"]["t_max"] is None
    assert "heavy-ball on diagonal-quadratic" in result.output
    assert "12/12 cells" in result.output
    assert "3/3" in result.output


def test_what_is_known_is_not_computed_again(compared: tuple[Path, Result]) -> None:
    output, _ = compared
    before = (output / "comparison.csv").read_bytes()
    again = run("compare", *GRID, "--output", output)
    assert again.exit_code == 0
    assert "cells" in again.output
    assert "12/12 cells" not in again.output
    assert (output / "comparison.csv").read_bytes() == before
    more = run("compare", *QUESTION, "--step-size", "0.04,0.08,0.12", "--workers", "1", "--output", output)
    assert "4/4 cells" in more.output


def test_a_file_gives_the_grid_and_options_come_before_it(tmp_path: Path) -> None:
    (tmp_path / "my_file.py").write_text(MY_FLOW)
    grid = tmp_path / "grid.toml"
    grid.write_text(
        f'dynamics = "{tmp_path / "my_file.py"}:MyFlow"\nstep_size = [0.1, 0.2]\nthreshold = 1e-2\n'
        "[parameters]\ndimension = 50\n"
    )
    result = run(
        *("compare", "--grid", grid, "--threshold", "1e-1", "--dimension", "4,6", "--set", "theta=1,2"),
        *("--output", tmp_path / "out", "--name", "mine", "--workers", "1"),
    )
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "out" / "mine.csv")
    assert len(table) == 8
    assert set(table["dimension"]) == {4, 6}
    assert set(table["theta"]) == {1, 2}
    assert set(table["threshold"]) == {0.1}
    assert "my_file.py:MyFlow on quadratic, dimension 4, theta 1" in " ".join(result.output.split())


def test_more_problems_than_a_figure_holds_leave_a_table(tmp_path: Path) -> None:
    dimensions = ",".join(map(str, range(2, 20)))
    grid = [
        "--objective",
        "diagonal-quadratic",
        "--dynamics",
        "gradient-flow",
        "--step-size",
        "0.2",
        "--threshold",
        "0.9",
    ]
    result = run("compare", *grid, "--dimension", dimensions, "--output", tmp_path, "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "no figure: table must hold 1 to 16 problems" in result.output
    assert len(pd.read_csv(tmp_path / "comparison.csv")) == 18
    assert not (tmp_path / "comparison.png").exists()


def test_cells_that_fail_are_told_and_the_others_shown(tmp_path: Path) -> None:
    line = "        self.scale ="
    refusing = MY_FLOW.replace(line, f"        if dimension == 5:\n            raise OSError('five')\n{line}")
    (tmp_path / "my_file.py").write_text(refusing)
    arguments = ["--dynamics", f"{tmp_path / 'my_file.py'}:MyFlow", "--threshold", "0.1", "--step-size", "0.1"]
    result = run("compare", *arguments, "--dimension", "4,5", "--output", tmp_path / "out", "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "1 of 2 cells of comparison have no record" in result.output
    assert "OSError: five" in result.output
    assert len(pd.read_csv(tmp_path / "out" / "comparison.csv")) == 1
    alone = run("compare", *arguments, "--dimension", "5", "--output", tmp_path / "out", "--workers", "1")
    assert alone.exit_code == 1
    assert "no cell has a result" in alone.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dynamics", "no-such-flow"], "Error: dynamics must be one of"),
        (["--step-size", "0.1,fast"], "Error: step_size must be a finite number such as 100 or 1e-3, got 'fast'"),
        (["--set", "theta"], "Error: --set must be of the form name=values, got 'theta'"),
        (["--set", "speed=3"], "Error: speed is not a parameter of"),
        (["--workers", "0"], "Error: workers must be an integer of at least 1, got 0"),
        (["--grid", "missing.toml"], "Error: grid must be a file that can be read"),
        (["--time-limit", "-1"], "Error: time_limit must be"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["odestop", "compare", *arguments, "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_results_lists_shows_and_exports(compared: tuple[Path, Result], tmp_path: Path) -> None:
    store = compared[0] / "sweeps.sqlite"
    listed = run("results", "list", "--store", store)
    assert listed.exit_code == 0
    assert "comparison" in listed.output
    shown = run("results", "show", "comparison", "--store", store)
    cells = [json.loads(line) for line in shown.output.splitlines()]
    assert all(cell["status"] == "done" and cell["record"]["time"] > 0 for cell in cells)
    for name in ("table.csv", "table.parquet"):
        exported = run("results", "export", "comparison", tmp_path / name, "--store", store)
        assert exported.exit_code == 0, exported.output
        table = pd.read_csv(tmp_path / name) if name.endswith("csv") else pd.read_parquet(tmp_path / name)
        assert len(table) == len(cells)
        assert {"dynamics", "threshold", "relative_error", "status", "seconds"} <= set(table.columns)


def test_results_of_cells_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with Store(path) as store, pytest.warns(FailedCellsWarning):
        Runner(store).run(Sweep("trouble", [Troublemaker("fails"), Troublemaker("fine")], misbehave))
    shown = run("results", "show", "trouble", "--store", path, "--status", "failed")
    (cell,) = (json.loads(line) for line in shown.output.splitlines())
    assert cell["parameters"] == {"kind": "fails"}
    assert "ZeroDivisionError" in cell["error"]
    exported = run("results", "export", "trouble", tmp_path / "t.csv", "--store", path)
    assert exported.output.startswith("1 cells in")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--store", "missing.sqlite"], "--store must be a file that odestop compare or"),
        (["show", "nothing"], "sweep must be one in the store, got 'nothing'; there: trouble"),
        (["export", "trouble", "table.xlsx"], "file must end in .csv or .parquet, got table.xlsx"),
        (["export", "trouble", "no/such/folder/t.csv"], "file must be in a folder that exists"),
    ],
)
def test_results_that_are_not_there(arguments: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        Runner(store).run(Sweep("trouble", [Troublemaker("fine")], misbehave))
    where = [] if "--store" in arguments else ["--store", path]
    result = run("results", *arguments, *where)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
