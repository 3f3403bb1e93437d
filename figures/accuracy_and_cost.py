"""Work-precision diagrams of every way to ∇T: error against evaluations, time and memory."""

from __future__ import annotations

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    plain_logarithmic,
    styled,
)

_DASHES, _DOTS = (0, (3, 1.5)), (0, (1, 1))
# Colour, marker, line and name.
_STYLES: dict[str, tuple[str, str, object, str]] = {
    "discrete_adjoint": (BLUE, "o", "-", "discrete adjoint"),
    "continuous_adjoint": (SKY_BLUE, "s", "-", "continuous adjoint"),
    "forward_sensitivity": (GREEN, "^", "-", "forward sensitivity"),
    "unrolled": (PURPLE, "D", "-", "unrolled"),
    "backsolve": (GREY, "v", "-", "backsolve"),
    "odeint_event": (BLACK, "o", _DASHES, "torchdiffeq, backward"),
    "odeint_adjoint": (BLACK, "v", _DASHES, "torchdiffeq, adjoint"),
    "finite_difference": (YELLOW, "P", "-", "finite differences"),
    "Euler": (VERMILION, "o", _DOTS, r"$h \nabla N$: Euler"),
    "Heun": (ORANGE, "s", _DOTS, r"$h \nabla N$: Heun, Hermite"),
    "Runge-Kutta 4": (VERMILION, "^", _DOTS, r"$h \nabla N$: Runge-Kutta 4, Hermite"),
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
                _draw_panel(axes, table[table["question"] == question], column)
                if question == questions[-1]:
                    axes.set_xlabel(label)
            row[0].set_ylabel("relative error")
            row[0].set_title(question, loc="left")
        handles = {handle.get_label(): handle for axes in grid.flat for handle in axes.get_legend_handles_labels()[0]}
        names = [style[-1] for style in _STYLES.values() if style[-1] in handles]
        figure.legend(handles=[handles[name] for name in names], loc="outside lower center", ncols=4, fontsize=7.5)
    return figure


def _draw_panel(axes: Axes, table: pd.DataFrame, column: str) -> None:
    for method, (colour, marker, line, name) in _STYLES.items():
        rows = table[table["method"] == method].sort_values("setting")
        if len(rows):
            axes.plot(
                rows[column], rows["relative_error"], color=colour, marker=marker, linestyle=line,
                linewidth=0.9, markersize=3.0, label=name,
            )  # fmt: skip
    axes.set_xscale("log")
    plain_logarithmic(axes)
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=6))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
