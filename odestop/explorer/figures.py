"""The page's four figures, as what Plotly draws: dictionaries, made from results and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from odestop.explorer.drawing import without_jumps
from odestop.explorer.gradient_errors import GradientErrors
from odestop.explorer.landscape import Landscape
from odestop.explorer.level_sets import LevelSet
from odestop.explorer.looks import Figure, Theme, Trace, axis, layout, line, logarithmic_axis, markers, numbers
from odestop.explorer.paths import Event, Paths, Stop
from odestop.explorer.stopping_curves import StoppingCurves

MARGIN = (66, 16, 8, 42)
"""Left, right, top and bottom of all figures, in pixels: what stands above another is aligned with it."""

_SHADES = 16
_MOST_POINTS = 600
_TANGENT_REACH = 0.18
_ROUND_ENDS = (1.1, 1.2, 1.4, 1.6, 1.8, 2, 2.2, 2.5, 2.8, 3.2, 3.6, 4, 4.5, 5, 5.5, 6, 7, 8, 9, 10, 11)

Mark = TypeVar("Mark", Event, Stop)


def ground(theme: Theme, picture: Landscape, sets: Sequence[LevelSet]) -> Figure:
    """Return the lower layer of the landscape: contours of f, its minimizers, and the sets J = ε.

    It changes only with the problem and the thresholds; what moves is drawn above it: `tracks`.
    """
    traces: list[Trace] = [
        {
            "type": "contour",
            "x": numbers(picture.x),
            "y": numbers(picture.y),
            "z": [numbers(row) for row in _shades(picture.values)],
            "contours": {"start": 0.0, "end": 1.0, "size": 1 / _SHADES},
            "autocontour": False,
            "zmin": 0.0,
            "zmax": 1.0,
            "colorscale": [[0.0, theme.valley], [1.0, theme.hill]],
            "line": {"color": theme.contour, "width": 0.7},
            "showscale": False,
            "hoverinfo": "skip",
        }
    ]
    traces += [line(s.x, s.y, theme.threshold(index), width=1.8) for index, s in enumerate(sets)]
    if len(picture.minimizers):
        traces.append(
            markers(*picture.minimizers.T, symbol="cross-thin", size=9, line={"color": theme.muted, "width": 1.5})
        )
    return {"data": traces, "layout": _landscape_layout(theme, picture)}


def tracks(theme: Theme, picture: Landscape, paths: Paths) -> list[Trace]:
    """Return the upper layer of the landscape: the flow, the steps, and where each of them stops.

    The page draws these lines and markers itself, on the axes of `ground`.
    """
    flow, steps = (picture.plane.project(positions) for positions in (paths.flow_positions, paths.step_positions))
    flow, steps = _near(flow, picture), _near(steps, picture)
    dots = len(steps) <= _MOST_POINTS
    stops, stop_colours = _met(theme, paths.stops)
    events, event_colours = _met(theme, paths.events)
    return [
        line(*_coordinates(steps), theme.steps, width=1),
        markers(*_coordinates(steps), color=theme.steps, size=4.5 if dots else 2.5),
        line(*_coordinates(flow), theme.ink, width=2.2),
        markers(*_places(stops, picture), symbol="square-open", size=11, color=stop_colours, line={"width": 2.2}),
        markers(*_places(events, picture), color=event_colours, size=9, line={"color": theme.panel, "width": 1.2}),
    ]


def stopping_times(theme: Theme, curves: StoppingCurves) -> Figure:
    """Return T(θ), h N(θ) and h N̂(θ) for every ε, with the tangents at the current θ."""
    traces: list[Trace] = []
    for index in reversed(range(len(curves.thresholds))):
        colour = theme.threshold(index)
        traces += [
            line(curves.step_values, curves.scaled_steps[index], colour, width=1, shape="hvh"),
            line(*without_jumps(curves.step_values, curves.scaled_fractional[index]), colour, width=1.6, dash="dot"),
            line(*without_jumps(curves.values, curves.times[index]), colour, width=2.4),
        ]
        traces[-3]["opacity"] = 0.65
    traces += _tangents(theme, curves)
    low, high = float(curves.values[0]), float(curves.values[-1])
    title = f"{curves.parameter.replace('_', ' ')}  {curves.symbol}"
    if curves.logarithmic:
        xaxis = logarithmic_axis(theme, title, low, high)
    else:
        xaxis = axis(theme, title, range=[low, high])
    yaxis = axis(theme, "time", range=_time_range(curves))
    here = {"type": "line", "x0": curves.theta, "x1": curves.theta, "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    here["line"] = {"color": theme.muted, "width": 1, "dash": "dash"}
    return {
        "data": traces,
        "layout": layout(theme, xaxis, yaxis, margin=MARGIN, shapes=[*_unreached(theme, curves), here]),
    }


def criterion_frame(theme: Theme, paths: Paths) -> Figure:
    """Return the lower layer of J along the way: the axes, and the thresholds.

    The axes end at round numbers, and so stay as they are most of the time; the lines above them: `criterion_tracks`.
    """
    shapes = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": event.threshold,
            "y1": event.threshold,
            "layer": "below",
            "line": {"color": theme.threshold(index), "width": 1.2, "dash": "dash"},
        }
        for index, event in enumerate(paths.events)
        if event.threshold > 0
    ]
    xaxis = axis(theme, "time t", range=[0, _time_shown(paths)])
    yaxis = logarithmic_axis(theme, "J(x(t))", *_levels_shown(paths))
    # Without a trace Plotly would draw other axes.
    return {"data": [line([], [], theme.ink)], "layout": layout(theme, xaxis, yaxis, margin=MARGIN, shapes=shapes)}


def criterion_tracks(theme: Theme, paths: Paths) -> list[Trace]:
    """Return J along the flow and along the steps, and where the thresholds are met; drawn like `tracks`."""
    step_times, step_values = _thinned(paths.step_times), _thinned(paths.step_values)
    stops, stop_colours = _met(theme, paths.stops)
    events, event_colours = _met(theme, paths.events)
    stop_values = [paths.step_values[round(stop.steps)] for stop in stops]
    event_times, event_values = [event.time for event in events], [event.threshold for event in events]
    stop_line, event_line = {"width": 2}, {"color": theme.panel, "width": 1}
    return [
        line(step_times, step_values, theme.steps, width=1),
        markers(step_times, step_values, color=theme.steps, size=3.5),
        line(paths.flow_times, paths.flow_values, theme.ink, width=2),
        markers([s.time for s in stops], stop_values, symbol="square-open", size=9, color=stop_colours, line=stop_line),
        markers(event_times, event_values, color=event_colours, size=8, line=event_line),
    ]


def gradient_error_lines(theme: Theme, errors: GradientErrors) -> Figure:
    """Return the relative error of the discrete gradients against h, both axes logarithmic."""
    series = ((errors.definition3, theme.steps, "circle", "solid"), (errors.interpolated, theme.ink, "diamond", "dot"))
    if not np.any(np.isfinite(errors.definition3) | np.isfinite(errors.interpolated)):
        return empty(theme, errors.words)
    traces: list[Trace] = []
    for values, colour, symbol, dash in series:
        positive = np.where(np.asarray(values) > 0, values, np.nan)
        traces += [
            line(errors.step_sizes, positive, colour, width=1.6, dash=dash),
            markers(errors.step_sizes, positive, color=colour, size=6, symbol=symbol),
        ]
    steps = errors.step_sizes
    labels: Figure = {"tickvals": numbers(steps), "ticktext": [f"{h:.2g}" for h in steps]}
    xaxis = logarithmic_axis(theme, "step size h", *_room_around(steps, 1.15), **labels)
    both = np.concatenate([errors.definition3, errors.interpolated])
    yaxis = logarithmic_axis(theme, "relative error", *_room_around(both, 1.4))
    return {"data": traces, "layout": layout(theme, xaxis, yaxis, margin=MARGIN)}


def empty(theme: Theme, words: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    hidden = {"visible": False, "fixedrange": True}
    note = {"text": words, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    note["font"] = {"size": 12, "color": theme.muted}
    return {"data": [], "layout": layout(theme, hidden, dict(hidden), margin=(8, 8, 8, 8), annotations=[note])}


def _landscape_layout(theme: Theme, picture: Landscape) -> Figure:
    xaxis = axis(theme, picture.plane.labels[0], range=list(picture.bounds[0]), showgrid=False)
    yaxis = axis(theme, picture.plane.labels[1], range=list(picture.bounds[1]), showgrid=False)
    return layout(theme, xaxis, yaxis, margin=MARGIN)


def _shades(values: np.ndarray) -> np.ndarray:
    """Return f by rank, between 0 and 1, so that any function has contours all over the picture.

    The square root makes the contours of a quadratic equally far apart.
    """
    finite = np.where(np.isfinite(values), values, np.nanmax(np.where(np.isfinite(values), values, -np.inf)))
    order = np.argsort(finite, axis=None, kind="stable")
    ranks = np.empty(finite.size)
    ranks[order] = np.linspace(0.0, 1.0, finite.size)
    return np.sqrt(ranks).reshape(values.shape)


def _near(points: np.ndarray, picture: Landscape) -> np.ndarray:
    """Drop what is so far outside of the picture that its coordinates are no use to a drawing."""
    (left, right), (low, high) = picture.bounds
    centre, reach = np.array([left + right, low + high]) / 2, 20 * np.array([right - left, high - low])
    inside = np.all(np.abs(points - centre) <= reach, axis=-1, keepdims=True)
    return np.where(inside, points, np.nan)


def _met(theme: Theme, marks: Sequence[Mark]) -> tuple[list[Mark], list[str]]:
    """Return the events or stops that have a place, and the colours of their ε."""
    met = [(mark, theme.threshold(index)) for index, mark in enumerate(marks) if mark.position is not None]
    return [mark for mark, _ in met], [colour for _, colour in met]


def _places(marks: Sequence[Event] | Sequence[Stop], picture: Landscape) -> tuple[list[float], list[float]]:
    """Return where events or stops are in the picture."""
    places = [picture.plane.project(mark.position).tolist() for mark in marks if mark.position is not None]
    return [x for x, _ in places], [y for _, y in places]


def _thinned(points: np.ndarray) -> np.ndarray:
    """Return at most twice `_MOST_POINTS` of many points, the last one among them."""
    stride = max(1, len(points) // _MOST_POINTS)
    kept = points[::stride]
    return kept if (len(points) - 1) % stride == 0 else np.concatenate([kept, points[-1:]])


def _coordinates(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two coordinates of points, of not too many of them."""
    kept = _thinned(points)
    return kept[:, 0], kept[:, 1]


