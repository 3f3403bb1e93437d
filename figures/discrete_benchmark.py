"""Time and memory of a gradient of N against N: Algorithm 1 and autograd through the loop."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

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
    plain_logarithmic,
    styled,
)

_LINES = {
    "all": ("Algorithm 1, all iterates", BLUE, "o", "-"),
    "all, by autograd": ("the same, autograd per step", SKY_BLUE, "P", "-"),
    "sqrt": (r"Algorithm 1, every $\sqrt{N}$-th", GREEN, "s", "-"),
    "budget": ("Algorithm 1, 32 states", PURPLE, "^", "-"),
    "compiled": ("Algorithm 1, compiled", BLACK, "v", "-"),
    "unrolled": ("autograd through the loop", VERMILION, "D", "--"),
    "torch checkpoint": ("torch.utils.checkpoint", ORANGE, "X", "--"),
}


def draw(table: pd.DataFrame) -> Figure:
    """Draw the time per step above and the memory below, one column of panels per dimension.

    Parameters
    ----------
    table
        Columns ``method``, ``dimension``, ``steps``, ``seconds`` and ``memory_bytes``; nan for what was left out.

    Returns
    -------
    matplotlib.figure.Figure
        Two rows of panels, each with a common axis.
    """
    dimensions = sorted(table["dimension"].unique())
    table = table.assign(
        microseconds=1e6 * table["seconds"] / table["steps"],
        # Nothing to see below one megabyte: the allocator had it already.
        megabytes=(table["memory_bytes"] / 2**20).clip(lower=1.0),
    )
    with styled():
        figure = new_figure(TWO_COLUMNS, 4.6)
        axes = figure.subplots(2, len(dimensions), sharex=True, sharey="row", squeeze=False)
        for column, dimension in enumerate(dimensions):
            rows = table[table["dimension"] == dimension]
            for row, quantity in enumerate(("microseconds", "megabytes")):
                panel = axes[row, column]
                for method, (label, colour, marker, style) in _LINES.items():
                    line = rows[rows["method"] == method].sort_values("steps").dropna(subset=[quantity])
                    panel.plot(line["steps"], line[quantity], color=colour, marker=marker, linestyle=style, label=label)
                panel.set_xscale("log")
                panel.xaxis.set_major_locator(LogLocator())
                panel.xaxis.set_minor_locator(NullLocator())
                plain_logarithmic(panel)
            # Times span little more than a decade: one label would be too few.
            axes[0, column].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes[0, column].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes[0, column].yaxis.set_minor_locator(NullLocator())
            axes[0, column].set_title(f"$d = {dimension}$")
        axes[0, 0].set_ylabel(r"processor time per step ($\mu$s)")
        axes[1, 0].set_ylabel("memory (MB; below 1 as 1)")
        figure.supxlabel(r"number of steps $N$", fontsize="medium")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure
