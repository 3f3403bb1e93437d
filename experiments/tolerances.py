"""What tolerances, the step cap and shorter steps near a level buy: ``python -m experiments.tolerances``.

Errors are relative, against a solve at rtol 1e-11 that stays below 0.6 of the stability limit.
"""

from __future__ import annotations

import functools
import itertools
import math
import unittest.mock

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments import stiff_quadratic
from experiments.stiff_quadratic import Answer
from odestop.continuous.approach import Approach
from odestop.solvers import METHODS, Automatic, DormandPrince5, OneStepMethod

DIMENSION = 100
TOLERANCES = ((1e-3, 1e-5), (1e-5, 1e-7), (1e-7, 1e-9), (1e-9, 1e-11), (1e-10, 1e-12))
THRESHOLDS = (1e-3, 1e-5)
CONDITION_NUMBERS = (1e2, 1e3, 1e4)


@functools.cache
def answer(
    condition_number: float, threshold: float, rtol: float, atol: float, method: OneStepMethod | Automatic
) -> Answer:
    """Solve the problem of Figure 2."""
    return stiff_quadratic.answer(DIMENSION, condition_number, threshold, method, rtol, atol)


def errors(condition_number: float, threshold: float, measured: Answer) -> tuple[float, float]:
    """Relative errors of T and ∇T."""
    return measured.errors(answer(condition_number, threshold, 1e-11, 1e-14, DormandPrince5(stability_fraction=0.6)))


def tolerance_table() -> Table:
    """Worst errors over the thresholds at condition number 100, and the most evaluations."""
    table = Table("rtol, atol", "error of T", "error of ∇T", "evaluations", title="condition number 100")
    for rtol, atol in TOLERANCES:
        answers = [answer(1e2, threshold, rtol, atol, DormandPrince5()) for threshold in THRESHOLDS]
        worst = [errors(1e2, *pair) for pair in zip(THRESHOLDS, answers, strict=True)]
        time, gradient = (max(column) for column in zip(*worst, strict=True))
        most = max(each.evaluations for each in answers)
        table.add_row(f"{rtol:.0e}, {atol:.0e}", f"{time:.0e}", f"{gradient:.0e}", str(most))
    return table


def cap_table() -> Table:
    """Errors of ∇T and evaluations with and without the step cap, at threshold 1e-5."""
    table = Table("condition", "rtol", "error, capped", "error, uncapped", "evaluations, capped / uncapped")
    with Progress(transient=True) as progress:
        cells = [(condition, rtol) for condition in CONDITION_NUMBERS for rtol in (1e-5, 1e-7)]
        for condition, rtol in progress.track(cells, description="step cap"):
            capped, uncapped = (
                answer(condition, 1e-5, rtol, 1e-2 * rtol, DormandPrince5(stability_fraction=fraction))
                for fraction in (0.95, math.inf)
            )
            table.add_row(
                f"{condition:.0e}",
                f"{rtol:.0e}",
                f"{errors(condition, 1e-5, capped)[1]:.0e}",
                f"{errors(condition, 1e-5, uncapped)[1]:.0e}",
                f"{capped.evaluations} / {uncapped.evaluations}",
            )
    return table


def without_approach(condition_number: float, threshold: float, rtol: float, atol: float, method: str) -> Answer:
    """Solve it with the steps that the error control allows, however near the level is."""
    with (
        unittest.mock.patch.object(Approach, "longest_step", lambda self, time, *_: np.full_like(time, np.inf)),
        unittest.mock.patch.object(Approach, "is_too_fast", lambda self, h, *_: np.zeros_like(h, dtype=bool)),
    ):
        return answer.__wrapped__(condition_number, threshold, rtol, atol, METHODS[method])


def approach_table() -> Table:
    """Errors of ∇T and evaluations with shorter steps near the level and without, at a tenth of the smallest λ²."""
    table = Table("condition", "method", "rtol", "error", "error without", "evaluations, with / without")
    with Progress(transient=True) as progress:
        cells = list(itertools.product((1e2, 1e3), ("tsit5", "dopri8", "rock4"), (1e-4, 1e-6)))
        for condition, method, rtol in progress.track(cells, description="approach"):
            threshold = 0.1 / condition**2
            near = answer(condition, threshold, rtol, 1e-2 * rtol, METHODS[method])
            far = without_approach(condition, threshold, rtol, 1e-2 * rtol, method)
            table.add_row(
                f"{condition:.0e}",
                method,
                f"{rtol:.0e}",
                f"{errors(condition, threshold, near)[1]:.0e}",
                f"{errors(condition, threshold, far)[1]:.0e}",
                f"{near.evaluations} / {far.evaluations}",
            )
    return table


def main() -> None:
    """Measure the accuracy of T and ∇T against the tolerances, and what caps on the step do for ∇T."""
    torch.set_num_threads(1)
    console = Console()
    console.print(tolerance_table())
    console.print(cap_table())
    console.print(approach_table())


if __name__ == "__main__":
    typer.run(main)
