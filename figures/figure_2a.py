"""Figure 2a: the relative error of h ∇N against h."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from odestop.plotting.step_sizes import panels_by_dimension, slope_guide
from odestop.plotting.style import styled, threshold_label


def draw(table: pd.DataFrame, orders: pd.DataFrame) -> Figure:
    """Draw Figure 2a for the sensitivity of Definition 3.

    Parameters
    ----------
    table
        Columns ``dimension``, ``seed``, ``threshold``, ``step_size``, ``sensitivity`` and ``relative_error``.
    orders
        Columns ``dimension``, ``threshold``, ``sensitivity``, ``order``, ``low`` and ``high``.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per dimension; the legends give the fitted orders with their 95 % intervals.
    """
    rows = table[table["sensitivity"] == "definition3"]
    fits = orders[orders["sensitivity"] == "definition3"]

    def legend(dimension: int, threshold: float) -> str:
        fit = fits[(fits["dimension"] == dimension) & (fits["threshold"] == threshold)].iloc[0]
        return f"{threshold_label(threshold)}: order {fit['order']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"

    with styled():
        figure = panels_by_dimension(
            rows, "relative_error", r"relative error $\|h \nabla N - \nabla T\| \,/\, \|\nabla T\|$", legend
        )
        first, last = rows["step_size"].min(), rows["step_size"].max()
        anchor = rows[rows["step_size"] == first]["relative_error"].min() * 0.55
        for axes in figure.axes:
            slope_guide(axes, 1, anchor, (first, last))
            axes.set_ylim(top=rows["relative_error"].max() * 9)
            axes.legend(loc="upper left")
    return figure
