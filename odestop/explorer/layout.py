"""What stands on the page, and where: header, controls, results, and four panels of fixed size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from dash import dcc, html
from dash.development.base_component import Component

from odestop.explorer.controls import GROUPS, Control, controls, notes
from odestop.explorer.gradient_errors import GradientErrors
from odestop.explorer.looks import Theme
from odestop.explorer.paths import Paths
from odestop.explorer.presets import PRESETS
from odestop.explorer.query import to_query
from odestop.explorer.scene import Scene, swept_parameter

DESCENTS = {
    "T-theta": "T by θ",
    "N-theta": "N by θ",
    "N-h": "N by h",
}
"""What can be descended on."""

HINT = "Drag x₀ in the landscape, move a slider, click in the plot of T: the stopping time and its derivative answer."
"""Stands where the sentence of a preset would, when the scene has become one's own."""

LegendEntry = tuple[str, str, str]
"""A mark (a class of assets/explorer.css), its colour, and what it means; words alone if there is no mark."""

_SLIDER_POSITIONS = 240


def page(scene: Scene) -> Component:
    """Return the page; nothing on it depends on the scene but the query that it starts with."""
    return html.Div(
        [
            *_stores(scene),
            _header(),
            _controls(),
            _results(),
            _panel("landscape", "Landscape", _landscape(), "paths"),
            _panel("stopping", "Stopping time", _stopping(), "stopping_curves", _descend()),
            _panel("descent", "Target along the way", _graph_with_tracks("trajectory")),
            _panel("errors", "Gradient error", _errors(), "gradient_errors"),
            _notice(),
        ],
        id="page",
    )


def control_list(scene: Scene) -> list[Component]:
    """Return the controls of a scene, by group."""
    by_group: dict[str, list[Component]] = {}
    for control in controls(scene):
        by_group.setdefault(control.group, []).append(_control(control))
    return [
        html.Fieldset([html.Legend(GROUPS[group]), *members], id=f"group-{group}")
        for group, members in by_group.items()
    ]


def structure_of(scene: Scene) -> str:
    """Return a key that changes when controls appear, disappear or get other ranges or choices; not with values."""
    parts = [(c.name, c.kind, c.low, c.high, c.logarithmic, c.label, c.choices) for c in controls(scene)]
    return key_of(parts)


def key_of(thing: object) -> str:
    """Return a short key that is another one for other things."""
    return hashlib.sha256(repr(thing).encode()).hexdigest()[:16]


def control_specs(scene: Scene) -> dict[str, dict[str, Any]]:
    """Return what the browser has to know of each control: how its slider goes, and its value."""
    specs: dict[str, dict[str, Any]] = {}
    for control in controls(scene):
        specs[control.name] = _spec(control)
        if control.name == "thresholds":
            specs["thresholds.0"] = {**_slider_spec(control), "kind": "number", "value": control.value[0]}
    return specs


def derivative_names(scene: Scene) -> tuple[str, str]:
    """Return how the derivatives of T and of h N are called."""
    theta = swept_parameter(scene).symbol
    return f"dT/d{theta}", f"h dN/d{theta}"


def status_in_words(scene: Scene, paths: Paths) -> str:
    """Return how the flow and the steps ended at the first ε, and what else is worth knowing."""
    flow, steps = paths.events[0].words, paths.stops[0].words
    ended = f"Flow and steps: {flow}." if flow == steps else f"Flow: {flow}. Steps: {steps}."
    return " ".join((ended, *notes(scene)))


def number_in_words(value: float | int) -> str:
    """Return a number as the page shows it.

    Examples
    --------
    >>> [number_in_words(value) for value in (1.23456789, 40.0, -1.5e-7, float("inf"), float("nan"))]
    ['1.23457', '40', '−1.5e−07', '∞', '–']
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.6g}".replace("-", "−")


def landscape_legend(scene: Scene, theme: Theme) -> list[LegendEntry]:
    """Return what the landscape's colours and marks mean."""
    return [
        ("line", theme.ink, "flow x(t)"),
        ("dot", theme.steps, "steps"),
        *_threshold_entries(theme, scene.thresholds, "J = "),
        ("dot", theme.muted, "x(T)"),
        ("square", theme.muted, "step N"),
    ]


def stopping_legend(scene: Scene, theme: Theme) -> list[LegendEntry]:
    """Return what the lines of T and N mean."""
    thresholds = scene.thresholds[:1] if scene.parameter == "threshold" else scene.thresholds
    return [
        *_threshold_entries(theme, thresholds, "T, ε = "),
        ("line thin", theme.muted, "h N"),
        ("line dotted", theme.muted, "h N̂"),
        ("line", theme.ink, "tangent of T"),
        ("line dashed", theme.steps, "of h N̂"),
    ]


