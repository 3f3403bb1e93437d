"""Every dynamics at a glance: stopping times against hyperparameters, paths on two landscapes, and phase portraits."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from odestop.plotting.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    TWO_COLUMNS,
    VERMILION,
    new_figure,
    styled,
)

_COLUMNS = 6
_TANGENTS = (0.15, 0.5, 0.85)
_TANGENT_LENGTH = 0.34
_JUMP = 0.03
_LOGARITHMIC_FROM = 5.0
_STOPPING_SET, _UNREACHED, _STREAM = "#BFE3D6", "#EBEBEB", "#A9B4BF"
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
        Columns ``dynamics``, ``objective``, ``symbol``, ``logarithmic``, ``value``, ``time`` and ``slope``; the range
        where the time is infinite is shaded, and an objective that is not the most frequent one is named.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per dynamics.
    """
    names = list(dict.fromkeys(table["dynamics"]))
    rows = math.ceil(len(names) / _COLUMNS)
    with styled():
        figure = new_figure(TWO_COLUMNS, 1.18 * rows + 0.3)
        panels: list[Axes] = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
        for axes, name in zip(panels, names, strict=False):
            rows_of_it = table[table["dynamics"] == name].sort_values("value")
            _draw_times_of(axes, name, rows_of_it, table["objective"].mode()[0])
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        figure.supylabel("stopping time $T$", fontsize=9)
        figure.legend(
            handles=[
                Line2D([], [], color=BLUE, label="$T$"),
                Line2D([], [], color=VERMILION, marker="o", markersize=2.5, label="its gradient, as a tangent"),
                Patch(color=_UNREACHED, label="threshold not reached"),
            ],
            loc="outside lower center",
            ncols=3,
        )
    return figure


def _draw_times_of(axes: Axes, name: str, rows: pd.DataFrame, objective: str) -> None:
    reached = rows[np.isfinite(rows["time"])]
    times = reached["time"].to_numpy(dtype=float)
    axes.set_title(_in_words(name), fontsize=7, pad=2)
    own = rows["objective"].iloc[0]
    suffix = "" if own == objective else f", {_in_words(own)}"
    axes.set_xlabel(_mathematical(str(rows["symbol"].iloc[0])) + suffix, fontsize=7.5, labelpad=0)
    if bool(rows["logarithmic"].iloc[0]):
        axes.set_xscale("log")
    if times.max() > _LOGARITHMIC_FROM * times.min():
        axes.set_yscale("log")
        axes.set_ylim(times.min() / 1.3, times.max() * 1.3)
    else:
        margin = max(0.15 * (times.max() - times.min()), 0.1 * times.max())
        axes.set_ylim(times.min() - margin, times.max() + margin)
    axes.set_xlim(rows["value"].iloc[0], rows["value"].iloc[-1])
    _shade_unreached(axes, rows)
    _draw_curve(axes, reached)
    for axis in (axes.xaxis, axes.yaxis):
        _label_sparsely(axis)
    axes.tick_params(labelsize=6.5, length=2, pad=1.5)
    axes.tick_params(which="minor", length=1.2)


def _shade_unreached(axes: Axes, rows: pd.DataFrame) -> None:
    """Shade the part of the range that lies nearer to values where the threshold is not reached."""
    values, missed = axes.transData.transform(rows[["value", "value"]])[:, 0], ~np.isfinite(rows["time"].to_numpy())
    edges = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])
    edges = axes.transData.inverted().transform(np.stack([edges, edges], axis=-1))[:, 0]
    for k in np.flatnonzero(missed):
        axes.axvspan(edges[k], edges[k + 1], color=_UNREACHED, linewidth=0, zorder=0)


