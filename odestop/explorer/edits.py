"""What a hand on the page does to a scene: a control turned, the start point dragged, θ moved in the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from odestop.explorer.controls import changed, problems
from odestop.explorer.landscape import plane_of
from odestop.explorer.scene import Scene
from odestop.registry import parse_number

TUPLES = ("thresholds", "x0", "parameter_range")
"""Controls that are several numbers: written with commas between, or one of them changed, as ``"thresholds.0"``."""

_DIGITS = 6


@dataclass(frozen=True)
class Edited:
    """A scene after some edits.

    Attributes
    ----------
    scene
        Without problems: an edit that would have made some is left out.
    problems
        In words, why edits were left out; by the name of the control.
    """

    scene: Scene
    problems: dict[str, str]


def edited(scene: Scene, edits: Sequence[tuple[str, Any]]) -> Edited:
    """Apply edits, one after the other.

    Parameters
    ----------
    scene
        One without problems.
    edits
        Names and new values.  A name is that of a control; that of one of several numbers, as ``"thresholds.0"``;
        ``"theta"`` for whatever is swept; or ``"start"`` for where in the landscape's plane the initial point was put.

    Examples
    --------
    >>> result = edited(Scene(), [("thresholds.0", 0.2), ("step_size", -1.0), ("start", (0.5, 0.25))])
    >>> result.scene.thresholds, result.scene.x0
    ((0.2, 1.0, 0.01), (0.5, 0.25))
    >>> result.problems
    {'step_size': 'step_size must be positive and at most 1e+06, got -1.0'}
    """
    found: dict[str, str] = {}
    for name, value in edits:
        control = _control(scene, name)
        try:
            candidate = _applied(scene, name, value)
            wrong = problems(candidate)
        except ValueError as error:
            candidate, wrong = scene, {control: str(error)}
        if wrong:
            # What is wrong is said beside the control that was touched, wherever else it shows.
            found[control] = wrong.get(control) or "; ".join(wrong.values())
        else:
            scene = candidate
            found.pop(control, None)
    return Edited(scene, found)


def _applied(scene: Scene, name: str, value: Any) -> Scene:
    if name == "theta":
        return scene.with_theta(_number("θ", value))
    if name == "start":
        return replace(scene, x0=_lifted(scene, value))
    base, _, index = name.rpartition(".")
    if base in TUPLES:
        numbers = list(getattr(scene, base))
        if not (index.isdecimal() and int(index) < len(numbers)):
            raise ValueError(f"{base} has {len(numbers)} numbers, and none is {name}")
        numbers[int(index)] = _number(base, value)
        return changed(scene, base, tuple(numbers))
    if name in TUPLES:
        return changed(scene, name, tuple(parse_number(name, part.strip()) for part in str(value).split(",")))
    return changed(scene, name, value)


def _control(scene: Scene, name: str) -> str:
    """Return the control that an edit belongs to."""
    if name == "start":
        return "x0"
    if name == "theta":
        return "thresholds" if scene.parameter == "threshold" else f"dynamics.{scene.parameter}"
    base = name.rpartition(".")[0]
    return base if base in TUPLES else name


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, float | int) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _lifted(scene: Scene, point: Any) -> tuple[float, ...]:
    if not isinstance(point, Sequence) or len(point) != 2:
        raise ValueError(f"start must be two numbers, got {point!r}")
    u, v = (_number("start", coordinate) for coordinate in point)
    lifted = plane_of(scene).lift(np.array([u, v]))
    return tuple(float(f"{coordinate:.{_DIGITS}g}") for coordinate in lifted)