def trajectory_legend(theme: Theme) -> list[LegendEntry]:
    """Return what the lines of J mean."""
    return [("line", theme.ink, "flow"), ("dot", theme.steps, "steps"), ("line dashed", theme.muted, "ε")]


def errors_legend(theme: Theme, errors: GradientErrors) -> list[LegendEntry]:
    """Return what the lines of the errors mean, and their slope; nothing where there are none."""
    if not np.any(np.isfinite([errors.definition3, errors.interpolated])):
        return []
    return [("line", theme.steps, "h ∂N/∂θ"), ("line dotted", theme.ink, "h ∂N̂/∂θ"), ("", "", errors.words)]


def _stores(scene: Scene) -> Iterable[Component]:
    yield dcc.Store(id="start", data=to_query(scene))
    yield dcc.Store(id="presets", data={name: to_query(preset.scene) for name, preset in PRESETS.items()})
    yield dcc.Store(id="heard")


def _header() -> Component:
    options = [{"label": preset.title, "value": name} for name, preset in PRESETS.items()]
    kinds = {"svg": "SVG", "png": "PNG", "pdf": "PDF", "answers": "CSV", "script": "Script"}
    files = [html.Button(words, id={"file": kind}, className="plain") for kind, words in kinds.items()]
    return html.Header(
        [
            html.H1("odestop explorer"),
            html.Div(
                [
                    html.Label("Scene", htmlFor="preset", className="hidden"),
                    dcc.Dropdown(
                        id="preset", options=options, placeholder="Pick a scene", searchable=False, clearable=False
                    ),
                ],
                className="preset",
            ),
            html.Button("Reset", id="reset", className="plain alone", title="Back to this scene as it was"),
            html.P(id="sentence"),
            _element(
                html.Div,
                [html.Span("Save"), *files],
                className="buttons",
                role="group",
                aria_label="Save what is shown",
            ),
            html.Button("Copy link", id="copy", className="plain alone"),
            _element(html.Button, "◐", id="toggle-theme", className="plain alone", aria_label="Light or dark"),
        ],
        id="header",
    )


def _controls() -> Component:
    return _element(html.Aside, html.Div(id="control-list"), id="controls", className="panel", aria_label="Controls")


def _panel(
    name: str,
    title: str,
    drawing: Sequence[Component],
    table: str = "",
    extra: Sequence[Component] = (),
) -> Component:
    """Return a panel; ``table`` is the kind of CSV file that has its numbers."""
    words = f"{title}: save as a table (CSV)"
    downloads = [_element(html.Button, "CSV", id={"file": table}, className="quiet", title=words, aria_label=words)]
    top = [html.H2(title), *extra, html.Span(className="gap"), *(downloads if table else [])]
    parts = [
        html.Div(top, className="top"),
        html.Div(id=f"{name}-legend", className="legend"),
        html.Div(drawing, className="drawing", id=f"{name}-drawing"),
    ]
    return _element(html.Section, parts, id=f"{name}-panel", className="panel", aria_label=title)


def _graph(name: str) -> Component:
    return html.Div(id=name, className="graph")


def _graph_with_tracks(name: str) -> list[Component]:
    return [_graph(name), html.Canvas(id=f"{name}-tracks", className="graph")]


def _landscape() -> list[Component]:
    label = "Initial point: drag it, or move it with the arrow keys"
    handle = _element(html.Button, "x₀", id="start-point", type="button", title=label, aria_label=label)
    return [*_graph_with_tracks("ground"), html.Div(handle, id="surface")]


def _stopping() -> list[Component]:
    return [_graph("stopping"), _working("curves")]


def _errors() -> list[Component]:
    return [_graph("errors"), _working("errors")]


def _working(channel: str) -> Component:
    button = html.Button("Cancel", id={"stop": channel}, className="quiet")
    return html.Div(["Computing", button], id=f"working-{channel}", className="working", role="status")


def _descend() -> list[Component]:
    options = [{"label": words, "value": name} for name, words in DESCENTS.items()]
    return [
        html.Div(
            [
                html.Button("Descend", id="descend", className="go", type="button"),
                html.Label("Descend on", htmlFor="descent-kind", className="hidden"),
                dcc.Dropdown(id="descent-kind", options=options, value="T-theta", searchable=False, clearable=False),
            ],
            className="descend",
        ),
        html.Span(id="descent-note", className="note", role="status"),
    ]


def _notice() -> Component:
    close = html.Button("Close", id="close-notice", className="quiet")
    return html.Div([html.Span(id="notice-text"), close], id="notice", className="empty", role="alert")


