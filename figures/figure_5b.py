"""Figure 5b: evaluations of the adaptive solves, which have no h."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odestop.plotting.style import GREY, ONE_COLUMN, new_figure, styled, threshold_colours, threshold_label

_SOLVERS = {"nfe_torchdiffeq": ("torchdiffeq dopri5", True), "nfe_native": ("odestop dopri5", False)}


def draw(table: pd.DataFrame) -> Figure:
    """Draw Figure 5b.

    Parameters
    ----------
    table
        Columns ``dimension``, ``seed``, ``threshold``, ``nfe_torchdiffeq`` and ``nfe_native``.

    Returns
    -------
    matplotlib.figure.Figure
        One panel: median over the seeds, bars from the least to the most.
    """
    dimensions = sorted(table["dimension"].unique())
    colours = threshold_colours(table["threshold"])
    with styled():
        figure = new_figure(ONE_COLUMN, 2.6)
        axes = figure.subplots()
        for index, (threshold, colour) in enumerate(colours.items()):
            rows = table[table["threshold"] == threshold].groupby("dimension")
            shift = 0.22 * (index - (len(colours) - 1) / 2)
            for offset, (column, (_, filled)) in zip((-0.04, 0.04), _SOLVERS.items(), strict=True):
                median = rows[column].median()
                axes.errorbar(
                    [position + shift + offset for position in range(len(dimensions))],
                    median,
                    yerr=[median - rows[column].min(), rows[column].max() - median],
                    color=colour,
                    linestyle="none",
                    marker="o",
                    markerfacecolor=colour if filled else "white",
                    elinewidth=0.9,
                )
        axes.set_xticks(range(len(dimensions)), [str(dimension) for dimension in dimensions])
        axes.set(xlabel=r"dimension $d$", ylabel="evaluations (NFE) of the adaptive solve")
        axes.set_xlim(-0.5, len(dimensions) - 0.5)
        axes.set_ylim(0, 1.55 * max(table[column].max() for column in _SOLVERS))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.legend(handles=_handles(colours), loc="upper left", ncols=2, columnspacing=1.0)
    return figure


def _handles(colours: dict[float, str]) -> list[Line2D]:
    thresholds = [
        Line2D([], [], color=colour, linestyle="none", marker="o", label=threshold_label(threshold))
        for threshold, colour in colours.items()
    ]
    solvers = [
        Line2D(
            [],
            [],
            color=GREY,
            linestyle="none",
            marker="o",
            markerfacecolor=GREY if filled else "white",
            label=name,
        )
        for name, filled in _SOLVERS.values()
    ]
    return thresholds + solvers
