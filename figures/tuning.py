"""Hyperparameters that minimise N: heavy ball on a quadratic, and Adam on real data."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from odestop.plotting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    TWO_COLUMNS,
    VERMILION,
    new_figure,
    plain_logarithmic,
    styled,
)

# Colour, marker and name.
_FOUND_BY = {
    "interpolated": (BLUE, "o", r"descent on $\hat N$"),
    "definition3": (VERMILION, "s", "descent by Definition 3"),
    "brute force": (BLACK, "D", "brute force"),
}
_SETTINGS = {
    "torch's defaults": (GREY, "-"),
    "descent from the defaults": (BLUE, "-"),
    "grid over the rate": (ORANGE, "--"),
    "descent from the grid": (VERMILION, "-"),
    "random search": (GREEN, "-."),
}
_DESCENTS = ("descent from the defaults", "descent from the grid")
_HYPERPARAMETERS = {
    "learning_rate": (BLUE, "o", "rate $s$"),
    "beta1": (ORANGE, "s", r"$1 - \beta_1$"),
    "beta2": (PURPLE, "^", r"$1 - \beta_2$"),
}


def draw_heavy_ball(landscape: pd.DataFrame, descents: pd.DataFrame, optima: pd.DataFrame) -> Figure:
    """Draw N over rate and momentum with the descents on it, and the distance of the optima from Polyak's parameters.

    Parameters
    ----------
    landscape
        Columns ``exponent``, ``learning_rate``, ``momentum`` and ``steps``, on a grid.
    descents
        Columns ``sensitivity``, ``exponent``, ``descent``, ``iteration``, ``learning_rate``, ``momentum``, ``steps``.
    optima
        Columns ``found_by``, ``exponent``, ``learning_rate``, ``momentum``, ``steps``, ``rate_error`` and ``distance``.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels.
    """
    with styled():
        figure = new_figure(TWO_COLUMNS, 3.1)
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _draw_landscape(figure, left, landscape)
        shown = descents[descents["exponent"] == landscape["exponent"].iloc[0]]
        _draw_paths(left, shown[shown["sensitivity"] == "interpolated"])
        row = optima.iloc[0]
        polyak = row["learning_rate"] / (1 + row["rate_error"]), row["momentum"] / (1 + row["momentum_error"])
        left.plot(*polyak, "*", color=BLACK, markersize=11, markeredgecolor="white", label="Polyak's parameters")
        left.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none")
        _draw_distances(right, optima)
    return figure


def _draw_landscape(figure: Figure, axes: Axes, landscape: pd.DataFrame) -> None:
    grid = landscape.pivot_table(index="momentum", columns="learning_rate", values="steps", dropna=False)
    steps = np.ma.masked_invalid(grid.to_numpy(dtype=float))
    levels = np.geomspace(steps.min(), steps.max(), 13)
    filled = axes.contourf(grid.columns, grid.index, steps, levels, cmap="cividis_r")
    axes.set_facecolor("#D9D9D9")
    bar = figure.colorbar(filled, ax=axes, pad=0.02, ticks=levels[::3], format="%.0f")
    exponent = landscape["exponent"].iloc[0]
    bar.set_label(rf"mean $\hat N$ for $J(x_N) = 10^{{-{exponent}}} J(x_0)$")
    bar.ax.minorticks_off()
    axes.margins(0)
    axes.set_xlabel("learning rate $s$")
    axes.set_ylabel(r"momentum $\mu$")


def _draw_paths(axes: Axes, descents: pd.DataFrame) -> None:
    for index, (_, path) in enumerate(descents.groupby("descent")):
        path = path[np.isfinite(path["steps"])]
        label = r"descents on $\hat N$" if index == 0 else None
        axes.plot(path["learning_rate"], path["momentum"], color="white", linewidth=2.2)
        axes.plot(path["learning_rate"], path["momentum"], color=VERMILION, linewidth=1.0, label=label)
        axes.plot(*path[["learning_rate", "momentum"]].iloc[0], "o", color=VERMILION, markeredgecolor="white")


def _draw_distances(axes: Axes, optima: pd.DataFrame) -> None:
    # Descents from several starts lie on top of each other; a small shift keeps the two kinds apart.
    shifts = {"interpolated": 0.95, "definition3": 1.05, "brute force": 1.0}
    for name, (colour, marker, label) in _FOUND_BY.items():
        rows = optima[optima["found_by"] == name]
        style = "-" if name == "brute force" else ""
        axes.plot(
            shifts[name] * rows["exponent"],
            rows["distance"],
            linestyle=style,
            marker=marker,
            color=colour,
            label=label,
            markerfacecolor=colour if name == "brute force" else "none",
            zorder=2 if name == "brute force" else 3,
        )
    exponents = np.array(sorted(optima["exponent"].unique()))
    axes.set_xscale("log", base=2)
    axes.set_xticks(exponents, [f"$10^{{-{exponent}}}$" for exponent in exponents])
    axes.xaxis.set_minor_locator(NullLocator())
    plain_logarithmic(axes)
    axes.set_xlabel(r"threshold $\varepsilon / J(x_0)$")
    axes.set_ylabel("relative distance from Polyak's parameters")
    axes.legend(loc="lower left")


def draw_adam(descents: pd.DataFrame, search: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Draw Adam before and after: J along the runs, N and the hyperparameters along the descents, and what it cost.

    Parameters
    ----------
    descents
        Columns ``descent``, ``iteration``, ``learning_rate``, ``beta1``, ``beta2``, ``steps``, ``evaluations`` and
        ``vjps``.
    search
        Columns ``method``, ``order``, ``cost`` and ``steps``: the best N so far, a row per improvement.
    runs
        Columns ``found_by``, ``k`` and ``criterion``.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels with a common legend.
    """
    with styled():
        figure = new_figure(TWO_COLUMNS, 5.2)
        (above, beside), (below, last) = figure.subplots(2, 2)
        _draw_runs(above, runs)
        _draw_steps(beside, descents)
        _draw_hyperparameters(below, descents)
        _draw_costs(last, descents, search)
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def _draw_runs(axes: Axes, runs: pd.DataFrame) -> None:
    for name, (colour, style) in _SETTINGS.items():
        rows = runs[runs["found_by"] == name]
        label = f"{name}: $N = {rows['k'].iloc[-1]}$"
        axes.plot(rows["k"] + 1, rows["criterion"], style, color=colour, label=label)
    axes.set_xscale("log")
    _logarithmic(axes)
    axes.set_xlabel("$k + 1$ of the iterate $x_k$, from $x_0 = 0$")
    axes.set_ylabel(r"$J(x_k) = \|\nabla f(x_k)\|^2$")


