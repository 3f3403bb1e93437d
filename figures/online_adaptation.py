"""Figures 4 and 6: f - f* and ‖∇f‖ of Adam-OLA and of other methods, against iterations and gradients."""

from __future__ import annotations

from typing import Any

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
    SKY_BLUE,
    TWO_COLUMNS,
    VERMILION,
    new_figure,
    styled,
)

_DASHES, _DOTS = (0, (4, 1.5)), (0, (1, 1))
# Colour, line and width.
_STYLES: dict[str, tuple[str, Any, float]] = {
    "GD": (GREY, "-", 1.0),
    "heavy ball": (SKY_BLUE, "-", 1.0),
    "NAG": (GREEN, "-", 1.0),
    "NAG-SC": (GREEN, _DASHES, 1.0),
    "Adagrad": (PURPLE, "-", 1.0),
    "Adam": (BLUE, "-", 1.2),
    "Adam-HD": (ORANGE, "-", 1.0),
    "HDM": (BLACK, "-", 1.0),
    "Adam-OLA": (VERMILION, "-", 1.7),
    "Adam-OLA, log": (VERMILION, _DASHES, 1.0),
    "Adam-OLA, 2 gradients": (VERMILION, _DOTS, 1.7),
    "L-BFGS": (BLACK, _DOTS, 1.0),
}
# What the methods differ in by their count of gradients, and what they are compared with there.
_COUNTED = ("Adam", "HDM", "Adam-OLA", "Adam-OLA, 2 gradients", "L-BFGS")
_TOLERANCE = 1e-4
_LEAST_GAP = 1e-10


def draw(curves: pd.DataFrame, protocol: str) -> Figure:
    """Draw one row of panels for each data set of a protocol.

    Parameters
    ----------
    curves
        Columns ``dataset``, ``protocol``, ``method``, ``seed``, ``iteration``, ``evaluations``, ``gap`` and ``norm``.
        Lines are medians over the seeds; a run that has met the tolerance counts with its last value, and a line ends
        where half of them have.
    protocol
        ``"paper"`` or ``"equal"``.

    Returns
    -------
    matplotlib.figure.Figure
        From left to right: f - f* against iterations, ‖∇f‖ against iterations, ‖∇f‖ against gradients.
    """
    shown = curves[(curves["protocol"] == protocol)]
    datasets = list(dict.fromkeys(shown["dataset"]))
    methods = [name for name in _STYLES if name in set(shown["method"])]
    with styled():
        figure = new_figure(TWO_COLUMNS, 0.7 + 1.55 * max(len(datasets), 1))
        if not datasets:
            figure.text(0.5, 0.5, "no data set of this protocol was at hand", ha="center")
            return figure
        panels = figure.subplots(len(datasets), 3, squeeze=False, sharex="col")
        for row, dataset in zip(panels, datasets, strict=True):
            in_set = curves[(curves["dataset"] == dataset) & curves["protocol"].isin([protocol, "reference"])]
            for name in [*methods, "L-BFGS"]:
                runs = in_set[in_set["method"] == name]
                if name != "Adam-OLA, 2 gradients":
                    _draw_line(row[0], runs, "iteration", "gap")
                    _draw_line(row[1], runs, "iteration", "norm")
                if name in _COUNTED:
                    _draw_line(row[2], runs, "evaluations", "norm")
            _finish(row, dataset)
        panels[-1][2].set_xlim(right=curves["iteration"].max())
        for axes, label in zip(panels[-1], ("iterations", "iterations", "gradients taken"), strict=True):
            axes.set_xlabel(label)
        figure.legend(
            handles=[_line(name) for name in [*methods, "L-BFGS"]],
            loc="outside upper center",
            ncols=6,
            columnspacing=1.2,
        )
    return figure


def _draw_line(axes: Axes, runs: pd.DataFrame, x: str, y: str) -> None:
    if runs.empty:
        return
    table = runs.pivot_table(index="iteration", columns="seed", values=y)
    running = 2 * table.notna().sum(axis="columns") > table.shape[1]
    places = runs.groupby("iteration")[x].median()[running]
    colour, line, width = _STYLES[runs["method"].iloc[0]]
    median = table.ffill().median(axis="columns").clip(upper=1e12)[running]
    axes.plot(places.to_numpy(dtype=float), median.to_numpy(), color=colour, linestyle=line, linewidth=width)


def _finish(row: np.ndarray, dataset: str) -> None:
    for axes, label in zip(row, (r"$f - f^*$", r"$\|\nabla f\|$", r"$\|\nabla f\|$"), strict=True):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(numticks=6))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.set_ylabel(label, labelpad=1)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.set_xlim(left=0)
    row[0].set_ylim(_LEAST_GAP, 1e5)
    for axes in row[1:]:
        axes.set_ylim(_TOLERANCE / 3, 1e5)
        axes.axhline(_TOLERANCE, color=GREY, linewidth=0.7, linestyle=_DASHES, zorder=1)
    row[0].set_title(dataset, loc="left", fontweight="bold", pad=3)


def _line(name: str) -> Line2D:
    colour, line, width = _STYLES[name]
    return Line2D([], [], color=colour, linestyle=line, linewidth=width, label=name)
