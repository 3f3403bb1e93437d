"""Solving cells on an executor: what a worker does with a job, and what is done about workers that die."""

from __future__ import annotations

import ctypes
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from odestop.sweeps.backends import Backend
from odestop.sweeps.store import CellStatus
from odestop.sweeps.sweep import Record


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: a record, or else a traceback; and the seconds that it took."""

    status: CellStatus
    record: Record | None
    error: str | None
    seconds: float


@dataclass(frozen=True)
class Task:
    """What a worker has to know besides the cells.

    Attributes
    ----------
    solve
        Maps a cell to a record.
    time_limit
        Seconds that a cell may take; None for any time.
    threads
        Threads that the libraries may use in a cell.
    """

    solve: Callable[[Any], Record]
    time_limit: float | None
    threads: int


class _TimeLimitReached(BaseException):
    """Raised inside a cell; not an `Exception`, so that no handler on the way takes it for its own."""


def completed(
    task: Task, jobs: Sequence[Sequence[Any]], backend: Backend
) -> Iterator[tuple[Sequence[Any], list[Outcome]]]:
    """Yield the jobs with the outcomes of their cells, as they are done.

    A job is a list of cells for one worker.  When a worker dies, the cells that were in flight are tried once more,
    each on its own, and the one that kills its worker again has failed.

    Parameters
    ----------
    task
        What to do with a cell.
    jobs
        In the order in which to start them.
    backend
        Where.
    """
    waiting = deque(jobs)
    suspects: deque[Sequence[Any]] = deque()
    while waiting or suspects:
        in_flight: dict[Future[list[Outcome]], Sequence[Any]] = {}
        queue, alone = (suspects, True) if suspects else (waiting, False)
        try:
            with backend.open() as (executor, slots):
                while queue or in_flight:
                    while queue and len(in_flight) < (1 if alone else slots):
                        in_flight[executor.submit(solve_cells, task, queue[0])] = queue[0]
                        queue.popleft()
                    for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                        outcomes = _outcomes(future, in_flight[future])
                        yield in_flight.pop(future), outcomes
        except BrokenExecutor:
            lost = list(in_flight.values())
            if alone:
                died = Outcome(CellStatus.FAILED, None, "the process that solved this cell died", 0.0)
                yield from ((job, [died]) for job in lost)
            else:
                suspects.extend([cell] for job in lost for cell in job)


def _outcomes(future: Future[list[Outcome]], job: Sequence[Any]) -> list[Outcome]:
    """Return what a worker says; where the executor could not run the job, all its cells have failed."""
    try:
        return future.result()
    except BrokenExecutor:
        raise
    except Exception:
        return [Outcome(CellStatus.FAILED, None, traceback.format_exc(), 0.0) for _ in job]


def solve_cells(task: Task, cells: Sequence[Any]) -> list[Outcome]:
    """Solve cells one after the other, each in its own time; this is what a worker runs."""
    torch_threads = torch.get_num_threads()
    with threadpool_limits(task.threads):
        torch.set_num_threads(task.threads)
        try:
            return [_solve_cell(task, cell) for cell in cells]
        finally:
            torch.set_num_threads(torch_threads)


def _solve_cell(task: Task, cell: Any) -> Outcome:
    start = time.perf_counter()
    try:
        with _limited(task.time_limit):
            record = _plain(task.solve(cell))
    except _TimeLimitReached:
        error = f"the cell took longer than {task.time_limit:g} s"
        return Outcome(CellStatus.TIMED_OUT, None, error, time.perf_counter() - start)
    except Exception:
        return Outcome(CellStatus.FAILED, None, traceback.format_exc(), time.perf_counter() - start)
    return Outcome(CellStatus.DONE, record, None, time.perf_counter() - start)


def _plain(record: Record) -> Record:
    """Turn NumPy's scalars into Python's, and refuse what is not plain."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in record.items()}
    for name, value in plain.items():
        if not (value is None or isinstance(value, bool | int | float | str)):
            raise TypeError(f"a record must hold numbers, strings, booleans and None, got {name}={value!r}")
    return plain


@contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """Raise `_TimeLimitReached` in this thread when the time is over, at its next Python instruction.

    Unlike a signal, this works in threads other than the main one, where Dask's workers run.
    """
    if seconds is None:
        yield
        return
    thread, lock, inside = threading.get_ident(), threading.Lock(), True

    def interrupt() -> None:
        with lock:
            if inside:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_TimeLimitReached))

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            inside = False
        timer.cancel()
