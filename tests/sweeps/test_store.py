"""The store: what it refuses, and that kills and competitors do it no harm."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from odestop.sweeps import CellStatus, Row, Runner, Store, Sweep
from tests.sweeps.cells import Square, area, slow_area

CELLS = [Square(float(side), seed) for side in range(12) for seed in range(12)]


def in_child(work: Callable[[], None]) -> int:
    """Do something in a child process and return its number."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def sweep_into(path: Path) -> None:
    with Store(path) as store:
        Runner(store).run(Sweep("squares", CELLS, slow_area))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_sweep_killed_ten_times_gives_the_table_of_an_undisturbed_one(tmp_path: Path) -> None:
    path, generator, done = tmp_path / "s.sqlite", random.Random(1), [0]
    with Store(path) as store:
        for _ in range(10):
            child = in_child(lambda: sweep_into(path))
            while len(store.rows("squares")) == done[-1]:
                time.sleep(0.001)
            time.sleep(generator.uniform(0.0, 0.02))
            os.kill(child, signal.SIGKILL)
            assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
            done.append(len(store.rows("squares")))
    assert done == sorted(done)
    assert done[-1] < len(CELLS), "the kills must come in the middle"
    with Store(path) as store:
        resumed = Runner(store).run(Sweep("squares", CELLS, slow_area))
        assert len(store.rows("squares")) == len(CELLS)
    undisturbed = Runner().run(Sweep("squares", CELLS, slow_area))
    assert resumed.drop(columns="seconds").equals(undisturbed.drop(columns="seconds"))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_two_processes_may_write_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    children = [in_child(lambda: sweep_into(path)) for _ in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    with Store(path) as store:
        assert len(store.rows("squares")) == len(CELLS)
        assert len(Runner(store).run(Sweep("squares", CELLS, slow_area))) == len(CELLS)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_rows_say_where_they_come_from(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        table = Runner(store).run(Sweep("squares", [Square(2.0, seed=7)], area))
        (provenance,) = table.attrs["provenance"]
        (listed,) = store.sweeps().to_dict("records")
    assert provenance["versions"]["torch"]
    assert {"date", "git_commit", "git_uncommitted_changes", "machine"} <= set(provenance)
    assert provenance["machine"]["threads_used"] == 1
    assert (listed["sweep"], listed["done"], listed["failed"], listed["timed out"]) == ("squares", 1, 0, 0)
    assert listed["date"] == provenance["date"]
    connection = sqlite3.connect(tmp_path / "s.sqlite")
    assert connection.execute("SELECT seed, json_extract(record, '$.area') FROM cells").fetchall() == [(7, 4.0)]
    connection.close()


def test_a_row_takes_the_place_of_the_one_with_its_key() -> None:
    row = Row("key", "sweep", "code", {"seed": 1}, CellStatus.FAILED, None, "why", 0.5)
    better = Row("key", "sweep", "code", {"seed": 1}, CellStatus.DONE, {"x": 1.5}, None, 0.25)
    with Store() as store:
        run = store.begin_run({"date": "today"})
        store.add(run, [row])
        assert store.known(["key", "other"]) == {"key": row}
        store.add(run, [better])
        assert store.rows("sweep") == [better]
        assert store.rows("another") == []


def test_rows_are_written_all_or_none() -> None:
    good = Row("a", "sweep", "code", {}, CellStatus.DONE, {}, None, 0.0)
    bad = Row("b", "sweep", "code", {"x": object()}, CellStatus.DONE, {}, None, 0.0)
    with Store() as store:
        run = store.begin_run({})
        with pytest.raises(TypeError):
            store.add(run, [good, bad])
        assert store.rows("sweep") == []


def test_many_keys_are_looked_up() -> None:
    rows = [Row(str(k), "sweep", "code", {"k": k}, CellStatus.DONE, {}, None, 0.0) for k in range(1201)]
    with Store() as store:
        store.add(store.begin_run({}), rows)
        assert store.known([row.key for row in rows]) == {row.key: row for row in rows}


def test_other_files_are_refused(tmp_path: Path) -> None:
    text, foreign, newer = tmp_path / "notes.txt", tmp_path / "foreign.sqlite", tmp_path / "newer.sqlite"
    text.write_text("not a database, but long enough to be taken for one by its first bytes " * 30)
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE cells (x)")
    connection.close()
    Store(newer).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for path, reason in ((text, "file is not a database"), (foreign, "another SQLite file"), (newer, "got schema 99")):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=reason) as caught:
            Store(path)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == before
