"""Every figure from a small made-up table."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from figures import figure_1a, figure_1b, figure_2a, figure_2b, figure_5a, figure_5b, real_data
from odestop.plotting.style import save

STEP_SIZES = (0.1, 0.2, 0.4, 0.8)
THRESHOLDS = (1e-3, 1e-4)


def trajectories() -> pd.DataFrame:
    rows = [
        {
            "theta": theta,
            "path": path,
            "x1": 1 - 0.1 * k,
            "x2": (1 - 0.1 * k) ** theta,
            "is_end": k == 8,
            "threshold": 0.1,
            "step_size": 0.12,
        }
        for theta in (0.5, 2.5)
        for path in ("flow", "euler")
        for k in range(9)
    ]
    return pd.DataFrame(rows)


def stopping_times() -> pd.DataFrame:
    rows = [
        {
            "threshold": threshold,
            "theta": theta,
            "step_size": h,
            "time": 1 / theta,
            "time_derivative": -1 / theta**2,
            "scaled_steps": np.floor(1 / theta / h) * h,
        }
        for threshold in THRESHOLDS
        for theta in np.geomspace(0.2, 3.2, 9)
        for h in (0.1, 0.05)
    ]
    return pd.DataFrame(rows)


def gradient_errors(dimensions: tuple[int, ...] = (100, 1000), seeds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    rows = [
        {
            "dimension": dimension,
            "seed": seed,
            "threshold": threshold,
            "step_size": h,
            "sensitivity": sensitivity,
            "relative_error": 0.05 * h * (1 + 0.1 * seed) * (1 if threshold == 1e-3 else 0.5),
            "nfe_euler": 100 / h,
            "nfe_torchdiffeq": 400 + seed,
            "nfe_native": 500 + seed,
            "nfe_ratio": 100 / h / 400,
            "time": 100.0,
            "scaled_steps": 100.0 - h,
        }
        for dimension in dimensions
        for seed in seeds
        for threshold in THRESHOLDS
        for h in STEP_SIZES
        for sensitivity in ("definition3", "interpolated")
    ]
    return pd.DataFrame(rows)


def orders() -> pd.DataFrame:
    rows = [
        {
            "dimension": dimension,
            "threshold": threshold,
            "sensitivity": "definition3",
            "order": 1.01,
            "low": 0.97,
            "high": 1.05,
        }
        for dimension in (100, 1000)
        for threshold in THRESHOLDS
    ]
    return pd.DataFrame(rows)


def legend_texts(figure: Figure, axes: int = 0) -> list[str]:
    legend = figure.axes[axes].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_figure_1a_shows_both_paths_their_ends_and_the_stopping_set() -> None:
    figure = figure_1a.draw(trajectories())
    (axes,) = figure.axes
    assert axes.get_xlabel() == "first coordinate $x_1$"
    assert len(axes.lines) == 2 * 4 + 1  # per θ two paths and two ends; the start
    assert legend_texts(figure)[:2] == [r"$\theta = 0.5$", r"$\theta = 2.5$"]
    assert any("10^{-1}" in text.get_text() for text in axes.texts)


def test_figure_1b_shows_the_largest_step_size_and_tangents() -> None:
    figure = figure_1b.draw(stopping_times())
    (axes,) = figure.axes
    assert axes.get_xlabel() == r"preconditioner parameter $\theta$"
    assert len(axes.lines) == len(THRESHOLDS) * (1 + 1 + 4)
    tangent = axes.lines[2].get_xydata()
    assert isinstance(tangent, np.ndarray)
    middle = tangent[len(tangent) // 2]
    assert middle[1] == pytest.approx(1 / middle[0])
    assert (tangent[-1, 1] - tangent[0, 1]) / (tangent[-1, 0] - tangent[0, 0]) == pytest.approx(-1 / middle[0] ** 2)
    assert any("h = 0.1" in text for text in legend_texts(figure))


def test_figure_2a_has_a_panel_per_dimension_and_the_orders_with_their_intervals() -> None:
    figure = figure_2a.draw(gradient_errors(), orders())
    assert [axes.get_title() for axes in figure.axes] == ["$d = 100$", "$d = 1000$"]
    assert figure.axes[0].get_ylabel().startswith("relative error")
    for index, axes in enumerate(figure.axes):
        assert len(axes.lines) == len(THRESHOLDS) + 1
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert legend_texts(figure, index)[0].endswith("order 1.01 [0.97, 1.05]")


def test_curves_show_the_definition_3_rows_as_median_over_seeds_with_a_band() -> None:
    table = gradient_errors(seeds=(0, 1, 2))
    table.loc[table["sensitivity"] == "interpolated", "relative_error"] = 1e3
    axes = figure_2a.draw(table, orders()).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 0.05 * np.array(STEP_SIZES) * 1.1)
    assert len(axes.collections) == len(THRESHOLDS)
    assert not figure_2a.draw(gradient_errors(seeds=(0,)), orders()).axes[0].collections


def test_figure_2b_marks_equal_cost() -> None:
    figure = figure_2b.draw(gradient_errors())
    assert figure.axes[0].get_ylabel() == "NFE ratio, Euler / dopri5"
    assert legend_texts(figure) == [r"$\varepsilon = 10^{-3}$", r"$\varepsilon = 10^{-4}$"]
    for axes in figure.axes:
        assert len(axes.lines) == len(THRESHOLDS) + 1
        assert axes.texts[0].get_text() == "equal cost"


def test_figure_5a_shows_the_evaluations_of_euler() -> None:
    figure = figure_5a.draw(gradient_errors())
    assert figure.axes[0].get_ylabel() == "evaluations (NFE) of Euler"
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), 100 / np.array(STEP_SIZES))
    assert len(figure_5a.draw(gradient_errors((100, 1000, 10_000))).axes) == 3


def test_figure_5b_shows_both_solvers_at_every_dimension() -> None:
    figure = figure_5b.draw(gradient_errors())
    (axes,) = figure.axes
    assert axes.get_xlabel() == "dimension $d$"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "1000"]
    assert len(axes.containers) == 2 * len(THRESHOLDS)
    assert legend_texts(figure)[-2:] == ["torchdiffeq dopri5", "odestop dopri5"]


def test_the_real_data_figure_shows_error_and_stopping_time() -> None:
    figure = real_data.draw(gradient_errors((31,), (0,)), orders().query("dimension == 100"))
    left, right = figure.axes
    assert left.get_xlabel() == right.get_xlabel() == "step size $h$"
    assert len(left.lines) == len(right.lines) == 2 * len(THRESHOLDS) + 1
    assert "T = 100.00" in legend_texts(figure, 1)[0]


def test_text_is_readable_in_print() -> None:
    figure = figure_2a.draw(
        gradient_errors((100, 1000, 10_000)), pd.concat([orders(), orders().assign(dimension=10_000)])
    )
    texts = figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))
    assert min(text.get_fontsize() for text in texts if text.get_text()) >= 7
    assert figure.get_figwidth() <= 6.9


def test_saving_writes_pdf_and_png_the_same_every_time(tmp_path: Path) -> None:
    first = save(figure_2b.draw(gradient_errors()), tmp_path / "first" / "figure")
    second = save(figure_2b.draw(gradient_errors()), tmp_path / "second" / "figure")
    assert [path.name for path in first] == ["figure.pdf", "figure.png"]
    for one, other in zip(first, second, strict=True):
        assert one.stat().st_size > 1000
        assert one.read_bytes() == other.read_bytes()


def test_drawing_leaves_matplotlib_s_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    figure_1b.draw(stopping_times())
    assert dict(matplotlib.rcParams) == before
