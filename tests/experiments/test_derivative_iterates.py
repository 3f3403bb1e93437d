"""Derivatives of iterates, at their smallest scale."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import derivative_iterates as experiment
from experiments.diabetes_features import diabetes_with_products
from figures import derivative_iterates as figure
from odestop.objectives import Lasso
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return experiment.run("tiny", Runner())


def test_the_features_are_those_of_the_literature() -> None:
    features, targets = diabetes_with_products()
    assert features.shape == (442, 64)
    assert torch.linalg.matrix_rank(features) == 64
    torch.testing.assert_close(features.square().mean(0), torch.ones(64, dtype=torch.float64))
    assert targets.mean().abs() < 1e-12


@pytest.mark.parametrize("problem", experiment.PENALTIES)
def test_the_references_are_solutions_and_their_derivatives(problem: str) -> None:
    solution, derivative = experiment.solution_and_derivative(problem)
    objective = experiment.make_objective(problem, experiment.PENALTIES[problem])
    assert objective.gradient_mapping(solution, 0.05).norm() < 1e-12
    # Moved along the derivative, it solves the problem with a slightly larger penalty.
    shift = 1e-6
    moved = experiment.make_objective(problem, experiment.PENALTIES[problem] + shift)
    assert moved.gradient_mapping(solution + shift * derivative, 0.05).norm() < 1e-3 * shift * derivative.norm()


def test_the_errors_fall_once_the_support_is_found(tables: dict[str, pd.DataFrame]) -> None:
    for (problem, _), rows in tables["derivative_iterates"].groupby(["problem", "algorithm"]):
        last, found = rows.iloc[-1], rows[rows["k"] >= rows["identified_at"]].iloc[0]
        assert last["derivative_error"] < 0.5 * found["derivative_error"]
        assert last["error"] < 0.1
        assert (rows["identified_at"].iloc[0] > 5) == (problem == "lasso")


def test_rates_are_fitted_with_the_power_of_theory() -> None:
    k = np.arange(1, 200)
    rows = pd.concat(
        pd.DataFrame(
            {
                "problem": "logistic",
                "algorithm": algorithm,
                "k": k,
                "error": 3 * k**first * 0.9**k,
                "derivative_error": 5 * k ** (first + 1) * 0.9**k,
                "identified_at": 0,
                "predicted_rate": 0.9,
            }
        )
        for algorithm, first in (("proximal gradient", 0.0), ("FISTA", -1.5))
    )
    fits = experiment.fitted_rates(rows)
    np.testing.assert_allclose(fits[["rate", "derivative_rate"]], 0.9, rtol=1e-9)


def test_rates_on_the_lasso_are_those_of_the_support() -> None:
    """300 steps of proximal gradient are enough for two digits of 1 - ρ."""
    cells = [experiment.IterateCell("lasso", "proximal gradient", 300, k) for k in range(0, 301, 5)]
    table = pd.DataFrame(
        [{"problem": c.problem, "algorithm": c.algorithm, "k": c.k, **experiment.solve(c)} for c in cells]
    )
    fit = experiment.fitted_rates(table).iloc[0]
    assert fit["rate"] == pytest.approx(fit["predicted_rate"], abs=2e-3)
    assert fit["derivative_rate"] == pytest.approx(fit["predicted_rate"], abs=2e-3)


def test_the_derivative_jumps_where_a_coordinate_leaves(tables: dict[str, pd.DataFrame]) -> None:
    rows = tables["support_change"].sort_values("penalty")
    below, above = rows[rows["penalty"] < 0.999 * rows["change"]], rows[rows["penalty"] > 1.001 * rows["change"]]
    assert (below["derivative"].abs() > 1).all()
    assert (above["derivative"] == 0).all()
    assert (above["solution"] == 0).all()
    slope = np.diff(below["solution"]) / np.diff(below["penalty"])
    np.testing.assert_allclose(slope, below["derivative"].iloc[0], rtol=1e-6)


def test_the_change_of_support_is_found() -> None:
    change, coordinate = experiment.support_change()
    for shift, inside in ((-1e-5, True), (1e-5, False)):
        solution = experiment.lasso_solution(torch.tensor([change + shift], dtype=torch.float64))[0]
        assert bool(solution[coordinate] != 0) == inside
        features, targets = diabetes_with_products()
        assert Lasso(features, targets, change + shift).gradient_mapping(solution, 0.05).norm() < 1e-12


def test_the_figure_has_three_panels_and_an_enlargement(tables: dict[str, pd.DataFrame]) -> None:
    drawn = figure.draw(*(tables[name] for name in ("derivative_iterates", "derivative_rates", "support_change")))
    assert [axes.get_title(loc="left")[:3] for axes in drawn.axes] == ["(a)", "(b)", "(c)"]
    assert len(drawn.axes[0].child_axes) == 1
    assert all(axes.get_xlabel() and axes.get_yscale() == "log" for axes in drawn.axes[:2])
    dashed, exact = drawn.axes[2].lines[-2:]
    assert dashed.get_label() == "$x^*$, implicit"
    assert np.all(np.asarray(exact.get_ydata()) == 0)
