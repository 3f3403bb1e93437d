"""Figure 3: f along the runs of learned and classical optimizers, and their iterations to three targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
    power_of_ten,
    styled,
)

METHOD_COLOURS = {
    "GD": GREY,
    "NAG": GREEN,
    "Adam": BLUE,
    "L2O-DM": PURPLE,
    "RNNprop": ORANGE,
    "RNNprop-Time": VERMILION,
    "RNNprop-Level": BLACK,
}
COUNT_MARKERS = {"steps": "o", "settled": "^", "steps_to_level": "s"}
_LEAST = 1e-9


def draw(curves: pd.DataFrame, counts: pd.DataFrame, dimension: int, threshold: float, level: float) -> Figure:
    """Draw one test set.

    Parameters
    ----------
    curves
        Columns ``label``, ``seed``, ``dimension``, ``iteration``, ``low``, ``median`` and ``high`` of f over problems.
        Trainings with different seeds are lines of one colour.
    counts
        Columns ``label``, ``seed``, ``dimension``, ``rose``, ``gap_at_stop_median``, and the quartiles of each count,
        such as ``steps_low``, ``steps_median`` and ``steps_high``.
    dimension
        Which test set.
    threshold, level
        ε of the decrease and the level of f, for the legend.

    Returns
    -------
    matplotlib.figure.Figure
        Left: medians of f, with quartiles shaded, and circles at the median N and f(x_N).  Right: quartiles of the
        iterations; a hollow circle says that f rose on the step that met the decrease, on most problems.
    """
    curves, counts = curves[curves["dimension"] == dimension], counts[counts["dimension"] == dimension]
    labels = [label for label in METHOD_COLOURS if label in set(curves["label"])]
    with styled():
        figure = new_figure(TWO_COLUMNS, 3.1)
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
        _draw_curves(left, curves, counts, labels)
        rows = {label: (METHOD_COLOURS[label], counts[counts["label"] == label]) for label in labels}
        _draw_counts(right, rows, float(curves["iteration"].max()))
        left.axhline(level, color=GREY, linewidth=0.7, linestyle=(0, (4, 1.5)), zorder=1)
        left.set_title(rf"$d = {dimension}$", loc="left", pad=3)
        right.set_title("iterations until", loc="left", pad=3)
        figure.legend(handles=[_line(label) for label in labels], loc="outside upper center", ncols=len(labels))
        figure.legend(handles=_count_handles(threshold, level), loc="outside lower center", ncols=3)
    return figure


def draw_ablation(counts: pd.DataFrame, dimension: int, level: float, iterations: int) -> Figure:
    """Draw what λ, ε and the sensitivity change for RNNprop, a panel for each criterion that it is trained with.

    Parameters
    ----------
    counts
        As for `draw`, with columns ``weight``, ``criterion``, ``threshold`` and ``sensitivity`` instead of ``label``.
    dimension
        Which test set.
    level
        The level of f whose iterations are shown.
    iterations
        K.
    """
    counts = counts[counts["dimension"] == dimension]
    plain = counts[counts["weight"] == 0]
    with styled():
        figure = new_figure(TWO_COLUMNS, 3.8)
        thresholds = []
        for axes, criterion in zip(figure.subplots(1, 2), ("decrease", "value"), strict=True):
            penalised = counts[(counts["criterion"] == criterion) & (counts["weight"] > 0)]
            threshold = float(penalised["threshold"].median())
            thresholds.append(threshold)
            rows = {r"$\lambda = 0$": (METHOD_COLOURS["RNNprop"], plain)}
            colour = METHOD_COLOURS[{"decrease": "RNNprop-Time", "value": "RNNprop-Level"}[criterion]]
            for variant, trainings in _variants(penalised, threshold):
                rows[variant] = (colour, trainings)
            _draw_counts(axes, rows, iterations)
            target = {"decrease": r"f(x_{k-1}) - f(x_k)", "value": "f(x_k)"}[criterion]
            axes.set_title(
                rf"trained for ${target} \leq \varepsilon$, $\varepsilon = {power_of_ten(threshold)}$", loc="left"
            )
        figure.legend(handles=_count_handles(thresholds[0], level), loc="outside lower center", ncols=3)
    return figure


def _variants(penalised: pd.DataFrame, threshold: float) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield names and trainings: every λ at the usual ε, then other ε, then other sensitivities."""
    usual = penalised["sensitivity"] == "definition3"
    middle = np.isclose(penalised["threshold"], threshold, rtol=1e-3, atol=0.0)
    for weight, trainings in penalised[usual & middle].groupby("weight"):
        yield rf"$\lambda = {weight:g}$", trainings
    for _, trainings in penalised[usual & ~middle].groupby("threshold"):
        other = float(f"{trainings['threshold'].iloc[0]:.3g}")
        yield rf"$\lambda = 1$, $\varepsilon = {power_of_ten(other)}$", trainings
    for sensitivity, trainings in penalised[~usual].groupby("sensitivity"):
        yield rf"$\lambda = 1$, {sensitivity}", trainings


