"""What all figures share: fonts, sizes for print, a palette that colour-blind readers can tell apart, saving."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ONE_COLUMN = 3.35
TWO_COLUMNS = 6.85
"""Widths in inches."""

# Okabe and Ito (2008), "Color Universal Design".
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#6F6F6F"

_THRESHOLD_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY_BLUE)
_DIMENSION_MARKERS = ("o", "s", "^", "D", "v")

_RC: Any = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.0,
    "legend.fontsize": 8.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#D9D9D9",
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.borderaxespad": 0.3,
    "pdf.fonttype": 42,
    "figure.dpi": 100,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw what is drawn inside in the house style; matplotlib's settings are restored afterwards."""
    with matplotlib.rc_context(_RC):
        yield


def new_figure(width: float | int, height: float | int) -> Figure:
    """Return an empty figure of a size in inches, without touching pyplot or a display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(wspace=0.06)  # type: ignore[call-arg]
    return figure


def threshold_colours(thresholds: Any) -> dict[float, str]:
    """Return a colour for each threshold: the same one in every figure with the same thresholds."""
    ordered = sorted({float(threshold) for threshold in thresholds}, reverse=True)
    return {threshold: _THRESHOLD_COLOURS[index % len(_THRESHOLD_COLOURS)] for index, threshold in enumerate(ordered)}


def dimension_markers(dimensions: Any) -> dict[int, str]:
    """Return a marker for each dimension: the same one in every figure with the same dimensions."""
    ordered = sorted({int(dimension) for dimension in dimensions})
    return {dimension: _DIMENSION_MARKERS[index % len(_DIMENSION_MARKERS)] for index, dimension in enumerate(ordered)}


def power_of_ten(value: float | int) -> str:
    """Write 0.001 as mathtext 10^{-3}, and numbers that are no power of ten as they are; without dollar signs.

    Examples
    --------
    >>> power_of_ten(1e-3), power_of_ten(0.05), power_of_ten(1.0)
    ('10^{-3}', '0.05', '1')
    """
    exponent = math.log10(value)
    if abs(exponent - round(exponent)) < 1e-9 and value != 1:
        return f"10^{{{round(exponent)}}}"
    return f"{value:g}"


def threshold_label(threshold: float | int) -> str:
    """Return the legend entry of a threshold."""
    return rf"$\varepsilon = {power_of_ten(threshold)}$"


def label_step_sizes(axes: Axes, step_sizes: Any) -> None:
    """Make x logarithmic, with plain numbers at the step sizes of the data; every second of them if many."""
    ordered = sorted({float(h) for h in step_sizes}, reverse=True)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.FixedLocator(ordered if len(ordered) <= 6 else ordered[::2]))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.2g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def plain_logarithmic(axes: Axes) -> None:
    """Make y logarithmic, with grid lines at the powers of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(numticks=10))
    axes.yaxis.set_minor_locator(ticker.LogLocator(subs=range(2, 10), numticks=10))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(axis="y", which="major")
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure as PDF and as PNG with 300 dpi; the same figure gives the same bytes.

    Parameters
    ----------
    figure
        What to write.
    path
        Where to, without a suffix; folders are made.

    Returns
    -------
    list of Path
        The two files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pdf, png = path.with_suffix(".pdf"), path.with_suffix(".png")
    with styled():
        figure.savefig(pdf, metadata={"Creator": None, "Producer": None, "CreationDate": None})
        figure.savefig(png, dpi=300, metadata={"Software": None})
    return [pdf, png]
