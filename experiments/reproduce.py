"""From the name of a figure to its files: run the experiments, draw, and judge the paper's claims."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments import (
    accuracy_and_cost,
    beyond_quadratics,
    dissipation,
    dynamics_gallery,
    figure_1,
    gradient_error,
    real_data,
    sensitivity_orders,
    verification,
    where_it_breaks,
)
from experiments.claims import JudgedClaim, Verdict, as_markdown, judge
from figures import accuracy_and_cost as accuracy_and_cost_figure
from figures import beyond_quadratics as beyond_quadratics_figure
from figures import dissipation as dissipation_figure
from figures import dynamics_gallery as dynamics_gallery_figure
from figures import figure_1a, figure_1b, figure_2a, figure_2b, figure_5a, figure_5b
from figures import real_data as real_data_figure
from figures import sensitivity_orders as sensitivity_orders_figure
from figures import where_it_breaks as where_it_breaks_figure
from odestop.plotting.style import save
from odestop.sweeps import Runner

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Experiment:
    """What to run: a function of the scale, and the grids behind it, for the record."""

    run: Callable[[str, Runner], dict[str, pd.DataFrame]]
    parameters: Callable[[str], dict[str, Any]]


@dataclass(frozen=True)
class Drawing:
    """A figure: the experiment it belongs to, and its function of the tables."""

    experiment: str
    draw: Callable[[Tables], Figure]


EXPERIMENTS: dict[str, Experiment] = {
    "figure_1": Experiment(
        figure_1.run,
        lambda scale: {
            "eigenvalues": figure_1.EIGENVALUES,
            "x0": figure_1.START,
            "seed": None,
            "figure_1a": asdict(figure_1.TRAJECTORY_GRIDS[scale]),
            "figure_1b": asdict(figure_1.STOPPING_GRIDS[scale]),
        },
    ),
    "gradient_error": Experiment(
        gradient_error.run,
        lambda scale: {
            "condition_number": gradient_error.CONDITION_NUMBER,
            "largest_eigenvalue": 1.0,
            "x0": "ones",
            "stored_matrix_up_to_dimension": gradient_error.LARGEST_STORED_DIMENSION,
            **asdict(gradient_error.GRIDS[scale]),
        },
    ),
    "real_data": Experiment(
        real_data.run,
        lambda scale: {
            "data": "scikit-learn breast cancer",
            "regularization": real_data.REGULARIZATION,
            "x0": "zeros",
            "seed": None,
            **asdict(real_data.GRIDS[scale]),
        },
    ),
    "dissipation": Experiment(
        dissipation.run,
        lambda scale: {
            "dimension": dissipation.DIMENSION,
            "condition_number": dissipation.CONDITION_NUMBER,
            "x0": "ones",
            "seed": 0,
            **asdict(dissipation.GRIDS[scale]),
        },
    ),
    "sensitivity_orders": Experiment(
        sensitivity_orders.run,
        lambda scale: {
            "threshold": sensitivity_orders.THRESHOLD,
            "theta": sensitivity_orders.THETA,
            "x0": sensitivity_orders.START,
            "seed": None,
            **asdict(sensitivity_orders.GRIDS[scale]),
        },
    ),
    "dynamics_gallery": Experiment(
        dynamics_gallery.run,
        lambda scale: {
            "threshold": dynamics_gallery.THRESHOLD,
            "horizon": dynamics_gallery.HORIZON,
            "landscapes": dynamics_gallery.LANDSCAPES,
            "seed": None,
            **asdict(dynamics_gallery.GRIDS[scale]),
        },
    ),
    "beyond_quadratics": Experiment(
        beyond_quadratics.run,
        lambda scale: {
            "quadratic": {
                "dimension": beyond_quadratics.DIMENSION,
                "condition_number": beyond_quadratics.CONDITION_NUMBER,
            },
            "hyperparameters": "the registry's defaults",
            **asdict(beyond_quadratics.GRIDS[scale]),
        },
    ),
    "accuracy_and_cost": Experiment(
        accuracy_and_cost.run,
        lambda scale: {
            "largest_step": accuracy_and_cost.LARGEST_STEP,
            **asdict(accuracy_and_cost.GRIDS[scale]),
        },
    ),
    "where_it_breaks": Experiment(
        where_it_breaks.run,
        lambda scale: {
            "stability": {
                "dimension": where_it_breaks.STABILITY_DIMENSION,
                "condition_number": where_it_breaks.STABILITY_CONDITION,
                "threshold": where_it_breaks.STABILITY_THRESHOLD,
            },
            "heavy_ball": {
                "eigenvalues": where_it_breaks.EIGENVALUES,
                "friction": where_it_breaks.FRICTION,
                "frictions": where_it_breaks.JUMP_FRICTIONS,
                "threshold": where_it_breaks.JUMP_THRESHOLD,
            },
            "rounding": {"threshold": where_it_breaks.ROUNDING_THRESHOLD, "minimizer": where_it_breaks.MINIMIZER},
            "seed": None,
            **asdict(where_it_breaks.GRIDS[scale]),
        },
    ),
    "verification": Experiment(
        verification.run,
        lambda scale: {
            "step_size": verification.STEP_SIZE,
            "directions": verification.DIRECTIONS,
            **asdict(verification.GRIDS[scale]),
        },
    ),
}

DRAWINGS: dict[str, Drawing] = {
    "figure_1a": Drawing("figure_1", lambda tables: figure_1a.draw(tables["figure_1a"])),
    "figure_1b": Drawing("figure_1", lambda tables: figure_1b.draw(tables["figure_1b"])),
    "figure_2a": Drawing(
        "gradient_error",
        lambda tables: figure_2a.draw(tables["gradient_error"], tables["gradient_error_orders"]),
    ),
    "figure_2b": Drawing("gradient_error", lambda tables: figure_2b.draw(tables["gradient_error"])),
    "figure_5a": Drawing("gradient_error", lambda tables: figure_5a.draw(tables["gradient_error"])),
    "figure_5b": Drawing("gradient_error", lambda tables: figure_5b.draw(tables["gradient_error"])),
    "real_data": Drawing(
        "real_data", lambda tables: real_data_figure.draw(tables["real_data"], tables["real_data_orders"])
    ),
    "dissipation": Drawing("dissipation", lambda tables: dissipation_figure.draw(tables["dissipation"])),
    "sensitivity_orders": Drawing(
        "sensitivity_orders",
        lambda tables: sensitivity_orders_figure.draw(
            tables["sensitivity_orders"], tables["sensitivity_orders_fitted"]
        ),
    ),
}

GALLERY: dict[str, Drawing] = {
    "dynamics_times": Drawing(
        "dynamics_gallery", lambda tables: dynamics_gallery_figure.draw_times(tables["dynamics_times"])
    ),
    "dynamics_paths": Drawing(
        "dynamics_gallery",
        lambda tables: dynamics_gallery_figure.draw_paths(tables["dynamics_paths"], tables["landscapes"]),
    ),
    "dynamics_portraits": Drawing(
        "dynamics_gallery",
        lambda tables: dynamics_gallery_figure.draw_portraits(tables["portrait_fields"], tables["portrait_paths"]),
    ),
}
"""Drawings that are not about the paper, and not among ``all``."""

BEYOND: dict[str, Drawing] = {
    "beyond_quadratics": Drawing(
        "beyond_quadratics", lambda tables: beyond_quadratics_figure.draw_errors(tables["beyond_quadratics"])
    ),
    "beyond_quadratics_summary": Drawing(
        "beyond_quadratics",
        lambda tables: beyond_quadratics_figure.draw_summary(
            tables["beyond_quadratics"], tables["beyond_quadratics_orders"]
        ),
    ),
    "accuracy_and_cost": Drawing(
        "accuracy_and_cost", lambda tables: accuracy_and_cost_figure.draw(tables["accuracy_and_cost"])
    ),
    "where_it_breaks": Drawing(
        "where_it_breaks",
        lambda tables: where_it_breaks_figure.draw(
            tables["stability"], tables["tangency"], tables["jump"], tables["rounding"]
        ),
    ),
}
"""Drawings that ask the paper's question elsewhere, and take too long to be among ``all``."""