def _control(control: Control) -> Component:
    problem = html.Div(id={"part": "problem", "name": control.name}, className="problem", role="alert")
    if control.kind == "choice":
        fields = [_label(control, "choice"), _choice(control)]
    elif control.kind == "numbers":
        fields = [_label(control, "text"), *_several(control)]
    else:
        fields = [_label(control, "number"), _pair(control.name, _spec(control), control.value)]
    # A slider has a line of its own; a field stands beside its label.
    lines = "control" if any(getattr(field, "className", "") == "pair" for field in fields) else "control inline"
    return html.Div([*fields, problem], className=lines)


def _label(control: Control, part: str) -> Component:
    words: list[Any] = [control.label]
    if control.symbol and control.symbol != control.label:
        words += ["  ", html.Span(control.symbol, className="symbol")]
    tip = {"data_tip": control.description} if control.description else {}
    return _element(html.Label, words, htmlFor=_dom_id(part, control.name), **tip)


def _choice(control: Control) -> Component:
    options = [
        {"label": choice.label, "value": choice.value, "disabled": bool(choice.why_not), "title": choice.why_not}
        for choice in control.choices
    ]
    return dcc.Dropdown(
        id={"part": "choice", "name": control.name},
        options=options,
        value=control.value,
        clearable=False,
        searchable=len(options) > 8,
        maxHeight=320,
    )


def _several(control: Control) -> list[Component]:
    text = dcc.Input(
        id={"part": "text", "name": control.name}, type="text", value=written(control.value), debounce=True
    )
    if control.name != "thresholds":
        return [text]
    return [_pair("thresholds.0", _slider_spec(control), control.value[0]), text]


def _pair(name: str, spec: dict[str, Any], value: float | int | None) -> Component:
    """Return a slider with a number beside it; a number alone where the range has no ends."""
    number = dcc.Input(id={"part": "number", "name": name}, type="number", value=value, debounce=True, step="any")
    if not spec["slides"]:
        return number
    slider = dcc.Input(
        id={"part": "slider", "name": name},
        type="range",
        min=position(spec, spec["low"]),
        max=position(spec, spec["high"]),
        step=spec["step"],
        value=position(spec, spec["low"] if value is None else value),
    )
    return html.Div([slider, number], className="pair")


def written(values: Sequence[float | int]) -> str:
    """Return several numbers as a text field shows them."""
    return ", ".join(f"{value:.6g}" for value in values)


def position(spec: dict[str, Any], value: float | int) -> float:
    """Return where a slider stands for a value."""
    inside = min(max(value, spec["low"]), spec["high"])
    return math.log10(inside) if spec["logarithmic"] else float(inside)


def _spec(control: Control) -> dict[str, Any]:
    if control.kind == "choice":
        return {"kind": "choice", "value": control.value}
    if control.kind == "numbers":
        return {"kind": "text", "value": written(control.value)}
    return {**_slider_spec(control), "kind": control.kind, "value": control.value, "optional": control.value is None}


def _slider_spec(control: Control) -> dict[str, Any]:
    """Return ends and steps of a slider; the steps are equal in the exponent if it is logarithmic."""
    if not (math.isfinite(control.low) and math.isfinite(control.high) and control.high > control.low):
        return {"slides": False}
    low, high = float(control.low), float(control.high)
    spec = {"slides": True, "low": low, "high": high, "logarithmic": control.logarithmic}
    span = math.log10(high / low) if control.logarithmic else high - low
    whole = control.kind == "integer" and not control.logarithmic
    return {**spec, "integer": control.kind == "integer", "step": 1 if whole else span / _SLIDER_POSITIONS}


def _dom_id(part: str, name: str) -> str:
    """Return how Dash writes the id of a control's field in the document."""
    return f'{{"name":"{name}","part":"{part}"}}'


def _results() -> Component:
    names = {
        "time": "stopping time  T",
        "time-derivative": "",
        "steps": "steps  N",
        "scaled-steps": "as time  h N",
        "steps-derivative": "",
    }
    cells = [
        html.Div(
            [html.Span(words, id=f"name-{key}", className="name"), html.Span(id=f"result-{key}", className="value")],
            className="result",
        )
        for key, words in names.items()
    ]
    status = html.Div(html.Span(id="status", className="words"), className="result")
    return _element(html.Section, [*cells, status], id="results", className="panel", aria_label="Results")


def _threshold_entries(theme: Theme, thresholds: Sequence[float | int], words: str) -> list[LegendEntry]:
    return [
        ("line", theme.threshold(index), f"{words if index == 0 else ''}{threshold:.3g}")
        for index, threshold in enumerate(thresholds)
    ]


def _element(kind: Callable[..., Component], children: Any, **attributes: Any) -> Component:
    """Return an element with attributes such as aria-label, whose names are written with underscores here."""
    names = {name: name.replace("_", "-") if name.startswith(("aria_", "data_")) else name for name in attributes}
    return kind(children, **{names[name]: value for name, value in attributes.items()})
