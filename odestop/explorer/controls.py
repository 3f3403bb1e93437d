"""What can be changed in a scene, what follows from a change, and what is wrong with a scene."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from odestop.explorer.modules import DTYPE, build, objective_of
from odestop.explorer.scene import (
    CATALOGUES,
    Number,
    Scene,
    entry_of,
    is_logarithmic,
    sweepable,
    swept_parameter,
    values_of,
)
from odestop.explorer.step_maps import OPTIMIZERS, step_maps_for
from odestop.registry import OBJECTIVES, Parameter
from odestop.solvers import METHODS

MOST_DIMENSIONS = 200
MOST_THRESHOLDS = 4
LARGEST = 1e6

PLANES = {"slice": "the first two coordinates", "curvature": "the two most curved directions at x₀"}
"""How more than two dimensions are shown in the plane."""

GROUPS = {
    "problem": "Problem",
    "dynamics": "Dynamics",
    "target": "Target",
    "steps": "Steps and solver",
    "view": "View",
}
"""Where the controls stand, for people."""


@dataclass(frozen=True)
class Choice:
    """One option of a control; ``why_not`` says why it cannot be chosen now, and is empty if it can."""

    value: str
    label: str
    why_not: str = ""


@dataclass(frozen=True)
class Control:
    """One thing that can be changed.

    Attributes
    ----------
    name
        What `changed` and `problems` call it.
    group
        A key of `GROUPS`.
    label, symbol, description
        For people; the symbol as formulas write it, empty if there is none.
    kind
        ``"choice"``, ``"number"``, ``"integer"``, or ``"numbers"`` for several.
    value
        A name, a number, None for one that follows from the rest, or a tuple.
    low, high
        Ends of the range worth exploring, of numbers.
    logarithmic
        Whether a slider should go in equal ratios.
    choices
        Of a choice.
    """

    name: str
    group: str
    label: str
    symbol: str
    kind: str
    value: Any
    low: Number = -math.inf
    high: Number = math.inf
    logarithmic: bool = False
    choices: tuple[Choice, ...] = ()
    description: str = ""


def controls(scene: Scene) -> tuple[Control, ...]:
    """Return what can be changed in a scene, in the order of a page.

    Parameters
    ----------
    scene
        One without problems.

    Examples
    --------
    >>> [control.name for control in controls(Scene())][:3]
    ['objective', 'objective.dimension', 'objective.condition_number']
    """
    return tuple(_controls(scene))


def changed(scene: Scene, name: str, value: Any) -> Scene:
    """Return the scene with one control changed, and what follows from it.

    A new objective comes with its customary start, thresholds below J there and a step size that is stable there; a
    new dynamics with its first hyperparameter as θ; a new θ with its range.

    Parameters
    ----------
    scene
        Any.
    name
        Of a control.
    value
        Its new value, which may be a wrong one: see `problems`.

    Raises
    ------
    ValueError
        If there is no such control.

    Examples
    --------
    >>> scene = changed(Scene(), "dynamics", "heavy-ball")
    >>> scene.parameter, scene.parameter_range, problems(scene)
    ('friction', (0.0, 5.0), {})
    """
    part, _, parameter = name.partition(".")
    if part in CATALOGUES:
        new = _with_value(scene, part, parameter, value) if parameter else replace(scene, **{part: value})
        if not parameter and value in CATALOGUES[part]:
            return _CONSEQUENCES[part](scene, new)
        return _with_start(new) if parameter and part == "objective" else new
    if name == "parameter":
        return _with_parameter(scene, value)
    if name in _PLAIN:
        return replace(scene, **{name: value})
    raise ValueError(f"name must be that of a control, got {name!r}")


def problems(scene: Scene) -> dict[str, str]:
    """Return what is wrong with a scene, by control, in words; empty if it can be computed.

    Examples
    --------
    >>> problems(Scene(step_size=-1.0))
    {'step_size': 'step_size must be positive and at most 1e+06, got -1.0'}
    """
    found: dict[str, str] = {}
    for check in _CHECKS:
        found |= check(scene)
        if found:
            # What depends on it cannot be judged.
            break
    return found


def notes(scene: Scene) -> tuple[str, ...]:
    """Return what is worth knowing about a scene without problems."""
    words = []
    if scene.step_map in OPTIMIZERS:
        words.append(f"{OPTIMIZERS[scene.step_map].title}: {OPTIMIZERS[scene.step_map].formula}.")
    return tuple(words)


def _controls(scene: Scene) -> Iterator[Control]:
    yield _choice("objective", "problem", "objective", "f", scene.objective, _named(scene, "objective"))
    yield from _parameters(scene, "objective", "problem")
    yield Control("x0", "problem", "start", "x₀", "numbers", scene.x0, description="where it all starts")
    yield _choice("dynamics", "dynamics", "dynamics", "", scene.dynamics, _named(scene, "dynamics"))
    yield from _parameters(scene, "dynamics", "dynamics")
    choices = tuple(Choice(p.name, f"{p.symbol}: {p.description}") for p in sweepable(scene))
    yield _choice("parameter", "dynamics", "sweep", "θ", scene.parameter, choices)
    yield Control("parameter_range", "dynamics", "range", "", "numbers", scene.parameter_range)
    yield _choice("criterion", "target", "criterion", "J", scene.criterion, _named(scene, "criterion"))
    yield from _parameters(scene, "criterion", "target")
    yield Control("thresholds", "target", "thresholds", "ε", "numbers", scene.thresholds, 1e-6, 1e2, True)
    yield Control("horizon", "target", "horizon", "t_max", "number", scene.horizon, 1.0, 1e3, True)
    choices = tuple(Choice(name, _step_map_title(name)) for name in step_maps_for(scene.dynamics))
    yield _choice("step_map", "steps", "steps", "", scene.step_map, choices)
    yield Control("step_size", "steps", "step size", "h", "number", scene.step_size, 1e-4, 1.0, True)
    choices = tuple(Choice(name, type(METHODS[name]).__name__) for name in METHODS)
    yield _choice("method", "steps", "ODE solver", "", scene.method, choices)
    if len(scene.x0) > 2:
        choices = tuple(Choice(name, words) for name, words in PLANES.items())
        yield _choice("plane", "view", "plane", "", scene.plane, choices)


def _choice(name: str, group: str, label: str, symbol: str, value: str, choices: tuple[Choice, ...]) -> Control:
    return Control(name, group, label, symbol, "choice", value, choices=choices)


def _named(scene: Scene, part: str) -> tuple[Choice, ...]:
    """Return the names of a catalogue, with the reason why one cannot be chosen."""
    return tuple(
        Choice(name, name.replace("-", " "), "" if part == "objective" else _why_not(scene, part, name))
        for name in CATALOGUES[part]
    )


def _why_not(scene: Scene, part: str, name: str) -> str:
    """Return why a dynamics or a criterion is not for the scene's objective, or does not come with defaults there."""
    values = tuple(sorted(values_of(scene, "objective").items()))
    return _refusal(scene.objective, values, part, name, scene.x0)


