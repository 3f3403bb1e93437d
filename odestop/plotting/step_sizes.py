"""Curves against the step size h, one panel per dimension and one colour per threshold ε."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odestop.plotting.style import (
    GREY,
    TWO_COLUMNS,
    dimension_markers,
    label_step_sizes,
    new_figure,
    plain_logarithmic,
    threshold_colours,
    threshold_label,
)

STEP_SIZE_LABEL = r"step size $h$"
HEIGHT = 2.5


def panels_by_dimension(
    table: pd.DataFrame, y: str, label: str, legend: Callable[[int, float], str] | None = None
) -> Figure:
    """Draw column ``y`` against h: median over the seeds, and the range of the seeds as a band.

    Parameters
    ----------
    table
        Columns ``dimension``, ``threshold``, ``step_size``, ``seed`` and ``y``, one row per combination.
    y
        Name of the column.
    label
        Label of the y axis.
    legend
        Maps a dimension and a threshold to the legend entry; the threshold alone by default.

    Returns
    -------
    matplotlib.figure.Figure
        Panels side by side, in the order of the dimensions, with common axes.
    """
    dimensions = sorted(table["dimension"].unique())
    figure = new_figure(_width(len(dimensions)), HEIGHT)
    axes = figure.subplots(1, len(dimensions), sharey=True, squeeze=False)[0]
    colours, markers = threshold_colours(table["threshold"]), dimension_markers(dimensions)
    for panel, dimension in zip(axes, dimensions, strict=True):
        rows = table[table["dimension"] == dimension]
        for threshold, curve in sorted(rows.groupby("threshold"), reverse=True):
            name = legend(dimension, threshold) if legend else threshold_label(threshold)
            draw_curve(panel, curve, y, color=colours[threshold], marker=markers[dimension], label=name)
        panel.set_title(f"$d = {dimension}$")
        label_step_sizes(panel, table["step_size"])
        plain_logarithmic(panel)
    axes[0].set_ylabel(label)
    figure.supxlabel(STEP_SIZE_LABEL, fontsize="medium")
    return figure


def draw_curve(axes: Axes, rows: pd.DataFrame, y: str, **line: object) -> None:
    """Draw the median of ``y`` over the seeds against h, and the range of the seeds as a band."""
    by_step_size = rows.groupby("step_size")[y]
    median = by_step_size.median()
    axes.plot(median.index, median, **line)  # type: ignore[arg-type]
    if "seed" in rows and rows["seed"].nunique() > 1:
        axes.fill_between(
            median.index, by_step_size.min(), by_step_size.max(), color=line["color"], alpha=0.2, linewidth=0
        )


def slope_guide(axes: Axes, slope: float | int, value: float | int, span: tuple[float, float]) -> None:
    """Draw a dashed line of a slope in logarithms and write the slope beside it.

    Parameters
    ----------
    axes
        Where to draw.
    slope
        The slope.
    value
        Height of the lower end.
    span
        First and last h.
    """
    first, last = span
    rise = (last / first) ** abs(slope)
    ends = (value, value * rise) if slope > 0 else (value * rise, value)
    axes.plot(span, ends, color=GREY, linestyle=(0, (4, 2)), linewidth=0.9, zorder=1)
    # On the outer side of the line, which rises or falls away from what is written there.
    place, offset, side = 0.6, (4, -3) if slope > 0 else (4, 3), "top" if slope > 0 else "bottom"
    point = (first * (last / first) ** place, ends[0] * (ends[1] / ends[0]) ** place)
    label = f"slope ${slope:g}$"
    axes.annotate(label, point, offset, textcoords="offset points", ha="left", va=side, color=GREY, fontsize=8)


def _width(panels: int) -> float:
    return TWO_COLUMNS * (1.0 if panels > 2 else 0.8 if panels == 2 else 0.5)
