"""Running a sweep: look up what the store knows, solve the rest, write each cell down as it is done."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from rich.console import Console

from odestop._validation import check_count, check_positive
from odestop.sweeps.backends import Backend, InProcess
from odestop.sweeps.jobs import Outcome, Task, completed
from odestop.sweeps.progress import progress_bar
from odestop.sweeps.provenance import provenance
from odestop.sweeps.store import CellStatus, Row, Store
from odestop.sweeps.sweep import Sweep


class FailedCellsWarning(UserWarning):
    """Some cells of a sweep failed or took too long; the others are in the table."""


@dataclass(frozen=True)
class Runner:
    """How sweeps are run.

    Parameters
    ----------
    store
        Remembers every cell.  A sweep that was interrupted goes on where it stopped, and one that has not changed is
        not run again.  In memory by default.
    backend
        Where cells run: `InProcess`, `ProcessPool`, `DaskCluster` or `ExistingExecutor`.
    time_limit
        Seconds that a cell may take, or None.  It is enforced between Python instructions: a single call into
        compiled code is not interrupted.
    retry
        Whether cells that the store knows as failed or timed out are tried again.
    threads
        Threads that PyTorch and the libraries for linear algebra may use in a cell.  One makes the last digits of the
        records independent of the machine, and leaves the other processors to other cells.
    console
        Where progress is shown; None shows nothing.

    Raises
    ------
    ValueError
        If the time limit or the number of threads is not positive.
    """

    store: Store = field(default_factory=Store)
    backend: Backend = field(default_factory=InProcess)
    time_limit: float | int | None = None
    retry: bool = False
    threads: int = 1
    console: Console | None = None

    def __post_init__(self) -> None:
        check_count("threads", self.threads)
        if self.time_limit is not None:
            check_positive("time_limit", self.time_limit)

    def run(self, sweep: Sweep) -> pd.DataFrame:
        """Solve the cells that the store does not know.

        A `KeyboardInterrupt` loses the cells in flight and nothing else.

        Parameters
        ----------
        sweep
            What to run.

        Returns
        -------
        pandas.DataFrame
            One row per cell that is done, in the order of the cells: its parameters, its record, and its ``seconds``.

        Warns
        -----
        FailedCellsWarning
            If cells failed or took too long; the first error is in the message, and all are in the store.
        """
        keys = {cell: sweep.key(cell) for cell in sweep.cells}
        known = self.store.known(list(keys.values()))
        missing = [cell for cell, key in keys.items() if self._is_missing(known.get(key))]
        if missing:
            self._solve(sweep, missing, keys, known)
        rows = [known[keys[cell]] for cell in sweep.cells]
        _warn_of_failures(sweep, rows)
        table = pd.DataFrame(
            {**sweep.describe(cell), **row.record, "seconds": row.seconds}
            for cell, row in zip(sweep.cells, rows, strict=True)
            if row.record is not None
        )
        table.attrs["provenance"] = self.store.provenance(sweep.name, sweep.fingerprint)
        return table

    def _is_missing(self, row: Row | None) -> bool:
        return row is None or (self.retry and row.status is not CellStatus.DONE)

    def _solve(self, sweep: Sweep, cells: Sequence[Any], keys: dict[Any, str], known: dict[str, Row]) -> None:
        """Solve cells and add their rows to the store and to ``known``."""
        run = self.store.begin_run(provenance(self.threads))
        task = Task(sweep.solve, self.time_limit, self.threads)
        jobs = _jobs(sweep, cells)
        backend = InProcess() if sweep.alone else self.backend
        cost = sum(map(sweep.cost, cells))
        with progress_bar(self.console, sweep.name, len(cells), cost) as advance:
            for job, outcomes in completed(task, jobs, backend):
                rows = [_row(sweep, keys[cell], cell, outcome) for cell, outcome in zip(job, outcomes, strict=True)]
                self.store.add(run, rows)
                known.update((row.key, row) for row in rows)
                advance(len(job), sum(map(sweep.cost, job)))


def _jobs(sweep: Sweep, cells: Sequence[Any]) -> list[list[Any]]:
    """Gather the cells of a group into one job, and put expensive jobs first: they would be late at the end."""
    groups: dict[Any, list[Any]] = {}
    for cell in cells:
        groups.setdefault(sweep.group(cell), []).append(cell)
    return sorted(groups.values(), key=lambda job: -sum(map(sweep.cost, job)))


def _row(sweep: Sweep, key: str, cell: Any, outcome: Outcome) -> Row:
    return Row(
        key,
        sweep.name,
        sweep.fingerprint,
        sweep.describe(cell),
        outcome.status,
        outcome.record,
        outcome.error,
        outcome.seconds,
    )


def _warn_of_failures(sweep: Sweep, rows: Sequence[Row]) -> None:
    failures = [row for row in rows if row.record is None]
    if failures:
        first = failures[0]
        reason = (first.error or "").strip().splitlines()[-1]
        parameters = ", ".join(f"{name}={value!r}" for name, value in first.parameters.items())
        warnings.warn(
            f"{len(failures)} of {len(rows)} cells of {sweep.name} have no record; {parameters}: {reason}",
            FailedCellsWarning,
            stacklevel=3,
        )
