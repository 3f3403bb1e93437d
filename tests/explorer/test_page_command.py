"""``odestop explore``, and how its server finds a port."""

import builtins
import socket
import sys

import pytest
from typer.testing import CliRunner

from odestop.cli import app

pytest.importorskip("dash")


def run(*arguments):
    return CliRunner().invoke(app, ["explore", *arguments], env={"COLUMNS": "120", "NO_COLOR": "1"})


def test_help_has_examples():
    result = run("--help")
    assert result.exit_code == 0
    for words in ("--scene", "--port", "--host", "--no-browser", "odestop[explore]"):
        assert words in result.stdout


def test_an_unknown_scene_gets_one_line_with_all_names():
    result = run("--scene", "figure-7", "--no-browser")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: scene must be one of 'figure-1', 'nesterov-ripples'")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("option", "value"), [("--port", "70000"), ("--host", "not an address")])
def test_what_cannot_be_listened_at_gets_one_line(option, value):
    result = run(option, value, "--no-browser")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert value in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_dash_one_line_says_how_to_install_it(monkeypatch):
    plain_import = builtins.__import__

    def without_dash(name, *arguments, **options):
        if name.partition(".")[0] == "dash":
            raise ModuleNotFoundError("No module named 'dash'", name="dash")
        return plain_import(name, *arguments, **options)

    for name in [name for name in sys.modules if name.partition(".")[0] == "dash" or "odestop.explorer." in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_dash)
    result = run("--no-browser")
    assert result.exit_code == 2
    assert result.stderr == 'Error: dash is not installed: pip install "odestop[explore]"\n'


def test_a_port_that_is_taken_gives_the_next_one():
    from odestop.explorer.app import listener_at

    with listener_at("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listener_at("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] <= port + 20


def test_no_free_port_is_an_error_with_words(monkeypatch):
    from odestop.explorer import app as explorer_app

    monkeypatch.setattr(explorer_app, "PORTS_TRIED", 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="are all taken"):
            explorer_app.listener_at("127.0.0.1", taken.getsockname()[1])
