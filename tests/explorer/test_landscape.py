"""f and J on planes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from odestop.explorer.controls import changed
from odestop.explorer.landscape import default_bounds, landscape, plane_of
from odestop.explorer.modules import objective_of
from odestop.explorer.scene import Scene

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_values_are_those_of_the_function_at_the_places():
    view = landscape(Scene(), ((-1.0, 2.0), (-3.0, 1.0)), points=5)
    x, y = np.meshgrid(view.x, view.y)
    assert (view.x[0], view.x[-1], view.y[0], view.y[-1]) == (-1.0, 2.0, -3.0, 1.0)
    assert view.values == pytest.approx((x**2 + 4 * y**2) / 2)
    assert view.criterion == pytest.approx(x**2 + 16 * y**2)
    assert view.minimizers == pytest.approx(np.zeros((1, 2)))


def test_in_two_dimensions_it_is_kept_whatever_else_moves():
    first = landscape(Scene())
    assert landscape(Scene(x0=(0.5, 0.5), step_size=0.01, dynamics_values={"theta": 0.3})) is first


def test_bounds_stand_still_while_x0_moves_inside_and_leap_when_it_leaves():
    bounds = default_bounds(Scene())
    assert default_bounds(Scene(x0=(-0.3, 0.9))) == bounds
    (x_low, x_high), (y_low, y_high) = default_bounds(Scene(x0=(40.0, 0.0)))
    assert x_low < -40 < 40 < x_high
    assert x_high - x_low == y_high - y_low
    assert default_bounds(Scene(x0=(41.0, 0.0))) == ((x_low, x_high), (y_low, y_high))
    (x_low, x_high), _ = default_bounds(Scene(), np.array([[-5.0, 0.0], [np.nan, np.inf]]))
    assert x_low < -5


@pytest.mark.parametrize("plane", ["slice", "curvature"])
def test_planes_of_more_dimensions_pass_through_x0(plane):
    scene = changed(changed(Scene(), "objective", "quadratic"), "objective.dimension", 5)
    scene = replace(scene, x0=(1.0, -1.0, 0.5, 2.0, 0.3), plane=plane)
    place = plane_of(scene)
    x0 = np.array(scene.x0)
    assert place.lift(place.project(x0)) == pytest.approx(x0)
    assert place.basis @ place.basis.T == pytest.approx(np.eye(2))
    u = np.array([[0.3, -0.2], [1.0, 2.0]])
    assert place.project(place.lift(u)) == pytest.approx(u)
    view = landscape(scene, points=3)
    expected = objective_of(scene)(torch.from_numpy(place.lift(np.array([view.x[2], view.y[0]]))))
    assert view.values[0, 2] == pytest.approx(expected.item())


def test_the_most_curved_directions_are_eigenvectors():
    scene = changed(changed(Scene(), "objective", "quadratic"), "objective.dimension", 5)
    objective = objective_of(scene)
    basis = torch.from_numpy(plane_of(replace(scene, plane="curvature")).basis)
    products = objective.hessian_vector_product(torch.zeros(2, 5, dtype=torch.float64), basis)
    largest = objective.eigenvalues.sort(descending=True).values[:2]
    assert torch.allclose(products, largest.unsqueeze(-1) * basis)
