"""Scenes as the query part of an address, and back."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from odestop.explorer.controls import problems
from odestop.explorer.modules import objective_of
from odestop.explorer.presets import DEFAULT_PRESET, PRESETS
from odestop.explorer.scene import CATALOGUES, Scene, sweepable
from odestop.explorer.step_maps import step_maps_for
from odestop.registry import OBJECTIVES, parse_number

LONGEST = 10_000

_WORDS = ("step_map", "method", "parameter", "plane")
_NUMBERS = ("step_size", "horizon")
_TUPLES = ("thresholds", "x0", "parameter_range")


def to_query(scene: Scene) -> str:
    """Write a scene as the query part of an address, without the question mark.

    The keys are the names of the controls.

    Examples
    --------
    >>> to_query(Scene(dynamics="gradient-flow", parameter="threshold"))[:51]
    'objective=diagonal-quadratic&dynamics=gradient-flow'
    """
    pairs: list[tuple[str, str]] = []
    for part in CATALOGUES:
        pairs.append((part, getattr(scene, part)))
        pairs += [(f"{part}.{name}", _written(value)) for name, value in getattr(scene, f"{part}_values").items()]
    pairs += [(name, ",".join(_written(value) for value in getattr(scene, name))) for name in _TUPLES]
    pairs += [(name, _written(getattr(scene, name))) for name in _NUMBERS]
    pairs += [(name, getattr(scene, name)) for name in _WORDS]
    return urlencode(pairs, safe=",", quote_via=quote)


@lru_cache(maxsize=64)
def from_query(text: str) -> tuple[Scene, tuple[str, ...]]:
    """Read the query part of an address.

    Whatever cannot be used is left out, so that a scene without problems comes back, whatever the text.

    Parameters
    ----------
    text
        With or without a question mark.  ``scene=NAME`` says which preset the rest changes; by default, the first one.

    Returns
    -------
    tuple
        The scene, and in words what was left out and why.

    Examples
    --------
    >>> scene, messages = from_query("scene=missed-target&step_size=nan")
    >>> scene == PRESETS["missed-target"].scene, messages
    (True, ("step_size must be a finite number such as 100 or 1e-3, got 'nan'",))
    """
    if len(text) > LONGEST:
        return PRESETS[DEFAULT_PRESET].scene, (f"the address has {len(text)} characters, more than {LONGEST}",)
    given: dict[str, str] = {}
    messages = []
    for key, value in parse_qsl(text.removeprefix("?"), keep_blank_values=True):
        if key in given:
            messages.append(f"{_shortened(key)} stands more than once; the last one counts")
        given[key] = value
    preset = given.pop("scene", DEFAULT_PRESET)
    if preset not in PRESETS:
        messages.append(f"scene must be one of {', '.join(PRESETS)}, got {_shortened(preset)}")
        preset = DEFAULT_PRESET
    base = PRESETS[preset].scene
    parsed, unread = _parsed(given)
    scene, unused = _best(base, parsed)
    return scene, (*messages, *unread, *unused)


def _parsed(given: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the keys that can be read, and what is wrong with the others."""
    parsed: dict[str, Any] = {}
    messages = []
    for key, text in given.items():
        try:
            parsed[key] = _value(key, text)
        except ValueError as error:
            messages.append(_shortened(str(error), 160))
    return parsed, messages


def _value(key: str, text: str) -> Any:
    if key in CATALOGUES or key in _WORDS:
        return text
    if key in _TUPLES:
        return tuple(parse_number(key, part) for part in text.split(","))
    if key in _NUMBERS or key.partition(".")[0] in CATALOGUES:
        number = parse_number(_shortened(key) if len(key) > 60 else key, text)
        # Whole numbers stay whole where only those make sense.
        return int(number) if number.is_integer() and "." not in text and abs(number) < 1e15 else number
    raise ValueError(f"{_shortened(key)} is not part of a scene")


def _best(base: Scene, parsed: dict[str, Any]) -> tuple[Scene, list[str]]:
    """Return the scene with as many of the values as make one without problems."""
    messages: list[str] = []
    while True:
        scene = _scene(base, parsed)
        found = problems(scene)
        if not found:
            return scene, messages
        blamed = [key for key in found if key in parsed] or list(parsed)
        if not blamed:
            return base, messages
        messages += [found.get(key, f"{key} was left out with it") for key in blamed]
        messages += [words for key, words in found.items() if key not in parsed]
        parsed = {key: value for key, value in parsed.items() if key not in blamed}


def _scene(base: Scene, parsed: dict[str, Any]) -> Scene:
    """Return the base with values in it; what belonged to a part that was replaced goes back to its default."""
    scene = base
    for part in CATALOGUES:
        name = parsed.get(part, getattr(base, part))
        values = dict(getattr(base, f"{part}_values")) if part not in parsed else {}
        values |= {key.removeprefix(f"{part}."): value for key, value in parsed.items() if key.startswith(f"{part}.")}
        scene = replace(scene, **{part: name, f"{part}_values": values})
    scene = _with_defaults(base, scene)
    return replace(scene, **{name: parsed[name] for name in (*_WORDS, *_NUMBERS, *_TUPLES) if name in parsed})


def _with_defaults(base: Scene, scene: Scene) -> Scene:
    """Return the scene with the start, θ and step map of the base where they fit, and else with customary ones."""
    if scene.objective in OBJECTIVES and (scene.objective, scene.objective_values) != (
        base.objective,
        base.objective_values,
    ):
        scene = replace(scene, x0=_start(scene))
    if scene.dynamics in CATALOGUES["dynamics"] and scene.dynamics != base.dynamics:
        if scene.step_map not in step_maps_for(scene.dynamics):
            scene = replace(scene, step_map="euler")
        parameter = sweepable(scene)[0]
        scene = replace(scene, parameter=parameter.name, parameter_range=(float(parameter.low), float(parameter.high)))
    return scene


def _start(scene: Scene) -> tuple[float, ...]:
    try:
        dimension = objective_of(scene).dimension
    except (ValueError, RuntimeError, ImportError, TypeError):
        return scene.x0
    return scene.x0 if dimension is None else tuple(OBJECTIVES[scene.objective].start(dimension).double().tolist())


def _written(value: float | int) -> str:
    return repr(value) if isinstance(value, int) else repr(float(value))


def _shortened(text: str, length: int = 60) -> str:
    shown = repr(text) if length == 60 else text
    return shown if len(shown) <= length else shown[: length - 3] + "..."
