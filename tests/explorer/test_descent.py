"""Gradient descent on T and on N."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from odestop.explorer.answers import answers
from odestop.explorer.controls import problems
from odestop.explorer.descent import descend
from odestop.explorer.presets import PRESETS
from odestop.explorer.scene import Scene
from odestop.explorer.solving import CancelledError

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

HEAVY_BALL = replace(PRESETS["overshooting-heavy-ball"].scene, thresholds=(0.05,), step_size=0.1)


@cache
def descent(quantity="T", of="theta"):
    return list(descend(HEAVY_BALL, quantity, of))


@pytest.mark.parametrize(("quantity", "of"), [("T", "theta"), ("N", "theta"), ("N", "h")])
def test_the_value_falls_from_frame_to_frame_to_an_end_in_words(quantity, of):
    frames = descent(quantity, of)
    values = [frame.value for frame in frames]
    assert frames[0].scene == HEAVY_BALL
    assert np.all(np.diff(values) <= 0)
    assert values[-1] < values[0]
    assert [frame.is_last for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert frames[-1].message
    assert all(problems(frame.scene) == {} for frame in frames)
    moved = [frame.scene.step_size if of == "h" else frame.scene.theta for frame in frames]
    still = [frame.scene.theta if of == "h" else frame.scene.step_size for frame in frames]
    assert len(set(moved)) > 1
    assert len(set(still)) == 1


def test_frames_tell_the_values_of_their_scenes():
    frame = descent()[1]
    answer = answers(frame.scene)[0]
    assert frame.value == pytest.approx(answer.time)
    assert frame.derivative == pytest.approx(answer.time_derivative)
    frame = descent("N")[1]
    answer = answers(frame.scene)[0]
    assert frame.value == pytest.approx(answer.fractional_steps)
    assert frame.derivative == pytest.approx(answer.scaled_fractional_derivative / frame.scene.step_size)


def test_it_finds_the_minimum_of_t():
    frames = descent()
    theta = frames[-1].scene.theta
    # T(c) is smallest between 0.8 and 1.1; from c = 0.6 nothing is in the way.
    assert 0.8 < theta < 1.1
    nearby = [answers(HEAVY_BALL.with_theta(theta + change))[0].time for change in (-0.2, 0.2)]
    assert frames[-1].value < min(nearby)


def test_it_ends_at_the_end_of_the_range():
    scene = Scene(dynamics="exponential-flow", dynamics_values={"scale": 1.0}, parameter="scale", thresholds=(1.0,),
                  parameter_range=(0.8, 1.2))  # fmt: skip
    frames = list(descend(scene))
    assert frames[-1].scene.theta == 1.2
    assert "end of its range" in frames[-1].message


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (PRESETS["missed-target"].scene, "no derivative to follow"),
        (Scene(dynamics_values={"theta": 3.0}), "hardly changes"),
        (Scene(thresholds=(20.0,)), "met"),
    ],
)
def test_it_says_why_there_is_nothing_to_descend(scene, words):
    (frame,) = descend(scene)
    assert frame.is_last
    assert words in frame.message
    assert frame.scene == scene


def test_bad_arguments_and_cancelling():
    with pytest.raises(ValueError, match="does not depend on h"):
        next(descend(Scene(), "T", "h"))
    with pytest.raises(ValueError, match="quantity"):
        next(descend(Scene(), "J"))
    with pytest.raises(CancelledError):
        list(descend(HEAVY_BALL, cancelled=lambda: True))
    assert math.isfinite(next(descend(HEAVY_BALL, cancelled=lambda: False)).value)
