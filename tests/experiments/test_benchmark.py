"""The benchmark compares like with like and writes what it measured."""

import json

import pytest

from experiments import benchmark

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(benchmark, "REPETITIONS", 1)


def test_both_sides_give_the_same_times():
    for comparison in (
        benchmark.level_comparison(5, 3),
        benchmark.batch_comparison(5, 4, "unlike"),
    ):
        assert comparison.error < 1e-6
        assert comparison.together.evaluations < comparison.apart.evaluations
        assert comparison.ratio > 0.0


def test_the_table_and_the_record_hold_every_comparison():
    rows = [benchmark.level_comparison(5, 3)]
    assert benchmark.as_table(rows).row_count == 1
    record = json.loads(benchmark.as_json(rows, "quick"))
    assert record["rows"][0]["question"] == "thresholds"
    assert record["versions"]["torch"]
