"""h ∇N against ∇T for inertial, adaptive and learned dynamics: errors against h, and a summary of orders and cost."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odestop.plotting.step_sizes import slope_guide
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

_COLUMNS = 4
_STYLES = (
    (BLUE, "o"),
    (ORANGE, "s"),
    (GREEN, "^"),
    (VERMILION, "D"),
    (PURPLE, "v"),
    (SKY_BLUE, "P"),
)
_DASHES = (0, (3, 1.5))
ACCURATE = 0.1
"""The relative error that the summary asks the price of."""


def draw_errors(table: pd.DataFrame) -> Figure:
    """Draw the relative error of h ∇N against h / T.

    Parameters
    ----------
    table
        Columns ``dynamics``, ``objective``, ``reduction``, ``step_fraction``, ``sensitivity``, ``same_crossing`` and
        ``relative_error``; the smallest reduction is drawn.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per dynamics with one colour per objective; crosses where flow and Euler stop at different crossings.
    """
    table = table[table["reduction"] == table["reduction"].min()]
    dynamics = list(dict.fromkeys(table["dynamics"]))
    columns = min(_COLUMNS, len(dynamics))
    rows = math.ceil(len(dynamics) / columns)
    first, last = table["step_fraction"].min(), table["step_fraction"].max()
    with styled():
        figure = new_figure(TWO_COLUMNS, 1.75 * rows + 0.8)
        panels: list[Axes] = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
        for axes, name in zip(panels, dynamics, strict=False):
            _draw_dynamics(axes, table[table["dynamics"] == name], objective_styles(table))
            slope_guide(axes, 1, 0.4 * table["relative_error"].min(), (first, last))
            axes.set_title(name.replace("-", " "), pad=3)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(ticker.FixedLocator([h for h in (0.002, 0.01, 0.04) if first <= h <= last]))
            axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_locator(ticker.NullLocator())
            plain_logarithmic(axes)
        for axes in panels[len(dynamics) :]:
            axes.set_axis_off()
        for axes in panels[-columns:]:
            axes.set_xlabel("step size $h / T$")
        figure.supylabel(r"relative error $\|h \nabla N - \nabla T\| \,/\, \|\nabla T\|$", fontsize="medium")
        handles = _objective_handles(table) + _kind_handles(table)
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _draw_dynamics(axes: Axes, table: pd.DataFrame, styles: dict[str, tuple[str, str]]) -> None:
    for (objective, sensitivity), curve in table.groupby(["objective", "sensitivity"], sort=False):
        colour, marker = styles[str(objective)]
        exact = sensitivity == "definition3"
        if sensitivity == "interpolated":
            continue
        axes.plot(
            curve["step_fraction"],
            curve["relative_error"],
            color=colour,
            linestyle="-" if exact else _DASHES,
            linewidth=1.1 if exact else 0.8,
            marker=marker,
            markersize=3.2 if exact else 2.6,
            markerfacecolor=colour if exact else "white",
            markeredgewidth=0.6,
        )
        elsewhere = curve[~curve["same_crossing"]]
        axes.plot(elsewhere["step_fraction"], elsewhere["relative_error"], "x", color=BLACK, markersize=5, zorder=4)


def draw_summary(table: pd.DataFrame, orders: pd.DataFrame) -> Figure:
    """Draw the orders of Definition 3 with their intervals, and the price of a relative error of ten percent.

    Parameters
    ----------
    table
        Columns ``dynamics``, ``objective``, ``reduction``, ``sensitivity``, ``relative_error`` and ``nfe_ratio``.
    orders
        Columns ``dynamics``, ``objective``, ``reduction``, ``sensitivity``, ``order``, ``low`` and ``high``.

    Returns
    -------
    matplotlib.figure.Figure
        Left, the orders; right, the smallest NFE ratio at which the error is at most 0.1, for the smallest reduction.
    """
    reduction = table["reduction"].min()
    errors = table[(table["sensitivity"] == "definition3") & (table["reduction"] == reduction)]
    fits = orders[(orders["sensitivity"] == "definition3") & (orders["reduction"] == reduction)]
    prices = errors[errors["relative_error"] <= ACCURATE].groupby(["dynamics", "objective"])["nfe_ratio"].min()
    dynamics, styles = list(dict.fromkeys(errors["dynamics"])), objective_styles(table)
    with styled():
        figure = new_figure(TWO_COLUMNS, 0.32 * len(dynamics) + 1.0)
        left, right = figure.subplots(1, 2, sharey=True)
        for place, (objective, (colour, marker)) in enumerate(styles.items()):
            shift = 0.22 * (place - (len(styles) - 1) / 2)
            mine = fits[fits["objective"] == objective].set_index("dynamics").reindex(dynamics)
            spread = np.abs(mine[["low", "high"]].sub(mine["order"], axis=0)).to_numpy().T
            y = np.arange(len(dynamics)) + shift
            left.errorbar(mine["order"], y, xerr=spread, fmt=marker, color=colour, markersize=3.5, linewidth=0.9)
            price = [prices.get((name, objective), np.nan) for name in dynamics]
            right.plot(price, y, marker, color=colour, markersize=3.5)
        for axes in (left, right):
            axes.axvline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
            axes.grid(axis="x")
            axes.set_axisbelow(True)
        left.set_yticks(range(len(dynamics)), [name.replace("-", " ") for name in dynamics])
        left.invert_yaxis()
        left.set_xlim(max(-0.5, left.get_xlim()[0]), min(3.0, left.get_xlim()[1]))
        left.set_xlabel("fitted order in $h$, 95 % interval")
        right.set_xscale("log")
        right.set_xlabel("evaluations for an error below 10 %, Euler / dopri5")
        figure.legend(handles=_objective_handles(table), loc="outside lower center", ncols=3)
    return figure


def objective_styles(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return a colour and a marker for each objective."""
    return dict(zip(dict.fromkeys(table["objective"]), _STYLES, strict=False))


def _objective_handles(table: pd.DataFrame) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker=marker, markersize=3.5, label=name.replace("-", " "))
        for name, (colour, marker) in objective_styles(table).items()
    ]


def _kind_handles(table: pd.DataFrame) -> list[Line2D]:
    handles = [
        Line2D([], [], color=GREY, label="Definition 3"),
        Line2D([], [], color=GREY, linestyle=_DASHES, linewidth=0.8, label="Hermite"),
    ]
    if not table["same_crossing"].all():
        handles.append(
            Line2D([], [], color=BLACK, marker="x", linestyle="none", markersize=5, label="different crossings")
        )
    return handles
