"""``odestop train``: a file and options in, networks and one line of result out."""

import json

import pytest
from typer.testing import CliRunner

import odestop.l2o
from odestop.cli import app

SETTINGS = """
steps = 2
batch = 2
horizon = 4
segment = 2
[network]
hidden = 3
[problems]
kind = "quadratic"
dimension = 3
"""


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)], env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture
def configuration(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(SETTINGS)
    return path


def test_a_training_leaves_a_network_and_says_where(configuration, tmp_path):
    output = tmp_path / "out"
    result = run(configuration, "--set", "network.kind=l2o-dm", "--set", "seed=4", "--output", output)
    assert result.exit_code == 0, result.stderr
    network = odestop.l2o.load(output / "best.safetensors")
    assert isinstance(network, odestop.l2o.L2ODM)
    settings = json.loads((output / "configuration.json").read_text())
    assert (settings["seed"], settings["network"]) == (4, {"hidden": 3, "kind": "l2o-dm"})
    assert "Best at training step" in result.stdout
    assert "best.safetensors" in result.stdout


def test_a_training_is_resumed_only_on_request(configuration, tmp_path):
    output = tmp_path / "out"
    assert run(configuration, "--output", output).exit_code == 0
    refused = run(configuration, "--output", output)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Error: output must be a folder without a training")
    resumed = run(configuration, "--output", output, "--resume", "--set", "steps=3")
    assert resumed.exit_code == 0
    assert (output / "history.jsonl").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "batch=0"], "batch must be an integer of at least 1, got 0"),
        (["--set", "batch"], "--set must be of the form key=value, got 'batch'"),
        (["nowhere.toml"], "the configuration must be a TOML file, got 'nowhere.toml'"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1


def test_ctrl_c_says_how_to_go_on(configuration, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(odestop.l2o, "train", interrupted)
    result = run(configuration, "--output", tmp_path / "out")
    assert result.exit_code == 130
    assert "--resume" in result.stderr
