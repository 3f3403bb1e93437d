"""From the name of a figure to its files: run the experiments, draw, and judge the paper's claims."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from experiments import (
    dissipation,
    dynamics_gallery,
    figure_1,
    gradient_error,
    real_data,
    sensitivity_orders,
    verification,
)
from experiments.claims import JudgedClaim, Verdict, as_markdown, judge
from experiments.grid import Cell, Tracker
from experiments.provenance import provenance
from figures import dissipation as dissipation_figure
from figures import dynamics_gallery as dynamics_gallery_figure
from figures import figure_1a, figure_1b, figure_2a, figure_2b, figure_5a, figure_5b
from figures import real_data as real_data_figure
from figures import sensitivity_orders as sensitivity_orders_figure
from figures.style import save

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Experiment:
    """What to run: a function of the scale, and the grids behind it, for the record."""

    run: Callable[[str, Tracker], dict[str, pd.DataFrame]]
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
}
"""Drawings that are not about the paper, and not among ``all``."""

TARGETS: dict[str, tuple[str, ...]] = {
    "fig1": ("figure_1a", "figure_1b"),
    "fig2": ("figure_2a", "figure_2b"),
    "fig5": ("figure_5a", "figure_5b"),
    "real-data": ("real_data",),
    "dissipation": ("dissipation",),
    "orders": ("sensitivity_orders",),
    "dynamics": tuple(GALLERY),
    "all": tuple(DRAWINGS),
}


def reproduce(targets: Sequence[str], scale: str, output: Path, console: Console) -> list[Path]:
    """Run what the targets need and write figures, data, parameters and claims.

    Parameters
    ----------
    targets
        Any of ``fig1``, ``fig2``, ``fig5``, ``real-data``, ``dissipation``, ``orders``, ``dynamics`` and ``all``; the
        last one verifies Theorem 1 and Proposition 1 as well, and leaves ``dynamics`` out.
    scale
        ``"quick"`` (minutes), ``"paper"`` (the paper's grid), or ``"tiny"`` for a test of the machinery.
    output
        Folder to write to; it is made.
    console
        Where progress and the claims are shown.

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
    start = time.perf_counter()
    drawings = {
        name: drawing
        for name, drawing in (DRAWINGS | GALLERY).items()
        if any(name in TARGETS[target] for target in targets)
    }
    needed = {drawing.experiment for drawing in drawings.values()}
    if "all" in targets:
        needed.add("verification")
    output.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    tables: dict[str, pd.DataFrame] = {}
    for name in (name for name in EXPERIMENTS if name in needed):
        results, files = _run(name, scale, output, console)
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


def _run(name: str, scale: str, output: Path, console: Console) -> tuple[dict[str, pd.DataFrame], list[Path]]:
    """Run an experiment; write its tables, and one JSON with where they come from."""
    experiment = EXPERIMENTS[name]
    start = time.perf_counter()
    tables = experiment.run(scale, progress_on(console))
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
        "wall_time_seconds": round(seconds, 1),
        **provenance(),
        "parameters": experiment.parameters(scale),
    }
    return tables, [*written, _write_json(output / f"{name}.json", record)]


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


def progress_on(console: Console) -> Tracker:
    """Return a tracker that shows cells done, cells per second and the time left, on a console."""

    def track(name: str, cells: Sequence[Cell], costs: Sequence[float]) -> Iterator[Cell]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            _CellsColumn(),
            _RateColumn(),
            _TimeColumn(elapsed_when_finished=True),
        )
        # Cells take up to minutes, so the speed is that of the whole run so far.
        with Progress(*columns, console=console, speed_estimate_period=1e6) as progress:
            task = progress.add_task(name, total=sum(costs), cells=len(cells), done=0)
            for done, (cell, cost) in enumerate(zip(cells, costs, strict=True), start=1):
                yield cell
                progress.update(task, advance=cost, done=done)

    return track


class _CellsColumn(ProgressColumn):
    """Cells done, of all; the bar itself counts expected cost."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['done']}/{task.fields['cells']} cells")


class _RateColumn(ProgressColumn):
    """Cells per second."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time or task.elapsed
        if not elapsed or not task.fields["done"]:
            return Text("–/s")
        return Text(f"{task.fields['done'] / elapsed:.1f}/s")


class _TimeColumn(TimeRemainingColumn):
    """The time left, and at the end the time taken."""

    def render(self, task: Task) -> Text:
        return Text.assemble(super().render(task), " in all" if task.finished else " left")
