"""Figure 5a: evaluations of the Euler run against h."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from odestop.plotting.step_sizes import panels_by_dimension, slope_guide
from odestop.plotting.style import styled


def draw(table: pd.DataFrame) -> Figure:
    """Draw Figure 5a.

    Parameters
    ----------
    table
        Columns ``dimension``, ``seed``, ``threshold``, ``step_size``, ``sensitivity`` and ``nfe_euler``.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per dimension.
    """
    rows = table[table["sensitivity"] == "definition3"]
    with styled():
        figure = panels_by_dimension(rows, "nfe_euler", "evaluations (NFE) of Euler")
        first, last = rows["step_size"].min(), rows["step_size"].max()
        anchor = 2.0 * rows[rows["step_size"] == last]["nfe_euler"].max()
        for axes in figure.axes:
            slope_guide(axes, -1, anchor, (first, last))
        figure.axes[0].legend(loc="lower left")
    return figure
