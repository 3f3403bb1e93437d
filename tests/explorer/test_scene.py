"""What a scene is, what can be changed in it, and what is wrong with one."""

import math
from dataclasses import replace

import pytest

from odestop.explorer.controls import changed, controls, notes, problems
from odestop.explorer.presets import PRESETS, preset_of
from odestop.explorer.scene import Scene, is_logarithmic, sweepable, swept_parameter, values_of
from odestop.registry import CRITERIA, DYNAMICS, OBJECTIVES

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_theta_is_the_swept_parameter_of_the_dynamics_or_the_first_threshold():
    scene = Scene(dynamics="adam", dynamics_values={"tau2": 3.0}, parameter="tau2", thresholds=(0.5, 2.0))
    assert scene.theta == 3.0
    assert scene.with_theta(4.0).dynamics_values == {"tau2": 4.0}
    swept = replace(scene, parameter="threshold")
    assert swept.theta == 0.5
    assert swept.with_theta(0.25).thresholds == (0.25, 2.0)


def test_values_and_sweepable_parameters_come_from_the_registry():
    scene = Scene(objective_values={"condition_number": 9.0}, dynamics="proximal-flow")
    assert values_of(scene, "objective") == {"dimension": 2, "condition_number": 9.0}
    # The step of the proximal flow follows from the objective, so that there is no value to sweep from.
    assert [parameter.name for parameter in sweepable(scene)] == ["threshold"]
    assert swept_parameter(replace(scene, parameter="threshold")).symbol == "ε"
    assert is_logarithmic(0.1, 10.0)
    assert not is_logarithmic(0.0, 5.0)


def test_scenes_are_keys():
    first, second = Scene(dynamics_values={"theta": 1.0}), Scene(dynamics_values={"theta": 2.0})
    assert {first: 1, second: 2}[Scene(dynamics_values={"theta": 1.0})] == 1


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_no_problems(name):
    scene = PRESETS[name].scene
    assert problems(scene) == {}
    assert preset_of(scene) == name
    assert scene.parameter_range[0] <= scene.theta <= scene.parameter_range[1]


@pytest.mark.parametrize(
    ("change", "control", "words"),
    [
        ({"objective": "nowhere"}, "objective", "one of"),
        ({"dynamics": "nowhere"}, "dynamics", "one of"),
        ({"objective_values": {"condition_number": math.nan}}, "objective.condition_number", "number"),
        ({"objective_values": {"dimension": 10_000}}, "objective.dimension", "whole number from 2 to 200"),
        ({"objective_values": {"dimension": 3}}, "x0", "d = 3"),
        ({"objective_values": {"depth": 3}}, "objective", "not a parameter"),
        ({"objective": "logistic-regression", "x0": (0.0,) * 31, "criterion": "objective-gap"}, "criterion.minimum",
         "must be given"),
        ({"objective": "lasso", "x0": (0.0,) * 11}, "criterion", "gradient"),
        ({"dynamics": "heavy-ball", "parameter": "friction", "dynamics_values": {"friction": -1.0}},
         "dynamics.friction", "at least 0"),
        ({"dynamics": "heavy-ball", "parameter": "friction", "parameter_range": (-1.0, 1.0)}, "parameter_range",
         "at least 0"),
        ({"dynamics": "orthant-flow", "parameter": "threshold", "x0": (-1.0, 1.0)}, "x0", "positive"),
        ({"dynamics": "heavy-ball", "parameter": "friction", "step_map": "heavy-ball", "step_size": 0.5,
          "parameter_range": (0.1, 4.0)}, "step_size", "momentum"),
        ({"dynamics": "adam", "parameter": "tau1", "step_map": "heavy-ball"}, "step_map", "euler, heun, rk4, adam"),
        ({"parameter": "friction"}, "parameter", "theta, threshold"),
        ({"parameter": "threshold", "parameter_range": (0.0, 1.0)}, "parameter_range", "positive"),
        ({"parameter_range": (2.0, 1.0)}, "parameter_range", "increasing"),
        ({"thresholds": ()}, "thresholds", "one to 4"),
        ({"thresholds": (0.1, 0.1)}, "thresholds", "different"),
        ({"thresholds": (0.1, -1.0)}, "thresholds", "positive"),
        ({"x0": (math.inf, 0.0)}, "x0", "numbers"),
        ({"step_size": 0.0}, "step_size", "positive"),
        ({"horizon": math.inf}, "horizon", "positive"),
        ({"method": "magic"}, "method", "dopri5"),
        ({"plane": "magic"}, "plane", "slice"),
    ],
)  # fmt: skip
def test_what_is_wrong_stands_beside_the_control_that_it_is_due_to(change, control, words):
    found = problems(replace(Scene(), **change))
    assert list(found) == [control]
    assert words in found[control]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_new_objective_brings_a_scene_that_works(name):
    scene = changed(Scene(), "objective", name)
    assert problems(scene) == {}
    assert len(scene.x0) == OBJECTIVES[name].build(**values_of(scene, "objective")).dimension


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_new_dynamics_brings_a_scene_that_works(name):
    objective = {
        "proximal-flow": "lasso",
        "spectral-flow": "matrix-factorization",
        "gauss-newton-flow": "matrix-factorization",
        "natural-gradient-flow": "logistic-regression",
    }
    start = changed(Scene(), "objective", objective[name]) if name in objective else Scene()
    scene = changed(start, "dynamics", name)
    assert problems(scene) == {}
    assert scene.parameter == sweepable(scene)[0].name
    assert 0 < scene.step_size <= 0.1


def test_changes_of_parts_of_a_scene():
    scene = changed(Scene(), "objective.dimension", 3)
    assert scene.x0 == (1.0, 1.0, 1.0)
    scene = changed(scene, "parameter", "threshold")
    assert scene.parameter_range == (scene.threshold / 100, scene.threshold * 10)
    assert changed(scene, "step_map", "heun").step_map == "heun"
    assert changed(scene, "criterion", "objective-gap").thresholds == (0.04, 0.4, 0.004)  # f(x0) = 3.5
    with pytest.raises(ValueError, match="name must be that of a control"):
        changed(scene, "colour", "blue")
    with pytest.raises(ValueError, match="not a parameter"):
        changed(scene, "dynamics.friction", 1.0)


@pytest.mark.parametrize("name", ["figure-1", "adam-and-its-flow"])
def test_controls_offer_the_values_that_the_scene_has(name):
    scene = PRESETS[name].scene
    offered = {control.name: control for control in controls(scene)}
    for control in offered.values():
        if control.kind == "choice":
            assert [choice.why_not for choice in control.choices if choice.value == control.value] == [""]
    theta = offered[f"dynamics.{scene.parameter}"]
    assert (theta.low, theta.high, theta.value) == (*scene.parameter_range, scene.theta)
    assert {choice.value for choice in offered["criterion"].choices} == set(CRITERIA)
    refused = {choice.value: choice.why_not for choice in offered["dynamics"].choices if choice.why_not}
    assert "proximal-flow" in refused


def test_notes_say_what_an_optimizer_is_run_with():
    assert "exp(-h/τ)" in notes(PRESETS["adam-and-its-flow"].scene)[0]
    assert notes(Scene()) == ()
