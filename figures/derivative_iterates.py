"""Derivatives of iterates: their convergence beside that of the iterates, and a change of the support."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odestop.plotting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    TWO_COLUMNS,
    VERMILION,
    new_figure,
    plain_logarithmic,
    styled,
)

_COLOURS = {"proximal gradient": BLUE, "FISTA": VERMILION}
_TITLES = {"lasso": "(a) lasso", "logistic": r"(b) logistic regression, $\ell_2$"}
_STEP_COLOURS = (SKY_BLUE, ORANGE, GREEN, PURPLE)
_DASHED = (0, (3, 1.5))


def draw(iterates: pd.DataFrame, rates: pd.DataFrame, support: pd.DataFrame) -> Figure:
    """Draw the three panels.

    Parameters
    ----------
    iterates
        Columns ``problem``, ``algorithm``, ``k``, ``error``, ``derivative_error`` and ``identified_at``.
    rates
        Columns ``problem``, ``algorithm``, ``rate``, ``derivative_rate`` and ``predicted_rate``.
    support
        Columns ``steps``, ``penalty``, ``change``, ``derivative``, ``finite_difference`` and ``iterate_derivative``.

    Returns
    -------
    matplotlib.figure.Figure
        Errors on the lasso and on logistic regression, and derivatives across a change of support.
    """
    with styled():
        figure = new_figure(TWO_COLUMNS, 3.0)
        panels = figure.subplots(1, 3)
        for axes, (problem, title) in zip(panels[:2], _TITLES.items(), strict=True):
            _draw_errors(axes, iterates[iterates["problem"] == problem], rates[rates["problem"] == problem])
            axes.set_title(title, loc="left")
        panels[0].set_ylabel("relative error")
        _draw_support_change(panels[2], support)
        figure.legend(handles=_handles(), loc="outside lower left", ncols=5, columnspacing=1.2)
        panels[2].set_title("(c) a change of support", loc="left")
    return figure


def _draw_errors(axes: Axes, table: pd.DataFrame, rates: pd.DataFrame) -> None:
    _draw_curves(axes, table)
    for line, fit in enumerate(rates.itertuples()):
        text = rf"$\rho$: {fit.rate:.4f}, {fit.derivative_rate:.4f}, theory {fit.predicted_rate:.4f}"
        colour = _COLOURS[str(fit.algorithm)]
        axes.text(
            0.99, 0.99 - 0.07 * line, text, color=colour, fontsize=7.5, ha="right", va="top", transform=axes.transAxes
        )
    plain_logarithmic(axes)
    axes.set_ylim(1e-16, 1e4)
    axes.set_yticks([10.0**exponent for exponent in range(-15, 1, 3)])
    axes.set_xlabel("$k$")
    if (table["identified_at"] > 0).any():
        _draw_transient(axes, table)


def _draw_curves(axes: Axes, table: pd.DataFrame) -> None:
    for algorithm, colour in _COLOURS.items():
        rows = table[table["algorithm"] == algorithm]
        axes.plot(rows["k"], rows["error"], color=colour)
        axes.plot(rows["k"], rows["derivative_error"], color=colour, linestyle=_DASHED)


def _draw_transient(axes: Axes, table: pd.DataFrame) -> None:
    """Enlarge the steps before and just after the support is found."""
    part = axes.inset_axes((0.2, 0.1, 0.25, 0.26))
    end = 1.6 * table["identified_at"].max()
    _draw_curves(part, table[table["k"] <= end])
    for algorithm, rows in table.groupby("algorithm"):
        part.axvline(rows["identified_at"].iloc[0], color=_COLOURS[str(algorithm)], linewidth=0.8, linestyle=":")
    part.set_yscale("log")
    part.set_yticks([1e-3, 1.0])
    part.minorticks_off()
    part.tick_params(labelsize=7, pad=1.5)


def _handles() -> list[Line2D]:
    names = {"proximal gradient": "proximal gradient, variable steps", "FISTA": "FISTA"}
    return [
        *(Line2D([], [], color=colour, label=names[algorithm]) for algorithm, colour in _COLOURS.items()),
        Line2D([], [], color=GREY, label="$x_k$"),
        Line2D([], [], color=GREY, linestyle=_DASHED, label=r"$\partial x_k / \partial\lambda$"),
        Line2D([], [], color=GREY, linewidth=0.8, linestyle=":", label="support found"),
    ]


def _draw_support_change(axes: Axes, table: pd.DataFrame) -> None:
    offset = 100 * (table["penalty"] / table["change"] - 1)
    for colour, (steps, rows) in zip(_STEP_COLOURS, table.groupby("steps"), strict=False):
        axes.plot(offset[rows.index], rows["iterate_derivative"], color=colour, label=f"$x_k$, $k = {steps}$")
    exact = table[table["steps"] == table["steps"].max()]
    x = offset[exact.index]
    axes.plot(x, exact["finite_difference"], color=GREY, linestyle=":", label="$x^*$, differences")
    for side in (x < 0, x > 0):
        label = "$x^*$, implicit" if bool(side.iloc[0]) else None
        axes.plot(x[side], exact["derivative"][side], color=BLACK, linestyle=_DASHED, linewidth=0.9, label=label)
    axes.set_ylim(top=1.9 * max(table["derivative"].max(), table["iterate_derivative"].max()))
    axes.set_xlabel(r"$\lambda$ above the change, %")
    axes.set_ylabel(r"$\partial x_j / \partial\lambda$ of the leaving $j$")
    axes.legend(loc="upper right", fontsize=7)
