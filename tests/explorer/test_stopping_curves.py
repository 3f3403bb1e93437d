"""Curves over θ and over h against single calls and closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from odestop.explorer.answers import answers
from odestop.explorer.gradient_errors import gradient_errors
from odestop.explorer.modules import build, build_family
from odestop.explorer.presets import PRESETS
from odestop.explorer.scene import Scene
from odestop.explorer.stopping_curves import stopping_curves
from odestop.objectives import Objective
from odestop.registry import DYNAMICS, OBJECTIVES

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

OWN_OBJECTIVES = {
    "proximal-flow": "lasso",
    "spectral-flow": "matrix-factorization",
    "gauss-newton-flow": "matrix-factorization",
    "natural-gradient-flow": "logistic-regression",
}


def differentiable_parameters():
    return [
        (name, parameter)
        for name, entry in DYNAMICS.items()
        for parameter in entry.parameters
        if parameter.is_differentiable and parameter.default is not None
    ]


@pytest.mark.parametrize(
    ("name", "parameter"), differentiable_parameters(), ids=lambda value: getattr(value, "name", value)
)
def test_every_row_of_a_family_moves_and_is_differentiated_as_the_dynamics_at_its_theta(name, parameter):
    objective = OWN_OBJECTIVES.get(name, "himmelblau")
    dimension = OBJECTIVES[objective].build().dimension
    start = OBJECTIVES[objective].start(dimension).double()
    # As many rows as coordinates would hide a hyperparameter in the wrong dimension.
    thetas = torch.linspace(parameter.low + 0.1 * (parameter.high - parameter.low), parameter.high, 3).double()
    scene = Scene(objective=objective, dynamics=name, x0=tuple(start.tolist()), parameter=parameter.name)
    family = build_family(scene, thetas)
    initial = getattr(family.flow, "initial_state", lambda x: x)(family.x0)
    slopes = family.flow(torch.full((3, 1), 0.7, dtype=torch.float64), initial)
    (gradient,) = torch.autograd.grad(slopes.sum(), family.theta, allow_unused=True, materialize_grads=True)
    for k, theta in enumerate(thetas.tolist()):
        single = build(scene.with_theta(theta))
        state = getattr(single.flow, "initial_state", lambda x: x)(single.x0)
        slope = single.flow(torch.tensor(0.7, dtype=torch.float64), state)
        (expected,) = torch.autograd.grad(slope.sum(), single.theta, allow_unused=True, materialize_grads=True)
        assert torch.allclose(slopes[k], slope)
        assert torch.allclose(gradient[k], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "scene",
    [
        PRESETS["figure-1"].scene,
        replace(PRESETS["overshooting-heavy-ball"].scene, parameter_range=(0.4, 2.0)),
        replace(PRESETS["missed-target"].scene, thresholds=(0.1, 1.0), horizon=5.0),
    ],
    ids=["one dynamics per row", "one dynamics", "missed"],
)
def test_every_point_of_the_curves_is_that_of_a_single_solve(scene):
    curves = stopping_curves(scene, points=3, step_points=3)
    assert curves.times.shape == curves.scaled_steps.shape == (len(scene.thresholds), 3)
    assert (curves.values[0], curves.values[-1]) == scene.parameter_range
    for k, theta in enumerate(curves.values.tolist()):
        for level, answer in enumerate(answers(scene.with_theta(theta))):
            assert curves.times[level, k] == pytest.approx(answer.time, rel=1e-3)
            assert curves.statuses[level, k] == answer.status
            assert curves.scaled_steps[level, k] == pytest.approx(answer.scaled_steps)
            assert curves.scaled_fractional[level, k] == pytest.approx(answer.scaled_fractional)


def test_the_tangent_is_that_of_the_curve():
    scene = Scene(dynamics_values={"theta": 0.5})
    low, high = 0.49, 0.51
    curves = stopping_curves(replace(scene, parameter_range=(low, high), thresholds=(0.1,)), points=2, step_points=2)
    slope = (curves.times[0, 1] - curves.times[0, 0]) / (high - low)
    assert curves.answers[0].time_derivative == pytest.approx(slope, rel=5e-3)


def test_the_threshold_as_theta_has_one_curve():
    scene = Scene(parameter="threshold", parameter_range=(0.01, 1.0), thresholds=(0.1, 0.5))
    curves = stopping_curves(scene, points=3, step_points=9)
    assert (curves.symbol, curves.logarithmic, curves.thresholds) == ("ε", True, (0.1,))
    # θ = 2.5: J = exp(-2 t) from where it matters.
    assert curves.times[0] == pytest.approx(-np.log([0.01, 0.1, 1.0]) / 2, rel=2e-2, abs=0.25)
    assert np.all(np.diff(curves.scaled_steps[0]) <= 0)


def test_curves_are_kept_while_only_theta_moves():
    scene = Scene(dynamics_values={"theta": 0.7})
    first = stopping_curves(scene, points=3, step_points=3)
    second = stopping_curves(scene.with_theta(0.8), points=3, step_points=3)
    assert np.shares_memory(first.times, second.times)
    assert first.answers[0].time != second.answers[0].time
    assert not np.shares_memory(first.times, stopping_curves(replace(scene, x0=(1.0, 2.0)), 3, 3).times)


def test_curves_of_a_target_that_is_missed_on_part_of_the_range():
    curves = stopping_curves(PRESETS["missed-target"].scene, points=9, step_points=3)
    # The flow comes to J = exp(-2/θ₂): ε = 0.01 is out of reach from θ₂ = 2/ln(100) = 0.434 on.
    assert np.array_equal(np.isfinite(curves.times[0]), curves.values < 2 / math.log(100))
    assert set(curves.statuses[0][curves.values > 0.45]) == {"HORIZON"}


def test_gradient_errors_fall_with_the_step_size():
    errors = gradient_errors(Scene(dynamics_values={"theta": 0.5}, step_size=0.04))
    assert errors.step_sizes == pytest.approx(0.04 / 2.0 ** np.arange(5))
    # Thm. 2: first order.
    assert errors.order_low < 1.0 < errors.order_high
    assert 0.8 < errors.order < 1.2
    assert f"slope {errors.order:.2f}" in errors.words
    answer = answers(Scene(dynamics_values={"theta": 0.5}, step_size=0.02))[0]
    expected = abs(answer.scaled_steps_derivative / answer.time_derivative - 1)
    assert errors.definition3[1] == pytest.approx(expected, rel=1e-6)
    expected = abs(answer.scaled_fractional_derivative / answer.time_derivative - 1)
    assert errors.interpolated[1] == pytest.approx(expected, rel=1e-6)


def test_gradient_errors_of_a_missed_target_say_why_there_are_none():
    errors = gradient_errors(PRESETS["missed-target"].scene)
    assert np.isnan(errors.definition3).all()
    assert "not met" in errors.words


def test_the_objective_is_shared():
    scene = Scene()
    assert isinstance(build(scene).objective, Objective)
    assert build(scene).objective is build(replace(scene, step_size=0.5)).objective