@lru_cache(maxsize=1024)
def _refusal(objective: str, values: tuple, part: str, name: str, x0: tuple[Number, ...]) -> str:
    f = objective_of(Scene(objective=objective, objective_values=dict(values)))
    try:
        module = CATALOGUES[part][name].build(objective=f, dtype=DTYPE)
        getattr(module, "initial_state", lambda x: x)(torch.tensor(x0, dtype=DTYPE))
    except (ValueError, RuntimeError, ImportError) as error:
        return _first_line(error)
    return ""


def _parameters(scene: Scene, part: str, group: str) -> Iterator[Control]:
    for parameter, value in zip(entry_of(scene, part).parameters, values_of(scene, part).values(), strict=True):
        low, high = parameter.low, parameter.high
        if part == "dynamics" and parameter.name == scene.parameter:
            low, high = scene.parameter_range
        yield Control(
            f"{part}.{parameter.name}",
            group,
            parameter.name.replace("_", " "),
            parameter.symbol,
            "integer" if parameter.is_integer else "number",
            value,
            low,
            min(high, MOST_DIMENSIONS) if parameter.is_integer else high,
            is_logarithmic(low, high),
            description=parameter.description,
        )


def _step_map_title(name: str) -> str:
    titles = {"euler": "Euler", "heun": "Heun", "rk4": "Runge-Kutta 4"}
    return titles.get(name) or OPTIMIZERS[name].title


def _with_value(scene: Scene, part: str, name: str, value: Any) -> Scene:
    if getattr(scene, part) in CATALOGUES[part]:
        entry_of(scene, part).parameter(name)
    values: dict[str, Any] = {f"{part}_values": {**getattr(scene, f"{part}_values"), name: value}}
    return replace(scene, **values)


def _with_objective(old: Scene, new: Scene) -> Scene:
    has_dimension = any(p.name == "dimension" for p in entry_of(new, "objective").parameters)
    new = _with_start(replace(new, objective_values={"dimension": 2} if has_dimension else {}), always=True)
    if _why_not(new, "criterion", new.criterion):
        new = replace(new, criterion=_first_for(new, "criterion"), criterion_values={})
    if _why_not(new, "dynamics", new.dynamics):
        new = _with_dynamics(new, replace(new, dynamics=_first_for(new, "dynamics")))
    return _in_proportion(new)


def _first_for(scene: Scene, part: str) -> str:
    """Return the first dynamics or criterion that is for the scene's objective."""
    return next((name for name in CATALOGUES[part] if not _why_not(scene, part, name)), getattr(scene, part))