TARGETS: dict[str, tuple[str, ...]] = {
    "fig1": ("figure_1a", "figure_1b"),
    "fig2": ("figure_2a", "figure_2b"),
    "fig5": ("figure_5a", "figure_5b"),
    "real-data": ("real_data",),
    "dissipation": ("dissipation",),
    "orders": ("sensitivity_orders",),
    "dynamics": tuple(GALLERY),
    "beyond": ("beyond_quadratics", "beyond_quadratics_summary"),
    "cost": ("accuracy_and_cost",),
    "limits": ("where_it_breaks",),
    "all": tuple(DRAWINGS),
}


def reproduce(targets: Sequence[str], scale: str, output: Path, runner: Runner) -> list[Path]:
    """Run what the targets need and write figures, data, parameters and claims.

    Parameters
    ----------
    targets
        Any of ``fig1``, ``fig2``, ``fig5``, ``real-data``, ``dissipation``, ``orders``, ``dynamics``, ``beyond``,
        ``cost``, ``limits`` and ``all``; the last one verifies Theorem 1 and Proposition 1 as well, and leaves the
        four before it out.
    scale
        ``"quick"`` (minutes), ``"paper"`` (the paper's grid), or ``"tiny"`` for a test of the machinery.
    output
        Folder to write to; it is made.
    runner
        Runs the experiments; the claims are shown on its console.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ValueError
        For a target or a scale that does not exist.
    """
    for target in targets:
        _check("target", target, TARGETS)
    _check("scale", scale, gradient_error.GRIDS)
    console = runner.console or Console(quiet=True)
    start = time.perf_counter()
    drawings = {
        name: drawing
        for name, drawing in (DRAWINGS | GALLERY | BEYOND).items()
        if any(name in TARGETS[target] for target in targets)
    }
    needed = {drawing.experiment for drawing in drawings.values()}
    if "all" in targets:
        needed.add("verification")
    output.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    tables: dict[str, pd.DataFrame] = {}
    for name in (name for name in EXPERIMENTS if name in needed):
        results, files = _run(name, scale, output, runner, console)
        tables.update(results)
        written += files
    for name, drawing in drawings.items():
        written += save(drawing.draw(tables), output / name)
    written += _write_claims(judge(tables), "all" in targets, output, console)
    console.print(
        f"{len(written)} files in {output}, {time.perf_counter() - start:.0f} s", highlight=False, soft_wrap=True
    )
    return written


