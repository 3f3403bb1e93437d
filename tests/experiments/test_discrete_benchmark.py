"""The benchmark of Algorithm 1 compares like with like, and writes a table and a figure."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from experiments import discrete_benchmark as benchmark
from experiments.discrete_benchmark import Case, answer, measure


@pytest.mark.parametrize("method", [method for method in benchmark.METHODS if method != "compiled"])
def test_every_method_finds_the_gradient_of_the_closed_form(method: str) -> None:
    record = measure(Case(method, 5, 60))
    assert record["relative_error"] < 1e-11
    assert record["seconds"] > 0
    stored = {"all": 60, "all, by autograd": 60, "sqrt": 15, "budget": 32}
    if method in stored:
        assert record["stored_bytes"] == stored[method] * 5 * 8
    else:
        assert math.isnan(record["stored_bytes"])


def test_a_graph_that_does_not_fit_is_left_out() -> None:
    case = Case("unrolled", 100_000, 100_000)
    assert not case.fits
    assert replace(case, method="sqrt").fits
    assert math.isnan(benchmark.measure_apart(case)["seconds"])


def test_in_a_process_of_its_own_the_memory_is_that_of_the_run() -> None:
    record = benchmark.measure_apart(Case("all", 10_000, 300))
    assert record["relative_error"] < 1e-11
    if not math.isnan(record["memory_bytes"]):
        assert 0.8 < record["memory_bytes"] / record["stored_bytes"] < 3


def test_the_command_writes_table_provenance_and_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(case: Case) -> dict:
        return vars(case) | {"memory_bytes": math.nan} | {"seconds": 0.1, **answer(replace(case, method="sqrt"))}

    monkeypatch.setattr(benchmark, "DIMENSIONS", {"quick": (2, 3)})
    monkeypatch.setattr(benchmark, "STEPS", {"quick": (5, 9)})
    frame = benchmark.run("quick", Console(file=io.StringIO()), measured)
    assert len(frame) == 4 * len(benchmark.METHODS)
    assert benchmark.as_table(frame).row_count == 4
    monkeypatch.setattr(benchmark, "run", lambda scale, console: frame)
    benchmark.main("quick", tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".json", ".pdf", ".png"}
