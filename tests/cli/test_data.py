"""``odestop data``: what it lists and fetches, and one line for what fails."""

import hashlib

import pytest
from typer.testing import CliRunner

from odestop.cli import app
from odestop.data import CATALOGUE, LibsvmFile


def run(*arguments):
    return CliRunner().invoke(app, ["data", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1", "ODESTOP_DATA": ""})


def test_the_list_has_every_file():
    result = run("list")
    assert result.exit_code == 0
    for name, entry in CATALOGUE.items():
        line = next(line for line in result.stdout.splitlines() if f" {name} " in line)
        assert f" {entry.rows} " in line
        assert ("by name" if entry.sha256 else "from a folder only") in line


def test_fetch_prints_where_the_checked_files_are(tmp_path, monkeypatch):
    text = b"+1 1:1\n"
    entry = LibsvmFile("a1a", 1, 1, hashlib.sha256(text).hexdigest(), "somebody", "none")
    monkeypatch.setitem(CATALOGUE, "a1a", entry)
    (tmp_path / "a1a").write_bytes(text)
    (tmp_path / "w3a").write_bytes(text)
    result = run("fetch", "a1a", "w3a", "--data-dir", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"a1a: {tmp_path / 'a1a'}", f"w3a: {tmp_path / 'w3a'}"]
    (tmp_path / "a1a").write_bytes(b"-1 1:1\n")
    result = run("fetch", "a1a", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "is not the file a1a" in result.stderr


@pytest.mark.parametrize(("name", "message"), [("a10a", "got 'a10a'"), ("w3a", "checksum is not known")])
def test_what_cannot_be_fetched_is_one_line(name, message):
    result = run("fetch", name)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
