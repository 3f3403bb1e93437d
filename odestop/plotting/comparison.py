"""The figure of `odestop compare`: relative error of h ∇N, and its cost, against the step size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odestop.comparison_grid import problem_columns, problem_in_words
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

MOST_PANELS = 16
_COLUMNS = 4
_LINES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1.2, 1, 1.2)), (0, (6, 2)), (0, (2, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_IN_WORDS = {"definition3": "Definition 3", "rk4": "RK4", "euler": "Euler", "heun": "Heun", "hermite": "Hermite"}


def draw(table: pd.DataFrame) -> Figure:
    """Draw a pair of panels for every problem: relative error above, ratio of evaluations below.

    Parameters
    ----------
    table
        What a `odestop.sweeps.Runner` returns for `odestop.comparison_grid.ComparisonGrid.sweep`, one row per cell.
        Rows without a positive, finite error are left out.

    Returns
    -------
    matplotlib.figure.Figure
        Colours are thresholds; lines and markers are step maps with sensitivities; bands are the range of the seeds.

    Raises
    ------
    ValueError
        If nothing can be drawn, or if there are more than `MOST_PANELS` problems.
    """
    panels_by = problem_columns(table)
    table = table[table["relative_error"].gt(0) & table["relative_error"].lt(math.inf)]
    problems = [(key, rows) for key, rows in table.groupby(panels_by, dropna=False, sort=False)]
    if not 0 < len(problems) <= MOST_PANELS:
        raise ValueError(f"table must hold 1 to {MOST_PANELS} problems with gradients to compare, got {len(problems)}")
    columns, blocks = min(len(problems), _COLUMNS), math.ceil(len(problems) / _COLUMNS)
    colours: dict[Any, str] = dict(threshold_colours(table["threshold"]))
    styles = _line_styles(table)
    with styled():
        figure = new_figure(TWO_COLUMNS * max(0.5, columns / _COLUMNS), 3.4 * blocks + 0.5)
        grid = figure.subplots(2 * blocks, columns, squeeze=False, sharex=True, sharey="row")
        for index, (key, rows) in enumerate(problems):
            block, column = divmod(index, columns)
            error, cost = grid[2 * block, column], grid[2 * block + 1, column]
            _draw_problem(error, cost, rows, colours, styles)
            words = problem_in_words(dict(zip(panels_by, key, strict=True)))
            error.set_title(words.replace(" on ", " on\n").replace(", ", "\n"), fontsize=8)
            if column == 0:
                error.set_ylabel(r"relative error of $h\nabla N$")
                cost.set_ylabel("NFE ratio (steps / flow)")
        _hide_unused(grid, len(problems), columns)
        figure.supxlabel(STEP_SIZE_LABEL, fontsize="medium")
        _draw_legend(figure, colours, styles)
    return figure


def _draw_problem(
    error: Axes, cost: Axes, rows: pd.DataFrame, colours: dict[Any, str], styles: dict[Any, dict[str, Any]]
) -> None:
    for (threshold, step_map, sensitivity), curve in rows.groupby(["threshold", "step_map", "sensitivity"], sort=False):
        line = {"color": colours[threshold], "markersize": 3.0, **styles[step_map, sensitivity]}
        draw_curve(error, curve, "relative_error", **line)
        draw_curve(cost, curve, "nfe_ratio", **line)
    for axes in (error, cost):
        label_step_sizes(axes, rows["step_size"])
        plain_logarithmic(axes)
    cost.axhline(1.0, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    if rows["step_size"].nunique() > 1:
        span = rows["step_size"].min(), rows["step_size"].max()
        slope_guide(error, 1, 0.5 * float(rows["relative_error"].min()), span)


def _line_styles(table: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    kinds = list(dict.fromkeys(zip(table["step_map"], table["sensitivity"], strict=True)))
    return {
        kind: {"linestyle": _LINES[index % len(_LINES)], "marker": _MARKERS[index % len(_MARKERS)]}
        for index, kind in enumerate(kinds)
    }


def _draw_legend(figure: Figure, colours: dict[Any, str], styles: dict[Any, dict[str, Any]]) -> None:
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=3, label=threshold_label(threshold))
        for threshold, colour in colours.items()
    ]
    if len(styles) > 1:
        handles += [
            Line2D([], [], color=GREY, markersize=3, label=_kind_in_words(*kind), **style)
            for kind, style in styles.items()
        ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))


def _kind_in_words(step_map: str, sensitivity: str) -> str:
    return f"{_IN_WORDS.get(step_map, step_map)}, {_IN_WORDS.get(sensitivity, sensitivity)}"


def _hide_unused(grid: np.ndarray, problems: int, columns: int) -> None:
    for index in range(problems, grid.shape[0] // 2 * columns):
        block, column = divmod(index, columns)
        for axes in (grid[2 * block, column], grid[2 * block + 1, column]):
            axes.set_axis_off()
