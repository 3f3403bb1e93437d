"""The stiffness command, on a problem that takes a moment."""

import pytest
import torch

from experiments import stiffness

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_evaluations_are_those_of_the_loosest_tolerance_that_is_accurate_enough(monkeypatch):
    monkeypatch.setattr(stiffness, "DIMENSION", 5)
    exact = stiffness.answer(10.0, "dopri8", 1e-9)
    found = stiffness.first_accurate(10.0, "dopri8", exact, most=10_000)
    assert found[0].evaluations <= found[1].evaluations <= exact.evaluations
    assert found[2].vjps <= found[3].vjps <= exact.vjps
    assert stiffness.first_accurate(10.0, "dopri8", exact, most=1) == [None] * len(stiffness.TARGETS)


def test_exponent_is_the_slope_of_the_cases_that_were_reached():
    assert stiffness.exponent([1e2, 1e3, 1e4], [10, None, 1000]) == "1.00"
    assert stiffness.exponent([1e2, 1e3], [None, 10]) == "-"


def test_table_has_one_row_per_target_and_method():
    one, two, ten = (stiffness.Answer(1.0, torch.zeros(1), count, count + 1) for count in (1, 2, 10))
    count = len(stiffness.TARGETS)
    needed = {"tsit5": [[one] * count, [*[ten] * (count - 1), None]], "rock4": [[one] * count, [two] * count]}
    table = stiffness.as_table([1e2, 1e3], needed)
    assert table.row_count == len(stiffness.TARGETS) * 2
    assert list(table.columns[-1].cells)[:2] == ["1.00", "0.30"]
    assert list(table.columns[3].cells)[-2:] == ["-", "2 + 3"]
