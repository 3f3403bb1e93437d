"""The error of h ∇N against h, for every step map and every sensitivity."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odestop.plotting.step_sizes import STEP_SIZE_LABEL, slope_guide
from odestop.plotting.style import (
    BLUE,
    GREEN,
    ORANGE,
    TWO_COLUMNS,
    label_step_sizes,
    new_figure,
    plain_logarithmic,
    styled,
)

# Colour, marker and name.
_STYLES = {
    "definition3": (BLUE, "o", "Definition 3"),
    "interpolated": (ORANGE, "s", "interpolated"),
    "hermite": (GREEN, "^", "Hermite"),
}
_ORDERS = {"Euler": 1, "Heun": 2, "Runge-Kutta 4": 4}


def draw(table: pd.DataFrame, orders: pd.DataFrame) -> Figure:
    """Draw the comparison of the sensitivities.

    Parameters
    ----------
    table
        Columns ``step_map``, ``sensitivity``, ``step_size`` and ``relative_error``.
    orders
        Columns ``step_map``, ``sensitivity``, ``quantity``, ``order``, ``low``, ``high`` and ``intercept``.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per step map, with common axes: the measured errors and the power laws fitted to them; the legends
        give the orders with their 95 % intervals.
    """
    fits = orders[orders["quantity"] == "gradient"]
    first, last = table["step_size"].min(), table["step_size"].max()
    with styled():
        figure = new_figure(TWO_COLUMNS, 3.0)
        axes = figure.subplots(1, len(_ORDERS), sharey=True)
        for panel, (step_map, order) in zip(axes, _ORDERS.items(), strict=True):
            rows = table[table["step_map"] == step_map]
            for sensitivity, style in _STYLES.items():
                curve = rows[rows["sensitivity"] == sensitivity]
                fit = fits[(fits["step_map"] == step_map) & (fits["sensitivity"] == sensitivity)].iloc[0]
                _draw_fit(panel, curve, fit, *style)
            lowest = rows[rows["step_size"] == first]["relative_error"].min()
            slope_guide(panel, order, 0.15 * lowest, (first, last))
            panel.set_title(f"{step_map}, order {order}")
            label_step_sizes(panel, [h for h in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if first <= h <= last])
            plain_logarithmic(panel)
            panel.legend(
                loc="upper left",
                title="fitted order, 95 % interval",
                title_fontsize=8,
                alignment="left",
                borderpad=0,
                frameon=True,
                framealpha=1,
                edgecolor="none",
            )
        axes[0].set_ylim(bottom=0.03 * table["relative_error"].min(), top=3e3 * table["relative_error"].max())
        axes[0].set_ylabel(r"relative error $\|h \nabla N - \nabla T\| \,/\, \|\nabla T\|$")
        figure.supxlabel(STEP_SIZE_LABEL, fontsize="medium")
    return figure


def _draw_fit(axes: Axes, rows: pd.DataFrame, fit: pd.Series, colour: str, marker: str, name: str) -> None:
    h = np.sort(rows["step_size"].to_numpy())
    axes.plot(
        rows["step_size"], rows["relative_error"], marker, color=colour, markersize=1.8, alpha=0.45, markeredgewidth=0
    )
    label = f"{name}: {fit['order']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"
    axes.plot(h, np.exp(fit["intercept"]) * h ** fit["order"], color=colour, label=label)
