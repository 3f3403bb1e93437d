"""The comparison of the sensitivities of N, at its smallest scale."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments import sensitivity_orders
from experiments.claims import Verdict, judge
from experiments.orders import fitted_orders
from figures import sensitivity_orders as figure
from odestop.sweeps import Runner


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return sensitivity_orders.run("tiny", Runner())


def test_a_batch_of_step_sizes_equals_its_cells_one_by_one(tables: dict[str, pd.DataFrame]) -> None:
    rows = tables["sensitivity_orders"]
    assert len(rows) == 3 * 3 * 5
    row = rows[(rows["step_map"] == "Heun") & (rows["sensitivity"] == "hermite")].iloc[2]
    cell = sensitivity_orders.Cell("Heun", "hermite", row["step_size"])
    alone = sensitivity_orders.solve(cell, (row["step_size"],))
    assert alone["relative_error"] == pytest.approx(row["relative_error"], rel=1e-6)
    assert alone["scaled_steps"] == pytest.approx(row["scaled_steps"], rel=1e-12)


def test_a_better_map_has_a_smaller_error_with_hermite_alone(tables: dict[str, pd.DataFrame]) -> None:
    largest = tables["sensitivity_orders"].groupby(["sensitivity", "step_map"])["relative_error"].max()
    assert largest["hermite", "Runge-Kutta 4"] < 0.1 * largest["hermite", "Heun"] < 0.1 * largest["hermite", "Euler"]
    assert largest["interpolated", "Runge-Kutta 4"] > 0.1 * largest["interpolated", "Euler"]


def made_up(order: dict[str, int]) -> pd.DataFrame:
    rows = [
        {"step_map": step_map, "sensitivity": sensitivity, "step_size": h, "relative_error": 0.3 * h**power}
        for step_map, p in order.items()
        for sensitivity, power in (("definition3", 1), ("interpolated", 1), ("hermite", p))
        for h in (0.01 * 1.1**k for k in range(25))
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("runge_kutta", "verdict"), [(4, Verdict.HOLDS), (3, Verdict.FAILS)])
def test_the_claim_is_about_the_order_of_the_map(runge_kutta: int, verdict: Verdict) -> None:
    fitted = fitted_orders(made_up({"Euler": 1, "Heun": 2, "Runge-Kutta 4": runge_kutta}), ["step_map", "sensitivity"])
    results = {"sensitivity_orders_fitted": fitted.assign(quantity="gradient")}
    verdicts = {claim.identifier: claim.verdict for claim in judge(results)}
    assert verdicts["hermite-step-maps"] == verdict
    assert verdicts["definition-3-step-maps"] == Verdict.HOLDS


def test_few_points_do_not_decide(tables: dict[str, pd.DataFrame]) -> None:
    verdicts = {claim.identifier: claim.verdict for claim in judge(tables)}
    assert verdicts["hermite-step-maps"] == verdicts["definition-3-step-maps"] == Verdict.NOT_TESTED


def test_the_figure_has_a_panel_per_map_with_its_slope_and_orders() -> None:
    table = made_up({"Euler": 1, "Heun": 2, "Runge-Kutta 4": 4})
    orders = fitted_orders(table, ["step_map", "sensitivity"]).assign(quantity="gradient")
    axes = figure.draw(table, orders).axes
    assert [panel.get_title() for panel in axes] == ["Euler, order 1", "Heun, order 2", "Runge-Kutta 4, order 4"]
    for panel, slope in zip(axes, (1, 2, 4), strict=True):
        assert any(text.get_text() == f"slope ${slope}$" for text in panel.texts)
        legend = panel.get_legend()
        assert legend is not None
        assert [text.get_text().split(":")[0] for text in legend.get_texts()] == [
            "Definition 3",
            "interpolated",
            "Hermite",
        ]
        assert f"Hermite: {slope:.2f}" in legend.get_texts()[-1].get_text()