def _with_criterion(old: Scene, new: Scene) -> Scene:
    return _in_proportion(replace(new, criterion_values={}))


def _with_dynamics(old: Scene, new: Scene) -> Scene:
    new = replace(new, dynamics_values={})
    if new.step_map not in step_maps_for(new.dynamics):
        new = replace(new, step_map="euler")
    return _with_stable_step(_with_parameter(new, sweepable(new)[0].name))


_CONSEQUENCES: dict[str, Callable[[Scene, Scene], Scene]] = {
    "objective": _with_objective,
    "criterion": _with_criterion,
    "dynamics": _with_dynamics,
}


def _with_parameter(scene: Scene, name: Any) -> Scene:
    scene = replace(scene, parameter=name)
    if problems_of_names(scene) or all(name != parameter.name for parameter in sweepable(scene)):
        return scene
    if name == "threshold":
        return replace(scene, parameter_range=(scene.threshold / 100, scene.threshold * 10))
    parameter = swept_parameter(scene)
    low, high = float(parameter.low), float(parameter.high)
    # Ends of the range are limits in some entries.
    if not _builds(scene.with_theta(low)):
        low += 0.01 * (high - low)
    return replace(scene, parameter_range=(low, high))


def _with_start(scene: Scene, *, always: bool = False) -> Scene:
    """Return the scene with the customary initial point if the dimension has changed."""
    try:
        dimension = objective_of(scene).dimension
    except (ValueError, RuntimeError, ImportError):
        return scene
    if dimension is None or (dimension == len(scene.x0) and not always) or dimension > MOST_DIMENSIONS:
        return scene
    return replace(scene, x0=tuple(OBJECTIVES[scene.objective].start(dimension).double().tolist()))


def _in_proportion(scene: Scene) -> Scene:
    """Return the scene with thresholds below J(x0), and with a stable step size."""
    if problems(replace(scene, thresholds=(1.0,))):
        return scene
    with torch.no_grad():
        modules = build(replace(scene, thresholds=(1.0,)))
        start = float(modules.criterion(modules.x0))
    if start > 0 and math.isfinite(start):
        thresholds = tuple(_one_digit(start * factor) for factor in (1e-2, 1e-1, 1e-3))
        scene = replace(scene, thresholds=thresholds)
        if scene.parameter == "threshold":
            scene = _with_parameter(scene, "threshold")
    return _with_stable_step(scene)


def _with_stable_step(scene: Scene) -> Scene:
    """Return the scene with h about 0.4 over the largest rate at x0, at most 0.1."""
    if problems(scene):
        return scene
    modules = build(scene)
    state = getattr(modules.flow, "initial_state", lambda x: x)(modules.x0).detach()
    t = torch.full((), 1.0, dtype=DTYPE)
    try:
        jacobian = torch.autograd.functional.jacobian(lambda x: modules.flow(t, x), state)
    except RuntimeError:
        return scene
    rate = float(torch.linalg.matrix_norm(jacobian, 2)) if bool(torch.isfinite(jacobian).all()) else 0.0
    return replace(scene, step_size=_one_digit(min(0.1, 0.4 / rate)) if rate > 0 else 0.1)


def _one_digit(value: Number) -> float:
    return float(f"{value:.0e}")


def _builds(scene: Scene) -> bool:
    try:
        build(scene)
    except (ValueError, RuntimeError, ImportError):
        return False
    return True


def problems_of_names(scene: Scene) -> dict[str, str]:
    """Return which of the three names are unknown."""
    return {
        part: f"{part} must be one of the {len(catalogue)} in the list, got {_shortened(getattr(scene, part))}"
        for part, catalogue in CATALOGUES.items()
        if getattr(scene, part) not in catalogue
    }


def _problems_of_choices(scene: Scene) -> dict[str, str]:
    choices = {
        "step_map": step_maps_for(scene.dynamics),
        "method": tuple(METHODS),
        "plane": tuple(PLANES),
        "parameter": tuple(parameter.name for parameter in sweepable(scene)),
    }
    return {
        name: f"{name} must be one of {', '.join(accepted)}, got {_shortened(getattr(scene, name))}"
        for name, accepted in choices.items()
        if getattr(scene, name) not in accepted
    }


def _problems_of_values(scene: Scene) -> dict[str, str]:
    found = {}
    for part in CATALOGUES:
        parameters = {parameter.name: parameter for parameter in entry_of(scene, part).parameters}
        for name, value in getattr(scene, f"{part}_values").items():
            if name not in parameters:
                found[part] = f"{_shortened(name)} is not a parameter of {getattr(scene, part)}"
            elif problem := _problem_of_value(parameters[name], value):
                found[f"{part}.{name}"] = problem
    return found


