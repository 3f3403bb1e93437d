"""Work-precision diagrams of every way to ∇T: error against evaluations, time and memory."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures.work_precision import DASHES, DOTS, Look, add_legend, draw_panel
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
    YELLOW,
    new_figure,
    styled,
)

_STYLES: dict[str, Look] = {
    "discrete_adjoint": (BLUE, "o", "-", "discrete adjoint"),
    "continuous_adjoint": (SKY_BLUE, "s", "-", "continuous adjoint"),
    "forward_sensitivity": (GREEN, "^", "-", "forward sensitivity"),
    "unrolled": (PURPLE, "D", "-", "unrolled"),
    "backsolve": (GREY, "v", "-", "backsolve"),
    "odeint_event": (BLACK, "o", DASHES, "torchdiffeq, backward"),
    "odeint_adjoint": (BLACK, "v", DASHES, "torchdiffeq, adjoint"),
    "finite_difference": (YELLOW, "P", "-", "finite differences"),
    "Euler": (VERMILION, "o", DOTS, r"$h \nabla N$: Euler"),
    "Heun": (ORANGE, "s", DOTS, r"$h \nabla N$: Heun, Hermite"),
    "Runge-Kutta 4": (VERMILION, "^", DOTS, r"$h \nabla N$: Runge-Kutta 4, Hermite"),
}
_COSTS = {
    "work": "evaluations and pull-backs",
    "gradient_seconds": "wall time in s",
    "peak_bytes": "peak memory in bytes",
}
_WORTHLESS = 10.0


def draw(table: pd.DataFrame) -> Figure:
    """Draw the diagrams.

    Parameters
    ----------
    table
        Columns ``question``, ``method``, ``setting``, ``relative_error``, ``evaluations``, ``pullbacks``,
        ``gradient_seconds`` and ``peak_bytes``.  Ways that give up or err by more than a factor of 10 are left out.

    Returns
    -------
    matplotlib.figure.Figure
        One row per question and one column per cost; down and left is better.
    """
    table = table.assign(work=table["evaluations"] + table["pullbacks"])
    table = table[table["relative_error"] <= _WORTHLESS]
    questions = list(dict.fromkeys(table["question"]))
    with styled():
        figure = new_figure(TWO_COLUMNS, 1.75 * len(questions) + 1.1)
        grid = figure.subplots(len(questions), len(_COSTS), squeeze=False, sharey="row")
        for row, question in zip(grid, questions, strict=True):
            for axes, (column, label) in zip(row, _COSTS.items(), strict=True):
                asked = table[table["question"] == question]
                draw_panel(axes, asked, _STYLES, way="method", setting="setting", cost=column, error="relative_error")
                if question == questions[-1]:
                    axes.set_xlabel(label)
            row[0].set_ylabel("relative error")
            row[0].set_title(question, loc="left")
        add_legend(figure, grid.flat, _STYLES, columns=4)
    return figure
