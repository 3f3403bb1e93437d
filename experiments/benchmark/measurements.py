"""Every peer on every case, at several tolerances: errors, counts, memory and times; and who wins at equal accuracy.

First every way is asked at every tolerance, for its errors and counts.  Then each peer's loosest tolerance that is
accurate enough is timed, in rounds through all peers, every second round backward, on one thread, and asked once more
for its memory; ratios are formed within a round, and their median is quoted with the smallest and the largest.

Seconds are processor time on the CPU, which a busy machine lengthens less than the time on a clock; a first call, which
compilers and their helpers share in, is taken by the clock.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import pandas as pd
import torch

from experiments.benchmark.cases import LEARNED, SCHEDULE, Case, pose, reference
from experiments.benchmark.diffrax_peer import Diffrax
from experiments.benchmark.peers import Answer, Odestop, Peer, Scipy, Torchdiffeq
from experiments.benchmark.timing import timed
from experiments.peak_memory import PeakMemory
from odestop.comparison import relative_error
from odestop.sweeps import Record, Runner, Sweep

TIME_ERROR, GRADIENT_ERROR = 1e-6, 1e-5
"""The relative errors of T and ∇T at which peers are compared."""

_ALL: tuple[Peer, ...] = (
    Odestop("dopri5"),
    Odestop("tsit5"),
    Odestop("rock4"),
    Odestop("auto"),
    Odestop("tsit5", compile=True),
    Torchdiffeq(tuned=False),
    Torchdiffeq(tuned=True),
    Diffrax(tuned=False),
    Diffrax(tuned=True),
    Scipy(),
)
PEERS = {peer.name: peer for peer in _ALL}

_FLOOR_SECONDS = 0.3


def described(case: Case) -> dict[str, object]:
    """Return a case in words and its fields."""
    return {"case": case.in_words, **asdict(case)}


@dataclass(frozen=True)
class Cell:
    """A peer on a case at a tolerance.  Round 0 counts and compiles, and takes a first time; the others repeat that."""

    case: Case
    peer: str
    tolerance: float
    round: int

    @property
    def described(self) -> dict[str, object]:
        """Return the fields of the case beside the others."""
        return {**described(self.case), "peer": self.peer, "tolerance": self.tolerance, "round": self.round}


@dataclass(frozen=True)
class Grid:
    """Cases that are asked at the same tolerances and timed in the same number of rounds."""

    cases: tuple[Case, ...]
    tolerances: tuple[float, ...]
    rounds: int

    def on(self, device: str) -> Grid:
        """Return the same questions on a device."""
        return replace(self, cases=tuple(replace(case, device=device) for case in self.cases))

    def first_cells(self) -> list[Cell]:
        """Return every way that is tried."""
        return [
            Cell(case, name, tolerance, 0)
            for case in self.cases
            for tolerance in self.tolerances
            for name, peer in PEERS.items()
            if peer.accepts(case)
        ]

    def repeated_cells(self, first: list[Cell]) -> list[Cell]:
        """Return the cells of all further rounds, of those first ones whose case is of this grid."""
        chosen = [cell for cell in first if cell.case in self.cases]
        rounds = [(number, chosen if number % 2 == 0 else chosen[::-1]) for number in range(1, self.rounds + 1)]
        return [replace(cell, round=number) for number, ordered in rounds for cell in ordered]


_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
SCALES = {
    "tiny": (Grid((Case(2, 10.0, parameters=SCHEDULE),), (1e-8,), 1),),
    "quick": (
        Grid(
            (
                Case(2, 1e2),
                Case(100, 1e2),
                Case(100, 1e2, parameters=SCHEDULE),
                Case(100, 1e2, batch=8),
                Case(100, 1e3),
                Case(1000, 1e2),
            ),
            _TOLERANCES,
            5,
        ),
    ),
    "full": (
        Grid(
            (
                *(
                    Case(dimension, 1e2, parameters=many)
                    for dimension in (2, 100, 1000)
                    for many in (LEARNED, SCHEDULE)
                ),
                Case(100, 1e3),
                Case(100, 1e2, batch=32),
            ),
            _TOLERANCES,
            5,
        ),
        # Where answers take long: the tolerances that are the loosest accurate ones of smaller cases.
        Grid((Case(100, 1e4), Case(100, 1e2, batch=256)), (1e-3, 1e-4, 1e-5), 2),
        Grid((Case(100, 1e5), Case(10_000, 1e2)), (1e-4, 1e-5), 1),
    ),
}


def run(scale: str, runner: Runner, device: str = "cpu") -> dict[str, pd.DataFrame]:
    """Run a scale.

    Parameters
    ----------
    scale
        ``"quick"``, ``"full"``, or ``"tiny"`` for a test of the machinery.
    runner
        Runs the cells.
    device
        ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    dict
        ``benchmark``: one row per case, peer and tolerance, with the relative errors of T and ∇T, evaluations,
        pull-backs, ``first_seconds`` (the first call), ``answer_seconds`` (median, T and ∇T), ``peak_bytes`` of
        PyTorch's tensors at the loosest accurate tolerance, and ``floor_seconds``, what the evaluations and pull-backs
        take by themselves; nan where unknown.
        ``benchmark_ratios``: per case, every peer at its loosest tolerance that is accurate enough, with its time as a
        multiple of the fastest way of this package (median, smallest and largest over the rounds).
    """
    grids = [grid.on(device) for grid in SCALES[scale]]
    first = [cell for grid in grids for cell in grid.first_cells()]
    rows = runner.run(_sweep("benchmark", first, measure))
    chosen = set(loosest(rows)[KEYS].itertuples(index=False, name=None))
    again = [cell for cell in first if (cell.case.in_words, cell.peer, cell.tolerance) in chosen]
    repeated = [cell for grid in grids for cell in grid.repeated_cells(again)]
    rounds = runner.run(_sweep("rounds of the benchmark", repeated, measure))
    seen = [cell for cell in again if _is_seen_allocating(PEERS[cell.peer])]
    memory = runner.run(_sweep("memory of the benchmark", seen, peak_memory))
    cases = [case for grid in grids for case in grid.cases]
    costs = runner.run(Sweep("floor of the benchmark", cases, bare_costs, describe=described, alone=True))
    rows = pd.concat([rows, rounds])
    table = with_floor(summarize(rows).merge(memory[[*KEYS, "peak_bytes"]], on=KEYS, how="left"), costs)
    return {"benchmark": table, "benchmark_ratios": ratios(rows, table)}


def _sweep(name: str, cells: list[Cell], solve: Callable[[Cell], Record]) -> Sweep:
    return Sweep(name, cells, solve, cost=lambda cell: cell.case.cost, describe=lambda cell: cell.described, alone=True)


def measure(cell: Cell) -> Record:
    """Ask a peer, and take the time."""
    exact_time, exact_gradient = reference(cell.case)
    peer, first_seconds = PEERS[cell.peer], math.nan

    def ask() -> Answer:
        return peer.answer(cell.case, cell.tolerance)

    if cell.round == 0:
        start = time.perf_counter()
        answer, seconds = timed(ask, cell.case.device)
        first_seconds = time.perf_counter() - start
    if cell.round > 0 or not cell.case.is_large:
        answer, seconds = timed(ask, cell.case.device)
    return {
        "first_seconds": first_seconds,
        "answer_seconds": seconds,
        "time_error": relative_error(answer.time, exact_time),
        "gradient_error": relative_error(answer.gradient, exact_gradient),
        "evaluations": answer.evaluations,
        "pullbacks": answer.pullbacks,
    }


def peak_memory(cell: Cell) -> Record:
    """Return the most bytes that an answer's tensors take at one time."""
    with PeakMemory() as memory:
        PEERS[cell.peer].answer(cell.case, cell.tolerance)
    return {"peak_bytes": memory.peak_bytes}


