"""Claims can hold, fail and go untested."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments.claims import CLAIMS, JudgedClaim, Verdict, as_markdown, judge
from experiments.orders import fitted_orders

STEP_SIZES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


def gradient_errors(
    *, order: float = 1.0, small_threshold: float = 0.5, large_dimension: float = 0.9, evaluations: int = 1000
) -> pd.DataFrame:
    """Errors 0.01 h^order, times a factor for the smaller ε and one for the larger d; N = 100/h."""
    rows = [
        {
            "dimension": dimension,
            "seed": 0,
            "threshold": threshold,
            "step_size": h,
            "sensitivity": "definition3",
            "relative_error": 0.01
            * h**order
            * (small_threshold if threshold < 1e-3 else 1)
            * (large_dimension if dimension > 10 else 1),
            "nfe_euler": 100 / h,
            "nfe_torchdiffeq": evaluations,
            "nfe_ratio": 100 / h / evaluations,
            "torchdiffeq_time_difference": 1e-8,
            "torchdiffeq_gradient_difference": 1e-6,
        }
        for dimension in (10, 100)
        for threshold in (1e-3, 1e-4)
        for h in STEP_SIZES
    ]
    return pd.DataFrame(rows)


def tables(errors: pd.DataFrame) -> dict[str, pd.DataFrame]:
    orders = fitted_orders(errors, by=["dimension", "threshold", "sensitivity"])
    return {"gradient_error": errors, "gradient_error_orders": orders, "gradient_error_matrices": matrices(1.1)}


def matrices(ratio: float, dimension: int = 1000) -> pd.DataFrame:
    """Errors 0.01 h with a stored matrix, and ``ratio`` times that with a fast basis."""
    rows = [
        {"dimension": dimension, "matrix": matrix, "step_size": h, "relative_error": factor * 0.01 * h}
        for matrix, factor in (("stored", 1.0), ("hartley", ratio))
        for h in STEP_SIZES[-3:]
    ]
    return pd.DataFrame(rows)


def verdict(results: dict[str, pd.DataFrame], identifier: str) -> Verdict:
    return next(claim for claim in judge(results) if claim.identifier == identifier).verdict


ABOUT_GRADIENT_ERRORS = [claim.identifier for claim in CLAIMS if claim.table.startswith("gradient_error")]


@pytest.mark.parametrize("identifier", ABOUT_GRADIENT_ERRORS)
def test_a_claim_holds_on_data_made_for_it(identifier: str) -> None:
    assert verdict(tables(gradient_errors(evaluations=1500)), identifier) == Verdict.HOLDS


@pytest.mark.parametrize(
    ("identifier", "errors"),
    [
        ("theorem-2", gradient_errors(order=1.3)),
        ("figure-2a-threshold", gradient_errors(small_threshold=1.1)),
        ("figure-2a-dimension", gradient_errors(large_dimension=2.0)),
        ("figure-2b", gradient_errors(evaluations=900)),
        ("figure-5-euler", gradient_errors().assign(nfe_euler=lambda rows: rows["nfe_euler"] ** 1.2)),
        ("figure-5-solve", gradient_errors().assign(nfe_torchdiffeq=lambda rows: rows["nfe_euler"])),
        ("theorem-1-torchdiffeq", gradient_errors().assign(torchdiffeq_gradient_difference=1e-3)),
    ],
)
def test_a_claim_fails_on_data_made_against_it(identifier: str, errors: pd.DataFrame) -> None:
    assert verdict(tables(errors), identifier) == Verdict.FAILS


def test_every_claim_about_gradient_errors_was_made_to_fail() -> None:
    assert len(ABOUT_GRADIENT_ERRORS) == 8


def test_kinds_of_matrices_that_differ_or_are_small_do_not_stand_for_each_other() -> None:
    assert verdict({"gradient_error_matrices": matrices(1.5)}, "figure-2a-matrices") == Verdict.FAILS
    assert verdict({"gradient_error_matrices": matrices(1.0, 100)}, "figure-2a-matrices") == Verdict.NOT_TESTED


@pytest.mark.parametrize(("difference", "expected"), [(1e-14, Verdict.HOLDS), (1e-3, Verdict.FAILS)])
def test_verifications_are_compared_with_their_tolerance(difference: float, expected: Verdict) -> None:
    checks = ["unrolled_autograd", "central_differences"]
    results = {"verification": pd.DataFrame({"check": checks, "difference": difference})}
    assert verdict(results, "proposition-1") == expected
    assert verdict(results, "theorem-1-finite-differences") == expected


@pytest.mark.parametrize(("order", "expected"), [(1.0, Verdict.HOLDS), (0.3, Verdict.FAILS)])
def test_the_difference_of_times_must_be_of_first_order(order: float, expected: Verdict) -> None:
    step_size = pd.Series([0.1, 0.05, 0.025])
    table = pd.DataFrame({"step_size": step_size, "difference": step_size**order})
    assert verdict({"figure_1b": table}, "figure-1b") == expected


def test_a_claim_without_a_table_or_with_too_few_points_is_not_tested() -> None:
    assert judge({}) == []
    few = tables(gradient_errors().query("step_size > 0.2"))
    assert verdict(few, "theorem-2") == Verdict.NOT_TESTED


def test_bars_in_a_claim_do_not_break_the_markdown_table() -> None:
    claim = JudgedClaim("x", "Figure 1", "a", "b", Verdict.HOLDS, "max |T - hN| = 1")
    row = as_markdown([claim]).splitlines()[2]
    assert row == r"| Figure 1 | a | b | **holds** | max \|T - hN\| = 1 |"
