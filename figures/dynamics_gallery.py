"""Every dynamics at a glance: stopping times against hyperparameters, and paths on two landscapes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from figures.style import (
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

_COLUMNS = 5
_TANGENTS = 4
_LINES = tuple(
    (colour, style)
    for style in ("-", (0, (4, 1.5)))
    for colour in (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY_BLUE, BLACK)
)

FAMILIES = {
    "gradient flows": ("gradient_flow", "preconditioned"),
    "other geometries": ("mirror", "normalized", "spectral", "proximal"),
    "inertial": ("inertial",),
    "adaptive and greedy": ("adaptive", "greedy"),
    "second order, learned": ("second_order", "learned"),
}


def draw_times(table: pd.DataFrame) -> Figure:
    """Draw T against the main hyperparameter of every dynamics, with dT/dθ as tangents.

    Parameters
    ----------
    table
        Columns ``dynamics``, ``symbol``, ``logarithmic``, ``value``, ``time`` and ``slope``; an infinite time is left
        out.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per dynamics.
    """
    names = list(dict.fromkeys(table["dynamics"]))
    rows = math.ceil(len(names) / _COLUMNS)
    with styled():
        figure = new_figure(TWO_COLUMNS, 1.25 * rows)
        panels: list[Axes] = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
        for axes, name in zip(panels, names, strict=False):
            _draw_times_of(axes, name, table[table["dynamics"] == name])
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        figure.supylabel("stopping time $T$", fontsize=9)
        figure.supxlabel("hyperparameter", fontsize=9)
    return figure


def _draw_times_of(axes: Axes, name: str, rows: pd.DataFrame) -> None:
    rows = rows[np.isfinite(rows["time"])].sort_values("value")
    logarithmic = bool(rows["logarithmic"].iloc[0])
    values, times, slopes = (rows[column].to_numpy(dtype=float) for column in ("value", "time", "slope"))
    axes.plot(values, times, color=BLUE)
    for k in np.linspace(1, len(values) - 2, _TANGENTS).round().astype(int).tolist():
        width = 0.35 * values[k] if logarithmic else 0.09 * (values[-1] - values[0])
        around = values[k] + width * np.linspace(-1.0, 1.0, 21)
        tangent = times[k] + slopes[k] * (around - values[k])
        positive = tangent > 0
        axes.plot(around[positive], tangent[positive], color=VERMILION, linewidth=1.0)
        axes.plot(values[k], times[k], "o", color=VERMILION, markersize=2.2)
    axes.set_title(name.replace("-", " "), fontsize=7, pad=2)
    axes.set_xlabel(_mathematical(str(rows["symbol"].iloc[0])), fontsize=8, labelpad=0)
    if logarithmic:
        axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(times.min() / 1.3, times.max() * 1.3)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            _label_sparsely(axis)
    axes.tick_params(labelsize=6.5, length=2, pad=1.5)


def _label_sparsely(axis: Axis) -> None:
    """Label powers of ten; where there are fewer than two of them, 2 and 5 as well."""
    low, high = axis.get_view_interval()
    few = math.floor(math.log10(high)) - math.ceil(math.log10(low)) < 1
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if few else (1,), numticks=5))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def draw_paths(paths: pd.DataFrame, landscapes: pd.DataFrame) -> Figure:
    """Draw the paths of the dynamics, one column per family and one row per landscape.

    Parameters
    ----------
    paths
        Columns ``dynamics``, ``objective``, ``family``, ``index``, ``x1`` and ``x2``.
    landscapes
        Columns ``objective``, ``x1``, ``x2`` and ``value``, on a full grid.

    Returns
    -------
    matplotlib.figure.Figure
        A grid of panels with legends below.
    """
    objectives = list(dict.fromkeys(landscapes["objective"]))
    families = {
        title: list(dict.fromkeys(paths.loc[paths["family"].isin(modules), "dynamics"]))
        for title, modules in FAMILIES.items()
    }
    families = {title: names for title, names in families.items() if names}
    with styled():
        figure = new_figure(TWO_COLUMNS, 1.3 * len(objectives) + 0.8)
        grid = figure.subplots(len(objectives), len(families), squeeze=False)
        for row, objective in zip(grid, objectives, strict=True):
            landscape = landscapes[landscapes["objective"] == objective]
            for axes, (title, names) in zip(row, families.items(), strict=True):
                _draw_landscape(axes, landscape)
                _draw_paths_of(axes, paths[paths["objective"] == objective], names)
                if objective == objectives[0]:
                    axes.set_title(title, fontsize=8, pad=3)
                if objective == objectives[-1]:
                    axes.legend(
                        loc="upper center",
                        bbox_to_anchor=(0.45, -0.16),
                        fontsize=5.8,
                        handlelength=1.4,
                        labelspacing=0.2,
                    )
            row[0].set_ylabel(objective.replace("-", " "), fontsize=8)
    return figure


def _draw_landscape(axes: Axes, landscape: pd.DataFrame) -> None:
    values = landscape.pivot_table(index="x2", columns="x1", values="value")
    levels: np.ndarray = np.quantile(values.to_numpy(), (0.02, 0.08, 0.2, 0.4, 0.65, 0.9))
    axes.contour(values.columns, values.index, values, levels=levels, colors="#C8C8C8", linewidths=0.5)
    axes.set(xlim=(values.columns.min(), values.columns.max()), ylim=(values.index.min(), values.index.max()))
    axes.set_aspect("equal")
    axes.tick_params(labelsize=6, length=2, pad=1.5)


def _draw_paths_of(axes: Axes, paths: pd.DataFrame, names: list[str]) -> None:
    for (colour, style), name in zip(_LINES, names, strict=False):
        rows = paths[paths["dynamics"] == name].sort_values("index")
        axes.plot(rows["x1"], rows["x2"], color=colour, linestyle=style, linewidth=0.9, label=name.replace("-", " "))
    start = paths[paths["index"] == 0].iloc[0]
    axes.plot(start["x1"], start["x2"], "o", color=GREY, markersize=3, zorder=5)


def _mathematical(symbol: str) -> str:
    """Write a symbol of the registry, such as θ₁ or √s, for matplotlib."""
    greek = {"θ": r"\theta", "λ": r"\lambda", "τ": r"\tau", "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "μ": r"\mu",
             "σ": r"\sigma", "δ": r"\delta", "η": r"\eta", "ε": r"\varepsilon"}  # fmt: skip
    subscripts = str.maketrans("₀₁₂₃₄", "01234")
    base, index = symbol.rstrip("₀₁₂₃₄"), symbol[len(symbol.rstrip("₀₁₂₃₄")) :].translate(subscripts)
    base = "".join(greek.get(character, character) for character in base)
    return f"${base}_{{{index}}}$" if index else f"${base}$"
