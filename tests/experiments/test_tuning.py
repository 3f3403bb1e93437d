"""Descents on N at a small scale: heavy ball arrives near Polyak's parameters, Adam below its defaults."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import Tensor

from experiments import tuning
from experiments.tuning import Scale, descend
from figures import tuning as figure
from odestop.discrete import DiscreteStats

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

SCALE = Scale(
    dimension=20,
    starts=4,
    exponents=(16,),
    shown=16,
    iterations=40,
    lengths=(0.3, 0.01),
    resolution=11,
    adam_threshold=0.3,
    adam_iterations=6,
    adam_lengths=(1.0, 0.1),
    searched=4,
    fresh_starts=3,
)


@pytest.fixture(scope="module")
def heavy_ball() -> dict[str, pd.DataFrame]:
    """Tables with the descents from (2, 0.6)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "DESCENTS_FROM", ((2.0, 0.6),))
        patch.setattr(tuning, "SENSITIVITIES", ("interpolated",))
        return tuning.heavy_ball(SCALE)


@pytest.fixture(scope="module")
def adam() -> dict[str, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "SEARCH_LIMIT", 100)
        patch.setattr(tuning, "RANDOM_ORDERS", 3)
        return tuning.adam(SCALE)


def test_heavy_ball_arrives_at_the_minimum_and_near_polyak(heavy_ball: dict[str, pd.DataFrame]) -> None:
    optima = heavy_ball["tuning_optima"].set_index("found_by")
    searched, tuned = optima.loc["brute force"], optima.loc["interpolated"]
    assert tuned["steps"] < 1.05 * searched["steps"]
    assert tuned["distance"] < 0.1
    assert searched["distance"] < 0.05
    assert searched["steps"] < searched["polyak_steps"]


def test_polyak_s_parameters_are_those_of_the_spectrum() -> None:
    quadratic = tuning.TunedQuadratic(SCALE.dimension, SCALE.starts)
    smallest, largest = (math.sqrt(extreme(quadratic.objective.eigenvalues.tolist())) for extreme in (min, max))
    expected = (4 / (largest + smallest) ** 2, ((largest - smallest) / (largest + smallest)) ** 2)
    assert pytest.approx(expected, rel=1e-12) == tuning.POLYAK
    torch.testing.assert_close(quadratic.criterion(quadratic.x0), torch.ones(SCALE.starts, dtype=torch.float64))


