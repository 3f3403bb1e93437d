"""The proportional-integral controller and the first step."""

import numpy as np
import pytest

from odestop.solvers import PIController
from odestop.solvers.step_control import first_step_size, trial_step_size

ACCEPTED, REJECTED = np.array([True]), np.array([False])


def factor(controller, error, accepted, previous_error=1.0, local_order=5):
    return controller.factor(np.array([error]), np.array([previous_error]), accepted, local_order).item()


def test_integral_control_aims_at_the_tolerance():
    controller = PIController(safety=1.0, stabilisation=0.0)
    # An error that is proportional to h⁵ becomes 1 with this factor.
    assert factor(controller, 0.01, ACCEPTED) ** 5 * 0.01 == pytest.approx(1.0)


def test_proportional_part_damps_growth_after_a_smaller_error():
    controller = PIController()
    assert factor(controller, 0.1, ACCEPTED, 0.01) < factor(controller, 0.1, ACCEPTED, 1.0)
    assert factor(controller, 0.1, ACCEPTED, 0.01) == pytest.approx(0.9 * 0.1**-0.17 * 0.01**0.04)


@pytest.mark.parametrize("error", [1.001, 1.5, 100.0])
def test_rejected_step_shrinks(error):
    assert factor(PIController(), error, REJECTED) <= 0.9


def test_rejected_step_does_not_grow_even_when_its_error_was_small():
    assert factor(PIController(), 1e-6, REJECTED) == 0.9


def test_change_of_step_is_limited_both_ways():
    controller = PIController(min_factor=0.3, max_factor=4.0)
    assert factor(controller, 0.0, ACCEPTED) == 4.0
    assert factor(controller, 1e30, REJECTED) == 0.3


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_non_finite_error_shrinks_the_step_as_far_as_allowed(error):
    assert factor(PIController(), error, REJECTED) == 0.2


def test_each_trajectory_is_controlled_on_its_own():
    controller = PIController()
    errors, accepted = np.array([1e-3, 0.5, 7.0]), np.array([True, True, False])
    together = controller.factor(errors, np.ones(3), accepted, 5)
    alone = [factor(controller, e, np.array([a])) for e, a in zip(errors, accepted, strict=True)]
    assert together == pytest.approx(alone)
    assert together[0] > together[1] > together[2]


def test_trial_step_is_a_hundredth_of_the_time_of_change():
    assert trial_step_size(np.array([2.0]), np.array([4.0])) == pytest.approx(0.005)


@pytest.mark.parametrize(("state", "slope"), [(0.0, 1.0), (1.0, 0.0), (1.0, np.inf), (1.0, np.nan)])
def test_trial_step_is_tiny_where_there_is_no_time_scale(state, slope):
    assert trial_step_size(np.array([state]), np.array([slope])) == pytest.approx(1e-6)


def test_first_step_has_an_estimated_error_of_a_hundredth_of_the_tolerance():
    h = first_step_size(*(np.array([value]) for value in (3.0, 50.0, 0.1)), order=4)
    assert 50.0 * h**5 == pytest.approx(0.01)


def test_first_step_is_at_most_a_hundred_trials():
    h = first_step_size(*(np.array([value]) for value in (1e-3, 1e-3, 1e-4)), order=4)
    assert h == pytest.approx(1e-2)


@pytest.mark.parametrize("slope", [0.0, 1e-16])
def test_first_step_without_motion_is_small(slope):
    h = first_step_size(*(np.array([value]) for value in (slope, slope, 1e-6)), order=4)
    assert h == pytest.approx(1e-6)


def test_first_step_after_an_undefined_trial_is_no_longer_than_the_trial():
    h = first_step_size(*(np.array([value]) for value in (3.0, np.nan, 1e-3)), order=4)
    assert 0.0 < h <= 1e-3