def _problem_of_value(parameter: Parameter, value: Any) -> str:
    if value is None and parameter.default is None:
        return ""
    if not _is_number(value) or abs(value) > LARGEST:
        return f"{parameter.name} must be a number of size at most {LARGEST:g}, got {_shortened(value)}"
    if not parameter.is_integer:
        return ""
    high = min(parameter.high, MOST_DIMENSIONS)
    if value != int(value) or not parameter.low <= value <= high:
        return f"{parameter.name} must be a whole number from {parameter.low} to {high} here, got {_shortened(value)}"
    return ""


def _problems_of_numbers(scene: Scene) -> dict[str, str]:
    found = {}
    for name in ("step_size", "horizon"):
        value = getattr(scene, name)
        if not _is_number(value) or not 0 < value <= LARGEST:
            found[name] = f"{name} must be positive and at most {LARGEST:g}, got {_shortened(value)}"
    thresholds = scene.thresholds
    positive = all(_is_number(value) and 0 < value <= LARGEST for value in thresholds)
    if not positive or not 1 <= len(thresholds) <= MOST_THRESHOLDS or len(set(thresholds)) < len(thresholds):
        found["thresholds"] = (
            f"thresholds must be one to {MOST_THRESHOLDS} different positive numbers, got {_shortened(thresholds)}"
        )
    if not all(_is_number(value) and abs(value) <= LARGEST for value in scene.x0):
        found["x0"] = f"x0 must be numbers of size at most {LARGEST:g}, got {_shortened(scene.x0)}"
    ends = scene.parameter_range
    if len(ends) != 2 or not all(_is_number(end) and abs(end) <= LARGEST for end in ends) or not ends[0] < ends[1]:
        found["parameter_range"] = f"parameter_range must be two increasing numbers, got {_shortened(ends)}"
    elif scene.parameter == "threshold" and ends[0] <= 0:
        found["parameter_range"] = f"parameter_range must be positive for the threshold, got {_shortened(ends)}"
    return found


def _problems_of_objective(scene: Scene) -> dict[str, str]:
    try:
        dimension = objective_of(scene).dimension
    except (ValueError, RuntimeError, ImportError) as error:
        return {_blamed(scene, "objective", error): _first_line(error)}
    if dimension is not None and dimension > MOST_DIMENSIONS:
        return {"objective": f"the explorer shows at most {MOST_DIMENSIONS} dimensions, this objective has {dimension}"}
    if len(scene.x0) != (dimension or len(scene.x0)):
        return {"x0": f"x0 must have d = {dimension} numbers, got {len(scene.x0)}"}
    return {}


def _problems_of_criterion(scene: Scene) -> dict[str, str]:
    values = values_of(scene, "criterion")
    try:
        entry_of(scene, "criterion").build(objective=objective_of(scene), dtype=DTYPE, **values)
    except (ValueError, RuntimeError) as error:
        return {_blamed(scene, "criterion", error): _first_line(error)}
    return {}


def _problems_of_dynamics(scene: Scene) -> dict[str, str]:
    low, high = scene.parameter_range
    for theta, blamed in ((scene.theta, ""), (low, "parameter_range"), (high, "parameter_range")):
        there = scene.with_theta(theta)
        try:
            modules = build(there)
        except (ValueError, RuntimeError) as error:
            return {blamed or _blamed(scene, "dynamics", error): _first_line(error)}
        h = torch.tensor(scene.step_size, dtype=DTYPE)
        try:
            modules.step_map(scene.step_map, h)
        except ValueError as error:
            where = f"at {swept_parameter(scene).symbol} = {theta:g}: " if blamed else ""
            return {"step_size": f"{where}{_first_line(error)}"}
    return {}


def _problems_of_start(scene: Scene) -> dict[str, str]:
    modules = build(scene)
    try:
        getattr(modules.flow, "initial_state", lambda x: x)(modules.x0)
    except (ValueError, RuntimeError) as error:
        return {"x0": _first_line(error)}
    return {}


_CHECKS: tuple[Callable[[Scene], dict[str, str]], ...] = (
    problems_of_names,
    _problems_of_values,
    _problems_of_choices,
    _problems_of_numbers,
    _problems_of_objective,
    _problems_of_criterion,
    _problems_of_dynamics,
    _problems_of_start,
)

_PLAIN = ("x0", "thresholds", "horizon", "step_map", "step_size", "method", "plane", "parameter_range")


def _blamed(scene: Scene, part: str, error: Exception) -> str:
    """Return the control that an error of a part is due to: the parameter that it begins with, or the part itself."""
    name = str(error).partition(" ")[0]
    known = any(name == parameter.name for parameter in entry_of(scene, part).parameters)
    return f"{part}.{name}" if known else part


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
