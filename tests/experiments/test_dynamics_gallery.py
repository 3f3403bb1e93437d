"""The gallery of the dynamics: its tables against closed forms, and its figures."""

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import dynamics_gallery
from figures import dynamics_gallery as figure
from odestop.registry import DYNAMICS, OBJECTIVES
from odestop.sweeps import Runner, Sweep

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_times_and_slopes_of_a_rescaled_flow_satisfy_the_closed_form():
    times, slopes, status = dynamics_gallery.curve("exponential-flow", (0.5, 1.0))
    # T₀ = (1 - exp(-r T)) θ / r for the time T₀ of the plain flow and the default rate r.
    (plain,), _, _ = dynamics_gallery.curve("gradient-flow", (dynamics_gallery.THRESHOLD,))
    rate = DYNAMICS["exponential-flow"].parameter("rate").default
    for theta, time, slope in zip((0.5, 1.0), times, slopes, strict=True):
        assert theta * (1 - math.exp(-rate * time)) / rate == pytest.approx(plain, rel=1e-5)
        assert slope == pytest.approx(-(1 - math.exp(-rate * time)) / rate / (theta * math.exp(-rate * time)), rel=1e-4)
    assert status == ["REACHED", "REACHED"]


def test_a_batch_of_hyperparameters_has_the_times_of_one_after_the_other():
    times, slopes, status = dynamics_gallery.curve("heavy-ball", (0.0, 2.0))
    assert status == ["HORIZON", "REACHED"]
    (time,), (slope,), _ = dynamics_gallery.curve("heavy-ball", (2.0,))
    assert times.tolist() == pytest.approx([math.inf, time], rel=1e-9)
    assert slopes.tolist() == pytest.approx([0.0, slope], rel=1e-9)


def test_a_dynamics_without_hyperparameters_is_asked_for_other_thresholds():
    times, slopes, _ = dynamics_gallery.curve("newton-flow", (1e-3, 1e-1))
    # f - f* = 2.5 exp(-2 t) along Newton's flow.
    np.testing.assert_allclose(times, [math.log(2.5 / 1e-3) / 2, math.log(2.5 / 1e-1) / 2], rtol=1e-5)
    np.testing.assert_allclose(slopes, [-0.5e3, -0.5e1], rtol=1e-4)


def test_every_dynamics_has_its_cells_and_every_path_but_those_of_gradient_flow_its_points():
    grid = dynamics_gallery.Grid(values=3, points=4)
    cells = grid.time_cells()
    assert {cell.dynamics for cell in cells} == set(DYNAMICS)
    assert {cell.symbol for cell in cells if cell.dynamics == "newton-flow"} == {"ε"}
    assert [cell.index for cell in cells if cell.dynamics == "adam"] == [0, 1, 2]
    assert not {"exponential-flow", "spectral-flow", "simplex-flow"} & {cell.dynamics for cell in grid.path_points()}


def test_a_dynamics_for_special_objectives_is_asked_about_one_of_them():
    times, slopes, status = dynamics_gallery.curve("spectral-flow", (0.1, 0.2))
    assert status == ["REACHED", "REACHED"]
    assert slopes[0] < (times[1] - times[0]) / 0.1 < slopes[1] or slopes[1] < (times[1] - times[0]) / 0.1 < slopes[0]


@pytest.mark.parametrize("name", ["gradient-flow", "mirror-flow", "heavy-ball"])
def test_a_path_of_positions_leads_from_the_start_to_the_threshold(name):
    places, status, _ = dynamics_gallery.path(name, "diagonal-quadratic", 5)
    assert status == "REACHED"
    np.testing.assert_allclose(places[0], [1.0, 1.0], rtol=1e-12)
    value = OBJECTIVES["diagonal-quadratic"].build(dtype=torch.float64)(torch.from_numpy(places[-1]))
    assert value.item() == pytest.approx(dynamics_gallery.THRESHOLD, rel=1e-6)


