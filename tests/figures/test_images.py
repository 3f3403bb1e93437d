"""Every figure looks as it did: drawn from stored tables and compared with stored images.

The tables in ``tables/`` are those of the experiments' scale ``"tiny"``, or smaller.  After a change of a figure
that is meant, look at it and renew the images by ``python -m tests.figures.test_images``; with ``--tables``, renew
the tables first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images

from experiments.catalogue import EXPERIMENTS, Tables
from figures import discrete_benchmark, tuning
from odestop.comparison_grid import make_grid
from odestop.plotting import comparison
from odestop.plotting.style import styled
from odestop.sweeps import Runner

FOLDER = Path(__file__).parent
TABLES, IMAGES = FOLDER / "tables", FOLDER / "images"
# Root mean square over pixels of 0 to 255; a label that moves by its own height gives about 5.
TOLERANCE = 2.0
COMPARISON = {
    "objective": "diagonal-quadratic",
    "dynamics": ["gradient-flow", "heavy-ball"],
    "threshold": [1e-2, 1e-3],
    "step_size": [0.05, 0.1, 0.2],
    "sensitivity": ["definition3", "hermite"],
    "parameters": {"dimension": [2, 3]},
}


FIGURES: dict[str, tuple[str, Callable[[Tables], Figure]]] = {
    **{name: (key, draw) for key, value in EXPERIMENTS.items() for name, draw in value.drawings.items()},
    "comparison": ("comparison", lambda tables: comparison.draw(tables["comparison"])),
    "discrete_benchmark": (
        "discrete_benchmark",
        lambda tables: discrete_benchmark.draw(tables["discrete_benchmark"]),
    ),
    "tuning_heavy_ball": (
        "tuning",
        lambda tables: tuning.draw_heavy_ball(
            tables["tuning_landscape"], tables["tuning_heavy_ball"], tables["tuning_optima"]
        ),
    ),
    "tuning_adam": (
        "tuning",
        lambda tables: tuning.draw_adam(tables["tuning_adam"], tables["tuning_search"], tables["tuning_runs"]),
    ),
}
"""Folder of the tables, and function of them, by the name of the figure."""


def draw(name: str) -> Figure:
    """Draw a figure from the stored tables."""
    folder, drawing = FIGURES[name]
    return drawing({path.stem: pd.read_csv(path) for path in sorted((TABLES / folder).glob("*.csv"))})


def save_image(name: str, path: Path) -> None:
    """Save a figure small, but large enough to see what overlaps."""
    figure = draw(name)
    with styled():
        figure.savefig(path, dpi=75, metadata={"Software": None})


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_looks_as_it_did(name: str, tmp_path: Path) -> None:
    save_image(name, tmp_path / "drawn.png")
    difference = compare_images(str(IMAGES / f"{name}.png"), str(tmp_path / "drawn.png"), tol=TOLERANCE)
    assert difference is None, difference


def test_another_figure_is_noticed(tmp_path: Path) -> None:
    figure = draw("figure_2a")
    figure.axes[0].set_ylabel("something else")
    with styled():
        figure.savefig(tmp_path / "drawn.png", dpi=75)
    assert compare_images(str(IMAGES / "figure_2a.png"), str(tmp_path / "drawn.png"), tol=TOLERANCE) is not None


def renew_tables() -> None:
    """Run every experiment that has a figure at its smallest scale."""
    for name, experiment in EXPERIMENTS.items():
        if not experiment.drawings:
            continue
        for table_name, table in experiment.run("tiny", Runner()).items():
            path = TABLES / name / f"{table_name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(path, index=False, float_format="%.6g")
    Runner().run(make_grid(COMPARISON).sweep()).to_csv(
        TABLES / "comparison" / "comparison.csv", index=False, float_format="%.6g"
    )


if __name__ == "__main__":
    if "--tables" in sys.argv:
        renew_tables()
    IMAGES.mkdir(exist_ok=True)
    for each in FIGURES:
        save_image(each, IMAGES / f"{each}.png")
