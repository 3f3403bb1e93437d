"""The command as a whole: version, help, the list of names, and its two ways to be started."""

import io
import runpy
import sys

import pytest
from typer.testing import CliRunner

import odestop
from odestop.cli import app, main
from odestop.registry import CRITERIA, DYNAMICS, OBJECTIVES

ENTRIES = [*OBJECTIVES.values(), *DYNAMICS.values(), *CRITERIA.values()]


def run(*arguments):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "NO_COLOR": "1"})


def test_version_is_that_of_the_package():
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"odestop {odestop.__version__}\n"


@pytest.mark.parametrize(("arguments", "exit_code"), [([], 2), (["--help"], 0)])
def test_help_names_the_commands(arguments, exit_code):
    result = run(*arguments)
    assert result.exit_code == exit_code
    assert result.stderr == ""
    for word in ("Usage", "solve", "list", "reproduce", "--version"):
        assert word in result.stdout


def test_help_of_solve_is_grouped_and_has_examples():
    result = run("solve", "--help")
    assert result.exit_code == 0
    for panel in ("The question", "Parameters", "The flow", "Euler steps", "Both", "Examples"):
        assert panel in result.stdout
    for entry in ENTRIES:
        assert entry.name in result.stdout


def test_list_shows_every_entry_with_its_parameters():
    result = run("list")
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    for entry in ENTRIES:
        assert f"{entry.name} {entry.summary}" in words
        for parameter in entry.parameters:
            assert f"{parameter.name} {parameter.symbol}" in words
            assert f"{parameter.low:g} … {parameter.high:g} {parameter.description}" in words


def test_a_mistyped_command_gets_one_line():
    result = run("sovle")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: No such command 'sovle'.")
    assert result.stderr.count("\n") == 1


def test_the_command_line_can_also_be_called_from_python():
    assert app(["--version"], standalone_mode=False) == 0


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["odestop", "--version"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_module("odestop", run_name="__main__")
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"odestop {odestop.__version__}\n"


def test_a_terminal_without_mathematical_symbols_is_served(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "argv", ["odestop", "list"])
    with pytest.raises(SystemExit) as leaving:
        main()
    terminal.flush()
    assert leaving.value.code == 0
    assert b"gradient-flow" in terminal.buffer.getvalue()