def test_the_figures_have_a_panel_for_each_dynamics_and_family():
    names = ["exponential-flow", "heavy-ball", "adam"]
    cells = [cell for cell in dynamics_gallery.Grid(4, 3).time_cells() if cell.dynamics in names]
    times = Runner().run(Sweep("times", cells, partial(dynamics_gallery.stopping_time, count=4)))
    drawn = figure.draw_times(times)
    assert [axes.get_title() for axes in drawn.axes if axes.axison] == ["exponential flow", "heavy ball", "Adam"]
    points = [cell for cell in dynamics_gallery.Grid(2, 3).path_points() if cell.dynamics in names]
    paths = Runner().run(Sweep("paths", points, partial(dynamics_gallery.point, points=3)))
    drawn = figure.draw_paths(paths, dynamics_gallery.landscapes())
    assert [axes.get_title() for axes in drawn.axes[:2]] == ["inertial", "adaptive and greedy"]


@pytest.mark.parametrize("logarithmic", [False, True])
def test_tangents_touch_the_curve_and_jumps_interrupt_it(logarithmic):
    value = np.linspace(1.0, 30.0, 117)
    table = {"dynamics": "heavy-ball", "objective": "quadratic", "symbol": "c", "logarithmic": logarithmic}
    time = np.where(value > 10, value**2, 1000 / value)
    slope = np.where(value > 10, 2 * value, -1000 / value**2)
    time[:5] = np.inf
    drawn = figure.draw_times(pd.DataFrame({**table, "value": value, "time": time, "slope": slope}))
    axes = drawn.axes[0]
    to_data = axes.transAxes + axes.transData.inverted()
    curve, *lines = (to_data.transform(line.get_xydata()) for line in axes.lines)
    broken = np.flatnonzero(np.isnan(curve[:, 0]))
    reached = np.isfinite(time)
    # The curve falls to about 100 from the left as it does from the right, so that it has a kink and no jump.
    assert broken.size == 0
    np.testing.assert_allclose(curve, np.stack([value[reached], time[reached]], axis=-1), rtol=1e-9)
    tangents = [line for line in lines if len(line) == 2]
    assert len(tangents) == 3
    for (x0, y0), (x1, y1) in tangents:
        if logarithmic:
            touch, along = math.sqrt(x0 * x1), math.log(y1 / y0) / math.log(x1 / x0)
            assert along == pytest.approx(-1.0 if touch < 10 else 2.0)
        else:
            # The y axis is logarithmic.
            touch, along = (x0 + x1) / 2, math.log(y1 / y0) / (x1 - x0)
            assert along == pytest.approx((-1.0 if touch < 10 else 2.0) / touch)
    assert len(axes.patches) == 5

    time[value > 10] += 1000
    drawn = figure.draw_times(pd.DataFrame({**table, "value": value, "time": time, "slope": slope}))
    (jump,) = np.flatnonzero(np.isnan(drawn.axes[0].lines[0].get_ydata()))
    assert value[reached][jump - 1] <= 10 < value[reached][jump]


def test_portraits_show_trajectories_to_the_stopping_set_and_beyond():
    portrait = dynamics_gallery.MOMENTUM_PORTRAITS[1]
    path, field = dynamics_gallery.portrait_path(portrait), dynamics_gallery.portrait_field(portrait, 5)
    one = path[path["start"] == 3]
    # Critical damping on x²/2: x = (1 + t) e^-t x₀, v = -t e^-t x₀.
    start = dynamics_gallery._MOMENTUM_STARTS[3][0]
    np.testing.assert_allclose(one["x"], (1 + one["time"]) * np.exp(-one["time"]) * start, atol=1e-4)
    np.testing.assert_allclose(one["y"], -one["time"] * np.exp(-one["time"]) * start, atol=1e-4)
    stop = one[one["time"] == one["stopping_time"]]
    assert stop["x"].item() ** 2 / 2 == pytest.approx(0.02, rel=1e-6)
    assert one["time"].max() == portrait.duration
    np.testing.assert_allclose(field["dy"], -2 * field["y"] - field["x"], atol=1e-12)
    np.testing.assert_allclose(field["value"], field["x"] ** 2 / 2)

    landscape = dynamics_gallery.LANDSCAPE_PORTRAITS[2]
    path = pd.concat([path, dynamics_gallery.portrait_path(landscape)])
    assert (path["stopping_time"] == math.inf).any()  # Newton's flow rests at saddles too.
    field = pd.concat([field, dynamics_gallery.portrait_field(landscape, 5)])
    drawn = figure.draw_portraits(field, path)
    assert {axes.get_title() for axes in drawn.axes} == {portrait.title, landscape.title}
