"""What the page can ask, and what it is told: dictionaries in and out, which the server sends as JSON.

What is to be shown comes as ``texts`` (words by the id of the element they stand in), ``legends`` (entries by the id of
the legend), ``figures`` (what Plotly draws, by the id of its place) and ``tracks`` (lines and markers that the page
draws above a figure); what is not among them stays as it is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

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
from odestop.explorer.solving import Cancelled, CancelledError
from odestop.explorer.stopping_curves import stopping_curves

Asked = dict[str, Any]
Reply = dict[str, Any]


def questions(jobs: Jobs) -> dict[str, Callable[[Asked], Reply]]:
    """Return what can be asked, by name; what is under way ends early once its job is cancelled.

    Examples
    --------
    >>> reply = questions(Jobs())["paths"]({"session": "s", "serial": 1, "query": "", "theme": "light", "edits": []})
    >>> reply["texts"]["result-steps"]
    '11'
    """
    descents = Descents()

    def job(name: str, answer: Callable[[Asked, Cancelled], Reply]) -> Callable[[Asked], Reply]:
        return lambda asked: answer(asked, jobs.watch(f"{asked['session']}/{name}", int(asked["serial"])))

    def cancel(asked: Asked) -> Reply:
        jobs.cancel(f"{asked['session']}/{asked['channel']}", int(asked["serial"]))
        return {}

    return {
        "paths": job("paths", reply_with_paths),
        "curves": job("curves", reply_with_curves),
        "errors": job("errors", reply_with_errors),
        "cancel": cancel,
        "descent": lambda asked: reply_with_step(asked, descents),
        "file": reply_with_file,
    }


def reply_with_paths(asked: Asked, cancelled: Cancelled) -> Reply:
    """Return the scene after some edits, its controls, and the picture of its flow and its steps.

    Controls and the figures below the tracks come only if they are others than those that the page has, by their keys
    in ``known``; nothing is drawn if the job was cancelled.
    """
    before, messages = from_query(asked["query"])
    edit = edited(before, [(name, value) for name, value in asked["edits"]])
    scene, theme = edit.scene, theme_of(asked["theme"])
    picture, preset, known = landscape(scene), preset_of(scene), asked.get("known", {})
    reply: Reply = {
        "query": to_query(scene),
        "problems": edit.problems,
        "messages": messages,
        "preset": preset,
        "start": picture.plane.project(np.array(scene.x0)).tolist(),
        "specs": layout.control_specs(scene),
        "texts": {"sentence": PRESETS[preset].sentence if preset else layout.HINT},
    }
    keys = reply["known"] = {"controls": layout.structure_of(scene)}
    if keys["controls"] != known.get("controls"):
        reply["controls"] = layout.control_list(scene)
    try:
        result = paths(scene, cancelled)
    except CancelledError:
        return reply
    reply["texts"] |= {
        "result-time": layout.number_in_words(result.events[0].time),
        "result-steps": layout.number_in_words(result.stops[0].steps),
        "result-scaled-steps": layout.number_in_words(result.stops[0].time),
        "status": layout.status_in_words(scene, result),
    }
    reply["tracks"] = {
        "ground": figures.tracks(theme, picture, result),
        "trajectory": figures.criterion_tracks(theme, result),
    }
    frame = figures.criterion_frame(theme, result)
    keys |= {"ground": f"{asked['theme']} {ground_key(scene, picture)}", "trajectory": layout.key_of(frame)}
    reply["figures"] = {}
    if keys["trajectory"] != known.get("trajectory"):
        reply["figures"]["trajectory"] = frame
    if keys["ground"] != known.get("ground"):
        reply["figures"]["ground"] = figures.ground(theme, picture, level_sets(scene, picture))
        reply["legends"] = {
            "landscape-legend": layout.landscape_legend(scene, theme),
            "descent-legend": layout.trajectory_legend(theme),
        }
    return reply


def reply_with_curves(asked: Asked, cancelled: Cancelled) -> Reply:
    """Return T and N over θ, and their derivatives."""
    scene, theme = from_query(asked["query"])[0], theme_of(asked["theme"])
    try:
        curves = stopping_curves(scene, cancelled=cancelled)
    except CancelledError:
        # The numbers shown are those of another scene by now.
        return {"texts": {"result-time-derivative": "…", "result-steps-derivative": "…"}}
    of_time, of_steps = layout.derivative_names(scene)
    answer = curves.answers[0]
    return {
        "texts": {
            "name-time-derivative": of_time,
            "result-time-derivative": layout.number_in_words(answer.time_derivative),
            "name-steps-derivative": of_steps,
            "result-steps-derivative": layout.number_in_words(answer.scaled_steps_derivative),
        },
        "legends": {"stopping-legend": layout.stopping_legend(scene, theme)},
        "figures": {"stopping": figures.stopping_times(theme, curves)},
    }


def reply_with_errors(asked: Asked, cancelled: Cancelled) -> Reply:
    """Return the errors of the discrete gradients."""
    scene, theme = from_query(asked["query"])[0], theme_of(asked["theme"])
    try:
        errors = gradient_errors(scene, cancelled=cancelled)
    except CancelledError:
        return {}
    return {
        "legends": {"errors-legend": layout.errors_legend(theme, errors)},
        "figures": {"errors": figures.gradient_error_lines(theme, errors)},
    }


def reply_with_step(asked: Asked, descents: Descents) -> Reply:
    """Begin a descent where a scene comes with the question, take a step of it, or stop it."""
    run = str(asked["run"])
    if asked.get("stop"):
        descents.stop(run)
        return {}
    if "query" in asked:
        quantity, _, of = str(asked["kind"]).partition("-")
        descents.begin(run, from_query(asked["query"])[0], quantity, of)
    frame = descents.step(run)
    if frame is None:
        return {"ended": True, "message": "The descent has ended."}
    return {"query": to_query(frame.scene), "ended": frame.is_last, "message": frame.message}


def reply_with_file(asked: Asked) -> Reply:
    """Return a file to save, its content in base 64."""
    scene, kind = from_query(asked["query"])[0], str(asked["kind"])
    if kind == "script":
        name, content = "odestop_scene.py", to_script(scene).encode()
    elif kind in CSV_KINDS:
        name, content = f"odestop_{kind}.csv", to_csv(kind, scene).encode()
    else:
        name, content = f"odestop_scene.{kind}", to_figure(scene, kind)
    return {"name": name, "content": base64.b64encode(content).decode()}
