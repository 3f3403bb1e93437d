"""What batching and many thresholds save; alone by ``python -m experiments.benchmark.together``.

Both sides of every comparison run in this process, in turn, on one thread; quoted are medians of the time over the
repetitions and the ratio of the medians, because single times on a shared machine mean little.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

import odestop
from experiments.benchmark.cases import Case, pose
from experiments.benchmark.command import DeviceOption, OutputOption, ScaleOption, prepare
from experiments.benchmark.timing import SECONDS, Unit, timed, unit_on
from odestop.sweeps import provenance

_CONDITION_NUMBER = 100.0
# Dimension and count of each comparison.
BATCHES = {"quick": ((100, 32), (1000, 32)), "full": ((100, 32), (100, 256), (1000, 32))}
LEVELS = {"quick": ((100, 8), (100, 16)), "full": ((100, 8), (100, 16), (1000, 8))}
REPETITIONS = 3
# Comparisons that take minutes run once.
LONGEST_REPEATED = 10_000


@dataclass(frozen=True)
class Side:
    """One side of a comparison: median seconds, evaluations of the dynamics and vector-Jacobian products."""

    seconds: float
    evaluations: int
    vjps: int


@dataclass(frozen=True)
class Comparison:
    """One question asked together and one by one.

    ``error`` is the largest relative difference between the stopping times of the two sides.
    """

    name: str
    dimension: int
    count: int
    together: Side
    apart: Side
    error: float

    @property
    def ratio(self) -> float:
        """How many times faster together is."""
        return self.apart.seconds / self.together.seconds


Solve = Callable[[], list[odestop.ContinuousSolution]]


def start_points(count: int, dimension: int, spread: str) -> Tensor:
    """Start points that need similar (``"alike"``) or very different (``"unlike"``) times."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    if spread == "alike":
        return 1.0 + 0.3 * noise
    scale = 10.0 ** (2.0 * torch.rand(count, 1, generator=generator, dtype=torch.float64) - 1.0)
    return scale * torch.ones(count, dimension, dtype=torch.float64)


def batch_comparison(dimension: int, count: int, spread: str, device: str = "cpu") -> Comparison:
    """A batch against its trajectories one at a time, forward and backward."""
    problem = pose(Case(dimension, _CONDITION_NUMBER, device=device))
    flow, criterion = problem.dynamics, problem.criterion
    x0 = start_points(count, dimension, spread).to(device)

    def together() -> list[odestop.ContinuousSolution]:
        return [odestop.continuous_stopping_time(flow, x0, criterion, 1e-3)]

    def apart() -> list[odestop.ContinuousSolution]:
        return [odestop.continuous_stopping_time(flow, row, criterion, 1e-3) for row in x0]

    return compare(f"batch, {spread}", dimension, count, together, apart, problem.parameters)


def level_comparison(dimension: int, count: int, device: str = "cpu") -> Comparison:
    """Several thresholds in one pass against one solve for each, forward and backward."""
    problem = pose(Case(dimension, _CONDITION_NUMBER, device=device))
    flow, criterion = problem.dynamics, problem.criterion
    x0 = torch.ones(dimension, dtype=torch.float64, device=device)
    thresholds = torch.logspace(-1, -5, count, dtype=torch.float64, device=device)

    def together() -> list[odestop.ContinuousSolution]:
        return [odestop.continuous_stopping_time(flow, x0, criterion, thresholds, levels=True)]

    def apart() -> list[odestop.ContinuousSolution]:
        return [odestop.continuous_stopping_time(flow, x0, criterion, threshold) for threshold in thresholds]

    return compare("thresholds", dimension, count, together, apart, problem.parameters)


def compare(
    name: str, dimension: int, count: int, together: Solve, apart: Solve, parameters: Sequence[Tensor]
) -> Comparison:
    """Run both sides in turn, gradients included."""
    seconds: dict[str, list[float]] = {"together": [], "apart": []}
    sides, times = {}, {}

    def with_gradients(solve: Solve) -> list[odestop.ContinuousSolution]:
        solutions = solve()
        for solution in solutions:
            torch.autograd.grad(solution.time.sum(), parameters)
        return solutions

    for _ in range(REPETITIONS if dimension * count < LONGEST_REPEATED else 1):
        for side, solve in (("together", together), ("apart", apart)):
            solutions, taken = timed(partial(with_gradients, solve), parameters[0].device.type)
            seconds[side].append(taken)
            evaluations = sum(solution.stats.nfe for solution in solutions)
            vjps = sum(solution.stats.vjps for solution in solutions)
            sides[side] = Side(statistics.median(seconds[side]), evaluations, vjps)
            times[side] = torch.cat([solution.time.detach().reshape(-1) for solution in solutions])
    error = float(((times["together"] - times["apart"]) / times["apart"]).abs().max())
    return Comparison(name, dimension, count, sides["together"], sides["apart"], error)


def run(scale: str, console: Console, device: str = "cpu") -> list[Comparison]:
    """Run every comparison of a scale on a device, with a progress bar."""
    jobs: list[tuple[Callable[..., Comparison], tuple[int, int] | tuple[int, int, str]]] = [
        *((level_comparison, case) for case in LEVELS[scale]),
        *((batch_comparison, (*case, spread)) for case in BATCHES[scale] for spread in ("alike", "unlike")),
    ]
    with Progress(console=console, transient=True) as progress:
        return [job(*arguments, device=device) for job, arguments in progress.track(jobs, description="benchmark")]


def as_table(comparisons: list[Comparison], unit: Unit = SECONDS) -> Table:
    """The comparisons for reading."""
    table = Table(title="T and ∇T, together against one at a time (float64, one thread, medians)")
    for heading in ("question", "d", "count", "evaluations", "VJPs", unit.name, "ratio", "difference in T"):
        table.add_column(heading, justify="left" if heading == "question" else "right")
    for row in comparisons:
        table.add_row(
            row.name,
            str(row.dimension),
            str(row.count),
            f"{row.together.evaluations} / {row.apart.evaluations}",
            f"{row.together.vjps} / {row.apart.vjps}",
            f"{row.together.seconds / unit.seconds:.3g} / {row.apart.seconds / unit.seconds:.3g}",
            f"{row.ratio:.1f}",
            f"{row.error:.0e}",
        )
    return table


def as_json(comparisons: list[Comparison], scale: str, device: str = "cpu") -> str:
    """The comparisons with what they were run on."""
    rows = [
        {
            "question": row.name,
            "dimension": row.dimension,
            "count": row.count,
            "together": vars(row.together),
            "apart": vars(row.apart),
            "ratio": row.ratio,
            "difference": row.error,
        }
        for row in comparisons
    ]
    return json.dumps({"rows": rows, "scale": scale, "device": device, **provenance()}, indent=2)


def report(scale: str, device: str, output: Path, console: Console) -> None:
    """Run a scale, show its table and write it to a file."""
    comparisons = run(scale, console, device)
    console.print(as_table(comparisons, unit_on(device)))
    (output / "benchmark_together.json").write_text(as_json(comparisons, scale, device), encoding="utf-8")


def main(scale: ScaleOption = "quick", device: DeviceOption = "cpu", output: OutputOption = Path("results")) -> None:
    """Measure what asking together saves, without the peers."""
    report(scale, device, output, prepare(scale, device, output))


if __name__ == "__main__":
    typer.run(main)
