"""The memory of sweeps: one SQLite file, one row per cell, safe against kills and against a second process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd

# "odst" in ASCII: tells a results store from any other SQLite file.
_APPLICATION = 0x6F647374
_SCHEMA = 1
_TABLES = """
CREATE TABLE runs (
    run        INTEGER PRIMARY KEY,
    provenance TEXT NOT NULL           -- JSON: date, versions, commit, machine
);
CREATE TABLE cells (
    key         TEXT PRIMARY KEY,      -- SHA-256 of the sweep's name and code, and of the parameters
    sweep       TEXT NOT NULL,
    fingerprint TEXT NOT NULL,         -- SHA-256 of the code
    parameters  TEXT NOT NULL,         -- JSON
    seed        INTEGER,               -- the parameter of this name
    status      TEXT NOT NULL,         -- done, failed or timed out
    record      TEXT,                  -- JSON, NULL unless done
    error       TEXT,                  -- NULL if done
    seconds     REAL NOT NULL,
    run         INTEGER NOT NULL REFERENCES runs (run)
);
CREATE INDEX cells_by_sweep ON cells (sweep);
"""
# Seconds to wait for another process that is writing; a write takes milliseconds.
_PATIENCE = 60.0


class CellStatus(StrEnum):
    """What became of a cell."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Row:
    """One cell in the store.

    Attributes
    ----------
    key
        See `odestop.sweeps.Sweep.key`.
    sweep, fingerprint
        Name of the sweep, and the hash of its code.
    parameters
        The cell's fields.
    status
        What became of it.
    record
        What ``solve`` returned; None unless done.
    error
        The traceback, or what else went wrong; None if done.
    seconds
        Wall time of the cell.
    """

    key: str
    sweep: str
    fingerprint: str
    parameters: dict[str, Any]
    status: CellStatus
    record: dict[str, Any] | None
    error: str | None
    seconds: float


class Store:
    """Rows of cells, by key; a context manager that closes the file.

    A row is written in one transaction, so that a kill at any time leaves a whole store.  Several processes may read
    and write one store at the same time, on a file system of this machine (SQLite's write-ahead log does not work
    across a network).

    Parameters
    ----------
    path
        The file; it and its folders are made.  None keeps the rows in memory.

    Raises
    ------
    ValueError
        If the file is not a store, or one of another version of odestop.

    Examples
    --------
    >>> from odestop.sweeps import Store
    >>> with Store() as store:
    ...     store.sweeps().empty
    True
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self.path or ":memory:", timeout=_PATIENCE, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def begin_run(self, provenance: dict[str, Any]) -> int:
        """Note who makes the rows that follow, and return the number of the run."""
        with self._transaction() as execute:
            run = execute("INSERT INTO runs (provenance) VALUES (?)", (json.dumps(provenance),)).lastrowid
        assert run is not None
        return run

    def add(self, run: int, rows: Iterable[Row]) -> None:
        """Write rows in one transaction; each takes the place of an earlier one with its key."""
        with self._transaction() as execute:
            for row in rows:
                execute(
                    "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        row.key,
                        row.sweep,
                        row.fingerprint,
                        json.dumps(row.parameters),
                        row.parameters.get("seed"),
                        row.status.value,
                        None if row.record is None else json.dumps(row.record),
                        row.error,
                        row.seconds,
                        run,
                    ),
                )

    def known(self, keys: Sequence[str]) -> dict[str, Row]:
        """Return the rows there are of these keys."""
        found = {}
        # SQLite limits the number of parameters of a statement.
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            found.update({row.key: row for row in self._rows(f"key IN ({marks})", part)})
        return found

    def rows(self, sweep: str) -> list[Row]:
        """Return all rows of a sweep, of whatever code, in the order they were written."""
        return self._rows("sweep = ? ORDER BY rowid", (sweep,))

    def sweeps(self) -> pd.DataFrame:
        """Return one row per sweep and code: cells by status, seconds, date and commit of the last run."""
        counts = ", ".join(f"SUM(status = '{status}') AS \"{status}\"" for status in CellStatus)
        query = f"""
            SELECT sweep, substr(fingerprint, 1, 8) AS code, {counts}, SUM(seconds) AS seconds,
                   json_extract(provenance, '$.date') AS date, json_extract(provenance, '$.git_commit') AS git_commit
            FROM cells JOIN runs USING (run) GROUP BY sweep, fingerprint ORDER BY MAX(run), sweep
        """
        return pd.read_sql_query(query, self._connection)

    def provenance(self, sweep: str, fingerprint: str) -> list[dict[str, Any]]:
        """Return date, versions, commit and machine of every run that wrote rows of a sweep with this code."""
        query = """
            SELECT provenance FROM runs
            WHERE run IN (SELECT run FROM cells WHERE sweep = ? AND fingerprint = ?) ORDER BY run
        """
        return [json.loads(text) for (text,) in self._connection.execute(query, (sweep, fingerprint))]

    def _rows(self, condition: str, values: Sequence[str]) -> list[Row]:
        columns = "key, sweep, fingerprint, parameters, status, record, error, seconds"
        return [
            Row(
                key,
                sweep,
                fingerprint,
                json.loads(parameters),
                CellStatus(status),
                None if record is None else json.loads(record),
                error,
                seconds,
            )
            for key, sweep, fingerprint, parameters, status, record, error, seconds in self._connection.execute(
                f"SELECT {columns} FROM cells WHERE {condition}", values
            )
        ]

    def _prepare(self) -> None:
        """Make the tables, or see that they are ours."""
        try:
            with self._transaction() as execute:
                application = execute("PRAGMA application_id").fetchone()[0]
                schema = execute("PRAGMA user_version").fetchone()[0]
                is_empty = not execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
                if is_empty:
                    for statement in _TABLES.split(";"):
                        execute(statement)
                    execute(f"PRAGMA application_id = {_APPLICATION}")
                    execute(f"PRAGMA user_version = {_SCHEMA}")
                elif application != _APPLICATION:
                    raise ValueError(f"store must be a results store of odestop, got another SQLite file: {self.path}")
                elif schema != _SCHEMA:
                    raise ValueError(
                        f"store must have schema {_SCHEMA}, which this version of odestop reads and writes, got schema "
                        f"{schema}: {self.path}; export its results with the version that made it, or use another file"
                    )
            self._connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"store must be a results store of odestop, got {self.path}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Yield a function that executes statements; all of them count, or none."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection.execute
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
