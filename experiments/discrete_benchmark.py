"""What Algorithm 1 costs in time and memory: ``python -m experiments.discrete_benchmark``.

Gradient descent on a `HouseholderQuadratic` of condition number 100, stopped by ‖∇f‖² after N steps; wanted are the
gradients of N (Definition 3) for the rate and for x0, in float64 on one thread.  Against Algorithm 1 stand autograd
through the same loop with its test of J after every step, and `torch.utils.checkpoint` on segments of √N steps of it.
Every case runs in a process of its own, first with a few steps: its memory is the peak of the resident set in the next
run over what that left behind, and its time the processor time, the median of up to three runs.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from figures import discrete_benchmark as figure
from odestop.criteria import SquaredGradientNorm
from odestop.discrete import MemoryBudget, discrete_stopping_time
from odestop.discrete.step_maps import GradientDescent
from odestop.objectives import HouseholderQuadratic
from odestop.plotting.style import save
from odestop.sweeps import provenance

CHECKOUT = Path(__file__).resolve().parent.parent

DIMENSIONS = {"quick": (100, 10_000), "full": (100, 1000, 10_000)}
STEPS = {"quick": (100, 1000), "full": (100, 1000, 10_000)}
RATE = 0.1
BUDGET_STATES = 32
WARM_UP_STEPS = 8

ALGORITHM_1: dict[str, dict[str, Any]] = {
    "all": {},
    "all, by autograd": {},
    "sqrt": {"checkpoints": "sqrt"},
    "budget": {},
    "compiled": {"compile": True},
}
BASELINES = ("unrolled", "torch checkpoint")
METHODS = (*ALGORITHM_1, *BASELINES)

UNROLLED_VECTORS = 4
"""Vectors of length d that autograd saves in one step of the unrolled loop."""
MEMORY_LIMIT = 8 * 2**30


@dataclass(frozen=True)
class Case:
    """One gradient of N."""

    method: str
    dimension: int
    steps: int

    @property
    def fits(self) -> bool:
        """Whether it should run in the memory that a benchmark may take."""
        saved = 8 * UNROLLED_VECTORS * self.dimension * self.steps
        return self.method != "unrolled" or saved <= MEMORY_LIMIT


class Problem:
    """The question, with closed forms for its answer."""

    def __init__(self, dimension: int) -> None:
        objective = HouseholderQuadratic.with_condition_number(dimension, 100.0, seed=0, dtype=torch.float64)
        self.spectrum = objective.eigenvalues
        self.rate = torch.tensor(RATE, dtype=torch.float64, requires_grad=True)
        self.step = GradientDescent(objective, self.rate)
        self.criterion = SquaredGradientNorm(objective)
        self.x0 = objective.from_eigenbasis(torch.ones(dimension, dtype=torch.float64)).requires_grad_()

    def value(self, steps: float) -> float:
        """J after ``steps`` steps, which may be fractional."""
        return float((self.spectrum**2 * (1 - RATE * self.spectrum) ** (2 * steps)).sum())

    def rate_gradient(self, steps: int) -> float:
        """∂N/∂rate by Definition 3."""
        decay = (1 - RATE * self.spectrum) ** (2 * steps - 1)
        slope = float((-2 * steps * self.spectrum**3 * decay).sum())
        return -slope / (self.value(steps) - self.value(steps - 1))

    def stopping_steps(self, method: str, steps: int) -> tuple[Tensor, Any]:
        """Return N by Algorithm 1, and what it cost."""
        options = dict(ALGORITHM_1[method])
        if method == "budget":
            options["checkpoints"] = MemoryBudget(BUDGET_STATES * self.x0.numel() * self.x0.element_size())
        gradient_descent = self.step
        # Behind a function its analytic vector-Jacobian product is out of sight.
        step = (lambda k, x: gradient_descent(k, x)) if method == "all, by autograd" else gradient_descent
        threshold = self.value(steps - 0.5)
        solution = discrete_stopping_time(step, self.x0, self.criterion, threshold, max_steps=2 * steps, **options)
        return solution.steps, solution.stats

    def unrolled(self, steps: int, segment: int | None = None) -> Tensor:
        """Return a number with the gradient of N: through the graph of the loop, or of one segment at a time."""
        threshold, forward = self.value(steps - 0.5), True

        def run(x: Tensor, start: int, stop: int) -> Tensor:
            for k in range(start, stop):
                x = self.step(k, x)
                with torch.no_grad():
                    # The backward pass of a checkpoint need not test again.
                    assert not forward or self.criterion(x.detach()) > threshold
            return x

        x = self.x0
        for start in range(0, steps - 1, segment or steps):
            stop = min(start + (segment or steps), steps - 1)
            x = checkpoint(run, x, start, stop, use_reentrant=False) if segment else run(x, start, stop)
        forward = False
        with torch.no_grad():
            previous = self.criterion(x)
        final = self.criterion(self.step(steps - 1, x))
        return -final / (final.detach() - previous)


def answer(case: Case) -> dict[str, Any]:
    """Gradients of N for one case, checked against the closed form, and the stored bytes that were counted."""
    problem, stats = Problem(case.dimension), None
    if case.method in ALGORITHM_1:
        steps, stats = problem.stopping_steps(case.method, case.steps)
        assert steps.item() == case.steps, steps
    else:
        segment = math.isqrt(case.steps - 1) + 1 if case.method == "torch checkpoint" else None
        steps = problem.unrolled(case.steps, segment)
    found, _ = torch.autograd.grad(steps, [problem.rate, problem.x0])
    return {
        "relative_error": abs(found.item() / problem.rate_gradient(case.steps) - 1),
        "stored_bytes": stats.peak_bytes if stats else math.nan,
        "recomputed_steps": stats.recomputed_steps if stats else math.nan,
    }


def measure(case: Case) -> dict[str, Any]:
    """Seconds of processor time, growth of the resident set, and the answer, all in this process."""
    torch.set_num_threads(1)
    start = time.process_time()
    answer(Case(case.method, case.dimension, WARM_UP_STEPS))
    warm_up = time.process_time() - start
    before = reset_peak()
    seconds: list[float] = []
    record: dict[str, Any] = {}
    memory = math.nan
    while len(seconds) < 3 and sum(seconds) < 2.0:
        start = time.process_time()
        record = answer(case)
        seconds.append(time.process_time() - start)
        if len(seconds) == 1:
            # A second run could meet what the garbage collector has not yet taken of the first.
            memory = resident_set("VmHWM") - before
    return {
        **asdict(case),
        "seconds": statistics.median(seconds),
        "memory_bytes": memory,
        "warm_up_seconds": warm_up,
        **record,
    }


def resident_set(entry: str) -> float:
    """Bytes resident now (``"VmRSS"``) or at the peak (``"VmHWM"``); nan where there is no /proc.

    getrusage will not do: its peak is inherited from the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return math.nan
    line = next(line for line in status.splitlines() if line.startswith(entry))
    return 1024.0 * int(line.split()[1])


