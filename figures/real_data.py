"""Real data: the gradient error and the stopping times of logistic regression against h."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odestop.plotting.step_sizes import STEP_SIZE_LABEL, draw_curve, slope_guide
from odestop.plotting.style import (
    GREY,
    TWO_COLUMNS,
    label_step_sizes,
    new_figure,
    plain_logarithmic,
    styled,
    threshold_colours,
    threshold_label,
)


def draw(table: pd.DataFrame, orders: pd.DataFrame) -> Figure:
    """Draw the panels on real data.

    Parameters
    ----------
    table
        Columns ``threshold``, ``step_size``, ``sensitivity``, ``relative_error``, ``time`` and ``scaled_steps``.
    orders
        Columns ``threshold``, ``sensitivity``, ``order``, ``low`` and ``high``.

    Returns
    -------
    matplotlib.figure.Figure
        Left, the relative error of h ∇N; right, h N and its interpolation by T.
    """
    with styled():
        figure = new_figure(TWO_COLUMNS, 2.6)
        left, right = figure.subplots(1, 2)
        _draw_errors(left, table, orders)
        _draw_times(right, table)
        for axes in (left, right):
            label_step_sizes(axes, table["step_size"])
            axes.set_xlabel(STEP_SIZE_LABEL)
    return figure


def _draw_errors(axes: Axes, table: pd.DataFrame, orders: pd.DataFrame) -> None:
    fits = orders[orders["sensitivity"] == "definition3"].set_index("threshold")
    for threshold, colour in threshold_colours(table["threshold"]).items():
        fit = fits.loc[threshold]
        label = f"{threshold_label(threshold)}: order {fit['order']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"
        _draw_both(axes, table[table["threshold"] == threshold], "relative_error", colour, label)
    plain_logarithmic(axes)
    first, last = table["step_size"].min(), table["step_size"].max()
    anchor = table[table["step_size"] == first]["relative_error"].min() * 0.55
    slope_guide(axes, 1, anchor, (first, last))
    axes.set_ylim(top=table["relative_error"].max() * 5)
    axes.set_ylabel(r"relative error $\|h \nabla N - \nabla T\| \,/\, \|\nabla T\|$")
    axes.legend(loc="upper left")


def _draw_times(axes: Axes, table: pd.DataFrame) -> None:
    relative = table.assign(relative_steps=table["scaled_steps"] / table["time"])
    for threshold, colour in threshold_colours(table["threshold"]).items():
        rows = relative[relative["threshold"] == threshold]
        label = f"{threshold_label(threshold)}: $T = {rows['time'].iloc[0]:.2f}$"
        _draw_both(axes, rows, "relative_steps", colour, label)
    axes.axhline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    axes.set_ylabel(r"stopping time of Euler, $h N / T$")
    handles, _ = axes.get_legend_handles_labels()
    axes.legend(handles=[*handles, *_kinds()], loc="lower left")


def _draw_both(axes: Axes, rows: pd.DataFrame, y: str, colour: str, label: str) -> None:
    counted = rows[rows["sensitivity"] == "definition3"]
    interpolated = rows[rows["sensitivity"] == "interpolated"]
    draw_curve(axes, counted, y, color=colour, marker="o", label=label)
    draw_curve(
        axes,
        interpolated,
        y,
        color=colour,
        linestyle=(0, (3, 1.5)),
        linewidth=0.9,
        marker="s",
        markersize=3.2,
        markerfacecolor="white",
    )


def _kinds() -> list[Line2D]:
    return [
        Line2D([], [], color=GREY, marker="o", label="$N$, Definition 3"),
        Line2D(
            [],
            [],
            color=GREY,
            linestyle=(0, (3, 1.5)),
            linewidth=0.9,
            marker="s",
            markersize=3.2,
            markerfacecolor="white",
            label=r"$\hat N$, interpolated",
        ),
    ]
