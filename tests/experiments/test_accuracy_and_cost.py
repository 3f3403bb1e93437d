"""What the work-precision diagrams are made of: the counts, the memory, the reference, every way to ∇T."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from experiments import accuracy_and_cost
from experiments.accuracy_and_cost import LOGISTIC, STIFF, CallCounter, Cell
from experiments.claims import Verdict, judge
from experiments.peak_memory import PeakMemory
from figures import accuracy_and_cost as figure
from odestop.dynamics import DiagonallyPreconditionedFlow
from odestop.objectives import DiagonalQuadratic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_calls_and_pullbacks_are_counted() -> None:
    diagonal = torch.ones(2, requires_grad=True)
    flow = DiagonallyPreconditionedFlow(DiagonalQuadratic([1.0, 4.0]), diagonal)
    counter, x = CallCounter(flow), torch.ones(2)
    y = counter(torch.tensor(0.0), counter(torch.tensor(0.0), x))
    counter(torch.tensor(0.0), x)
    y.sum().backward()
    assert (counter.evaluations, counter.pullbacks) == (3, 2)


def test_memory_counts_what_a_graph_holds_and_no_views() -> None:
    outside = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    with PeakMemory() as memory:
        y = outside[:10] + 0.0
        assert memory.peak_bytes == 80
        for _ in range(10):
            y = y.sin()
    assert memory.peak_bytes == 11 * 80
    with torch.no_grad(), PeakMemory() as without_graph:
        y = outside[:10] + 0.0
        for _ in range(10):
            y = y.sin()
    assert without_graph.peak_bytes == 2 * 80


def test_euler_is_evaluated_and_pulled_back_once_per_step() -> None:
    record = accuracy_and_cost.solve(Cell(LOGISTIC, "Euler", 0.1, 0))
    steps = record["pullbacks"]
    # Forward, and again in the backward pass; T is 3.336.
    assert record["evaluations"] == 2 * steps
    assert steps * 0.1 == pytest.approx(3.336, abs=0.3)
    assert record["peak_bytes"] > steps * 31 * 8
    assert math.isnan(record["gradient_seconds"])


@pytest.mark.parametrize("method", ["discrete_adjoint", "odeint_event", "odeint_adjoint", "Runge-Kutta 4"])
def test_every_kind_of_way_gets_to_the_reference(method: str) -> None:
    record = accuracy_and_cost.solve(Cell(LOGISTIC, method, 0.1 if method == "Runge-Kutta 4" else 1e-6, 1))
    assert record["relative_error"] < 1e-4
    assert record["gradient_seconds"] > 0


def test_a_way_that_gives_up_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*arguments: object) -> None:
        raise RuntimeError("needs more than 2000 steps")

    monkeypatch.setattr(accuracy_and_cost, "_differentiate", give_up)
    record = accuracy_and_cost.solve(Cell(LOGISTIC, "backsolve", 1e-6, 1))
    assert math.isnan(record["relative_error"])
    assert record["note"] == "needs more than 2000 steps"


def test_the_closed_form_is_the_gradient_of_the_stiff_question() -> None:
    question = accuracy_and_cost.pose(STIFF)
    gradient = accuracy_and_cost._differentiate(question, "discrete_adjoint", 1e-6)
    torch.testing.assert_close(gradient, accuracy_and_cost._closed_form(question), rtol=1e-6, atol=0.0)


def test_every_second_round_goes_backward() -> None:
    cells = accuracy_and_cost.GRIDS["quick"].cells()
    first, second = ([cell for cell in cells if cell.round == number] for number in (1, 2))
    ways = [[(cell.question, cell.method, cell.setting) for cell in cells] for cells in (first, second)]
    assert ways[0] == ways[1][::-1]
    assert not any(cell.method == "finite_difference" for cell in first if cell.question == accuracy_and_cost.LEARNED)


def results(euler: int) -> pd.DataFrame:
    rows = [("Euler", 0.1, 1e-2, euler), ("discrete_adjoint", 1e-4, 1e-3, 300), ("backsolve", 1e-4, math.nan, 10)]
    return pd.DataFrame(
        [
            {
                "question": LOGISTIC,
                "method": method,
                "setting": setting,
                "relative_error": error,
                "evaluations": work,
                "pullbacks": work,
                "gradient_seconds": 0.1,
                "peak_bytes": 1e5,
            }
            for method, setting, error, work in rows
        ]
    )


@pytest.mark.parametrize(("euler", "verdict"), [(200, Verdict.HOLDS), (400, Verdict.FAILS)])
def test_the_claim_compares_at_equal_accuracy(euler: int, verdict: Verdict) -> None:
    claims = {claim.identifier: claim.verdict for claim in judge({"accuracy_and_cost": results(euler)})}
    assert claims["accuracy-for-cost"] == verdict


def test_the_figure_has_a_column_per_cost_and_leaves_out_what_gave_up() -> None:
    drawn = figure.draw(results(200))
    labels = [axes.get_xlabel() for axes in drawn.axes]
    assert labels == ["evaluations and pull-backs", "wall time in s", "peak memory in bytes"]
    assert all(len(axes.lines) == 2 for axes in drawn.axes)
    names = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert names == ["discrete adjoint", r"$h \nabla N$: Euler"]
