"""How the page's figures look: two themes, and what all four figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from odestop.plotting.style import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILION

FONT = 'system-ui, "Segoe UI", "Helvetica Neue", "Liberation Sans", Arial, sans-serif'

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_TICKS = 7

Figure = dict[str, Any]
Trace = dict[str, Any]
Numbers = np.ndarray | Sequence[float | int]


@dataclass(frozen=True)
class Theme:
    """Colours of the figures, in hexadecimal.

    Attributes
    ----------
    ink, muted, grid, panel
        Of the flow and of text, of small text, of grid lines, and the background.
    valley, hill
        Ends of the landscape's shades.
    contour
        Its lines.
    steps
        The discrete iterates.
    thresholds
        Of the first, second, … ε, in all figures.
    """

    ink: str
    muted: str
    grid: str
    panel: str
    valley: str
    hill: str
    contour: str
    steps: str
    thresholds: tuple[str, ...]

    def threshold(self, index: int) -> str:
        """Return the colour of an ε."""
        return self.thresholds[index % len(self.thresholds)]


THEMES = {
    "light": Theme(
        ink="#1d2430",
        muted="#5a6473",
        grid="#e8ebef",
        panel="#ffffff",
        valley="#cfdfec",
        hill="#fcfdfe",
        contour="#b9c7d4",
        steps=VERMILION,
        thresholds=(BLUE, ORANGE, GREEN, PURPLE),
    ),
    "dark": Theme(
        ink="#e8ecf1",
        muted="#a3aebb",
        grid="#2b333e",
        panel="#1a2029",
        valley="#2a455d",
        hill="#1b222b",
        contour="#3f5468",
        steps="#f07a2b",
        thresholds=(SKY_BLUE, ORANGE, "#2fc296", "#e39bc3"),
    ),
}
"""By the name that the page's toggle has for them; dark shades are lightened until they stand out."""


def theme_of(name: object) -> Theme:
    """Return a theme; the light one for a name that is none."""
    return THEMES.get(name if isinstance(name, str) else "light", THEMES["light"])


def numbers(values: Numbers) -> list[float | None]:
    """Return numbers as they are sent: six significant digits, None where there is nothing to draw.

    Examples
    --------
    >>> numbers(np.array([1 / 3, float("inf")]))
    [0.333333, None]
    """
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in np.asarray(values, dtype=float)]


def line(x: Numbers, y: Numbers, colour: str, **options: Any) -> Trace:
    """Return a curve; options are those of its line, such as width and dash."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": numbers(x),
        "y": numbers(y),
        "line": {"color": colour, "width": 2, **options},
        "hoverinfo": "skip",
    }


def markers(x: Numbers, y: Numbers, **marker: Any) -> Trace:
    """Return points; options are those of its marker, such as color, size and symbol."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": numbers(x),
        "y": numbers(y),
        "marker": marker,
        "hoverinfo": "skip",
        "cliponaxis": False,
    }


def axis(theme: Theme, title: str, **options: Any) -> dict[str, Any]:
    """Return an axis that cannot be dragged."""
    common = {
        "title": {"text": title, "standoff": 6, "font": {"size": 13, "color": theme.muted}},
        "gridcolor": theme.grid,
        "gridwidth": 1,
        "zeroline": False,
        "showline": True,
        "linecolor": theme.muted,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": theme.muted,
        "tickfont": {"size": 12, "color": theme.muted},
        "fixedrange": True,
        "automargin": False,
    }
    return {**common, **options}


def logarithmic_axis(theme: Theme, title: str, low: float | int, high: float | int, **options: Any) -> dict[str, Any]:
    """Return a logarithmic axis from low to high, with a few labels that are easy to read."""
    values = decade_ticks(low, high)
    ticks = {"tickmode": "array", "tickvals": values, "ticktext": [power_label(value) for value in values]}
    return axis(theme, title, type="log", range=[math.log10(low), math.log10(high)], **{**ticks, **options})


def decade_ticks(low: float | int, high: float | int) -> list[float]:
    """Return the labelled places of a logarithmic axis: powers of ten, and multiples of them if those are few.

    Examples
    --------
    >>> decade_ticks(0.003, 5.0)
    [0.01, 0.1, 1.0]
    >>> decade_ticks(0.3, 2.5)
    [0.5, 1.0, 2.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for multiples in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        values = [float(f"{m * 10.0**k:.3g}") for k in range(first, last + 1) for m in multiples]
        inside = [value for value in values if low <= value <= high]
        if len(inside) >= 3:
            break
    stride = math.ceil(len(inside) / _MOST_TICKS)
    return inside[::stride]


def power_label(value: float | int) -> str:
    """Return a number as an axis shows it: plain if it is short, else with a power of ten.

    Examples
    --------
    >>> [power_label(value) for value in (0.01, 1.0, 200.0, 1e-5, 2e6)]
    ['0.01', '1', '200', '10⁻⁵', '2·10⁶']
    """
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:e}".partition("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if float(mantissa) == 1 else f"{float(mantissa):g}·{power}"


def layout(
    theme: Theme, xaxis: dict[str, Any], yaxis: dict[str, Any], *, margin: tuple[int, int, int, int], **options: Any
) -> dict[str, Any]:
    """Return the layout that all figures share; the margin is left, right, top, bottom in pixels."""
    left, right, top, bottom = margin
    return {
        "xaxis": xaxis,
        "yaxis": yaxis,
        "margin": {"l": left, "r": right, "t": top, "b": bottom, "pad": 0},
        "autosize": True,
        "showlegend": False,
        "hovermode": False,
        "dragmode": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": theme.ink},
        "uirevision": "kept",
        **options,
    }