def _tangents(theme: Theme, curves: StoppingCurves) -> list[Trace]:
    """Return the tangent of T and that of h N̂ at θ, for the first ε."""
    answer, theta = curves.answers[0], curves.theta
    low, high = float(curves.values[0]), float(curves.values[-1])
    if curves.logarithmic:
        reach = np.exp(math.log(high / low) * _TANGENT_REACH * np.linspace(-1, 1, 15))
        at = theta * reach
    else:
        at = theta + (high - low) * _TANGENT_REACH * np.linspace(-1, 1, 2)
    at = at[(at >= low) & (at <= high)] if curves.logarithmic else np.clip(at, low, high)
    traces = []
    for value, slope, dash, colour in (
        (answer.scaled_fractional, answer.scaled_fractional_derivative, "dash", theme.steps),
        (answer.time, answer.time_derivative, "solid", theme.ink),
    ):
        if math.isfinite(value) and math.isfinite(slope):
            traces.append(line(at, value + slope * (at - theta), colour, width=1.6, dash=dash))
    if math.isfinite(answer.time):
        here = np.array([theta]), np.array([answer.time])
        traces.append(markers(*here, color=theme.threshold(0), size=10, line={"color": theme.ink, "width": 1.6}))
    return traces


def _unreached(theme: Theme, curves: StoppingCurves) -> list[Figure]:
    """Return shades where the first ε is never met."""
    values, missed = curves.values, ~np.isfinite(curves.times[0])
    edges = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])
    # Where a run of misses begins and ends.
    turns = np.flatnonzero(np.diff(np.concatenate([[False], missed, [False]]).astype(int)))
    return [
        {
            "type": "rect",
            "x0": float(edges[begin]),
            "x1": float(edges[end]),
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "layer": "below",
            "fillcolor": theme.grid,
            "line": {"width": 0},
        }
        for begin, end in zip(turns[::2], turns[1::2], strict=True)
    ]


