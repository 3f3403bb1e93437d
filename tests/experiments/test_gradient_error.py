"""One cell of Figures 2 and 5, on a small instance."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from experiments import gradient_error, verification
from experiments.gradient_error import Cell, Grid
from odestop import continuous_stopping_time
from odestop.comparison import compare_gradients
from odestop.discrete import Euler, discrete_stopping_time

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

CELL = Cell(dimension=10, matrix="stored", seed=0, threshold=1e-2, step_size=0.4, sensitivity="definition3")


def test_a_cell_agrees_with_the_library_s_own_comparison() -> None:
    record = gradient_error.solve(CELL)
    question = gradient_error.pose(10, "stored", 0)
    flow = continuous_stopping_time(question.dynamics, question.x0, question.criterion, 1e-2)
    steps = discrete_stopping_time(Euler(question.dynamics, 0.4), question.x0, question.criterion, 1e-2)
    expected = compare_gradients(flow, steps, 0.4, question.parameters)
    assert record["relative_error"] == pytest.approx(expected.relative_error)
    assert record["cosine"] == pytest.approx(expected.cosine)
    assert record["time_gradient_norm"] == pytest.approx(expected.time_gradient_norm)
    assert (record["nfe_euler"], record["nfe_native"]) == (expected.discrete_nfe, expected.continuous_nfe)
    assert record["steps"] == expected.steps.item() == record["nfe_euler"]


def test_torchdiffeq_gives_the_same_time_and_gradient() -> None:
    record = gradient_error.solve(CELL)
    assert record["torchdiffeq_time_difference"] < 1e-6
    assert record["torchdiffeq_gradient_difference"] < 1e-4
    assert record["nfe_ratio"] == record["nfe_euler"] / record["nfe_torchdiffeq"]


def test_a_cell_is_a_pure_function() -> None:
    first = gradient_error.solve(CELL)
    gradient_error.solve(dataclasses.replace(CELL, seed=1))
    assert gradient_error.solve(CELL) == first


def test_the_error_falls_with_the_step_size() -> None:
    errors = [gradient_error.solve(dataclasses.replace(CELL, step_size=h))["relative_error"] for h in (0.05, 0.4)]
    assert errors[0] < errors[1] / 4


def test_above_the_largest_stored_dimension_the_basis_is_fast_and_torchdiffeq_is_not_differentiated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gradient_error, "LARGEST_STORED_DIMENSION", 11)
    (cell,) = Grid((12,), (0,), (1e-2,), (0.4,), 12, ("definition3",)).cells()
    assert cell.matrix == "hartley"
    record = gradient_error.solve(cell)
    assert record["torchdiffeq_gradient_difference"] != record["torchdiffeq_gradient_difference"]
    assert record["nfe_torchdiffeq"] > 0


def test_cells_that_share_a_solve_follow_each_other() -> None:
    cells = Grid((10, 20), (0, 1), (1e-2, 1e-3), (0.1, 0.2), 10).cells()
    solves = [(cell.dimension, cell.seed, cell.threshold) for cell in cells]
    assert len(cells) == 32
    assert sum(a != b for a, b in itertools.pairwise(solves)) == len(set(solves)) - 1


def test_both_kinds_of_matrices_are_compared_at_the_largest_step_sizes() -> None:
    cells = Grid((10, 20), (3, 4), (1e-2, 1e-3), (0.1, 0.2, 0.3, 0.4), 20).compared_cells()
    assert {(cell.dimension, cell.seed, cell.threshold) for cell in cells} == {(20, 3, 1e-2)}
    assert [(cell.matrix, cell.step_size) for cell in cells] == list(
        itertools.product(("stored", "hartley"), (0.2, 0.3, 0.4))
    )


def test_verification_leaves_the_parameters_as_they_were() -> None:
    parameters = [parameter.detach().clone() for parameter in gradient_error.pose(5, "stored", 0).parameters]
    record = verification.solve(verification.Cell("central_differences", 5, 0, 0.1))
    assert record["difference"] < 1e-6
    for before, after in zip(parameters, gradient_error.pose(5, "stored", 0).parameters, strict=True):
        assert before.equal(after)
