"""The page's figures: what is drawn is what was computed, for every preset, and small enough to be sent at once."""

import json
import math
from dataclasses import replace
from itertools import pairwise

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
        "frame": figures.criterion_frame(LIGHT, result),
        "trajectory": figures.criterion_tracks(LIGHT, result),
        "stopping": figures.stopping_times(LIGHT, curves),
    }


def traces(data, **wanted):
    return [trace for trace in data if all(trace.get(key) == value for key, value in wanted.items())]


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
    dots = traces(drawn["trajectory"], mode="markers")[-1]
    events = drawn["paths"].events
    assert dots["x"] == pytest.approx([event.time for event in events], rel=1e-5)
    assert dots["y"] == pytest.approx([event.threshold for event in events], rel=1e-5)
    assert dots["marker"]["color"] == [LIGHT.threshold(index) for index in range(len(events))]
    (squares,) = [t for t in drawn["tracks"] if t.get("marker", {}).get("symbol") == "square-open"]
    places = np.array([stop.position for stop in drawn["paths"].stops])
    assert squares["x"] == pytest.approx(places[:, 0], rel=1e-5)
    assert squares["y"] == pytest.approx(places[:, 1], rel=1e-5)


def test_what_is_never_met_is_not_marked_and_the_rest_keeps_its_colour():
    scene = Scene(thresholds=(1e-9, 0.1), horizon=3.0)
    events, stops = (traces(figures.criterion_tracks(LIGHT, paths(scene)), mode="markers")[k] for k in (-1, -2))
    assert events["marker"]["color"] == stops["marker"]["color"] == [LIGHT.threshold(1)]
    assert events["y"] == [0.1]


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


@pytest.mark.parametrize("theta", [0.2, 0.5, 3.2])
def test_axes_of_the_criterion_have_everything_inside(theta):
    result = paths(SCENE.with_theta(theta))
    axes = figures.criterion_frame(LIGHT, result)["layout"]
    (begin, end), (low, high) = axes["xaxis"]["range"], axes["yaxis"]["range"]
    assert begin == 0
    assert result.flow_times[-1] < end < 1.5 * result.flow_times[-1]
    levels = np.log10([*result.flow_values, *(event.threshold for event in result.events)])
    assert low < levels.min() < low + 0.5
    assert high - 0.5 < levels.max() < high


def test_axes_of_the_criterion_mostly_stay_while_theta_moves():
    frames = [figures.criterion_frame(LIGHT, paths(SCENE.with_theta(theta))) for theta in np.linspace(0.5, 0.54, 6)]
    assert sum(one != other for one, other in pairwise(frames)) <= 1


@pytest.mark.parametrize(("name", "theme"), [*((name, "light") for name in PRESETS), ("figure-1", "dark")])
def test_every_preset_is_drawn_and_small(name, theme):
    scene, looks = PRESETS[name].scene, THEMES[theme]
    quick = replace(scene, thresholds=(max(scene.thresholds),))
    picture, result = landscape(scene), paths(scene)
    parts = {
        "tracks": figures.tracks(looks, picture, result),
        "trajectory": figures.criterion_tracks(looks, result),
        "stopping": figures.stopping_times(looks, stopping_curves(quick, points=5, step_points=5)),
        "ground": figures.ground(looks, picture, level_sets(scene, picture)),
    }
    sizes = {part: len(json.dumps(figure, allow_nan=False)) for part, figure in parts.items()}
    assert sizes["tracks"] < 100_000
    assert sizes["trajectory"] < 100_000
    assert sizes["ground"] < 200_000


def test_curves_are_small(drawn):
    assert 5_000 < len(json.dumps(drawn["stopping"], allow_nan=False)) < 60_000


def test_steps_that_leave_the_picture_and_come_to_no_number_can_be_drawn():
    scene = Scene(dynamics_values={"theta": 3.0}, step_size=0.9)
    picture, result = landscape(scene), paths(scene)
    for figure in (figures.tracks(LIGHT, picture, result), figures.criterion_tracks(LIGHT, result)):
        json.dumps(figure, allow_nan=False)
    steps = traces(figures.tracks(LIGHT, picture, result), mode="markers")[0]
    shown = [y for y in steps["y"] if y is not None]
    assert max(map(abs, shown)) < 100


def test_the_errors_of_both_derivatives_are_drawn():
    errors = gradient_errors(SCENE)
    figure = figures.gradient_error_lines(LIGHT, errors)
    curves = traces(figure["data"], mode="lines")
    assert [curve["y"] for curve in curves] == [numbers(errors.definition3), numbers(errors.interpolated)]
    assert figure["layout"]["xaxis"]["type"] == figure["layout"]["yaxis"]["type"] == "log"
