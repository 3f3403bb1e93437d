"""The learned inertial flow: stopping times and iterations before and after its training, and its coefficients."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odestop.plotting.style import BLACK, GREEN, GREY, SKY_BLUE, TWO_COLUMNS, VERMILION, new_figure, styled

# β and ω may coincide: one is wide, the other narrow.
_COEFFICIENTS = {
    "friction": ("$a$", GREY, 1.2),
    "damping": (r"$\beta$", SKY_BLUE, 3.0),
    "force": (r"$\omega$", BLACK, 1.0),
}
_DASHES = (0, (4, 1.5))


def draw(times: pd.DataFrame, coefficients: pd.DataFrame) -> Figure:
    """Draw all trainings.

    Parameters
    ----------
    times
        One row per training: quartiles of T and of the iterations, such as ``time_low_before`` and
        ``steps_median_after``, and ``nesterov_steps_median``.
    coefficients
        Columns ``seed``, ``when`` (``"before"`` or ``"after"``), ``time``, ``friction``, ``damping`` and ``force``.

    Returns
    -------
    matplotlib.figure.Figure
        Left: medians and quartiles over the test problems.  Right: coefficients, dashed before the training.
    """
    with styled():
        figure = new_figure(TWO_COLUMNS, 2.5)
        left, right = figure.subplots(1, 2)
        _draw_times(left, times)
        for name, (_, colour, width) in _COEFFICIENTS.items():
            for (_, when), curve in coefficients.groupby(["seed", "when"]):
                style = _DASHES if when == "before" else "-"
                right.plot(curve["time"], curve[name], color=colour, linestyle=style, linewidth=width)
        right.set_xlabel("$t$")
        right.set_ylabel("coefficients")
        right.set_xlim(0, coefficients["time"].max())
        right.set_ylim(0, 2)
        right.grid(axis="y")
        handles = [
            Line2D([], [], color=colour, linewidth=width, label=label)
            for label, colour, width in _COEFFICIENTS.values()
        ]
        handles.append(Line2D([], [], color=GREY, linestyle=_DASHES, label="before the training"))
        handles.append(Line2D([], [], color=GREEN, linestyle=_DASHES, label="iterations of NAG with the step 1/L"))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _draw_times(axes: Axes, times: pd.DataFrame) -> None:
    rows = [
        ("$T$ before", "time", "before", GREY),
        ("$T$ after", "time", "after", VERMILION),
        ("Euler before", "steps", "before", GREY),
        ("Euler after", "steps", "after", VERMILION),
    ]
    for place, (_, quantity, when, colour) in enumerate(rows):
        for shift, row in enumerate(times.to_dict("records")):
            low, median, high = (row[f"{quantity}_{key}_{when}"] for key in ("low", "median", "high"))
            y = place + 0.22 * (shift - (len(times) - 1) / 2)
            axes.plot([low, high], [y, y], color=colour, linewidth=1.0)
            axes.plot([median], [y], "o" if quantity == "time" else "s", color=colour)
    axes.axvline(times["nesterov_steps_median"].iloc[0], color=GREEN, linewidth=1.0, linestyle=_DASHES)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("time, or iterations of Euler with step size 1")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
