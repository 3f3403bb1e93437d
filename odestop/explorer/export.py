"""What is on screen as files: data, a script that computes it again, and a figure for print."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict

import matplotlib
import numpy as np
import pandas as pd

from odestop._validation import check_choice
from odestop.explorer.answers import answers
from odestop.explorer.drawing import draw_scene
from odestop.explorer.gradient_errors import gradient_errors
from odestop.explorer.landscape import default_bounds, landscape
from odestop.explorer.paths import paths
from odestop.explorer.scene import Scene, values_of
from odestop.explorer.solving import ATOL, FLOW_BUDGET, RTOL, most_steps
from odestop.explorer.step_maps import OPTIMIZERS
from odestop.explorer.stopping_curves import stopping_curves
from odestop.plotting.style import styled
from odestop.question import STEP_MAPS

FIGURE_FORMATS = ("svg", "pdf", "png")


def to_csv(kind: str, scene: Scene) -> str:
    """Return a table of what is on screen as comma-separated values with a header.

    Parameters
    ----------
    kind
        A key of `CSV_KINDS`.
    scene
        One without problems.

    Raises
    ------
    ValueError
        If the kind is unknown.

    Examples
    --------
    >>> print(to_csv("answers", Scene()).partition(",time")[0])
    threshold
    """
    return CSV_KINDS[check_choice("kind", kind, tuple(CSV_KINDS))](scene).to_csv(index=False)


def to_script(scene: Scene) -> str:
    """Return a Python script that prints T, N and their derivatives as they stand on screen.

    It uses public names of the library only, and runs on its own.

    Parameters
    ----------
    scene
        One without problems.

    Examples
    --------
    >>> "continuous_stopping_time" in to_script(Scene())
    True
    """
    swept = scene.parameter == "threshold"
    theta = "" if swept else f"\ntheta = torch.tensor({scene.theta!r}, dtype=torch.float64, requires_grad=True)"
    threshold = "torch.tensor(level, dtype=torch.float64, requires_grad=True)" if swept else "level"
    arguments = dict(values_of(scene, "dynamics"))
    hyperparameters = "".join(
        f", {name}={'theta' if name == scene.parameter else repr(value)}"
        for name, value in arguments.items()
        if value is not None
    )
    return f'''"""When {scene.criterion} falls to each threshold, along {scene.dynamics} on {scene.objective}."""

import torch
import odestop
from odestop.discrete import {_step_map_class(scene)}
from odestop.registry import CRITERIA, DYNAMICS, OBJECTIVES


def derivative(quantity, status):
    if not status.is_success or status is odestop.StoppingStatus.TANGENTIAL:
        return float("nan")
    options = dict(retain_graph=True, allow_unused=True, materialize_grads=True)
    return float(torch.autograd.grad(quantity, theta, **options)[0])

{theta}
objective = OBJECTIVES["{scene.objective}"].build(dtype=torch.float64{_written(scene, "objective")})
flow = DYNAMICS["{scene.dynamics}"].build(objective=objective, dtype=torch.float64{hyperparameters})
criterion = CRITERIA["{scene.criterion}"].build(objective=objective{_written(scene, "criterion")})
x0 = torch.tensor({list(scene.x0)!r}, dtype=torch.float64)
h = torch.tensor({scene.step_size!r}, dtype=torch.float64)
step_map = {_step_map_code(scene)}
solver = dict(t_max={scene.horizon!r}, method="{scene.method}", rtol={RTOL}, atol={ATOL}, max_steps={FLOW_BUDGET})
for level in {scene.thresholds!r}:
    threshold = {"theta = " if swept else ""}{threshold}
    flow_stop = odestop.continuous_stopping_time(flow, x0, criterion, threshold, **solver)
    slope = derivative(flow_stop.time, flow_stop.status)
    print(f"epsilon {{level}}: T {{flow_stop.time.item()}} dT {{slope}}", end=" ")
    for name, rule in (("N", "definition3"), ("N^", "interpolated")):
        stop = odestop.discrete_stopping_time(
            step_map, x0, criterion, threshold, sensitivity=rule, max_steps={most_steps(scene, scene.step_size)}
        )
        print(f"{{name}} {{stop.steps.item()}} h*d{{name}} {{derivative(h * stop.steps, stop.status)}}", end=" ")
    print(f"({{flow_stop.status.value}})")
'''


def to_figure(scene: Scene, format: str = "svg") -> bytes:
    """Return the figure on screen in the style of print: landscape, stopping times, J, and gradient errors.

    Parameters
    ----------
    scene
        One without problems.
    format
        One of `FIGURE_FORMATS`.

    Raises
    ------
    ValueError
        If the format is unknown.
    """
    check_choice("format", format, FIGURE_FORMATS)
    trajectories = paths(scene)
    places = np.concatenate([trajectories.flow_positions, trajectories.step_positions])
    view = landscape(scene, default_bounds(scene, places[np.abs(places).max(axis=-1) < 1e3]))
    figure = draw_scene(scene, view, trajectories, stopping_curves(scene), gradient_errors(scene))
    target = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[format]
    with styled(), matplotlib.rc_context({"svg.hashsalt": "odestop"}):
        figure.savefig(target, format=format, dpi=300, metadata=metadata)
    return target.getvalue()


def _paths_table(scene: Scene) -> pd.DataFrame:
    """One row per place: first the flow's, then the iterates x_0, x_1, ….."""
    result = paths(scene)
    flow = _along(result.flow_positions, curve="flow", time=result.flow_times, criterion=result.flow_values)
    steps = _along(result.step_positions, curve="steps", time=result.step_times, criterion=result.step_values)
    return pd.concat([flow, steps])


