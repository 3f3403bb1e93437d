"""Work-precision diagrams of the benchmark: the error of ∇T against evaluations and processor time, by case."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures.work_precision import DASHES, Look, add_legend, draw_panel
from odestop.plotting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    TWO_COLUMNS,
    VERMILION,
    new_figure,
    styled,
)

_STYLES: dict[str, Look] = {
    "odestop dopri5": (BLUE, "o", "-", "odestop dopri5"),
    "odestop tsit5": (SKY_BLUE, "s", "-", "odestop tsit5"),
    "odestop rock4": (GREEN, "^", "-", "odestop rock4"),
    "odestop auto": (PURPLE, "v", "-", "odestop auto"),
    "odestop tsit5, compiled": (SKY_BLUE, "s", DASHES, "odestop tsit5, compiled"),
    "torchdiffeq dopri5": (BLACK, "o", DASHES, "torchdiffeq dopri5"),
    "torchdiffeq dopri5, tuned by hand": (GREY, "o", DASHES, "torchdiffeq dopri5, tuned by hand"),
    "diffrax Dopri5, jitted": (VERMILION, "D", DASHES, "diffrax Dopri5, jitted"),
    "scipy RK45, differences": (ORANGE, "P", DASHES, "scipy RK45, differences"),
}
_COSTS = {"evaluations": "evaluations of the dynamics", "answer_seconds": r"processor time of $T$ and $\nabla T$ in s"}


def draw(table: pd.DataFrame) -> Figure:
    """Draw the diagrams.

    Parameters
    ----------
    table
        Columns ``case``, ``peer``, ``tolerance``, ``gradient_error``, ``evaluations`` and ``answer_seconds``.

    Returns
    -------
    matplotlib.figure.Figure
        One row per case and one column per cost; down and left is better.
    """
    cases = list(table.groupby("case", sort=False))
    with styled():
        figure = new_figure(TWO_COLUMNS, 1.55 * len(cases) + 0.9)
        grid = figure.subplots(len(cases), len(_COSTS), squeeze=False, sharey="row")
        for row, (case, of_case) in zip(grid, cases, strict=True):
            for axes, column in zip(row, _COSTS, strict=True):
                draw_panel(axes, of_case, _STYLES, way="peer", setting="tolerance", cost=column, error="gradient_error")
            row[0].set_ylabel(r"error of $\nabla T$")
            row[0].set_title(str(case), loc="left")
        for axes, label in zip(grid[-1], _COSTS.values(), strict=True):
            axes.set_xlabel(label)
        add_legend(figure, grid.flat, _STYLES, columns=3)
    return figure
