"""From a target to its files, at the smallest scale."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from experiments import figure_1
from experiments.catalogue import TARGETS
from experiments.reproduce import reproduce
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], str]:
    """Folder, files and terminal output of a run of everything."""
    output, screen = tmp_path_factory.mktemp("run") / "results", io.StringIO()
    written = reproduce(["all"], "tiny", output, Runner(console=Console(file=screen, width=120)))
    return output, written, screen.getvalue()


def test_all_promised_files_are_written(everything: tuple[Path, list[Path], str]) -> None:
    output, written, _ = everything
    figures = {f"{name}.{kind}" for name in TARGETS["all"] for kind in ("pdf", "png")}
    data = {"figure_1a", "figure_1b", "gradient_error", "gradient_error_orders", "gradient_error_matrices"} | {
        "real_data",
        "real_data_orders",
        "dissipation",
        "sensitivity_orders",
        "sensitivity_orders_fitted",
        "verification",
    }
    experiments = ("figure_1", "gradient_error", "real_data", "dissipation", "sensitivity_orders", "verification")
    records = {f"{name}.json" for name in (*experiments, "claims")}
    assert {path.name for path in written} == {
        *figures,
        *(f"{name}.csv" for name in data),
        *records,
        "claims.md",
    }
    assert all(path.parent == output and path.stat().st_size > 0 for path in written)


def test_the_parameters_say_where_the_data_come_from(everything: tuple[Path, list[Path], str]) -> None:
    output, _, _ = everything
    record = json.loads((output / "gradient_error.json").read_text(encoding="utf-8"))
    assert record["scale"] == "tiny"
    assert record["parameters"]["seeds"] == [0]
    assert record["tables"] == ["gradient_error.csv", "gradient_error_orders.csv", "gradient_error_matrices.csv"]
    run = record["computed_by"][0]
    assert {"python", "torch", "odestop", "numpy", "scipy"} <= set(run["versions"])
    assert {"date", "git_commit", "machine"} <= set(run)
    assert 0 < record["cell_seconds"] < 1000
    assert str(output.parent) not in json.dumps(record)


def test_the_data_are_tidy(everything: tuple[Path, list[Path], str]) -> None:
    output, _, _ = everything
    table = pd.read_csv(output / "gradient_error.csv")
    cell = ["dimension", "seed", "threshold", "step_size", "sensitivity"]
    assert not table.duplicated(cell).any()
    assert table["relative_error"].between(0, 1).all()
    assert (table["status_continuous"] == "REACHED").all()


def test_the_claims_are_shown_and_written(everything: tuple[Path, list[Path], str]) -> None:
    output, _, screen = everything
    claims = json.loads((output / "claims.json").read_text(encoding="utf-8"))
    assert {"identifier", "place", "statement", "test", "verdict", "measured"} == set(claims[0])
    verdicts = {claim["identifier"]: claim["verdict"] for claim in claims}
    assert verdicts["proposition-1"] == verdicts["theorem-1-finite-differences"] == "holds"
    assert verdicts["figure-2a-dimension"] == "not tested at this scale"
    assert "Proposition 1" in screen
    assert "Proposition 1" in (output / "claims.md").read_text(encoding="utf-8")


def test_a_part_draws_its_figures_alone_and_leaves_the_claims_file(tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text("whole")
    screen = io.StringIO()
    written = reproduce(["fig1"], "tiny", tmp_path, Runner(console=Console(file=screen, width=120)))
    names = {path.name for path in written}
    assert {"figure_1a.pdf", "figure_1b.png", "figure_1a.csv"} <= names
    assert not any("2a" in name or "claims" in name for name in names)
    assert (tmp_path / "claims.json").read_text() == "whole"
    assert "Figure 1b" in screen.getvalue()
    assert "Proposition 1" not in screen.getvalue()


@pytest.mark.parametrize(("targets", "scale"), [(["fig9"], "tiny"), (["fig1"], "huge")])
def test_unknown_names_are_refused_before_anything_runs(
    targets: list[str], scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure_1, "run", None)
    with pytest.raises(ValueError, match=r"must be one of .*, got '(fig9|huge)'"):
        reproduce(targets, scale, tmp_path / "results", Runner())
    assert not (tmp_path / "results").exists()
