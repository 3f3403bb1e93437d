"""What a stabilised method saves on stiff flows: ``python -m experiments.stiffness``.

Counted are evaluations of the dynamics, at the loosest tolerance of a sweep whose answer is accurate enough.  Errors
are relative, against a solve at rtol 1e-11 that stays below 0.6 of the stability limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments import stiff_quadratic
from experiments.stiff_quadratic import Answer
from odestop.solvers import METHODS, Automatic, OneStepMethod, PrinceDormand8

DIMENSION = 100
# Condition numbers; the threshold follows the slowest mode, so that T, and with it the stiffness Tρ, grows with them.
CONDITION_NUMBERS = (1e2, 1e3, 1e4)
TOLERANCES = tuple(10.0 ** (-0.5 * k) for k in range(4, 20))
COMPARED = ("dopri5", "tsit5", "rock4", "rkc2")


@dataclass(frozen=True)
class Target:
    """Accuracy to reach, of T or of ∇T."""

    name: str
    of_gradient: bool
    error: float


TARGETS = (
    Target("T to 1e-6", False, 1e-6),
    Target("T to 1e-8", False, 1e-8),
    Target("∇T to 1e-5", True, 1e-5),
    Target("∇T to 1e-6", True, 1e-6),
)


def answer(condition_number: float, method: str | OneStepMethod | Automatic, rtol: float) -> Answer:
    """Solve the problem of Figure 2 with a threshold of a tenth of the smallest eigenvalue squared."""
    return stiff_quadratic.answer(DIMENSION, condition_number, 0.1 / condition_number**2, method, rtol, 1e-2 * rtol)


def first_accurate(condition_number: float, method: str, exact: Answer, most: int) -> list[Answer | None]:
    """The first answer that reaches each target; None where no tolerance does within ``most`` evaluations."""
    needed: list[Answer | None] = [None] * len(TARGETS)
    for rtol in TOLERANCES:
        found = answer(condition_number, method, rtol)
        if found.evaluations > most:
            break
        time, gradient = found.errors(exact)
        for index, target in enumerate(TARGETS):
            if needed[index] is None and (gradient if target.of_gradient else time) <= target.error:
                needed[index] = found
        if None not in needed:
            break
    return needed


def as_table(stiffness: Sequence[float], needed: dict[str, list[list[Answer | None]]]) -> Table:
    """One row per target and method: evaluations, with those of a gradient its products, and how the first grow."""
    table = Table("accuracy", "method", *(f"Tρ = {value:.1e}" for value in stiffness), "exponent")
    for index, target in enumerate(TARGETS):
        for method, cases in needed.items():
            answers = [case[index] for case in cases]
            shown = [in_words(found, target.of_gradient) for found in answers]
            counts = [None if found is None else found.evaluations for found in answers]
            table.add_row(target.name, method, *shown, exponent(stiffness, counts))
    return table


def in_words(found: Answer | None, with_products: bool) -> str:
    """What an answer took."""
    if found is None:
        return "-"
    return f"{found.evaluations} + {found.vjps}" if with_products else str(found.evaluations)


def exponent(stiffness: Sequence[float], counts: Sequence[int | None]) -> str:
    """Slope of log(evaluations) over log(stiffness), from the cases that were reached."""
    points = [(math.log(s), math.log(c)) for s, c in zip(stiffness, counts, strict=True) if c is not None]
    if len(points) < 2:
        return "-"
    x, y = np.array(points).T
    return f"{np.polyfit(x, y, 1)[0]:.2f}"


def run(methods: Sequence[str], cases: int, console: Console) -> Table:
    """Measure the first ``cases`` condition numbers."""
    stiffness: list[float] = []
    needed: dict[str, list[list[Answer | None]]] = {method: [] for method in methods}
    with Progress(console=console, transient=True) as progress:
        for condition_number in progress.track(CONDITION_NUMBERS[:cases], description="stiffness"):
            exact = answer(condition_number, PrinceDormand8(stability_fraction=0.6), 1e-11)
            # The largest eigenvalue of the objective is 1, and the preconditioner starts near 1.
            stiffness.append(exact.time)
            for method in methods:
                found = first_accurate(condition_number, method, exact, 2 * exact.evaluations)
                needed[method].append(found)
                costs = ", ".join(in_words(each, with_products=True) for each in found)
                console.print(f"condition {condition_number:.0e}, {method}: {costs}")
    return as_table(stiffness, needed)


def main(
    cases: Annotated[
        int, typer.Option(min=1, max=3, help="How many condition numbers; the last takes half an hour.")
    ] = 3,
    method: Annotated[list[str] | None, typer.Option(help=f"Methods, of {', '.join(METHODS)}.")] = None,
) -> None:
    """Count the evaluations that explicit and stabilised methods need as a flow becomes stiffer."""
    torch.set_num_threads(1)
    console = Console()
    console.print(run(method or COMPARED, cases, console))


if __name__ == "__main__":
    typer.run(main)
