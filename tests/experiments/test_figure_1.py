"""Figure 1 against the closed form of its flow."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import figure_1


def test_the_flow_follows_its_closed_form_from_the_start_to_the_threshold() -> None:
    grid = figure_1.TrajectoryGrid(thetas=(0.5,), flow_points=6)
    records = [figure_1.point(cell) for cell in grid.cells() if cell.path == "flow"]
    times = np.array([record["time"] for record in records])
    np.testing.assert_allclose([record["x1"] for record in records], np.exp(-times), rtol=1e-6)
    np.testing.assert_allclose([record["x2"] for record in records], np.exp(-2 * times), rtol=1e-6)
    assert [record["is_end"] for record in records] == [False] * 5 + [True]
    assert records[-1]["criterion"] == pytest.approx(grid.threshold)


def test_the_euler_path_is_the_linear_recursion_and_ends_below_the_threshold() -> None:
    grid = figure_1.TrajectoryGrid(thetas=(2.5,), flow_points=2)
    records = [figure_1.point(cell) for cell in grid.cells() if cell.path == "euler"]
    k = np.arange(len(records))
    np.testing.assert_allclose([record["x1"] for record in records], (1 - grid.step_size) ** k)
    np.testing.assert_allclose([record["x2"] for record in records], (1 - 10 * grid.step_size) ** k, atol=1e-15)
    assert records[-1]["criterion"] <= grid.threshold < records[-2]["criterion"]


def test_stopping_times_and_their_slopes_satisfy_the_closed_form() -> None:
    theta, threshold = 0.4, 0.1
    record = figure_1.stopping_time(figure_1.StoppingCell(threshold, theta, step_size=0.01))
    time = record["time"]
    x1_term, x2_term = np.exp(-2 * time), 16 * np.exp(-8 * theta * time)
    assert x1_term + x2_term == pytest.approx(threshold, rel=1e-6)
    slope = -8 * time * x2_term / (2 * x1_term + 8 * theta * x2_term)
    assert record["time_derivative"] == pytest.approx(slope, rel=1e-5)
    assert record["difference"] == pytest.approx(abs(0.01 * record["steps"] - time))
    assert record["scaled_steps_derivative"] == pytest.approx(slope, rel=0.05)
