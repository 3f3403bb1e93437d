"""Figure 2b: evaluations of the Euler run by those of the adaptive solve, against h."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from odestop.plotting.step_sizes import panels_by_dimension
from odestop.plotting.style import GREY, styled


def draw(table: pd.DataFrame) -> Figure:
    """Draw Figure 2b.

    Parameters
    ----------
    table
        Columns ``dimension``, ``seed``, ``threshold``, ``step_size``, ``sensitivity`` and ``nfe_ratio``.  The
        adaptive solve is torchdiffeq's dopri5 at its default tolerances.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per dimension.
    """
    rows = table[table["sensitivity"] == "definition3"]
    with styled():
        figure = panels_by_dimension(rows, "nfe_ratio", "NFE ratio, Euler / dopri5")
        for axes in figure.axes:
            axes.axhline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
            axes.text(rows["step_size"].max(), 1.1, "equal cost", ha="right", va="bottom", color=GREY, fontsize=8)
        figure.axes[0].legend(loc="lower left")
    return figure
