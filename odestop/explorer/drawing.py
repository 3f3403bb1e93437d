"""A scene for print: landscape, stopping times, J along the trajectory, and gradient errors."""

from __future__ import annotations

import math
import warnings

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odestop.explorer.gradient_errors import GradientErrors
from odestop.explorer.landscape import Landscape
from odestop.explorer.paths import Paths
from odestop.explorer.scene import Scene
from odestop.explorer.stopping_curves import StoppingCurves
from odestop.plotting.style import (
    BLACK,
    GREY,
    PURPLE,
    TWO_COLUMNS,
    VERMILION,
    label_step_sizes,
    new_figure,
    plain_logarithmic,
    styled,
    threshold_colours,
    threshold_label,
)

_CONTOUR = "#CFCFCF"
_UNREACHED = "#EFEFEF"
_WIDE_RATIO = 30.0
_JUMP = 0.08


def draw_scene(
    scene: Scene, landscape: Landscape, paths: Paths, curves: StoppingCurves, errors: GradientErrors
) -> Figure:
    """Draw the four panels.

    Parameters
    ----------
    scene
        What is drawn: for names, thresholds and θ.
    landscape, paths, curves, errors
        Its results; an infinite T or N leaves a gap, and the range is shaded.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns wide, panels (a) to (d).
    """
    colours = threshold_colours(scene.thresholds)
    with styled():
        figure = new_figure(TWO_COLUMNS, 5.1)
        (a, b), (c, d) = figure.subplots(2, 2)
        _draw_landscape(a, scene, landscape, paths, colours)
        _draw_times(b, scene, curves, colours)
        _draw_criterion(c, scene, paths, colours)
        _draw_errors(d, errors)
        for axes, letter in zip((a, b, c, d), "abcd", strict=True):
            axes.set_title(f"({letter})", loc="left", fontsize=9, pad=4)
        handles = [Line2D([], [], color=colours[e], label=threshold_label(e)) for e in sorted(colours, reverse=True)]
        handles += [
            Line2D([], [], color=BLACK, label=f"flow: {in_words(scene.dynamics)}"),
            Line2D([], [], color=VERMILION, marker="o", markersize=2.2, linewidth=0.6, linestyle=":",
                   label=f"steps: {in_words(scene.step_map)}, $h = {scene.step_size:g}$"),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.4)
    return figure


def in_words(name: str) -> str:
    """Write a name of the registry or of a step map for people."""
    proper = {"nesterov": "Nesterov", "adam": "Adam", "rk4": "Runge-Kutta 4", "euler": "Euler", "heun": "Heun",
              "newton": "Newton", "adagrad": "Adagrad", "rmsprop": "RMSprop"}  # fmt: skip
    return " ".join(proper.get(word, word) for word in name.split("-"))


def _draw_landscape(axes: Axes, scene: Scene, view: Landscape, paths: Paths, colours: dict[float, str]) -> None:
    finite = view.values[np.isfinite(view.values)]
    levels = np.unique(np.quantile(finite, (0.01, 0.04, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)))
    if len(levels) > 1:
        axes.contour(view.x, view.y, view.values, levels=levels, colors=_CONTOUR, linewidths=0.5, zorder=0)
    with warnings.catch_warnings():
        # A level set outside the picture.
        warnings.filterwarnings("ignore", message="No contour levels were found")
        for threshold, colour in colours.items():
            axes.contour(view.x, view.y, view.criterion, levels=[threshold], colors=colour, linewidths=0.8, zorder=1)
            axes.contourf(
                view.x, view.y, view.criterion, levels=[-math.inf, threshold], colors=[colour], alpha=0.1, zorder=0
            )
    steps, flow = view.plane.project(paths.step_positions), view.plane.project(paths.flow_positions)
    axes.plot(*_visible(steps, view).T, ":", color=VERMILION, linewidth=0.6, zorder=2)
    axes.plot(*_visible(steps, view).T, "o", color=VERMILION, markersize=_marker_size(len(steps)), zorder=3)
    axes.plot(*_visible(flow, view).T, color=BLACK, linewidth=1.0, zorder=4)
    for event in paths.events:
        if event.position is not None:
            place = view.plane.project(event.position)
            axes.plot(*place, "o", color=colours[event.threshold], markeredgecolor=BLACK, markeredgewidth=0.5,
                      markersize=4.2, zorder=6)  # fmt: skip
    for stop in paths.stops:
        if stop.position is not None:
            place = view.plane.project(stop.position)
            axes.plot(*place, "s", color=colours[stop.threshold], markeredgecolor=VERMILION, markeredgewidth=0.6,
                      markersize=3.4, zorder=5)  # fmt: skip
    axes.plot(*view.plane.project(np.array(scene.x0)), "o", color="white", markeredgecolor=BLACK, markersize=4.5,
              zorder=7)  # fmt: skip
    (x_low, x_high), (y_low, y_high) = view.bounds
    axes.set(xlim=(x_low, x_high), ylim=(y_low, y_high), xlabel=_axis(view.plane.labels[0]))
    axes.set_ylabel(_axis(view.plane.labels[1]))
    axes.set_aspect("equal")