def _draw_curves(axes: Axes, curves: pd.DataFrame, counts: pd.DataFrame, labels: list[str]) -> None:
    for label in labels:
        for _, run in curves[curves["label"] == label].groupby("seed"):
            run = run[run["iteration"] > 0]
            low, median, high = (run[name].clip(_LEAST / 10, 10.0) for name in ("low", "median", "high"))
            axes.plot(run["iteration"], median, color=METHOD_COLOURS[label], linewidth=1.2)
            axes.fill_between(run["iteration"], low, high, color=METHOD_COLOURS[label], alpha=0.15, linewidth=0)
        for row in counts[counts["label"] == label].to_dict("records"):
            colour, filling = METHOD_COLOURS[label], "white" if row["rose"] > 0.5 else METHOD_COLOURS[label]
            axes.plot(
                row["steps_median"], row["gap_at_stop_median"], "o", color=colour, markerfacecolor=filling, zorder=3
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.9, curves["iteration"].max())
    axes.set_ylim(_LEAST, 3.0)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(ticker.LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel("iteration $k$")
    axes.set_ylabel(r"$f(x_k)$")
    axes.grid(axis="y")


def _draw_counts(axes: Axes, rows: Mapping[str, tuple[str, pd.DataFrame]], iterations: float) -> None:
    """Draw the counts of each row, given by its name as a colour and one line of a table per training."""
    beyond = 1.6 * iterations
    for place, (colour, trainings) in enumerate(rows.values()):
        shifts = np.linspace(-0.07, 0.07, len(trainings)) if len(trainings) > 1 else np.zeros(1)
        for shift, row in zip(shifts, trainings.to_dict("records"), strict=True):
            for offset, (name, marker) in zip((-0.26, 0.0, 0.26), COUNT_MARKERS.items(), strict=True):
                low, median, high = (min(row[f"{name}_{key}"], beyond) for key in ("low", "median", "high"))
                y = place + offset + shift
                filling = "white" if name == "steps" and row["rose"] > 0.5 else colour
                axes.plot([low, high], [y, y], color=colour, linewidth=0.9)
                axes.plot([median], [y], marker, color=colour, markerfacecolor=filling, clip_on=False)
    axes.axvspan(iterations, 2 * iterations, color="#EEEEEE", zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(0.9, 2 * iterations)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("iterations; not met in the shaded part")
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _line(label: str) -> Line2D:
    return Line2D([], [], color=METHOD_COLOURS[label], label=label)


def _count_handles(threshold: float, level: float) -> list[Line2D]:
    decrease = rf"$f(x_{{k-1}}) - f(x_k) \leq {power_of_ten(threshold)}$"
    texts = (
        f"{decrease} (hollow: by a rise)",
        rf"$|f(x_{{k-1}}) - f(x_k)| \leq {power_of_ten(threshold)}$ for good",
        rf"$f(x_k) \leq {power_of_ten(level)}$",
    )
    return [
        Line2D([], [], color=GREY, marker=marker, linestyle="none", label=text)
        for marker, text in zip(COUNT_MARKERS.values(), texts, strict=True)
    ]
