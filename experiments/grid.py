"""Running a grid: one pure function per cell, one row per cell, a progress report in units of expected cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import torch

from odestop.sweeps import Runner, Sweep

Cell = TypeVar("Cell")
Record = dict[str, Any]


class Tracker(Protocol):
    """Hands the cells on one by one, and shows how far they are; ``costs`` are in any common unit."""

    def __call__(self, name: str, cells: Sequence[Cell], costs: Sequence[float]) -> Iterable[Cell]:
        """Iterate over ``cells``."""
        ...


def untracked(name: str, cells: Sequence[Cell], costs: Sequence[float]) -> Iterable[Cell]:
    """Iterate over the cells without a report."""
    return cells


def run_cells(
    name: str,
    cells: Sequence[Any],
    solve: Callable[[Any], Record],
    track: Tracker = untracked,
    cost: Callable[[Any], float] = lambda cell: 1.0,
) -> pd.DataFrame:
    """Solve every cell, in order, on one thread.

    One thread makes the last digits of the results independent of the number of cores, and is no slower here:
    most operations are too small to be shared.

    Parameters
    ----------
    name
        Name of the grid, for the progress report.
    cells
        Dataclass instances whose fields are plain numbers and strings.
    solve
        Maps a cell to a record of plain numbers and strings.
    track
        Reports progress.
    cost
        Expected cost of a cell, in any unit.

    Returns
    -------
    pandas.DataFrame
        One row per cell: the cell's fields, the record, and the seconds that it took.
    """
    if isinstance(track, Runner):
        return track.run(Sweep(name, cells, solve, cost=cost))
    with _one_thread():
        rows = [_timed(solve, cell) for cell in track(name, cells, [cost(cell) for cell in cells])]
    return pd.DataFrame(rows)


def _timed(solve: Callable[[Any], Record], cell: Any) -> Record:
    start = time.perf_counter()
    record = solve(cell)
    return {**asdict(cell), **record, "seconds": time.perf_counter() - start}


def geometric(first: float, last: float, count: int) -> tuple[float, ...]:
    """Return ``count`` numbers in geometric progression, to four digits.

    Examples
    --------
    >>> geometric(0.1, 1.6, 5)
    (0.1, 0.2, 0.4, 0.8, 1.6)
    """
    return tuple(float(f"{value:.4g}") for value in np.geomspace(first, last, count))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