def _marker_size(count: int) -> float:
    return 1.7 if count <= 150 else 0.9


def _visible(points: np.ndarray, view: Landscape) -> np.ndarray:
    """Return points with those far outside the picture left out, where a diverging run goes."""
    (x_low, x_high), (y_low, y_high) = view.bounds
    reach = 3 * max(x_high - x_low, y_high - y_low)
    far = ~(np.abs(points - [(x_low + x_high) / 2, (y_low + y_high) / 2]) < reach).all(axis=-1)
    return np.where(far[:, None], np.nan, points)


def _mathematical(symbol: str) -> str:
    """Write a symbol of the registry, such as θ₁, for matplotlib."""
    base = symbol.rstrip(_SUBSCRIPTS)
    index = symbol[len(base) :].translate(str.maketrans(_SUBSCRIPTS, "01234"))
    base = "".join(_GREEK.get(character, character) for character in base)
    return f"${base}_{{{index}}}$" if index else f"${base}$"


_SUBSCRIPTS = "₀₁₂₃₄"
_GREEK = {"θ": r"\theta", "λ": r"\lambda", "τ": r"\tau", "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "μ": r"\mu",
          "σ": r"\sigma", "δ": r"\delta", "ε": r"\varepsilon"}  # fmt: skip


def _axis(label: str) -> str:
    return {"x₁": "$x_1$", "x₂": "$x_2$"}.get(label, label)


def _draw_times(axes: Axes, scene: Scene, curves: StoppingCurves, colours: dict[float, str]) -> None:
    if curves.logarithmic:
        axes.set_xscale("log")
    low, high = scene.parameter_range
    axes.set_xlim(low, high)
    for k, threshold in enumerate(curves.thresholds):
        colour = colours[threshold]
        axes.plot(*without_jumps(curves.values, curves.times[k]), color=colour, zorder=3)
        stairs = np.where(np.isfinite(curves.scaled_steps[k]), curves.scaled_steps[k], np.nan)
        axes.plot(curves.step_values, stairs, drawstyle="steps-mid", color=colour, linewidth=0.6, alpha=0.8, zorder=2)
    _shade_unreached(axes, curves)
    positive = curves.times[np.isfinite(curves.times) & (curves.times > 0)]
    top, bottom = float(positive.max(initial=0.0)) or 1.0, float(positive.min(initial=math.inf))
    if top > _WIDE_RATIO * bottom:
        axes.set_yscale("log")
        axes.set_ylim(bottom / 1.5, top * 1.5)
    else:
        axes.set_ylim(0.0, 1.12 * top)
    _draw_tangent(axes, curves)
    for axis in (axes.xaxis, axes.yaxis):
        _label_plainly(axis)
    axes.set_xlabel(_mathematical(curves.symbol))
    axes.set_ylabel("stopping time $T$ (line), $h N$ (stairs)")


