"""What happens when something on the page is touched: each callback hands what was asked to a computation."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, no_update, set_props
from dash.exceptions import PreventUpdate

from odestop.explorer import figures, layout
from odestop.explorer.descents import Descents
from odestop.explorer.edits import edited
from odestop.explorer.export import CSV_KINDS, to_csv, to_figure, to_script
from odestop.explorer.gradient_errors import gradient_errors
from odestop.explorer.jobs import Jobs
from odestop.explorer.landscape import landscape
from odestop.explorer.level_sets import ground_key, level_sets
from odestop.explorer.looks import theme_of
from odestop.explorer.paths import paths
from odestop.explorer.presets import PRESETS, preset_of
from odestop.explorer.query import from_query, to_query
from odestop.explorer.solving import CancelledError
from odestop.explorer.stopping_curves import stopping_curves

Asked = dict[str, Any]


def register(app: Dash, jobs: Jobs) -> None:
    """Add all callbacks to the app; what they compute ends early once its job is cancelled."""
    _register_pictures(app, jobs)
    _register_descent(app, Descents())
    _register_files(app)
    _register_browser(app)

    @app.callback(Output("cancelled", "data"), Input("cancel", "data"), prevent_initial_call=True)
    def cancel(asked: Asked) -> None:
        jobs.cancel(f"{asked['session']}/{asked['channel']}", int(asked["serial"]))


def explain(error: Exception) -> None:
    """Tell the page about an error that no computation has foreseen; the page goes on."""
    set_props("failure", {"data": {"asked": ctx.triggered_id, "message": f"This could not be computed: {error}"}})


def _register_pictures(app: Dash, jobs: Jobs) -> None:
    @app.callback(
        Output("ground", "figure"),
        Output("tracks", "figure"),
        Output("trajectory", "figure"),
        Output("result-time", "children"),
        Output("result-steps", "children"),
        Output("result-scaled-steps", "children"),
        Output("status", "children"),
        Output("control-list", "children"),
        Output("landscape-legend", "children"),
        Output("descent-legend", "children"),
        Output("sentence", "children"),
        Output("answer-paths", "data"),
        Input("ask-paths", "data"),
        prevent_initial_call=True,
    )
    def draw_paths(asked: Asked) -> tuple:
        before, messages = from_query(asked["query"])
        edit = edited(before, [(name, value) for name, value in asked["edits"]])
        scene, theme = edit.scene, theme_of(asked["theme"])
        picture = landscape(scene)
        preset = preset_of(scene)
        reply = {
            "serial": asked["serial"],
            "query": to_query(scene),
            "problems": edit.problems,
            "messages": messages,
            "preset": preset,
            "start": picture.plane.project(np.array(scene.x0)).tolist(),
            "specs": layout.control_specs(scene),
            "structure": layout.structure_of(scene),
            "ground": f"{asked['theme']} {ground_key(scene, picture)}",
        }
        try:
            result = paths(scene, jobs.watch(_channel(asked), asked["serial"]))
        except CancelledError:
            return (*[no_update] * 11, {**reply, "ground": asked["ground"], "structure": asked["structure"]})
        same_ground = reply["ground"] == asked.get("ground")
        same_controls = reply["structure"] == asked.get("structure")
        reply["redrawn"] = not same_controls
        return (
            no_update if same_ground else figures.ground(theme, picture, level_sets(scene, picture)),
            figures.tracks(theme, picture, result),
            figures.descent_of_criterion(theme, result),
            layout.number_in_words(result.events[0].time),
            layout.number_in_words(result.stops[0].steps),
            layout.number_in_words(result.stops[0].time),
            layout.status_in_words(scene, result),
            no_update if same_controls else layout.control_list(scene),
            no_update if same_ground else layout.landscape_legend(scene, theme),
            no_update if same_ground else layout.trajectory_legend(theme),
            PRESETS[preset].sentence if preset else layout.HINT,
            reply,
        )

    @app.callback(
        Output("stopping", "figure"),
        Output("stopping-legend", "children"),
        Output("name-time-derivative", "children"),
        Output("result-time-derivative", "children"),
        Output("name-steps-derivative", "children"),
        Output("result-steps-derivative", "children"),
        Output("answer-curves", "data"),
        Input("ask-curves", "data"),
        prevent_initial_call=True,
    )
    def draw_curves(asked: Asked) -> tuple:
        scene, theme = from_query(asked["query"])[0], theme_of(asked["theme"])
        try:
            curves = stopping_curves(scene, cancelled=jobs.watch(_channel(asked), asked["serial"]))
        except CancelledError:
            # The numbers shown are those of another scene by now.
            return no_update, no_update, no_update, "…", no_update, "…", {"serial": asked["serial"]}
        of_time, of_steps = layout.derivative_names(scene)
        return (
            figures.stopping_times(theme, curves),
            layout.stopping_legend(scene, theme),
            of_time,
            layout.number_in_words(curves.answers[0].time_derivative),
            of_steps,
            layout.number_in_words(curves.answers[0].scaled_steps_derivative),
            {"serial": asked["serial"]},
        )

    @app.callback(
        Output("errors", "figure"),
        Output("errors-legend", "children"),
        Output("answer-errors", "data"),
        Input("ask-errors", "data"),
        prevent_initial_call=True,
    )
    def draw_errors(asked: Asked) -> tuple:
        scene, theme = from_query(asked["query"])[0], theme_of(asked["theme"])
        try:
            errors = gradient_errors(scene, cancelled=jobs.watch(_channel(asked), asked["serial"]))
        except CancelledError:
            return no_update, no_update, {"serial": asked["serial"]}
        legend = layout.errors_legend(theme, errors)
        return figures.gradient_error_lines(theme, errors), legend, {"serial": asked["serial"]}


def _register_descent(app: Dash, descents: Descents) -> None:
    @app.callback(Output("answer-descent", "data"), Input("ask-descent", "data"), prevent_initial_call=True)
    def step(asked: Asked) -> dict[str, Any]:
        run = str(asked["run"])
        if asked.get("stop"):
            descents.stop(run)
            raise PreventUpdate
        if "query" in asked:
            quantity, _, of = str(asked["kind"]).partition("-")
            descents.begin(run, from_query(asked["query"])[0], quantity, of)
        frame = descents.step(run)
        if frame is None:
            return {"run": run, "ended": True, "message": "The descent has ended."}
        return {"run": run, "query": to_query(frame.scene), "ended": frame.is_last, "message": frame.message}


def _register_files(app: Dash) -> None:
    @app.callback(Output("file", "data"), Input("ask-file", "data"), prevent_initial_call=True)
    def save(asked: Asked) -> dict[str, Any]:
        scene, kind = from_query(asked["query"])[0], str(asked["kind"])
        if kind == "script":
            return _file("odestop_scene.py", to_script(scene).encode())
        if kind in CSV_KINDS:
            return _file(f"odestop_{kind}.csv", to_csv(kind, scene).encode())
        return _file(f"odestop_scene.{kind}", to_figure(scene, kind))


def _register_browser(app: Dash) -> None:
    """Add the callbacks that run in the browser: see assets/explorer.js."""

    def in_browser(function: str, *arguments: Input | State, initially: bool = False) -> None:
        # They set what they change themselves.
        nothing = Output("heard", "data", allow_duplicate=not initially)
        app.clientside_callback(
            ClientsideFunction("explorer", function), nothing, *arguments, prevent_initial_call=not initially
        )

    def fields(part: str) -> Input:
        return Input({"part": part, "name": ALL}, "value")

    in_browser("turn", *(fields(part) for part in ("slider", "number", "text", "choice")))
    in_browser("begin", Input("start", "data"), initially=True)
    in_browser("chooseTheme", Input("toggle-theme", "n_clicks"))
    in_browser("pick", Input("preset", "value"), State("presets", "data"))
    in_browser("reset", Input("reset", "n_clicks"), State("preset", "value"), State("presets", "data"))
    in_browser("answered", *(Input(f"answer-{name}", "data") for name in layout.CHANNELS))
    in_browser("failed", Input("failure", "data"))
    in_browser("descend", Input("descend", "n_clicks"), State("descent-kind", "value"))
    in_browser("frame", Input("answer-descent", "data"))
    in_browser("stopWorking", Input({"stop": ALL}, "n_clicks"))
    in_browser("save", Input({"file": ALL}, "n_clicks"))
    in_browser("copyAddress", Input("copy", "n_clicks"))
    in_browser("closeNotice", Input("close-notice", "n_clicks"))


def _file(name: str, content: bytes) -> dict[str, Any]:
    return {"filename": name, "content": base64.b64encode(content).decode(), "base64": True}


def _channel(asked: Asked) -> str:
    return f"{asked['session']}/{asked['channel']}"
