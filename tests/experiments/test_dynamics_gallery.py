"""The gallery of the dynamics: its tables against closed forms, and its figures."""

import math

import numpy as np
import pytest
import torch

from experiments import dynamics_gallery
from figures import dynamics_gallery as figure
from odestop.registry import DYNAMICS, OBJECTIVES

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_times_and_slopes_of_a_rescaled_flow_satisfy_the_closed_form():
    fast, slow = (
        dynamics_gallery.stopping_time(dynamics_gallery.TimeCell("exponential-flow", "rate", "θ₂", False, rate))
        for rate in (0.0, 0.1)
    )
    # With the scale 1, the time of the plain flow is (1 - exp(-r T)) / r.
    assert (1 - math.exp(-0.1 * slow["time"])) / 0.1 == pytest.approx(fast["time"], rel=1e-5)
    assert fast["slope"] == pytest.approx(fast["time"] ** 2 / 2, rel=1e-4)


def test_every_differentiable_dynamics_has_its_cells_and_every_other_path_its_points():
    grid = dynamics_gallery.Grid(values=3, points=4)
    named = {cell.dynamics for cell in grid.time_cells()}
    assert {"exponential-flow", "heavy-ball", "adam"} <= named <= set(DYNAMICS)
    assert "learned-preconditioner" not in named
    assert len(grid.time_cells()) == 3 * len(named)
    assert "exponential-flow" not in {cell.dynamics for cell in grid.path_points()}


@pytest.mark.parametrize("name", ["gradient-flow", "mirror-flow", "heavy-ball"])
def test_a_path_of_positions_leads_from_the_start_to_the_threshold(name):
    places, status, _ = dynamics_gallery.path(name, "diagonal-quadratic", 5)
    assert status == "REACHED"
    np.testing.assert_allclose(places[0], [1.0, 1.0], rtol=1e-12)
    value = OBJECTIVES["diagonal-quadratic"].build(dtype=torch.float64)(torch.from_numpy(places[-1]))
    assert value.item() == pytest.approx(dynamics_gallery.THRESHOLD, rel=1e-6)


def test_the_figures_have_a_panel_for_each_dynamics_and_family():
    names = ["exponential-flow", "heavy-ball", "adam"]
    cells = [cell for cell in dynamics_gallery.Grid(6, 3).time_cells() if cell.dynamics in names]
    times = dynamics_gallery.run_cells("times", cells, dynamics_gallery.stopping_time)
    drawn = figure.draw_times(times)
    assert [axes.get_title() for axes in drawn.axes if axes.axison] == [name.replace("-", " ") for name in names]
    points = [cell for cell in dynamics_gallery.Grid(2, 3).path_points() if cell.dynamics in names]
    paths = dynamics_gallery.run_cells("paths", points, lambda cell: dynamics_gallery.point(cell, 3))
    drawn = figure.draw_paths(paths, dynamics_gallery.landscapes())
    assert [axes.get_title() for axes in drawn.axes[:2]] == ["inertial", "adaptive and greedy"]
