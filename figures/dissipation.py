"""How backward reconstruction fails on dissipative flows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from odestop.plotting.style import BLUE, GREEN, GREY, ONE_COLUMN, VERMILION, new_figure, plain_logarithmic, styled

_LINES = {
    "discrete_adjoint": ("discrete adjoint", BLUE, "o"),
    "continuous_adjoint": ("continuous adjoint", GREEN, "s"),
    "backsolve": ("backsolve", VERMILION, "D"),
}


def draw(table: pd.DataFrame) -> Figure:
    """Draw the error of ∇T against S = T ρ, one line per gradient method.

    Parameters
    ----------
    table
        Columns ``method``, ``stiffness_time`` and ``relative_error``; an infinite error stands for giving up.

    Returns
    -------
    matplotlib.figure.Figure
        One panel.
    """
    with styled():
        figure = new_figure(ONE_COLUMN, 2.7)
        axes = figure.subplots()
        for method, rows in table.groupby("method", sort=False):
            label, colour, marker = _LINES[str(method)]
            rows = rows.sort_values("stiffness_time")
            finite = rows[np.isfinite(rows["relative_error"])]
            axes.plot(
                finite["stiffness_time"],
                finite["relative_error"],
                color=colour,
                marker=marker,
                label=label,
                clip_on=True,
            )
        axes.axhline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
        axes.text(table["stiffness_time"].min(), 2.5, "nothing right", va="bottom", color=GREY, fontsize=8)
        axes.set_xlabel(r"stiffness-time product $S = T\rho$")
        axes.set_ylabel(r"relative error of $\nabla T$")
        axes.set_xscale("log")
        plain_logarithmic(axes)
        axes.legend(loc="upper left")
    return figure
