"""Figure 1b: T(θ), its slope, and h N(θ)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odestop.plotting.style import BLACK, GREY, ONE_COLUMN, new_figure, styled, threshold_colours, threshold_label

_TANGENTS = 4


def draw(table: pd.DataFrame) -> Figure:
    """Draw Figure 1b for the largest step size in the table.

    Parameters
    ----------
    table
        Columns ``theta``, ``threshold``, ``step_size``, ``time``, ``time_derivative`` and ``scaled_steps``.

    Returns
    -------
    matplotlib.figure.Figure
        One panel.
    """
    step_size = table["step_size"].max()
    rows = table[table["step_size"] == step_size]
    colours = threshold_colours(rows["threshold"])
    with styled():
        figure = new_figure(ONE_COLUMN, 2.9)
        axes = figure.subplots()
        for threshold, curve in rows.groupby("threshold"):
            _draw_curve(axes, curve.sort_values("theta"), colours[float(threshold)])
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.FixedLocator([0.2, 0.4, 0.8, 1.6, 3.2]))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.set(xlabel=r"preconditioner parameter $\theta$", ylabel=r"stopping time $T$, $h N$")
        axes.set_ylim(bottom=0)
        axes.legend(handles=_handles(colours, step_size), loc="upper right", ncols=2, columnspacing=1.0)
    return figure


def _draw_curve(axes: Axes, curve: pd.DataFrame, colour: str) -> None:
    axes.plot(curve["theta"], curve["time"], color=colour)
    axes.plot(
        curve["theta"],
        curve["scaled_steps"],
        color=colour,
        linestyle="none",
        marker="o",
        markersize=3.2,
        markerfacecolor="white",
        markeredgewidth=0.8,
    )
    for _, row in curve.iloc[_spread(len(curve), _TANGENTS)].iterrows():
        theta = row["theta"] * np.geomspace(0.87, 1 / 0.87, 9)
        tangent = row["time"] + row["time_derivative"] * (theta - row["theta"])
        axes.plot(theta, tangent, color=BLACK, linewidth=1.5, zorder=4)


def _spread(length: int, count: int) -> np.ndarray:
    """Return up to ``count`` different positions in a list of a length, away from its ends."""
    return np.unique(np.linspace(0.12, 0.9, count) * (length - 1) + 0.5).astype(int)


def _handles(colours: dict[float, str], step_size: float) -> list[Line2D]:
    lines = [Line2D([], [], color=colour, label=threshold_label(threshold)) for threshold, colour in colours.items()]
    return [
        *lines,
        Line2D([], [], color=GREY, label="$T$, flow"),
        Line2D(
            [],
            [],
            color=GREY,
            linestyle="none",
            marker="o",
            markersize=3.2,
            markerfacecolor="white",
            label=f"$h N$, Euler, $h = {step_size:g}$",
        ),
        Line2D([], [], color=BLACK, linewidth=1.4, label=r"slope $\mathrm{d}T/\mathrm{d}\theta$"),
    ]
