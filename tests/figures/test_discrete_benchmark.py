"""The figure of the discrete benchmark from a small made-up table."""

from __future__ import annotations

import itertools
import math

import pandas as pd

from figures import discrete_benchmark


def test_a_column_per_dimension_with_time_above_and_memory_below() -> None:
    methods = ("all", "sqrt", "unrolled")
    rows = [
        {
            "method": method,
            "dimension": dimension,
            "steps": steps,
            "seconds": 1e-4 * steps,
            "memory_bytes": math.nan if method == "unrolled" and steps == 1000 else 8.0 * dimension * steps,
        }
        for method, dimension, steps in itertools.product(methods, (100, 10_000), (100, 1000))
    ]
    figure = discrete_benchmark.draw(pd.DataFrame(rows))
    time, _, memory, large = figure.axes
    assert time.get_title() == "$d = 100$"
    assert time.get_ylabel() == r"processor time per step ($\mu$s)"
    assert list(time.lines[0].get_ydata()) == [100.0, 100.0]
    assert memory.get_ylabel().startswith("memory (MB")
    assert list(memory.lines[0].get_ydata()) == [1.0, 1.0]  # 0.08 and 0.8 MB
    assert max(len(line.get_xdata()) for line in large.lines) == 2
    assert min(len(line.get_xdata()) for line in large.lines if len(line.get_xdata())) == 1
    assert len(figure.legends) == 1
