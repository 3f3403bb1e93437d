"""Penalties by gradient descent: the outer objective against its cost, for four gradients of the inner solution."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from odestop.plotting.style import BLUE, GREEN, ORANGE, TWO_COLUMNS, VERMILION, new_figure, styled

_STYLES = {
    "unrolled": (BLUE, "o", "unrolled"),
    "truncated": (ORANGE, "s", "truncated, last 20 steps"),
    "one-step": (VERMILION, "^", "one-step"),
    "implicit": (GREEN, "D", "implicit"),
}
_TITLES = {
    "ridge": "ridge regression",
    "lasso": "lasso",
    "noisy labels": "noisy labels, generalised loss",
}


def draw(table: pd.DataFrame) -> Figure:
    """Draw a panel per problem, without and with the price of the steps.

    Parameters
    ----------
    table
        Columns ``problem``, ``estimator``, ``price``, ``objective`` and ``total_cost``: a row per step of a descent.

    Returns
    -------
    matplotlib.figure.Figure
        Above, the validation loss; below, the validation loss and c N.
    """
    with styled():
        figure = new_figure(TWO_COLUMNS, 4.0)
        panels = figure.subplots(2, len(_TITLES))
        for column, (problem, title) in enumerate(_TITLES.items()):
            rows = table[table["problem"] == problem]
            for axes, price in zip(panels[:, column], sorted(rows["price"].unique()), strict=True):
                _draw_descents(axes, rows[rows["price"] == price])
                axes.set_title(title if price == 0 else _price_title(price), loc="left")
            panels[1, column].set_xlabel("evaluations and products")
        panels[0, 0].set_ylabel("validation loss")
        panels[1, 0].set_ylabel("validation loss $+\\ c N$")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _price_title(price: float) -> str:
    mantissa, exponent = f"{price:.0e}".split("e")
    return rf"$c = {mantissa} \cdot 10^{{{int(exponent)}}}$"


def _draw_descents(axes: Axes, table: pd.DataFrame) -> None:
    for estimator, (colour, marker, label) in _STYLES.items():
        rows = table[table["estimator"] == estimator]
        axes.plot(
            rows["total_cost"], rows["objective"], color=colour, marker=marker, markersize=3, linewidth=1, label=label
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
