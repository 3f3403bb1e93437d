"""The comparison for other dynamics and real data, and whether a flow and its steps stop at the same crossing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import beyond_quadratics, where_it_breaks
from experiments.claims import Verdict, judge
from experiments.same_crossing import stop_at_same_crossing
from experiments.sensitivities import Question
from figures import beyond_quadratics as figure
from odestop.dynamics import HeavyBallFlow
from odestop.objectives import DiagonalQuadratic
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return beyond_quadratics.run("tiny", Runner())


def test_the_tables_have_the_errors_and_their_orders(tables: dict[str, pd.DataFrame]) -> None:
    cells = tables["beyond_quadratics"]
    assert len(cells) == 3 * 2
    assert set(cells["family"]) == {"inertial"}
    assert cells["relative_error"].between(1e-6, 0.3).all()
    assert cells["same_crossing"].all()
    np.testing.assert_allclose(cells["step_size"], cells["step_fraction"] * cells["time"])
    smooth = tables["beyond_quadratics_orders"].query("sensitivity == 'hermite'")
    assert smooth["order"].between(0.7, 1.4).all()


def test_the_gradient_is_in_the_hyperparameters_and_x0() -> None:
    """x'' = -c x' - Q x from rest: T by bisection on the matrix exponential, moved by differences."""
    question = beyond_quadratics.pose("heavy-ball", "quadratic")
    threshold = 0.1 * question.criterion(question.x0).item()
    matrix = question.criterion.objective.matrix.detach()
    friction, x0 = question.parameters

    def stopping_time(c: float, start: torch.Tensor) -> float:
        d = len(start)
        generator = torch.zeros(2 * d, 2 * d, dtype=torch.float64)
        generator[:d, d:], generator[d:, :d] = torch.eye(d, dtype=torch.float64), -matrix
        generator[d:, d:] = -c * torch.eye(d, dtype=torch.float64)
        state, low, high = torch.cat([start, torch.zeros_like(start)]), 0.0, 4.0
        for _ in range(45):
            middle = (low + high) / 2
            x = (torch.linalg.matrix_exp(middle * generator) @ state)[:d]
            low, high = (middle, high) if (matrix @ x).square().sum() > threshold else (low, middle)
        return low

    flow = beyond_quadratics._answer_by_flow("heavy-ball", "quadratic", 0.1)
    c, start, step = friction.item(), x0.detach(), 1e-4
    assert flow.time == pytest.approx(stopping_time(c, start), rel=1e-6)
    slope = (stopping_time(c + step, start) - stopping_time(c - step, start)) / (2 * step)
    assert flow.gradient[0].item() == pytest.approx(slope, rel=1e-4)
    along = (stopping_time(c, start * (1 + step)) - stopping_time(c, start * (1 - step))) / (2 * step)
    assert (flow.gradient[1] * start).sum().item() == pytest.approx(along, rel=1e-4)


def test_dynamics_too_rough_to_be_solved_are_left_out() -> None:
    cells = beyond_quadratics.GRIDS["paper"].cells()
    pairs = {(cell.dynamics, cell.objective) for cell in cells}
    assert len(pairs) == 8 * 6 - 2
    assert ("hessian-damped", "huber-regression") not in pairs


@pytest.mark.parametrize(("step_size", "same"), [(0.02, False), (0.001, True)])
def test_steps_that_miss_the_dip_of_the_flow_are_noticed(step_size: float, same: bool) -> None:
    question, threshold = where_it_breaks.heavy_ball(), 1.01 * where_it_breaks.first_minimum()
    assert stop_at_same_crossing(question, threshold, 1.001609, step_size) == same


def test_a_flow_that_misses_the_dip_of_the_steps_is_noticed() -> None:
    """Σ x_i = cos t + cos √3 t falls to -1.74 at t ≈ 2.28, and Euler's growing amplitudes bring it lower."""
    objective = DiagonalQuadratic(torch.tensor([1.0, 3.0], dtype=torch.float64))
    times = np.linspace(0.0, 60.0, 60_001)
    values = np.cos(times) + np.cos(math.sqrt(3) * times)
    first = values[times < 4].min()
    time = times[np.argmax(values <= first - 0.01)]
    question = Question(
        HeavyBallFlow(objective, 0.0),
        lambda x: x.sum(-1) + 2.0,  # type: ignore[arg-type]
        torch.ones(2, dtype=torch.float64),
        (),
    )
    assert time > 4
    assert not stop_at_same_crossing(question, first - 0.01 + 2.0, float(time), 0.02)
    assert stop_at_same_crossing(question, 0.9 + 2.0, 0.3, 0.02)


def orders(low: float, high: float) -> pd.DataFrame:
    row = {"sensitivity": "definition3", "order": (low + high) / 2, "low": low, "high": high, "points": 6}
    return pd.DataFrame([row])


def cells(same: bool, error: float, ratio: float) -> pd.DataFrame:
    row = {"dynamics": "adam", "objective": "quadratic", "reduction": 0.1, "sensitivity": "definition3", "time": 1.0}
    return pd.DataFrame(
        [row | {"scaled_steps": 1.3, "step_size": 0.1, "same_crossing": same, "relative_error": error}]
    ).assign(nfe_ratio=ratio)


@pytest.mark.parametrize(
    ("identifier", "table", "good", "bad"),
    [
        ("beyond-order", "beyond_quadratics_orders", orders(0.9, 1.2), orders(0.5, 0.8)),
        ("beyond-same-crossing", "beyond_quadratics", cells(True, 0.05, 0.5), cells(False, 0.05, 0.5)),
        ("beyond-cost", "beyond_quadratics", cells(True, 0.05, 0.5), cells(True, 0.05, 1.5)),
        ("beyond-cost", "beyond_quadratics", cells(True, 0.05, 0.5), cells(True, 0.2, 0.5)),
    ],
)
def test_claims_hold_and_fail(identifier: str, table: str, good: pd.DataFrame, bad: pd.DataFrame) -> None:
    for data, verdict in ((good, Verdict.HOLDS), (bad, Verdict.FAILS)):
        claim = next(claim for claim in judge({table: data}) if claim.identifier == identifier)
        assert claim.verdict == verdict


def test_the_figures_mark_different_crossings_and_intervals(tables: dict[str, pd.DataFrame]) -> None:
    cells = tables["beyond_quadratics"].copy()
    cells.loc[cells.index[:2], "same_crossing"] = False
    errors = figure.draw_errors(cells)
    (axes,) = errors.axes
    assert axes.get_title() == "heavy ball"
    marked = sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "x")
    assert marked == 2
    assert errors.legends[0].get_texts()[-1].get_text() == "different crossings"
    left, right = figure.draw_summary(cells, tables["beyond_quadratics_orders"]).axes
    assert len(left.containers) == 1
    assert "10 %" in right.get_xlabel()