def _time_range(curves: StoppingCurves) -> list[float]:
    """Return ends for the times that are finite; a few that are very large do not flatten the others."""
    times = np.concatenate([curves.times.ravel(), curves.scaled_fractional.ravel()])
    times = times[np.isfinite(times)]
    here = [a.time for a in curves.answers if math.isfinite(a.time)]
    if not len(times):
        return [0.0, max(here, default=1.0) * 1.1]
    top = min(times.max(), 3.0 * float(np.quantile(times, 0.9)))
    return [0.0, 1.08 * max([top, *here]) or 1.0]


def _time_shown(paths: Paths) -> float:
    """Return the end of the time axis: a round number a little after the last thing that happens."""
    last = max(float(paths.flow_times[-1]), min(float(paths.step_times[-1]), 1.5 * float(paths.flow_times[-1])))
    if last <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(last))
    return unit * next(end for end in _ROUND_ENDS if end >= 1.03 * last / unit)


def _levels_shown(paths: Paths) -> tuple[float, float]:
    """Return ends of the axis of J, with every ε inside."""
    values = np.concatenate([paths.flow_values, [event.threshold for event in paths.events]])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return 0.1, 10.0
    low, high = math.log10(values.min()), math.log10(values.max())
    least = min((math.log10(event.threshold) for event in paths.events if event.threshold > 0), default=low)
    low = max(low, least - 2.0, high - 14.0)
    room = 0.06 * max(high - low, 0.5)
    leap = 0.1 if high - low < 2 else 0.25
    return 10 ** (leap * math.floor((low - room) / leap)), 10 ** (leap * math.ceil((high + room) / leap))


def _room_around(values: np.ndarray, factor: float) -> tuple[float, float]:
    """Return ends of a logarithmic axis around positive values, some of which may be no numbers."""
    values = values[np.isfinite(values) & (values > 0)]
    return (float(values.min()) / factor, float(values.max()) * factor) if len(values) else (0.1, 10.0)