def _draw_steps(axes: Axes, descents: pd.DataFrame) -> None:
    for name in _DESCENTS:
        rows = descents[descents["descent"] == name]
        colour, _ = _SETTINGS[name]
        reached = rows[np.isfinite(rows["steps"])]
        axes.plot(reached["iteration"], reached["steps"], "o", color=colour, markersize=2.5)
        axes.plot(rows["iteration"], rows["steps"].cummin(), color=colour)
        given_up = rows[~np.isfinite(rows["steps"])]
        axes.plot(given_up["iteration"], 2 * rows["steps"].cummin()[given_up.index], "x", color=colour, markersize=4)
    handles = [
        Line2D([], [], color=GREY, linestyle="", marker="o", markersize=2.5, label="visited"),
        Line2D([], [], color=GREY, linestyle="", marker="x", label="given up at twice the best"),
        Line2D([], [], color=GREY, label="best so far"),
    ]
    axes.legend(handles=handles, loc="upper right")
    _logarithmic(axes)
    axes.set_xlabel("step of the descent")
    axes.set_ylabel(r"mean $\hat N$ of Adam")


def _draw_hyperparameters(axes: Axes, descents: pd.DataFrame) -> None:
    values = descents.assign(beta1=1 - descents["beta1"], beta2=1 - descents["beta2"])
    for (name, style), (column, (colour, marker, label)) in itertools.product(
        zip(_DESCENTS, ("-", "--"), strict=True), _HYPERPARAMETERS.items()
    ):
        rows = values[values["descent"] == name]
        axes.plot(
            rows["iteration"],
            rows[column],
            style,
            color=colour,
            marker=marker,
            markevery=max(len(rows) // 8, 1),
            label=label if style == "-" else None,
        )
    _logarithmic(axes)
    axes.set_xlabel("step of the descent (dashed: from the grid)")
    axes.set_ylabel("hyperparameters of Adam")
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.4))


def _draw_costs(axes: Axes, descents: pd.DataFrame, search: pd.DataFrame) -> None:
    grid = search[search["method"] == "grid over the rate"]
    before = {"descent from the defaults": 0, "descent from the grid": grid["total_cost"].iloc[0]}
    curves: dict[str, tuple[Any, Any]] = {}
    for name, offset in before.items():
        rows = descents[descents["descent"] == name]
        curves[name] = (offset + (rows["evaluations"] + rows["vjps"]).cumsum(), rows["steps"].cummin())
    end = curves["descent from the defaults"][0].max()
    curves["grid over the rate"] = ([*grid["cost"], grid["total_cost"].iloc[0]], [*grid["steps"], grid["steps"].min()])
    costs, low, middle, high = _spread(search[search["method"] == "random search"], end)
    curves["random search"] = (costs, middle)
    for name, (cost, steps) in curves.items():
        colour, style = _SETTINGS[name]
        axes.step(cost, steps, style, where="post", color=colour)
    axes.fill_between(costs, low, high, step="post", color=_SETTINGS["random search"][0], alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    _logarithmic(axes)
    axes.set_xlabel("cost: evaluations of the step and VJPs")
    axes.set_ylabel(r"best mean $\hat N$ so far")


def _spread(search: pd.DataFrame, end: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return costs, and the tenth, fiftieth and ninetieth percentile of the best N over the orders.

    The costs begin where nine orders of ten have found something.
    """
    orders = [rows for _, rows in search.groupby("order")]
    costs = np.geomspace(np.quantile([rows["cost"].iloc[0] for rows in orders], 0.9), end, 200)
    best = [np.append(np.inf, rows["steps"])[np.searchsorted(rows["cost"], costs, side="right")] for rows in orders]
    low, middle, high = np.quantile(best, (0.1, 0.5, 0.9), axis=0, method="nearest")
    return costs, low, middle, high


def _logarithmic(axes: Axes) -> None:
    plain_logarithmic(axes)
    axes.yaxis.set_major_locator(LogLocator(numticks=8))
