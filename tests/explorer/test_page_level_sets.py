"""The set J = ε as it is drawn."""

import numpy as np
import pytest

from odestop.explorer.landscape import landscape
from odestop.explorer.level_sets import ground_key, level_sets
from odestop.explorer.scene import Scene

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.mark.parametrize("threshold", [1.0, 0.1, 1e-2, 1e-4])
def test_it_is_the_ellipse_of_a_quadratic(threshold):
    # J = ‖∇f‖² = x² + 16 y².
    scene = Scene(thresholds=(threshold,))
    (curve,) = level_sets(scene, landscape(scene))
    radius = np.sqrt(curve.x**2 + 16 * curve.y**2)
    assert np.nanmax(np.abs(radius / threshold**0.5 - 1)) < 0.02
    angle = np.arctan2(4 * curve.y, curve.x)
    assert np.nanmax(angle) > 3.0
    assert np.nanmin(angle) < -2.9


def test_every_piece_is_drawn():
    # Four minimizers, and J is small around each of them.
    scene = Scene(objective="himmelblau", criterion="objective-gap", thresholds=(1.0,))
    (curve,) = level_sets(scene, landscape(scene))
    assert np.isnan(curve.x).sum() == 3
    for quadrant in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        assert ((np.sign(curve.x) == quadrant[0]) & (np.sign(curve.y) == quadrant[1])).any()


def test_nothing_is_drawn_where_there_is_nothing():
    scene = Scene(criterion="objective-gap", thresholds=(1e9,))
    (curve,) = level_sets(scene, landscape(scene))
    assert curve.x.size == curve.y.size == 0


def test_the_key_tells_what_lies_still_from_what_moves():
    scene = Scene()
    key = ground_key(scene, landscape(scene))
    for same in (Scene(step_size=0.01), Scene(dynamics_values={"theta": 2.0}), Scene(x0=(0.5, 0.5))):
        assert ground_key(same, landscape(same)) == key
    for other in (Scene(thresholds=(0.2,)), Scene(objective_values={"condition_number": 5.0}), Scene(x0=(5.0, 5.0))):
        assert ground_key(other, landscape(other)) != key
