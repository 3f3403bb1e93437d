"""A small network: steps and seconds to the target, and the last loss, against the initial rate."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odestop.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    TWO_COLUMNS,
    VERMILION,
    new_figure,
    styled,
)

# Colour and marker.
_STYLES = {
    "Adam": (BLUE, "o"),
    "Adam-HD": (ORANGE, "s"),
    "Adam-OLA": (VERMILION, "^"),
    "Adam-OLA, log": (PURPLE, "D"),
    "Adam-OLA, log, same batch": (GREEN, "v"),
}
_QUANTITIES = {
    "steps": "steps to the target",
    "cpu_seconds": "CPU seconds to the target",
    "final_loss": "training loss at the end",
}


def draw(table: pd.DataFrame) -> Figure:
    """Draw one row of panels for each batch size.

    Parameters
    ----------
    table
        Columns ``batch_size``, ``method``, ``rate``, ``seed``, ``steps``, ``cpu_seconds``, ``final_loss`` and
        ``max_steps``.  Points are medians over the seeds, bars go from the least to the largest; what never meets the
        target stands on the line "never".

    Returns
    -------
    matplotlib.figure.Figure
        From left to right: steps, seconds, loss.
    """
    sizes = sorted(table["batch_size"].unique())
    with styled():
        figure = new_figure(TWO_COLUMNS, 0.5 + 2.05 * len(sizes))
        panels = figure.subplots(len(sizes), 3, squeeze=False, sharex=True)
        for row, size in zip(panels, sizes, strict=True):
            for axes, (quantity, label) in zip(row, _QUANTITIES.items(), strict=True):
                rows = table[table["batch_size"] == size]
                _draw_methods(axes, rows, quantity)
                axes.set_ylabel(label)
            row[0].set_title(
                "full gradients" if size == 0 else f"minibatches of {size}", loc="left", fontweight="bold", pad=3
            )
        for axes in panels[-1]:
            axes.set_xlabel("initial rate")
        handles = {
            text: line for axes in panels.flat for line, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5)
    return figure


def _draw_methods(axes: Axes, rows: pd.DataFrame, quantity: str) -> None:
    finite = rows[quantity][rows[quantity].map(math.isfinite)]
    never = 2.0 * finite.max() if len(finite) else 1.0
    names = [name for name in _STYLES if name in set(rows["method"])]
    axes.set_xscale("log")
    axes.set_yscale("log")
    for index, name in enumerate(names):
        colour, marker = _STYLES[name]
        clipped = rows[rows["method"] == name].assign(value=lambda table: table[quantity].clip(upper=never))
        values = clipped.groupby("rate")["value"].agg(["median", "min", "max"])
        # Side by side, so that bars do not hide each other.
        places = values.index * 1.12 ** (index - (len(names) - 1) / 2)
        bars = [values["median"] - values["min"], values["max"] - values["median"]]
        axes.errorbar(
            places, values["median"], yerr=bars, color=colour, marker=marker, linewidth=1.0, elinewidth=0.7, label=name
        )
    if quantity != "final_loss":
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=12))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    if len(finite) < len(rows):
        axes.axhline(never, color=GREY, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
        axes.annotate(
            "never",
            (1.0, never),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            xytext=(0, 1),
            textcoords="offset points",
            fontsize=7.5,
            color=GREY,
        )
        axes.set_ylim(top=1.5 * never)
