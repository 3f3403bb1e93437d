"""Work-precision diagrams of the benchmark: the error of ∇T against evaluations and time, by case."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
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
    new_figure,
    styled,
)

LOOKS: dict[str, Look] = {
    "odestop dopri5": (BLUE, "o", "-", "odestop dopri5"),
    "odestop tsit5": (SKY_BLUE, "s", "-", "odestop tsit5"),
    "odestop rock4": (GREEN, "^", "-", "odestop rock4"),
    "odestop auto": (PURPLE, "v", "-", "odestop auto"),
    "odestop tsit5, compiled": (SKY_BLUE, "s", DASHES, "odestop tsit5, compiled"),
    "torchdiffeq dopri5": (BLACK, "o", DASHES, "torchdiffeq dopri5"),
    "torchdiffeq dopri5, tuned by hand": (GREY, "o", DASHES, "torchdiffeq dopri5, tuned by hand"),
    "diffrax Dopri5, jitted": (VERMILION, "D", DASHES, "diffrax Dopri5, jitted"),
    "diffrax Dopri5, jitted, tuned by hand": (VERMILION, "d", DOTS, "diffrax Dopri5, jitted, tuned by hand"),
    "scipy RK45, differences": (ORANGE, "P", DASHES, "scipy RK45, differences"),
}
_CASES_PER_ROW = 2


def cost_labels(symbol: str) -> dict[str, str]:
    """Labels of the costs that a table has, with the symbol of the unit of time."""
    return {"evaluations": "evaluations", "answer_seconds": rf"time of $T$ and $\nabla T$ in {symbol}"}


def draw(table: pd.DataFrame, seconds: float = 1.0, symbol: str = "s") -> Figure:
    """Draw the diagrams.

    Parameters
    ----------
    table
        Columns ``case``, ``peer``, ``tolerance``, ``gradient_error``, ``evaluations`` and ``answer_seconds``.
    seconds, symbol
        The unit of time, in seconds and as labels write it.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels per case, one for each cost, and two cases beside each other; down and left is better.  Cases that
        were asked at one tolerance only are left out.
    """
    table = table.assign(answer_seconds=table["answer_seconds"] / seconds)
    costs = cost_labels(symbol)
    several = table.groupby("case")["tolerance"].transform("nunique") > 1
    cases = list(table[several].groupby("case", sort=False))
    rows = math.ceil(len(cases) / _CASES_PER_ROW)
    with styled():
        figure = new_figure(TWO_COLUMNS, 1.6 * rows + 1.2)
        grid = figure.subplots(rows, _CASES_PER_ROW * len(costs), squeeze=False, sharey=True)
        pairs = grid.reshape(-1, len(costs))
        for pair, (case, of_case) in zip(pairs, cases, strict=False):
            for axes, column in zip(pair, costs, strict=True):
                draw_panel(axes, of_case, LOOKS, way="peer", setting="tolerance", cost=column, error="gradient_error")
                _label_within_decade(axes)
            pair[0].set_title(str(case), loc="left")
        for axes in pairs[len(cases) :].flat:
            axes.set_visible(False)
        for row in grid:
            row[0].set_ylabel(r"error of $\nabla T$")
        for pair in pairs[max(0, len(cases) - _CASES_PER_ROW) : len(cases)]:
            for axes, label in zip(pair, costs.values(), strict=True):
                axes.set_xlabel(label)
        add_legend(figure, grid.flat, LOOKS, columns=3)
    return figure


def _label_within_decade(axes: Axes) -> None:
    """Write plain numbers along x where there would be at most one power of ten."""
    low, high = axes.get_xlim()
    if high < 10.0 * low:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(3))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
