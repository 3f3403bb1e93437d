"""The stiffness command, on a problem that takes a moment."""

import pytest

from experiments import stiffness

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_evaluations_are_those_of_the_loosest_tolerance_that_is_accurate_enough(monkeypatch):
    monkeypatch.setattr(stiffness, "DIMENSION", 5)
    exact = stiffness.answer(10.0, "dopri8", 1e-9)
    counts = stiffness.evaluations_needed(10.0, "dopri8", exact, most=10_000)
    assert counts[0] <= counts[1] <= stiffness.answer(10.0, "dopri8", 1e-9).evaluations
    assert stiffness.evaluations_needed(10.0, "dopri8", exact, most=1) == [None] * len(stiffness.TARGETS)


def test_exponent_is_the_slope_of_the_cases_that_were_reached():
    assert stiffness.exponent([1e2, 1e3, 1e4], [10, None, 1000]) == "1.00"
    assert stiffness.exponent([1e2, 1e3], [None, 10]) == "-"


def test_table_has_one_row_per_target_and_method():
    needed = {"tsit5": [[1, 2, 3], [10, 20, None]], "rock4": [[1, 2, 3], [2, 4, 6]]}
    table = stiffness.as_table([1e2, 1e3], needed)
    assert table.row_count == len(stiffness.TARGETS) * 2
    assert list(table.columns[-1].cells)[:2] == ["1.00", "0.30"]
