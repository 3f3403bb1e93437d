"""The page's figures: what is drawn is what was computed, for every preset, and small enough to be sent at once."""

import json
import math

import numpy as np
import pytest

from odestop.explorer import figures
from odestop.explorer.gradient_errors import gradient_errors
from odestop.explorer.landscape import landscape
from odestop.explorer.level_sets import level_sets
from odestop.explorer.looks import THEMES, numbers, theme_of
from odestop.explorer.paths import paths
from odestop.explorer.presets import PRESETS
from odestop.explorer.scene import Scene
from odestop.explorer.stopping_curves import stopping_curves

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

LIGHT = THEMES["light"]
SCENE = Scene(dynamics_values={"theta": 0.5}, step_size=0.12)


@pytest.fixture(scope="module")
def drawn():
    """Everything computed and drawn of the first scene."""
    picture, result, curves = landscape(SCENE), paths(SCENE), stopping_curves(SCENE)
    return {
        "paths": result,
        "curves": curves,
        "ground": figures.ground(LIGHT, picture, level_sets(SCENE, picture)),
        "tracks": figures.tracks(LIGHT, picture, result),
        "trajectory": figures.descent_of_criterion(LIGHT, result),
        "stopping": figures.stopping_times(LIGHT, curves),
    }


def traces(figure, **wanted):
    return [trace for trace in figure["data"] if all(trace.get(key) == value for key, value in wanted.items())]


def test_numbers_are_short_and_nothing_is_drawn_where_there_is_no_number():
    assert numbers(np.array([math.pi, math.inf, math.nan, -0.0, 12345678.9])) == [3.14159, None, None, 0.0, 12345700.0]


def test_a_theme_that_is_none_is_the_light_one():
    assert theme_of("dark") is THEMES["dark"]
    for name in ("", None, 3, ["dark"]):
        assert theme_of(name) is LIGHT


def test_the_flow_and_the_steps_are_drawn_up_to_their_ends(drawn):
    flow = traces(drawn["tracks"], mode="lines")[-1]
    assert (flow["x"][0], flow["y"][0]) == SCENE.x0
    assert flow["x"][-1] == pytest.approx(drawn["paths"].flow_positions[-1][0], rel=1e-5)
    steps = traces(drawn["tracks"], mode="markers")[0]
    assert len(steps["x"]) == len(drawn["paths"].step_positions)


def test_events_and_stopping_steps_are_where_they_happen(drawn):
    dots = [trace for trace in traces(drawn["trajectory"], mode="markers") if trace["marker"].get("size") == 8]
    assert [(dot["x"][0], dot["y"][0]) for dot in dots] == [
        pytest.approx((event.time, event.threshold), rel=1e-5) for event in drawn["paths"].events
    ]
    squares = [trace for trace in drawn["tracks"]["data"] if trace.get("marker", {}).get("symbol") == "square-open"]
    assert [(square["x"][0], square["y"][0]) for square in squares] == [
        pytest.approx(tuple(stop.position), rel=1e-5) for stop in drawn["paths"].stops
    ]


def test_the_tangent_touches_the_curve(drawn):
    answer, theta = drawn["curves"].answers[0], SCENE.theta
    tangent = drawn["stopping"]["data"][-2]
    x, y = np.array(tangent["x"]), np.array(tangent["y"])
    assert len(x) >= 2
    assert y == pytest.approx(answer.time + answer.time_derivative * (x - theta), rel=1e-4)
    here = drawn["stopping"]["data"][-1]
    assert (here["x"], here["y"]) == ([theta], [pytest.approx(answer.time, rel=1e-5)])


def test_the_landscape_does_not_change_with_what_moves():
    moved = Scene(dynamics_values={"theta": 2.0}, step_size=0.01, x0=(0.5, 0.5))
    layers = [figures.ground(LIGHT, landscape(s), level_sets(s, landscape(s))) for s in (SCENE, moved)]
    assert layers[0] == layers[1]


def test_both_layers_have_the_same_axes(drawn):
    for name in ("xaxis", "yaxis"):
        assert drawn["ground"]["layout"][name]["range"] == drawn["tracks"]["layout"][name]["range"]
    assert drawn["ground"]["layout"]["margin"] == drawn["tracks"]["layout"]["margin"]


@pytest.mark.parametrize(("name", "theme"), [*((name, "light") for name in PRESETS), ("figure-1", "dark")])
def test_every_preset_is_drawn_and_small(name, theme):
    scene, looks = PRESETS[name].scene, THEMES[theme]
    picture, result = landscape(scene), paths(scene)
    parts = {
        "tracks": figures.tracks(looks, picture, result),
        "trajectory": figures.descent_of_criterion(looks, result),
        "stopping": figures.stopping_times(looks, stopping_curves(scene)),
        "ground": figures.ground(looks, picture, level_sets(scene, picture)),
    }
    sizes = {part: len(json.dumps(figure, allow_nan=False)) for part, figure in parts.items()}
    assert sizes["tracks"] < 100_000
    assert sizes["trajectory"] < 100_000
    assert sizes["stopping"] < 60_000
    assert sizes["ground"] < 200_000


def test_steps_that_leave_the_picture_and_come_to_no_number_can_be_drawn():
    scene = Scene(dynamics_values={"theta": 3.0}, step_size=0.9)
    picture, result = landscape(scene), paths(scene)
    for figure in (figures.tracks(LIGHT, picture, result), figures.descent_of_criterion(LIGHT, result)):
        json.dumps(figure, allow_nan=False)
    steps = traces(figures.tracks(LIGHT, picture, result), mode="markers")[0]
    shown = [y for y in steps["y"] if y is not None]
    assert max(map(abs, shown)) < 100


def test_the_errors_of_both_derivatives_are_drawn():
    errors = gradient_errors(SCENE)
    figure = figures.gradient_error_lines(LIGHT, errors)
    curves = traces(figure, mode="lines")
    assert [curve["y"] for curve in curves] == [numbers(errors.definition3), numbers(errors.interpolated)]
    assert figure["layout"]["xaxis"]["type"] == figure["layout"]["yaxis"]["type"] == "log"