def _draw_curve(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw T, interrupted where it jumps, and straight tangents in the coordinates of the axes."""
    x, y, slope = _in_panel(axes, rows)
    places, steepest = axes.transAxes, np.maximum(np.abs(slope[1:]), np.abs(slope[:-1]))
    jumps = np.flatnonzero(np.abs(np.diff(y)) > 1.5 * steepest * np.diff(x) + _JUMP)
    axes.plot(np.insert(x, jumps + 1, np.nan), np.insert(y, jumps + 1, np.nan), color=BLUE, transform=places)
    for k in jumps.tolist():
        axes.plot(x[k : k + 2], y[k : k + 2], color=BLUE, linewidth=0.5, linestyle=":", transform=places)
    for fraction in _TANGENTS:
        k = int(np.argmin(np.abs(x - (x[0] + fraction * (x[-1] - x[0])))))
        along = 0.5 * _TANGENT_LENGTH / math.hypot(1.0, slope[k]) * np.array([-1.0, 1.0])
        axes.plot(x[k] + along, y[k] + slope[k] * along, color=VERMILION, linewidth=0.9, transform=places, zorder=3)
        axes.plot(x[k], y[k], "o", color=VERMILION, markersize=2.2, transform=places, zorder=4)


def _in_panel(axes: Axes, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values, times and slopes as fractions of the panel, by the chain rule on logarithmic axes."""
    values, times, slopes = (rows[column].to_numpy(dtype=float) for column in ("value", "time", "slope"))
    to_panel = axes.transData + axes.transAxes.inverted()
    x, y = to_panel.transform(np.stack([values, times], axis=-1)).T
    (x_low, x_high), (y_low, y_high) = axes.get_xlim(), axes.get_ylim()
    rate_x = 1 / (values * math.log(x_high / x_low)) if axes.get_xscale() == "log" else 1 / (x_high - x_low)
    rate_y = 1 / (times * math.log(y_high / y_low)) if axes.get_yscale() == "log" else 1 / (y_high - y_low)
    return x, y, slopes * rate_y / rate_x


def _label_sparsely(axis: Axis) -> None:
    """Label at most four numbers: on a logarithmic axis powers of ten; where fewer than two, 2 and 5 as well."""
    if axis.get_scale() != "log":
        axis.set_major_locator(ticker.MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        return
    low, high = axis.get_view_interval()
    exponents = [k for k in range(-12, 13) if low * 0.999 <= 10.0**k <= high * 1.001]
    if len(exponents) >= 2:
        ticks = [10.0**k for k in exponents[:: math.ceil(len(exponents) / 4)]]
    else:
        ticks = [m * 10.0**k for k in range(-12, 13) for m in (1, 2, 5) if low <= m * 10.0**k <= high]
    axis.set_major_locator(ticker.FixedLocator(ticks))
    axis.set_minor_locator(ticker.LogLocator(subs=range(2, 10), numticks=12))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_formatter(ticker.NullFormatter())


def _short(value: float) -> str:
    return f"{value:g}" if 1e-2 <= value < 1e4 else f"$10^{{{round(math.log10(value))}}}$"


def draw_paths(paths: pd.DataFrame, landscapes: pd.DataFrame) -> Figure:
    """Draw the paths of the dynamics, one column per family and one row per landscape.

    Parameters
    ----------
    paths
        Columns ``dynamics``, ``objective``, ``family``, ``index``, ``x1``, ``x2`` and ``status``.
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
        figure = new_figure(TWO_COLUMNS, 1.35 * len(objectives) + 1.2)
        grid = figure.subplots(len(objectives), len(families), squeeze=False, sharex="row", sharey="row")
        for row, objective in zip(grid, objectives, strict=True):
            landscape = landscapes[landscapes["objective"] == objective]
            for axes, (title, names) in zip(row, families.items(), strict=True):
                _draw_landscape(axes, landscape)
                _draw_paths_of(axes, paths[paths["objective"] == objective], names)
                if objective == objectives[0]:
                    axes.set_title(title, fontsize=8, pad=3)
                if objective == objectives[-1]:
                    axes.set_xlabel("$x_1$", labelpad=1)
                    axes.legend(
                        loc="upper center",
                        bbox_to_anchor=(0.42, -0.3),
                        fontsize=6.6,
                        handlelength=1.2,
                        handletextpad=0.4,
                        labelspacing=0.2,
                        borderpad=0,
                    )
            row[0].set_ylabel(f"{_in_words(objective)}\n$x_2$", fontsize=8, labelpad=1)
    return figure


def _draw_landscape(axes: Axes, landscape: pd.DataFrame) -> None:
    values = landscape.pivot_table(index="x2", columns="x1", values="value")
    levels: np.ndarray = np.quantile(values.to_numpy(), (0.02, 0.08, 0.2, 0.4, 0.65, 0.9))
    axes.contour(values.columns, values.index, values, levels=levels, colors="#C8C8C8", linewidths=0.5)
    axes.set(xlim=(values.columns.min(), values.columns.max()), ylim=(values.index.min(), values.index.max()))
    axes.set_aspect("equal")
    axes.tick_params(labelsize=6.5, length=2, pad=1.5)


def _draw_paths_of(axes: Axes, paths: pd.DataFrame, names: list[str]) -> None:
    # Thinner and thinner, so that no path hides one that it coincides with.
    for (colour, style), width, name in zip(_LINES, np.linspace(1.5, 0.6, len(names)), names, strict=False):
        rows = paths[paths["dynamics"] == name].sort_values("index")
        end = rows.iloc[-1]
        axes.plot(rows["x1"], rows["x2"], color=colour, linestyle=style, linewidth=width, label=_in_words(name))
        mark, size = ("o", 2.4) if end["status"] == "REACHED" else ("x", 4.0)
        axes.plot(end["x1"], end["x2"], color=colour, zorder=4, marker=mark, markersize=size)
    start = paths[paths["index"] == 0].iloc[0]
    axes.plot(start["x1"], start["x2"], "o", color="white", markeredgecolor=BLACK, markersize=3.5, zorder=5)


def draw_portraits(fields: pd.DataFrame, paths: pd.DataFrame) -> Figure:
    """Draw phase portraits: streamlines of the field, the stopping set, and trajectories up to it and beyond.

    Parameters
    ----------
    fields
        Columns ``title``, ``plane`` (``"landscape"`` or ``"momentum"``), ``x``, ``y``, ``dx``, ``dy``, ``value`` for J
        and ``threshold`` for ε, on full grids.
    paths
        Columns ``title``, ``start``, ``time``, ``x``, ``y`` and ``stopping_time``.

    Returns
    -------
    matplotlib.figure.Figure
        One row of panels per plane.
    """
    planes = {plane: list(dict.fromkeys(rows["title"])) for plane, rows in fields.groupby("plane", sort=False)}
    with styled():
        figure = new_figure(TWO_COLUMNS, 1.75 * len(planes) + 0.5)
        grid = figure.subplots(len(planes), max(map(len, planes.values())), squeeze=False, sharex="row", sharey="row")
        for row, (plane, titles) in zip(grid, planes.items(), strict=True):
            for axes, title in zip(row, titles, strict=False):
                _draw_field(axes, fields[fields["title"] == title])
                for _, trajectory in paths[paths["title"] == title].groupby("start"):
                    _draw_trajectory(axes, trajectory.sort_values("time"))
                axes.set_title(title, fontsize=8, pad=3)
                for axis in (axes.xaxis, axes.yaxis):
                    _label_sparsely(axis)
                axes.set_xlabel("$x_1$" if plane == "landscape" else "position $x$", labelpad=1)
                axes.tick_params(labelsize=7, length=2, pad=1.5)
            row[0].set_ylabel("$x_2$" if plane == "landscape" else "velocity $v$", labelpad=1)
        figure.legend(
            handles=[
                Line2D([], [], color=_STREAM, label=r"field $\dot x$", linewidth=0.8),
                Patch(color=_STOPPING_SET, label=r"$J \leq \varepsilon$"),
                Line2D([], [], color=BLUE, label="until $T$"),
                Line2D([], [], color=ORANGE, linestyle=":", label="after $T$, or never stopped"),
                Line2D([], [], color=VERMILION, marker="o", linestyle="none", markersize=3, label="$x(T)$"),
                Line2D([], [], marker="o", color="white", markeredgecolor=BLACK, markersize=3.5, label="start"),
            ],
            loc="outside lower center",
            ncols=6,
            columnspacing=1.2,
            handletextpad=0.5,
        )
    return figure


def _draw_field(axes: Axes, field: pd.DataFrame) -> None:
    tables = {name: field.pivot_table(index="y", columns="x", values=name) for name in ("dx", "dy", "value")}
    x, y = tables["value"].columns.to_numpy(), tables["value"].index.to_numpy()
    threshold = float(field["threshold"].iloc[0])
    axes.contourf(x, y, tables["value"], levels=[-np.inf, threshold], colors=[_STOPPING_SET], zorder=0)
    axes.streamplot(
        # matplotlib wants exactly equal spacings.
        np.linspace(x[0], x[-1], len(x)),
        np.linspace(y[0], y[-1], len(y)),
        tables["dx"].to_numpy(),
        tables["dy"].to_numpy(),
        density=0.9,
        color=_STREAM,
        linewidth=0.5,
        arrowsize=0.5,
        zorder=1,
    )
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def _draw_trajectory(axes: Axes, rows: pd.DataFrame) -> None:
    before, after = rows[rows["time"] <= rows["stopping_time"]], rows[rows["time"] >= rows["stopping_time"]]
    start, stop = rows.iloc[0], before.iloc[-1]
    if math.isinf(stop["stopping_time"]):
        before, after = before.iloc[:1], before
    else:
        axes.plot(stop["x"], stop["y"], "o", color=VERMILION, markersize=2.6, zorder=5)
    axes.plot(before["x"], before["y"], color=BLUE, linewidth=1.0, zorder=3)
    axes.plot(after["x"], after["y"], color=ORANGE, linewidth=0.9, linestyle=":", zorder=2)
    axes.plot(start["x"], start["y"], "o", color="white", markeredgecolor=BLACK, markersize=3.2, zorder=4)


_NAMES = ["Adagrad", "Adam", "Gauss", "Hessian", "Himmelblau", "LSTM", "Lyapunov", "MLP", "Nesterov", "Newton"]
_NAMES += ["RMSprop", "Schatten"]


def _in_words(name: str) -> str:
    """Write a name of the registry for people."""
    proper = {word.lower(): word for word in _NAMES}
    return " ".join(proper.get(word, word) for word in name.split("-")).replace("high resolution", "high-res.")


def _mathematical(symbol: str) -> str:
    """Write a symbol of the registry, such as θ₁ or √s, for matplotlib."""
    greek = {"θ": r"\theta", "λ": r"\lambda", "τ": r"\tau", "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "μ": r"\mu",
             "σ": r"\sigma", "δ": r"\delta", "η": r"\eta", "ε": r"\varepsilon"}  # fmt: skip
    subscripts = str.maketrans("₀₁₂₃₄", "01234")
    base, index = symbol.rstrip("₀₁₂₃₄"), symbol[len(symbol.rstrip("₀₁₂₃₄")) :].translate(subscripts)
    base = "".join(greek.get(character, character) for character in base)
    return f"${base}_{{{index}}}$" if index else f"${base}$"