def without_jumps(values: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve with nan where T is infinite and between values where it jumps, so that no line crosses a gap."""
    times = np.where(np.isfinite(times), times, np.nan)
    changes = np.abs(np.diff(times))
    around = np.fmax(np.append(changes[1:], 0.0), np.insert(changes[:-1], 0, 0.0))
    jumps = np.flatnonzero((changes > _JUMP * np.nanmax(times, initial=0.0)) & (changes > 4 * np.nan_to_num(around)))
    return np.insert(values, jumps + 1, np.nan), np.insert(times, jumps + 1, np.nan)


def _shade_unreached(axes: Axes, curves: StoppingCurves) -> None:
    """Shade where the first threshold is not met."""
    edges = np.concatenate([curves.values[:1], (curves.values[1:] + curves.values[:-1]) / 2, curves.values[-1:]])
    for k in np.flatnonzero(~np.isfinite(curves.times[0])).tolist():
        axes.axvspan(edges[k], edges[k + 1], color=_UNREACHED, linewidth=0, zorder=0)


def _label_plainly(axis: Axis) -> None:
    """Label a logarithmic axis that spans less than two powers of ten as plain numbers, at 1, 2 and 5 times these."""
    low, high = axis.get_view_interval()
    if axis.get_scale() != "log" or high / low >= 100.0:
        return
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = ([m * 10.0**k for k in exponents for m in factors] for factors in ((1, 2, 5), range(1, 10)))
    shown = [[tick for tick in ticks if low <= tick <= high] for ticks in choices]
    axis.set_major_locator(ticker.FixedLocator(shown[0] if len(shown[0]) > 1 else shown[1]))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(ticker.NullLocator())


def _draw_tangent(axes: Axes, curves: StoppingCurves) -> None:
    answer = curves.answers[0]
    if not math.isfinite(answer.time):
        return
    axes.plot(curves.theta, answer.time, "o", color=BLACK, markersize=3.6, zorder=5)
    if not math.isfinite(answer.time_derivative):
        return
    (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    values = np.linspace(low, high, 400)
    line = answer.time + answer.time_derivative * (values - curves.theta)
    # A quarter of the panel's diagonal, in the coordinates of the panel.
    to_panel = axes.transData + axes.transAxes.inverted()
    shown = line > 0 if axes.get_yscale() == "log" else np.isfinite(line)
    places = to_panel.transform(np.stack([values[shown], line[shown]], axis=-1))
    here = to_panel.transform((curves.theta, answer.time))
    near = np.hypot(*(places - here).T) < 0.28
    axes.plot(values[shown][near], line[shown][near], color=BLACK, linewidth=1.0, linestyle=(0, (4, 2)), zorder=4)
    axes.set(xlim=(low, high), ylim=(bottom, top))


def _draw_criterion(axes: Axes, scene: Scene, paths: Paths, colours: dict[float, str]) -> None:
    end = max([float(paths.flow_times[-1]), *(stop.time for stop in paths.stops if math.isfinite(stop.time))]) or 1.0
    axes.plot(paths.flow_times, _positive(paths.flow_values), color=BLACK, linewidth=1.0, zorder=3)
    axes.plot(paths.step_times, _positive(paths.step_values), "o", color=VERMILION,
              markersize=_marker_size(len(paths.step_times)), zorder=2)  # fmt: skip
    for threshold, colour in colours.items():
        axes.axhline(threshold, color=colour, linewidth=0.7, linestyle="--", zorder=1)
    for event in paths.events:
        if math.isfinite(event.time):
            axes.plot(event.time, event.threshold, "o", color=colours[event.threshold], markeredgecolor=BLACK,
                      markeredgewidth=0.5, markersize=4.2, zorder=5)  # fmt: skip
    values = np.concatenate([_positive(paths.flow_values), _positive(paths.step_values[paths.step_times <= end])])
    plain_logarithmic(axes)
    low = min(np.nanmin(values, initial=math.inf), *colours)
    high = max(float(_positive(paths.flow_values[:1])[0]), np.nanmax(_positive(paths.flow_values), initial=0.0))
    axes.set(xlim=(-0.02 * end, 1.03 * end), ylim=(max(low, 1e-3 * min(colours)) / 1.5, 2 * high))
    axes.set_xlabel("time $t$, $h k$")
    missed = next((event.words for event in paths.events if not math.isfinite(event.time)), "")
    if missed:
        axes.text(0.98, 0.96, missed.replace("t_max", r"$t_{\max}$"), transform=axes.transAxes, ha="right", va="top",
                  color=GREY, fontsize=8)  # fmt: skip
    axes.set_ylabel(_CRITERIA.get(scene.criterion, in_words(scene.criterion)))


_CRITERIA = {"objective-gap": "$J = f - f^*$", "squared-gradient-norm": r"$J = \|\nabla f\|^2$"}


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)


def _draw_errors(axes: Axes, errors: GradientErrors) -> None:
    axes.set_xlabel("step size $h$")
    axes.set_ylabel(r"relative error of $h\,\partial N$")
    shown = [errors.definition3, errors.interpolated]
    if not np.isfinite(np.concatenate(shown)).any():
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, _broken(errors.words), transform=axes.transAxes, ha="center", va="center", color=GREY)
        return
    plain_logarithmic(axes)
    label_step_sizes(axes, errors.step_sizes)
    axes.plot(errors.step_sizes, _positive(errors.definition3), "o-", color=BLACK, label="Definition 3, $N$")
    axes.plot(errors.step_sizes, _positive(errors.interpolated), "^--", color=PURPLE, label=r"interpolated, $\hat N$")
    if math.isfinite(errors.order):
        axes.plot([], [], " ", label=f"slope of $N$: {errors.order:.2f}")
    axes.legend(loc="best")
    _label_plainly(axes.yaxis)


def _broken(words: str) -> str:
    return words.replace(": ", ":\n")
