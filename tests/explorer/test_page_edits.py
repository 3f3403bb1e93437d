"""What a hand on the page does to a scene."""

import math

import numpy as np
import pytest

from odestop.explorer.controls import problems
from odestop.explorer.edits import edited
from odestop.explorer.landscape import plane_of
from odestop.explorer.scene import Scene


def test_edits_are_applied_in_order():
    result = edited(Scene(), [("dynamics", "heavy-ball"), ("dynamics.friction", 0.5), ("step_size", 0.02)])
    assert result.problems == {}
    assert result.scene.dynamics == "heavy-ball"
    assert result.scene.theta == 0.5
    assert result.scene.step_size == 0.02


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("thresholds.0", 0.2, "thresholds", (0.2, 1.0, 0.01)),
        ("thresholds", "0.3, 0.03", "thresholds", (0.3, 0.03)),
        ("parameter_range", "0.5,2", "parameter_range", (0.5, 2.0)),
        ("x0", " 1.5 , -0.5 ", "x0", (1.5, -0.5)),
        ("x0.1", 3, "x0", (1.0, 3.0)),
        ("start", [0.5, 0.25], "x0", (0.5, 0.25)),
        ("theta", 1.5, "dynamics_values", {"theta": 1.5}),
    ],
)
def test_an_edit_changes_what_it_names(name, value, attribute, expected):
    result = edited(Scene(), [(name, value)])
    assert result.problems == {}
    assert getattr(result.scene, attribute) == expected


@pytest.mark.parametrize(
    ("name", "value", "control", "words"),
    [
        ("step_size", -1.0, "step_size", "must be positive"),
        ("thresholds", "0.1, none", "thresholds", "'none'"),
        ("thresholds.0", "0.1", "thresholds", "must be a finite number"),
        ("x0", "", "x0", "finite number"),
        ("x0", "1,2,3", "x0", "3"),
        ("start", [0.5], "x0", "two numbers"),
        ("start", [math.inf, 0.0], "x0", "finite"),
        ("theta", None, "dynamics.theta", "must be a finite number"),
        ("nothing", 1.0, "nothing", "must be that of a control"),
        ("thresholds.7", 0.5, "thresholds", "thresholds.7"),
        ("x0.first", 0.5, "x0", "x0.first"),
    ],
)
def test_an_edit_that_cannot_be_used_is_left_out_and_explained(name, value, control, words):
    result = edited(Scene(), [("horizon", 20.0), (name, value)])
    assert words in result.problems[control]
    assert list(result.problems) == [control]
    assert result.scene == edited(Scene(), [("horizon", 20.0)]).scene
    assert problems(result.scene) == {}


def test_a_later_value_takes_the_problem_away():
    result = edited(Scene(), [("step_size", -1.0), ("step_size", 0.05)])
    assert result.problems == {}
    assert result.scene.step_size == 0.05


def test_the_start_moves_in_the_plane_that_is_shown():
    scene = edited(Scene(), [("objective.dimension", 4), ("x0", "1,2,3,4")]).scene
    moved = edited(scene, [("start", [-1.0, 0.5])]).scene
    assert moved.x0 == (-1.0, 0.5, 3.0, 4.0)
    assert plane_of(moved).project(np.array(moved.x0)) == pytest.approx([-1.0, 0.5])


def test_a_swept_threshold_is_moved_by_theta():
    scene = edited(Scene(), [("parameter", "threshold")]).scene
    assert edited(scene, [("theta", 0.25)]).scene.threshold == 0.25
    assert list(edited(scene, [("theta", "x")]).problems) == ["thresholds"]