def test_a_batch_of_settings_equals_them_one_by_one() -> None:
    quadratic = tuning.TunedQuadratic(3, 2)
    rate, momentum = torch.tensor([[1.0, 2.0], [0.3, 0.5]], dtype=torch.float64)
    together, _ = quadratic.mean_steps(rate, momentum, 1e-6, "interpolated", 1000)
    alone = [quadratic.mean_steps(*pair, 1e-6, "interpolated", 1000)[0] for pair in zip(rate, momentum, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-12, atol=0.0)


def test_a_descent_goes_back_from_where_n_is_infinite() -> None:
    def cliff(point: Tensor, max_steps: int) -> tuple[Tensor, DiscreteStats]:
        x = point[..., 0]
        return torch.where(x > 0, 1 + x, torch.inf), DiscreteStats(1, 1)

    visits = descend(cliff, torch.tensor([[2.0], [0.5]]), [1.0, 1.0, 0.5], 10, "cliff")
    assert [visit.point[1].item() for visit in visits] == [0.5, -0.5, 0.5]
    assert [visit.steps[0].item() for visit in visits] == [3.0, 2.0, math.inf]


def test_tuned_adam_needs_far_fewer_steps_than_the_defaults(adam: dict[str, pd.DataFrame]) -> None:
    settings = adam["tuning_settings"].set_index("found_by")
    default, tuned = settings.loc["torch's defaults"], settings.loc["descent from the defaults"]
    assert tuple(default[["learning_rate", "beta1", "beta2"]]) == tuning.ADAM_DEFAULTS
    for column in ("steps", "fresh_median", "zero"):
        assert tuned[column] < 0.2 * default[column]
    assert settings.loc["descent from the grid", "steps"] <= settings.loc["grid over the rate", "steps"]
    descent = adam["tuning_adam"].query("descent == 'descent from the defaults'")
    assert descent["steps"].iloc[0] == pytest.approx(default["steps"], rel=1e-9)
    assert descent["steps"].min() == pytest.approx(tuned["steps"], rel=1e-9)
    reached = descent[np.isfinite(descent["steps"])]
    assert (reached["vjps"] == reached["evaluations"]).all()


def test_searches_stay_within_the_cost_of_the_descent(adam: dict[str, pd.DataFrame]) -> None:
    search, descent = adam["tuning_search"], adam["tuning_adam"].query("descent == 'descent from the defaults'")
    assert search["total_cost"].max() <= (descent["evaluations"] + descent["vjps"]).sum()
    for _, rows in search.groupby(["method", "order"]):
        assert rows["cost"].is_monotonic_increasing
        assert rows["steps"].is_monotonic_decreasing


def test_the_summary_compares_at_equal_cost(adam: dict[str, pd.DataFrame]) -> None:
    lines = tuning.cost_summary(adam["tuning_adam"], adam["tuning_search"]).splitlines()
    defaults, grid = adam["tuning_adam"].groupby("descent")[["evaluations", "vjps"]].sum().sum(axis=1)
    searched = adam["tuning_search"].query("method == 'grid over the rate'")["total_cost"].iloc[0]
    assert lines[2] == f"grid over the rate: {searched} evaluations"
    assert lines[3].startswith(f"random search, {defaults} evaluations (descent from the defaults): best mean N̂")
    assert lines[4].startswith(f"random search, {grid + searched} evaluations (descent from the grid)")


def test_a_run_of_a_setting_ends_at_its_n(adam: dict[str, pd.DataFrame]) -> None:
    for _, row in adam["tuning_settings"].iterrows():
        run = adam["tuning_runs"].query("found_by == @row.found_by")
        assert run["k"].iloc[-1] == math.ceil(row["zero"])
        assert run["criterion"].iloc[-1] <= SCALE.adam_threshold < run["criterion"].iloc[-2]


def test_the_figures_show_the_tables(heavy_ball: dict[str, pd.DataFrame], adam: dict[str, pd.DataFrame]) -> None:
    drawn = figure.draw_heavy_ball(*(heavy_ball[f"tuning_{name}"] for name in ("landscape", "heavy_ball", "optima")))
    landscape, distances = drawn.axes[0], drawn.axes[1]
    star = next(line for line in landscape.lines if line.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == pytest.approx(tuning.POLYAK)
    assert distances.get_yscale() == "log"
    assert len(distances.lines) == 3
    runs, _, hyperparameters, costs = figure.draw_adam(
        *(adam[f"tuning_{name}"] for name in ("adam", "search", "runs"))
    ).axes
    assert len(runs.lines) == len(adam["tuning_settings"])
    assert runs.lines[0].get_label() == f"torch's defaults: $N = {len(runs.lines[0].get_xdata()) - 1}$"
    np.testing.assert_array_equal(
        hyperparameters.lines[0].get_ydata(), adam["tuning_adam"]["learning_rate"].iloc[: SCALE.adam_iterations]
    )
    assert len(hyperparameters.lines) == 6
    assert len(costs.lines) == 4


def test_the_command_writes_tables_provenance_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heavy_ball: dict[str, pd.DataFrame], adam: dict[str, pd.DataFrame]
) -> None:
    monkeypatch.setattr(tuning, "run", lambda scale, console: heavy_ball | adam)
    monkeypatch.setattr(tuning, "SCALES", {"quick": SCALE})
    monkeypatch.setattr(tuning, "save", lambda drawn, path: drawn.savefig(path.with_suffix(".svg")))
    tuning.main("quick", tmp_path)
    names = {"landscape", "heavy_ball", "optima", "adam", "search", "settings", "runs"}
    files = {f"tuning_{name}.csv" for name in names} | {"tuning.json"}
    files |= {"tuning_heavy_ball.svg", "tuning_adam.svg"}
    assert {path.name for path in tmp_path.iterdir()} == files
    record = json.loads((tmp_path / "tuning.json").read_text(encoding="utf-8"))
    assert record["seed"] == tuning.SEED
    assert record["exponents"] == [16]
    assert "git_commit" in record


def test_both_studies_run_behind_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "heavy_ball", lambda scale, track: {"a": list(track(range(3), "three"))})
    monkeypatch.setattr(tuning, "adam", lambda scale, track: {"b": scale})
    assert tuning.run("quick", Console(file=io.StringIO())) == {"a": [0, 1, 2], "b": tuning.SCALES["quick"]}