def _along(positions: np.ndarray, **columns: object) -> pd.DataFrame:
    coordinates = {f"x{i + 1}": column for i, column in enumerate(positions.T)}
    return pd.DataFrame({**columns, **coordinates})


def _curves_table(scene: Scene) -> pd.DataFrame:
    """One row per θ and ε: first T, then h N and h N̂."""
    curves = stopping_curves(scene)
    tables = []
    for k, threshold in enumerate(curves.thresholds):
        flow = {"curve": "flow", "threshold": threshold, scene.parameter: curves.values, "time": curves.times[k]}
        tables.append(pd.DataFrame({**flow, "status": curves.statuses[k]}))
    for k, threshold in enumerate(curves.thresholds):
        steps = {"curve": "steps", "threshold": threshold, scene.parameter: curves.step_values}
        scaled = {"time": curves.scaled_steps[k], "fractional_time": curves.scaled_fractional[k]}
        tables.append(pd.DataFrame({**steps, **scaled}))
    return pd.concat(tables)


def _errors_table(scene: Scene) -> pd.DataFrame:
    errors = gradient_errors(scene)
    return pd.DataFrame(
        {"step_size": errors.step_sizes, "definition3": errors.definition3, "interpolated": errors.interpolated}
    )


def _answers_table(scene: Scene) -> pd.DataFrame:
    return pd.DataFrame([asdict(answer) for answer in answers(scene)])


CSV_KINDS: dict[str, Callable[[Scene], pd.DataFrame]] = {
    "paths": _paths_table,
    "stopping_curves": _curves_table,
    "gradient_errors": _errors_table,
    "answers": _answers_table,
}
"""The tables there are."""


def _written(scene: Scene, part: str) -> str:
    given = {name: value for name, value in values_of(scene, part).items() if value is not None}
    return "".join(f", {name}={value!r}" for name, value in given.items())


def _step_map_class(scene: Scene) -> str:
    if scene.step_map in STEP_MAPS:
        return STEP_MAPS[scene.step_map].__name__
    return OPTIMIZERS[scene.step_map].code.partition("(")[0]


def _step_map_code(scene: Scene) -> str:
    if scene.step_map in STEP_MAPS:
        return f"{STEP_MAPS[scene.step_map].__name__}(flow, h)"
    return OPTIMIZERS[scene.step_map].code
