"""What T and ∇T cost at equal accuracy against dimension, condition number and batch, with fitted exponents."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.benchmark import LOOKS, cost_labels
from figures.work_precision import add_legend, draw_panel
from odestop.plotting.style import TWO_COLUMNS, new_figure, styled

_AXES = {"dimension": "dimension", "condition_number": r"condition number $\kappa$", "batch": "batch"}


def draw(table: pd.DataFrame, exponents: pd.DataFrame, seconds: float, symbol: str) -> Figure:
    """Draw the costs.

    Parameters
    ----------
    table
        Columns ``axis``, ``x``, ``peer``, ``evaluations`` and ``answer_seconds``.
    exponents
        Columns ``axis``, ``peer``, ``quantity`` and ``exponent``.
    seconds, symbol
        The unit of time, in seconds and as labels write it.

    Returns
    -------
    matplotlib.figure.Figure
        A column per axis; evaluations in the upper row, time in the lower one.
    """
    table = table.assign(answer_seconds=table["answer_seconds"] / seconds)
    quantities = cost_labels(symbol)
    axes_shown = [axis for axis in _AXES if axis in set(table["axis"])]
    with styled():
        figure = new_figure(TWO_COLUMNS, 5.6)
        grid = figure.subplots(len(quantities), max(len(axes_shown), 1), squeeze=False, sharey="row", sharex="col")
        for row, (quantity, label) in zip(grid, quantities.items(), strict=True):
            for panel, axis in zip(row, axes_shown, strict=False):
                of_axis = table[table["axis"] == axis]
                draw_panel(panel, of_axis, LOOKS, way="peer", setting="x", cost="x", error=quantity)
                fitted = exponents[(exponents["axis"] == axis) & (exponents["quantity"] == quantity)]
                _list_exponents(panel, dict(zip(fitted["peer"], fitted["exponent"], strict=True)))
            row[0].set_ylabel(label)
        for panel, axis in zip(grid[-1], axes_shown, strict=False):
            panel.set_xlabel(_AXES[axis])
        add_legend(figure, grid.flat, LOOKS, columns=3)
    return figure


def _list_exponents(panel: Axes, exponents: dict[str, float]) -> None:
    """Write each curve's exponent beside its line, above the panel."""
    handles, labels = panel.get_legend_handles_labels()
    by_name = {LOOKS[peer][-1]: exponent for peer, exponent in exponents.items() if peer in LOOKS}
    shown = [
        (handle, f"{by_name[label]:.2f}") for handle, label in zip(handles, labels, strict=True) if label in by_name
    ]
    if shown:
        panel.legend(
            *zip(*shown, strict=True), title="exponents", loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4,
            fontsize=6.5, title_fontsize=6.5, columnspacing=0.7, labelspacing=0.2, handlelength=1.6, alignment="left",
        )  # fmt: skip