def _is_seen_allocating(peer: Peer) -> bool:
    """Whether the peer is eager PyTorch: `PeakMemory` sees no other, and nothing is compiled while it looks."""
    return not isinstance(peer, Diffrax | Scipy) and not (isinstance(peer, Odestop) and peer.compile)


def bare_costs(case: Case) -> Record:
    """Return the seconds of one evaluation of the dynamics, and of one with its pull-back, for the whole batch."""
    problem = pose(case)
    x = problem.x0.clone().requires_grad_()
    t = torch.zeros_like(problem.x0[:, :1])
    # An objective remembers its gradient at the last point.
    points = itertools.cycle([problem.x0.clone(), problem.x0.clone()])

    def evaluate() -> None:
        with torch.no_grad():
            problem.dynamics(t, next(points))

    def pull_back() -> None:
        torch.autograd.grad(problem.dynamics(t, x), (x, *problem.parameters), torch.ones_like(x))

    seconds = {"evaluation_seconds": evaluate, "pullback_seconds": pull_back}
    return {name: _median_seconds(call, case.device) for name, call in seconds.items()}


def _median_seconds(call: Callable[[], None], device: str) -> float:
    seconds: list[float] = []
    while sum(seconds) < _FLOOR_SECONDS or len(seconds) < 5:
        seconds.append(timed(call, device)[1])
    return statistics.median(seconds)


KEYS = ["case", "peer", "tolerance"]


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per case, peer and tolerance, with the median time over the rounds."""
    counted = rows[rows["round"] == 0].drop(columns=["round", "seconds", "answer_seconds"])
    seconds = rows.groupby(KEYS, sort=False)["answer_seconds"].median()
    return counted.join(seconds, on=KEYS).reset_index(drop=True)


def with_floor(table: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
    """Add what the evaluations and pull-backs of a row take by themselves."""
    merged = table.merge(floors[["case", "evaluation_seconds", "pullback_seconds"]], on="case", how="left")
    floor = merged["evaluations"] * merged["evaluation_seconds"] + merged["pullbacks"] * merged["pullback_seconds"]
    # The peers that are not written in PyTorch have evaluations of their own.
    ours = merged["peer"].str.startswith("odestop")
    return table.assign(floor_seconds=floor.where(ours))


def loosest(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each peer's loosest tolerance on every case that is accurate enough."""
    accurate = table[(table["time_error"] <= TIME_ERROR) & (table["gradient_error"] <= GRADIENT_ERROR)]
    return accurate.sort_values("tolerance", ascending=False).drop_duplicates(["case", "peer"])


def ratios(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return each peer's loosest accurate way on every case, as a multiple of the fastest of this package."""
    best = loosest(table).sort_values("answer_seconds")
    ours = best[best["peer"].str.startswith("odestop")].drop_duplicates("case")
    seconds = rows.loc[rows["round"] > 0, [*KEYS, "round", "answer_seconds"]]
    yardstick = ours[KEYS].merge(seconds, on=KEYS).drop(columns="tolerance")
    both = best[KEYS].merge(seconds, on=KEYS).merge(yardstick, on=["case", "round"], suffixes=("", "_against"))
    both["ratio"] = both["answer_seconds"] / both["answer_seconds_against"]
    grouped = both.groupby([*KEYS, "peer_against"], sort=False)["ratio"]
    spread = grouped.agg(ratio="median", ratio_low="min", ratio_high="max").reset_index()
    order = {case: number for number, case in enumerate(dict.fromkeys(table["case"]))}
    return table.merge(spread, on=KEYS).sort_values(
        ["case", "ratio"], key=lambda column: column.map(order) if column.name == "case" else column, ignore_index=True
    )
