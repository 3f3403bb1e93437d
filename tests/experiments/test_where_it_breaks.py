"""The four ways to leave Theorem 2's assumptions, at their smallest scale."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import odestop
from experiments import where_it_breaks
from figures import where_it_breaks as figure
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return where_it_breaks.run("tiny", Runner())


def test_beyond_the_limit_of_stability_no_map_gets_there(tables: dict[str, pd.DataFrame]) -> None:
    rows = tables["stability"].set_index("margin")
    assert (rows.loc[-1.0, "status"] == "NON_FINITE").all()
    assert rows.loc[-1.0, "relative_error"].isna().all()
    assert (rows.loc[[0.1, 0.5], "relative_error"] < 0.05).all()


def test_close_to_the_limit_the_stiff_mode_decides() -> None:
    """|1 - h L|^N must fall to √ε/L on its own, so that N ≈ ln √ε / ln|1 - h L|."""
    record = where_it_breaks.near_stability_limit(where_it_breaks.StabilityCell("Euler", 0.01))
    steps = 0.5 * np.log(where_it_breaks.STABILITY_THRESHOLD) / np.log(0.98)
    assert record["scaled_steps"] / record["step_size"] == pytest.approx(steps, abs=1.0)
    assert record["scaled_steps"] > 3 * record["time"]
    assert record["relative_error"] > 100


def test_the_first_minimum_is_that_of_the_flow() -> None:
    question = where_it_breaks.heavy_ball()
    with torch.no_grad():
        solution = odestop.continuous_stopping_time(question.dynamics, question.x0, question.criterion, 0.1)
        assert solution.trajectory is not None
        times = torch.linspace(0.5, 1.6, 2001, dtype=torch.float64)
        values = question.criterion(solution.trajectory(times)[:, :2])
    assert values.min().item() == pytest.approx(where_it_breaks.first_minimum(), rel=1e-5)
    assert 0 < values.argmin() < 2000


def test_near_a_tangency_the_steps_miss_the_dip(tables: dict[str, pd.DataFrame]) -> None:
    near, far = tables["tangency"].sort_values("excess").itertuples()
    assert not near.same_crossing
    assert far.same_crossing
    assert near.scaled_steps > 2 * near.time
    assert near.relative_error > 0.5 > 0.1 > far.relative_error
    # J is a parabola near its minimum: the rate falls like the root of the excess.
    assert near.criterion_rate / far.criterion_rate == pytest.approx(np.sqrt(0.01), rel=0.1)


def test_the_derivatives_across_the_jump_are_those_of_the_times() -> None:
    columns = where_it_breaks._sweep(121, 0.05)
    friction, time, derivative = (
        np.linspace(*where_it_breaks.JUMP_FRICTIONS, 121),
        columns["time"].numpy(),
        columns["time_derivative"].numpy(),
    )
    jump = int(np.argmin(np.diff(time)))
    assert np.diff(time)[jump] < -1.0
    differences = (time[2:] - time[:-2]) / (friction[2:] - friction[:-2])
    smooth = np.abs(np.arange(1, 120) - jump) > 12
    np.testing.assert_allclose(derivative[1:-1][smooth], differences[smooth], rtol=1e-2)
    steps = columns["scaled_steps"].numpy()
    assert int(np.argmin(np.diff(steps))) > jump


def test_rounding_spoils_small_steps_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where_it_breaks, "MINIMIZER", 1000.0)
    where_it_breaks._errors_by_precision.cache_clear()
    errors = {
        precision: [
            where_it_breaks.near_rounding(where_it_breaks.RoundingCell(precision, 1e-3, 2, index))["relative_error"]
            for index in range(2)
        ]
        for precision in ("float32", "float64")
    }
    where_it_breaks._errors_by_precision.cache_clear()
    assert errors["float64"][0] < 6e-3
    assert errors["float32"][0] > 2 * errors["float64"][0]
    assert errors["float32"][1] == pytest.approx(errors["float64"][1], rel=1e-2)


def test_the_figure_has_four_panels(tables: dict[str, pd.DataFrame]) -> None:
    drawn = figure.draw(*(tables[name] for name in ("stability", "tangency", "jump", "rounding")))
    titles = [axes.get_title(loc="left")[:3] for axes in drawn.axes]
    assert titles == ["(a)", "(b)", "(c)", "", "(d)"]
    stability, tangency, *_ = drawn.axes
    assert all(min(line.get_xdata()) > 0 for line in stability.lines)
    assert sum(len(line.get_xdata()) for line in tangency.lines if line.get_marker() == "x") == 1
