"""Addresses: exact round trips, and a scene that works whatever the text."""

import string

import hypothesis
import pytest
from hypothesis import strategies

from odestop.explorer.controls import changed, problems
from odestop.explorer.presets import PRESETS
from odestop.explorer.query import from_query, to_query
from odestop.explorer.scene import Scene

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DEFAULT = PRESETS["figure-1"].scene


@pytest.mark.parametrize("name", PRESETS)
def test_presets_come_back_exactly(name):
    scene = PRESETS[name].scene
    assert from_query(to_query(scene)) == (scene, ())
    assert from_query(f"?scene={name}") == (scene, ())


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    theta=strategies.floats(0.01, 3.0),
    x0=strategies.tuples(*[strategies.floats(-1e6, 1e6)] * 2),
    step_size=strategies.floats(1e-6, 0.1),
    thresholds=strategies.lists(strategies.floats(1e-300, 1e6), min_size=1, max_size=4, unique=True),
)
def test_numbers_come_back_to_the_last_digit(theta, x0, step_size, thresholds):
    scene = Scene(
        dynamics_values={"theta": theta}, x0=x0, step_size=step_size, thresholds=tuple(thresholds), step_map="rk4"
    )
    assert from_query(to_query(scene)) == (scene, ())


def test_scenes_of_more_dimensions_come_back():
    scene = changed(changed(Scene(), "objective", "multilayer-perceptron"), "parameter", "threshold")
    assert from_query(to_query(scene)) == (scene, ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scene=nowhere", "scene must be one of"),
        ("step_size=nan", "step_size must be a finite number"),
        ("horizon=inf", "horizon must be a finite number"),
        ("step_size=1e400", "step_size must be a finite number"),
        ("step_size=__import__('os')", "step_size must be a finite number"),
        ("horizon=1e30", "at most 1e+06"),
        ("objective=nowhere", "objective must be one of"),
        ("objective.dimension=100000", "whole number from 2 to 200"),
        ("objective.dimension=2.5", "whole number"),
        ("x0=1,2,3", "x0 must have d = 2"),
        ("x0=", "x0 must be a finite number"),
        ("thresholds=0.1,0.1", "different positive"),
        ("dynamics=proximal-flow", "CompositeObjective"),
        ("dynamics.friction=1", "not a parameter"),
        ("parameter=friction", "parameter must be one of"),
        ("colour=blue", "'colour' is not part of a scene"),
        ("step_size=0.1&step_size=-1", "more than once"),
        ("=", "not part of a scene"),
        ("x" * 20_000, "20000 characters"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_a_message(text, words):
    scene, messages = from_query(text)
    assert scene == DEFAULT
    assert words in " ".join(messages)
    assert all(len(message) <= 200 for message in messages)


def test_the_rest_of_an_address_counts_all_the_same():
    scene, messages = from_query("scene=missed-target&step_size=nan&x0=0.5,2")
    assert scene.x0 == (0.5, 2.0)
    assert scene.dynamics == "exponential-flow"
    assert len(messages) == 1


def test_a_part_that_is_replaced_brings_what_belongs_to_it():
    scene, messages = from_query("objective=rosenbrock&dynamics=heavy-ball&dynamics.friction=2")
    assert messages == ()
    assert (scene.x0, scene.parameter, scene.theta) == ((-1.2, 1.0), "friction", 2.0)


KEYS = [*to_query(DEFAULT).replace("&", "=").split("=")[::2], "scene", "objective.dimension", "dynamics.friction"]
VALUES = ["", "nan", "-1", "0", "1e9", "1,2", "1e-3", "heavy-ball", "lasso", "adam", "threshold", "quadratic", "rk4"]


@hypothesis.settings(max_examples=40)
@hypothesis.given(strategies.lists(strategies.tuples(strategies.sampled_from(KEYS), strategies.sampled_from(VALUES))))
def test_any_mixture_of_keys_and_values_gives_a_scene_without_problems(pairs):
    scene, _ = from_query("&".join(f"{key}={value}" for key, value in pairs))
    assert problems(scene) == {}


@hypothesis.settings(max_examples=40)
@hypothesis.given(strategies.text(strategies.sampled_from(string.printable + "θ∞%&=;"), max_size=200))
def test_garbage_gives_a_scene_without_problems(text):
    assert from_query(text)[0] == DEFAULT
