"""The command finds the experiments, or says that they are not there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import experiments.reproduce
import odestop
from odestop.cli import reproduce as command

ROOT = Path(experiments.reproduce.__file__).parent.parent


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(command.reproduce)
    return app


def test_outside_a_checkout_it_says_to_clone_the_repository(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(odestop, "__file__", str(tmp_path / "site-packages" / "odestop" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["fig1"])
    assert result.exit_code == 1
    assert "Clone the odestop repository" in result.output
    assert not (tmp_path / "results").exists()


def test_an_installed_package_uses_the_checkout_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.find_checkout() == ROOT
    monkeypatch.setattr(odestop, "__file__", str(tmp_path / "odestop" / "__init__.py"))
    monkeypatch.chdir(ROOT)
    assert command.find_checkout() == ROOT


def test_without_the_packages_that_it_needs_it_says_how_to_install_them(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = CliRunner().invoke(app, ["fig1"])
    assert result.exit_code == 1
    assert "pip install 'odestop[experiments]'" in result.output


def test_arguments_reach_the_experiments(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        experiments.reproduce,
        "reproduce",
        lambda targets, scale, output, console: calls.append((targets, scale, output)),
    )
    assert CliRunner().invoke(app, []).exit_code == 0
    arguments = ["real-data", "--scale", "paper", "--output", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert calls == [(["all"], "quick", Path("results")), (["real-data"], "paper", tmp_path)]


def test_a_folder_of_data_is_known_to_every_process(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODESTOP_DATA", "elsewhere")
    folders: list[str] = []
    monkeypatch.setattr(
        experiments.reproduce, "reproduce", lambda *arguments: folders.append(os.environ["ODESTOP_DATA"])
    )
    arguments = ["fig4", "--data-dir", str(tmp_path), "--output", str(tmp_path / "results")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert folders == [str(tmp_path)]


def test_a_target_that_does_not_exist_is_refused(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["fig9"])
    assert result.exit_code == 2
