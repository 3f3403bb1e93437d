"""Work-precision diagrams of the benchmark: the error of ∇T against evaluations and wall time, by case."""

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
    new_figure,
    plain_logarithmic,
    styled,
)

_DASHES = (0, (3, 1.5))
# Colour, marker and line.
_STYLES: dict[str, tuple[str, str, object]] = {
    "odestop dopri5": (BLUE, "o", "-"),
    "odestop tsit5": (SKY_BLUE, "s", "-"),
    "odestop rock4": (GREEN, "^", "-"),
    "odestop auto": (PURPLE, "v", "-"),
    "torchdiffeq dopri5": (BLACK, "o", _DASHES),
    "torchdiffeq dopri5, tuned by hand": (GREY, "o", _DASHES),
    "diffrax Dopri5, jitted": (VERMILION, "D", _DASHES),
    "scipy RK45, differences": (ORANGE, "P", _DASHES),
}
_COSTS = {"evaluations": "evaluations of the dynamics", "answer_seconds": r"wall time of $T$ and $\nabla T$ in s"}


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
                _draw_panel(axes, of_case, column)
            row[0].set_ylabel(r"error of $\nabla T$")
            row[0].set_title(str(case), loc="left")
        for axes, label in zip(grid[-1], _COSTS.values(), strict=True):
            axes.set_xlabel(label)
        handles = {handle.get_label(): handle for axes in grid.flat for handle in axes.get_legend_handles_labels()[0]}
        names = [name for name in _STYLES if name in handles]
        figure.legend(handles=[handles[name] for name in names], loc="outside lower center", ncols=3, fontsize=7.5)
    return figure


def _draw_panel(axes: Axes, table: pd.DataFrame, column: str) -> None:
    for name, (colour, marker, line) in _STYLES.items():
        rows = table[table["peer"] == name].sort_values("tolerance")
        if len(rows):
            axes.plot(
                rows[column], rows["gradient_error"], color=colour, marker=marker, linestyle=line,
                linewidth=0.9, markersize=3.0, label=name,
            )  # fmt: skip
    axes.set_xscale("log")
    plain_logarithmic(axes)
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=6))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