def reset_peak() -> float:
    """Let the peak of the resident set begin again from what is resident now, which is returned."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return math.nan
    return resident_set("VmRSS")


def measure_apart(case: Case) -> dict[str, Any]:
    """Measure a case in a process of its own; empty numbers if it is too large."""
    if not case.fits:
        return {**asdict(case), "seconds": math.nan, "memory_bytes": math.nan}
    code = (
        "import json, sys; from experiments.discrete_benchmark import Case, measure; "
        "print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))"
    )
    command = [sys.executable, "-c", code, json.dumps(asdict(case))]
    output = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def run(scale: str, console: Console, measured: Callable[[Case], dict[str, Any]] = measure_apart) -> pd.DataFrame:
    """Measure every case of a scale, with a progress bar."""
    cases = [
        Case(method, dimension, steps)
        for dimension, steps, method in itertools.product(DIMENSIONS[scale], STEPS[scale], METHODS)
    ]
    with Progress(console=console, transient=True) as progress:
        return pd.DataFrame([measured(case) for case in progress.track(cases, description="discrete benchmark")])


def as_table(frame: pd.DataFrame) -> Table:
    """Seconds and megabytes for reading: a row per d and N, a column per method."""
    table = Table(title="processor seconds / MB of one gradient of N (float64, one thread, median)")
    for heading in ("d", "N", *METHODS):
        table.add_column(heading, justify="right")
    for (dimension, steps), rows in frame.groupby(["dimension", "steps"]):
        by_method = rows.set_index("method").to_dict("index")
        cells = [cell(by_method[method]) for method in METHODS]
        table.add_row(str(dimension), str(steps), *cells)
    return table


def cell(row: dict[Any, Any]) -> str:
    """Seconds and megabytes of one case."""
    if math.isnan(row["seconds"]):
        return "left out"
    megabytes = "" if math.isnan(row["memory_bytes"]) else f" / {row['memory_bytes'] / 2**20:.0f}"
    return f"{row['seconds']:.3g}{megabytes}"


def main(
    scale: Annotated[str, typer.Option(help="quick (about two minutes) or full.")] = "quick",
    output: Annotated[Path, typer.Option(help="Folder for discrete_benchmark.csv, .json, .pdf and .png.")] = Path(
        "results"
    ),
) -> None:
    """Measure Algorithm 1 against autograd through the loop."""
    console = Console(width=150)
    frame = run(scale, console)
    console.print(as_table(frame))
    console.print(f"largest relative error of ∂N/∂rate: {frame['relative_error'].max():.1e}")
    output.mkdir(parents=True, exist_ok=True)
    path = output / "discrete_benchmark.csv"
    frame.to_csv(path, index=False)
    parameters = {"scale": scale, "rate": RATE, "budget_states": BUDGET_STATES, "condition_number": 100.0}
    path.with_suffix(".json").write_text(json.dumps(parameters | provenance(), indent=2), encoding="utf-8")
    files = save(figure.draw(frame), path.with_suffix(""))
    console.print(f"wrote {path}, its .json, {files[0].name} and {files[1].name}")


if __name__ == "__main__":
    typer.run(main)
