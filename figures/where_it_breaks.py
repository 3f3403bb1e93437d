"""Four ways in which h ∇N stops approximating ∇T."""

from __future__ import annotations

import numpy as np
import pandas as pd
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

_MAP_STYLES = {"Euler": (BLUE, "o"), "Heun": (ORANGE, "s"), "Runge-Kutta 4": (GREEN, "^")}
_STEP_COLOURS = (BLUE, ORANGE, GREEN, VERMILION)
_ERROR = "relative error"


def draw(stability: pd.DataFrame, tangency: pd.DataFrame, jump: pd.DataFrame, rounding: pd.DataFrame) -> Figure:
    """Draw the four panels.

    Parameters
    ----------
    stability
        Columns ``step_map``, ``margin`` and ``relative_error``; rows beyond the limit are left out.
    tangency
        Columns ``step_size``, ``criterion_rate``, ``relative_error``, ``time_gradient_error`` and ``same_crossing``.
    jump
        Columns ``friction``, ``step_size``, ``time``, ``time_derivative``, ``scaled_steps`` and
        ``scaled_steps_derivative``.
    rounding
        Columns ``precision``, ``step_size`` and ``relative_error``.

    Returns
    -------
    matplotlib.figure.Figure
        Panels a to d; c has one part for the times and one for their derivatives.
    """
    with styled():
        figure = new_figure(TWO_COLUMNS, 5.4)
        grid = figure.add_gridspec(4, 2)
        _draw_stability(figure.add_subplot(grid[:2, 0]), stability)
        _draw_tangency(figure.add_subplot(grid[:2, 1]), tangency)
        times = figure.add_subplot(grid[2, 0])
        _draw_jump(times, figure.add_subplot(grid[3, 0], sharex=times), jump)
        _draw_rounding(figure.add_subplot(grid[2:, 1]), rounding)
    return figure


def _draw_stability(axes: Axes, table: pd.DataFrame) -> None:
    for name, rows in table[table["margin"] > 0].groupby("step_map", sort=False):
        colour, marker = _MAP_STYLES[str(name)]
        axes.plot(rows["margin"], rows["relative_error"], color=colour, marker=marker, markersize=2.6, label=name)
    axes.set_xscale("log")
    axes.invert_xaxis()
    plain_logarithmic(axes)
    axes.set_xlabel(r"distance to the limit, $1 - h / h_{\max}$")
    axes.set_ylabel(_ERROR)
    axes.legend(loc="upper left")
    axes.set_title("(a) near the stability limit", loc="left")


def _draw_tangency(axes: Axes, table: pd.DataFrame) -> None:
    for colour, (h, rows) in zip(_STEP_COLOURS, table.groupby("step_size"), strict=False):
        rate = rows["criterion_rate"].abs()
        axes.plot(rate, rows["relative_error"], color=colour, marker="o", markersize=2.6, label=f"$h = {h:g}$")
        other = ~rows["same_crossing"]
        axes.plot(rate[other], rows["relative_error"][other], "x", color=BLACK, markersize=4, zorder=4)
    axes.plot([], [], "x", color=BLACK, markersize=4, label="another dip")
    flow = table.drop_duplicates("criterion_rate").sort_values("criterion_rate")
    axes.plot(
        flow["criterion_rate"].abs(), flow["time_gradient_error"], color=PURPLE, marker="v", markersize=2.6,
        label=r"$\nabla T$ by default",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.invert_xaxis()
    plain_logarithmic(axes)
    axes.set_xlabel(r"transversality $|\nabla J \cdot \dot x|$")
    axes.set_ylabel(_ERROR)
    axes.legend(loc="center left", ncols=2)
    axes.set_title("(b) towards a tangential crossing", loc="left")


def _draw_jump(times: Axes, derivatives: Axes, table: pd.DataFrame) -> None:
    exact = table[table["step_size"] == table["step_size"].min()]
    for axes, flow, steps in (
        (times, "time", "scaled_steps"),
        (derivatives, "time_derivative", "scaled_steps_derivative"),
    ):
        for colour, (h, rows) in zip((SKY_BLUE, ORANGE), table.groupby("step_size"), strict=False):
            axes.plot(rows["friction"], rows[steps], ".", color=colour, markersize=2.5, label=f"Euler, $h = {h:g}$")
        axes.plot(exact["friction"], _broken_at_jump(exact, flow), color=BLACK, linewidth=0.9, label="flow")
    derivatives.set_ylim(*_robust_limits(table))
    times.tick_params(labelbottom=False)
    times.set_ylabel("$T$, $hN$")
    derivatives.set_ylabel("derivative")
    derivatives.set_xlabel(r"friction $\theta$")
    times.legend(loc="lower left", handlelength=1.0)
    times.set_title("(c) a jump between two dips", loc="left")


def _broken_at_jump(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column with nan where T jumps, so that no line is drawn across."""
    values = rows[column].to_numpy(dtype=float).copy()
    steps = np.abs(np.diff(rows["time"]))
    values[1:][steps > 0.5 * steps.max()] = np.nan
    return values


def _robust_limits(table: pd.DataFrame) -> tuple[float, float]:
    """Return limits for the derivatives: the singularity at the jump goes through the bottom."""
    low = float(np.quantile(table["time_derivative"], 0.02))
    return 1.3 * low, -0.3 * low


def _draw_rounding(axes: Axes, table: pd.DataFrame) -> None:
    styles = {"float32": (VERMILION, "s"), "float64": (BLUE, "o")}
    for name, rows in table.groupby("precision", sort=False):
        colour, marker = styles[str(name)]
        axes.plot(rows["step_size"], rows["relative_error"], color=colour, marker=marker, markersize=2.6, label=name)
    span = table["step_size"].min(), table["step_size"].max()
    smallest = table.loc[table["step_size"] == span[0]].set_index("precision")["relative_error"]
    guide = 0.4 * smallest["float64"] / span[0]
    axes.plot(span, [guide * h for h in span], color=GREY, linestyle=(0, (4, 2)), linewidth=0.9, label="slope 1")
    axes.set_xscale("log")
    plain_logarithmic(axes)
    axes.set_ylim(bottom=0.3 * smallest["float64"])
    axes.set_xlabel("step size $h$")
    axes.set_ylabel(_ERROR)
    axes.legend(loc="upper center")
    axes.set_title("(d) rounding at small steps", loc="left")
