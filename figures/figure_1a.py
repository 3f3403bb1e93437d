"""Figure 1a: trajectories of the flow and of Euler on the level sets of J."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odestop.plotting.style import BLACK, GREY, ONE_COLUMN, PURPLE, VERMILION, new_figure, power_of_ten, styled

_COLOURS = (VERMILION, PURPLE)
_LEVELS = (0.3, 1.0, 3.0, 10.0)


def draw(table: pd.DataFrame) -> Figure:
    """Draw Figure 1a.

    Parameters
    ----------
    table
        Columns ``theta``, ``path`` (``"flow"`` or ``"euler"``), ``x1``, ``x2``, ``is_end``, ``threshold`` and
        ``step_size``; the points of a path in order.  J(x) = x₁² + 16 x₂².

    Returns
    -------
    matplotlib.figure.Figure
        One panel.
    """
    with styled():
        figure = new_figure(ONE_COLUMN, 2.9)
        axes = figure.subplots()
        _draw_level_sets(axes, table["threshold"].iloc[0])
        handles = []
        for colour, (theta, rows) in zip(_COLOURS, table.groupby("theta"), strict=False):
            _draw_paths(axes, rows, colour)
            handles.append(Line2D([], [], color=colour, label=rf"$\theta = {theta:g}$"))
        axes.plot(1.0, 1.0, marker="o", markersize=4, color=BLACK, zorder=5)
        axes.annotate("$x_0$", (1.0, 1.0), xytext=(-4, 3), textcoords="offset points", ha="right")
        axes.set(
            xlim=(-0.36, 1.08), ylim=(-0.32, 1.12), xlabel=r"first coordinate $x_1$", ylabel=r"second coordinate $x_2$"
        )
        axes.set_xticks([0, 0.5, 1.0])
        axes.set_yticks([0, 0.5, 1.0])
        axes.legend(
            handles=[*handles, *_path_handles(table["step_size"].iloc[0])],
            loc="upper left",
            frameon=True,
            facecolor="white",
            edgecolor="none",
            framealpha=1,
        )
    return figure


def _draw_level_sets(axes: Axes, threshold: float) -> None:
    x1, x2 = np.meshgrid(np.linspace(-0.4, 1.1, 301), np.linspace(-0.4, 1.15, 301))
    criterion = x1**2 + 16 * x2**2
    contours = axes.contour(x1, x2, criterion, levels=_LEVELS, colors="#BDBDBD", linewidths=0.6)
    places = [(-0.2, math.sqrt((level - 0.04) / 16)) for level in _LEVELS[:2]]
    places += [(0.4, math.sqrt((level - 0.16) / 16)) for level in _LEVELS[2:]]
    axes.clabel(contours, fmt=_level_label, fontsize=7, colors=GREY, manual=places)
    axes.contourf(x1, x2, criterion, levels=[0, threshold], colors=["#CFE8F7"])
    axes.contour(x1, x2, criterion, levels=[threshold], colors=[BLACK], linewidths=0.9)
    axes.annotate(
        rf"$J(x) \leq \varepsilon = {power_of_ten(threshold)}$",
        xy=(-0.12, -0.073),
        xytext=(-0.33, -0.24),
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        arrowprops={"arrowstyle": "-", "linewidth": 0.6, "shrinkB": 0},
    )


def _level_label(level: float) -> str:
    return f"$J = {level:g}$"


def _draw_paths(axes: Axes, rows: pd.DataFrame, colour: str) -> None:
    flow, euler = rows[rows["path"] == "flow"], rows[rows["path"] == "euler"]
    axes.plot(flow["x1"], flow["x2"], color=colour, zorder=3)
    axes.plot(
        euler["x1"], euler["x2"], color=colour, linestyle=":", linewidth=0.9, marker="o", markersize=2.8, zorder=4
    )
    for path, marker in ((flow, "*"), (euler, "D")):
        end = path[path["is_end"]]
        axes.plot(
            end["x1"],
            end["x2"],
            linestyle="none",
            marker=marker,
            color=colour,
            markeredgecolor=BLACK,
            markeredgewidth=0.5,
            markersize=8 if marker == "*" else 4.5,
            zorder=5,
        )


def _path_handles(step_size: float) -> list[Line2D]:
    dot = {"marker": "o", "markersize": 2.8, "linestyle": ":", "linewidth": 0.9}
    end = {"color": GREY, "linestyle": "none", "markeredgecolor": BLACK, "markeredgewidth": 0.5}
    return [
        Line2D([], [], color=GREY, label="flow"),
        Line2D([], [], color=GREY, label=f"Euler, $h = {step_size:g}$", **dot),  # type: ignore[arg-type]
        Line2D([], [], marker="*", markersize=8, label="$x(T)$", **end),  # type: ignore[arg-type]
        Line2D([], [], marker="D", markersize=4.5, label="$x_N$", **end),  # type: ignore[arg-type]
    ]
