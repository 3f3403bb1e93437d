"""What work-precision diagrams share: panels of error against cost with a line per way, and one legend for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odestop.plotting.style import plain_logarithmic

DASHES, DOTS = (0, (3, 1.5)), (0, (1, 1))

Look = tuple[str, str, object, str]
"""Colour, marker, line and name of a way."""


def draw_panel(
    axes: Axes, table: pd.DataFrame, looks: Mapping[str, Look], *, way: str, setting: str, cost: str, error: str
) -> None:
    """Draw column ``error`` against ``cost``, one line for each value of ``way``, in the order of ``setting``."""
    for key, (colour, marker, line, name) in looks.items():
        rows = table[table[way] == key].sort_values(setting)
        if len(rows):
            axes.plot(
                rows[cost], rows[error], color=colour, marker=marker, linestyle=line,
                linewidth=0.9, markersize=3.0, label=name,
            )  # fmt: skip
    axes.set_xscale("log")
    plain_logarithmic(axes)
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=6))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def add_legend(figure: Figure, panels: Iterable[Axes], looks: Mapping[str, Look], columns: int) -> None:
    """Name the ways that any panel shows, in their order, below the panels."""
    handles = {handle.get_label(): handle for axes in panels for handle in axes.get_legend_handles_labels()[0]}
    shown = [handles[look[-1]] for look in looks.values() if look[-1] in handles]
    figure.legend(handles=shown, loc="outside lower center", ncols=columns, fontsize=7.5)