def _check(name: str, value: str, accepted: Mapping[str, object]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")


def _run(
    name: str, scale: str, output: Path, runner: Runner, console: Console
) -> tuple[dict[str, pd.DataFrame], list[Path]]:
    """Run an experiment; write its tables, and one JSON with where they come from."""
    experiment = EXPERIMENTS[name]
    start = time.perf_counter()
    tables = experiment.run(scale, runner)
    seconds = time.perf_counter() - start
    console.print(f"{name}: {sum(map(len, tables.values()))} rows in {seconds:.0f} s", highlight=False)
    written = []
    for table_name, table in tables.items():
        path = output / f"{table_name}.csv"
        table.to_csv(path, index=False)
        written.append(path)
    record = {
        "experiment": name,
        "tables": [path.name for path in written],
        "scale": scale,
        "cell_seconds": round(sum(float(table.get("seconds", pd.Series()).sum()) for table in tables.values()), 1),
        "computed_by": _provenance(tables),
        "parameters": experiment.parameters(scale),
    }
    return tables, [*written, _write_json(output / f"{name}.json", record)]


def _provenance(tables: Tables) -> list[dict[str, Any]]:
    """Return the runs that computed the tables: dates, versions, commits and machines."""
    runs: list[dict[str, Any]] = []
    for table in tables.values():
        runs += [run for run in table.attrs.get("provenance", []) if run not in runs]
    return runs


def _write_claims(claims: list[JudgedClaim], complete: bool, output: Path, console: Console) -> list[Path]:
    """Show the claims; write them where all experiments were run, so that a part does not replace the whole."""
    if not complete:
        claims = [claim for claim in claims if claim.verdict != Verdict.NOT_TESTED]
    console.print(_claims_table(claims))
    if not complete:
        return []
    markdown = output / "claims.md"
    markdown.write_text(as_markdown(claims), encoding="utf-8")
    return [_write_json(output / "claims.json", [asdict(claim) for claim in claims]), markdown]


def _write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _claims_table(claims: list[JudgedClaim]) -> Table:
    colours = {Verdict.HOLDS: "green", Verdict.FAILS: "bold red", Verdict.NOT_TESTED: "dim"}
    table = Table(title="The paper's claims on these runs", show_lines=True)
    for column in ("place", "claim", "verdict", "measured"):
        table.add_column(column, overflow="fold")
    for claim in claims:
        verdict = Text(claim.verdict.value, style=colours[claim.verdict])
        table.add_row(Text(claim.place), Text(claim.statement), verdict, Text(claim.measured))
    return table
