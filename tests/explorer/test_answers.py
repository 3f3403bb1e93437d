"""T, N and their derivatives against closed forms, and the trajectories and iterates that go with them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

import odestop
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import HeavyBallFlow
from odestop.explorer.answers import answers
from odestop.explorer.controls import changed
from odestop.explorer.paths import paths
from odestop.explorer.presets import PRESETS
from odestop.explorer.scene import Scene
from odestop.explorer.solving import RTOL, CancelledError
from odestop.objectives import DiagonalQuadratic
from odestop.status import StoppingStatus

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def figure_1(theta, **changes):
    return Scene(dynamics_values={"theta": theta}, **changes)


def level(theta, t):
    """J along the flow of Figure 1: x = (exp(-t), exp(-4 θ t)), and ∇f = (x₁, 4 x₂)."""
    return math.exp(-2 * t) + 16 * math.exp(-8 * theta * t)


def stopping_time(theta, threshold):
    return brentq(lambda t: level(theta, t) - threshold, 0.0, 50.0, xtol=1e-14)


def slope(theta, threshold):
    t = stopping_time(theta, threshold)
    fast = math.exp(-8 * theta * t)
    return -128 * t * fast / (2 * math.exp(-2 * t) + 128 * theta * fast)


@pytest.mark.parametrize("theta", [0.3, 0.5, 2.5])
def test_times_and_derivative_are_those_of_the_closed_form(theta):
    result = answers(figure_1(theta, thresholds=(0.1, 1.0, 0.01)))
    assert [answer.threshold for answer in result] == [0.1, 1.0, 0.01]
    for answer in result:
        assert answer.time == pytest.approx(stopping_time(theta, answer.threshold), rel=20 * RTOL)
        assert answer.status == "REACHED"
    assert result[0].time_derivative == pytest.approx(slope(theta, 0.1), rel=1e-4, abs=1e-5)
    assert math.isnan(result[1].time_derivative)


def test_steps_and_their_derivatives_are_those_of_the_closed_form():
    theta, h, threshold = 0.5, 0.12, 0.1
    k = np.arange(30)
    values = (1 - h) ** (2 * k) + 16 * (1 - 4 * theta * h) ** (2 * k)
    # d/dθ of 16 (1 - 4 θ h)^(2 k).
    slopes = -16 * 8 * h * k * (1 - 4 * theta * h) ** (2 * k - 1.0)
    n = int(np.argmax(values <= threshold))
    part = (values[n - 1] - threshold) / (values[n - 1] - values[n])
    answer = answers(figure_1(theta, step_size=h))[0]
    assert answer.steps == n
    assert answer.scaled_steps == pytest.approx(h * n)
    assert answer.scaled_steps_derivative == pytest.approx(-h * slopes[n] / (values[n] - values[n - 1]), rel=1e-9)
    assert answer.fractional_steps == pytest.approx(n - 1 + part, rel=1e-12)
    expected = -((1 - part) * slopes[n - 1] + part * slopes[n]) / (values[n] - values[n - 1])
    assert answer.scaled_fractional_derivative == pytest.approx(h * expected, rel=1e-9)


def test_the_derivative_in_the_threshold_is_one_over_the_rate():
    scene = replace(figure_1(0.5), parameter="threshold", parameter_range=(0.01, 1.0))
    t = stopping_time(0.5, 0.1)
    rate = -2 * math.exp(-2 * t) - 64 * math.exp(-4 * t)
    assert answers(scene)[0].time_derivative == pytest.approx(1 / rate, rel=1e-4)


def test_numbers_are_those_of_single_library_calls():
    scene = PRESETS["overshooting-heavy-ball"].scene
    objective = DiagonalQuadratic(torch.tensor([1.0, 4.0], dtype=torch.float64))
    friction = torch.tensor(scene.theta, dtype=torch.float64, requires_grad=True)
    tight = odestop.continuous_stopping_time(
        HeavyBallFlow(objective, friction), torch.ones(2, dtype=torch.float64), objective, 0.05, rtol=1e-9, atol=1e-11
    )
    (slope,) = torch.autograd.grad(tight.time, friction)
    answer = answers(scene)[0]
    assert answer.time == pytest.approx(tight.time.item(), rel=1e-5)
    assert answer.time_derivative == pytest.approx(slope.item(), rel=1e-3)


def test_a_missed_target_says_so():
    # The flow stands still where the plain one is at 1/θ₂ = 2: J = exp(-4) there.
    answer, reached, _ = answers(PRESETS["missed-target"].scene)
    assert math.exp(-4.0) > answer.threshold
    assert (answer.time, answer.status, answer.words) == (math.inf, "HORIZON", StoppingStatus.HORIZON.value)
    assert math.isnan(answer.time_derivative)
    assert answer.steps == math.inf
    assert "horizon or budget" in answer.steps_words
    assert reached.status == "REACHED"


def test_a_nearly_tangential_crossing_says_so():
    scene = replace(PRESETS["tangential-crossing"].scene, thresholds=(0.235,))
    assert "nearly tangentially" in answers(scene)[0].words
    assert "nearly" not in answers(scene.with_theta(1.0))[0].words
    # A little less friction, and the first dip misses ε.
    assert answers(scene.with_theta(0.56))[0].time > 2 * answers(scene)[0].time


def test_a_threshold_that_is_met_at_the_start():
    answer = answers(figure_1(0.5, thresholds=(20.0,)))[0]
    assert (answer.time, answer.time_derivative, answer.steps, answer.status) == (0.0, 0.0, 0.0, "ALREADY_SATISFIED")


def test_the_trajectory_is_the_exact_one():
    theta = 0.5
    result = paths(figure_1(theta))
    t = result.flow_times
    exact = np.stack([np.exp(-t), np.exp(-4 * theta * t)], axis=-1)
    assert np.abs(result.flow_positions - exact).max() < 1e-5
    assert np.all(np.diff(t) > 0)
    assert np.abs(result.flow_values / (exact[:, 0] ** 2 + 16 * exact[:, 1] ** 2) - 1).max() < 1e-3
    assert t[-1] == pytest.approx(result.events[2].time)
    for event in result.events:
        assert event.time == pytest.approx(stopping_time(theta, event.threshold), rel=20 * RTOL)
        place = np.exp([-event.time, -4 * theta * event.time])
        assert event.position == pytest.approx(place, abs=1e-5)


def test_the_iterates_are_those_of_euler_and_end_with_the_last_stop():
    theta, h = 0.5, 0.12
    result = paths(figure_1(theta, step_size=h))
    k = np.arange(len(result.step_times))
    assert result.step_positions == pytest.approx(np.stack([(1 - h) ** k, (1 - 4 * theta * h) ** k], axis=-1))
    assert result.step_times == pytest.approx(h * k)
    for stop in result.stops:
        n = int(stop.steps)
        assert result.step_values[n] <= stop.threshold < result.step_values[n - 1]
        assert stop.position == pytest.approx(result.step_positions[n])
    assert k[-1] == max(stop.steps for stop in result.stops)


def test_iterates_of_momentum_are_positions():
    result = paths(PRESETS["overshooting-heavy-ball"].scene)
    assert result.step_positions.shape[1] == result.flow_positions.shape[1] == 2
    # The ball overshoots: J rises again on the way.
    assert np.diff(result.flow_values).max() > 0


@pytest.mark.parametrize(
    "scene",
    [
        figure_1(0.5, step_size=0.9),
        replace(changed(Scene(), "dynamics", "heavy-ball"), step_size=2.0),
        figure_1(1e6, horizon=0.01, thresholds=(0.1,)),
        figure_1(0.5, thresholds=(1e-300,), horizon=20.0),
        figure_1(0.5, x0=(0.0, 0.0)),
    ],
    ids=["unstable steps", "diverging momentum", "stiff", "unreachable", "stationary start"],
)
def test_hard_scenes_end_within_their_budgets_and_say_how(scene):
    result = paths(scene)
    assert all(event.words for event in result.events)
    assert all(stop.words for stop in result.stops)
    assert len(result.step_times) <= 5_001


def test_cancelling_stops_the_solve_between_evaluations():
    calls = []

    def cancelled():
        calls.append(None)
        return len(calls) > 20

    with pytest.raises(CancelledError):
        paths(figure_1(0.123456), cancelled)
    assert len(calls) == 21
    # What was given up is not kept.
    assert paths(figure_1(0.123456)).events[0].status == "REACHED"


def test_j_is_the_criterion_of_the_scene():
    scene = Scene(criterion="objective-gap", thresholds=(0.1,))
    gap = paths(scene)
    assert gap.flow_values[0] == pytest.approx(2.5)
    objective = DiagonalQuadratic(torch.tensor([1.0, 4.0], dtype=torch.float64))
    assert paths(Scene()).flow_values[0] == SquaredGradientNorm(objective)(torch.ones(2, dtype=torch.float64)).item()
