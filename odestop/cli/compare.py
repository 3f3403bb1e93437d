"""``odestop compare``: ∇T against h ∇N over a grid, with a store, a table and a figure."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from odestop.cli.assignments import split_assignment
from odestop.comparison_grid import (
    AXES,
    SENSITIVITIES,
    ComparisonGrid,
    grid_from_toml,
    make_grid,
    problem_columns,
    problem_in_words,
    summarize,
)
from odestop.question import STEP_MAPS
from odestop.registry import CRITERIA, DYNAMICS, OBJECTIVES
from odestop.solvers import METHODS
from odestop.sweeps import (
    Backend,
    DaskCluster,
    FailedCellsWarning,
    InProcess,
    ProcessPool,
    Runner,
    Store,
    provenance,
)

STORE_NAME = "sweeps.sqlite"
EPILOG = "\n\n".join(
    (
        "[bold]Examples[/]",
        "odestop compare --threshold 1e-3,1e-4 --step-size 0.1,0.2,0.4,0.8 --seed 0,1,2",
        "odestop compare --dynamics gradient-flow,heavy-ball --objective logistic-regression --set regularization=0.1",
        "odestop compare --dynamics my_file.py:MyFlow --sensitivity definition3,hermite --step-map euler,heun",
        "odestop compare --grid grid.toml --workers 8",
        "[dim]An option with several values takes them with commas between, and the grid is every combination. What "
        "has been computed is kept, so that an interrupted comparison goes on where it stopped.[/]",
    )
)

_grid = partial(typer.Option, rich_help_panel="The grid", metavar="<values>")
_same = partial(typer.Option, rich_help_panel="The same for all cells")
_run = partial(typer.Option, rich_help_panel="How to run it")
_DEFAULTS = ComparisonGrid()


def _default(name: str) -> str:
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in getattr(_DEFAULTS, name))


def compare(
    grid: Annotated[
        Path | None, _run(help="TOML file with the fields of the grid; options come before it.", metavar="<file>")
    ] = None,
    objective: Annotated[
        str | None, _grid(help=f"f: {', '.join(OBJECTIVES)}.", show_default=_default("objective"))
    ] = None,
    dynamics: Annotated[
        str | None,
        _grid(help=f"dx/dt: {', '.join(DYNAMICS)}, or file.py:Class.", show_default=_default("dynamics")),
    ] = None,
    criterion: Annotated[
        str | None, _grid(help=f"J: {', '.join(CRITERIA)}.", show_default=_default("criterion"))
    ] = None,
    threshold: Annotated[str | None, _grid(help="ε.", show_default=_default("threshold"))] = None,
    step_size: Annotated[str | None, _grid(help="h.", show_default=_default("step_size"))] = None,
    step_map: Annotated[
        str | None, _grid(help=f"Discretisation: {', '.join(STEP_MAPS)}.", show_default=_default("step_map"))
    ] = None,
    sensitivity: Annotated[
        str | None, _grid(help=f"Gradient of N: {', '.join(SENSITIVITIES)}.", show_default=_default("sensitivity"))
    ] = None,
    dimension: Annotated[str | None, _grid(help="d.", show_default="the objective's")] = None,
    condition_number: Annotated[str | None, _grid(help="κ.", show_default="the objective's")] = None,
    seed: Annotated[str | None, _grid(help="Seed of every random draw.", show_default=_default("seed"))] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="<name>=<values>",
            help="A parameter of the objectives, the dynamics or the criteria; may be repeated.",
            rich_help_panel="The grid",
        ),
    ] = None,
    x0: Annotated[
        str | None,
        _same(help="Initial point, as in odestop solve.", metavar="<numbers>", show_default="the objective's"),
    ] = None,
    dtype: Annotated[str | None, _same(help="Precision.", show_default=_DEFAULTS.dtype)] = None,
    method: Annotated[
        str | None, _same(help=f"ODE solver: {', '.join(METHODS)}.", show_default=_DEFAULTS.method)
    ] = None,
    rtol: Annotated[float | None, _same(help="Relative tolerance.", show_default=f"{_DEFAULTS.rtol:g}")] = None,
    atol: Annotated[float | None, _same(help="Absolute tolerance.", show_default=f"{_DEFAULTS.atol:g}")] = None,
    t_max: Annotated[float | None, _same(help="Horizon of the flow.", show_default="inf")] = None,
    max_steps: Annotated[
        int | None, _same(help="Steps allowed to each of the two.", show_default=str(_DEFAULTS.max_steps))
    ] = None,
    output: Annotated[Path, _run(help="Folder for the store, the table and the figure.")] = Path("results"),
    name: Annotated[str, _run(help="Name of the table and of the figure.")] = "comparison",
    workers: Annotated[
        int | None, _run(help="Processes; 1 stays in this one.", show_default="one per processor")
    ] = None,
    cluster: Annotated[
        str | None, _run(help="Address of a Dask scheduler to run on instead, such as tcp://127.0.0.1:8786.")
    ] = None,
    time_limit: Annotated[float | None, _run(help="Seconds that a cell may take.")] = None,
    retry: Annotated[bool, _run("--retry", help="Try cells again that failed or took too long.")] = False,
) -> None:
    """Compare the gradients of T and of N over a grid: relative error of h∇N, its order in h, and its cost."""
    console = Console(highlight=False)
    try:
        chosen = make_grid(_values(grid, assignments or [], locals()))
        sweep = chosen.sweep()
        output.mkdir(parents=True, exist_ok=True)
        with Store(output / STORE_NAME) as store, failures_on(console):
            runner = Runner(store, backend(workers, cluster), time_limit, retry, console=console)
            table = runner.run(sweep)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    except ModuleNotFoundError as error:
        raise typer.BadParameter(
            f"cluster needs {error.name}; install it with pip install 'odestop[cluster]'"
        ) from error
    if table.empty:
        typer.echo("Error: no cell has a result; odestop results show comparison tells why.", err=True)
        raise typer.Exit(1)
    _show(table, console)
    written = _write(table, chosen, output, name, console)
    console.print(f"{', '.join(path.name for path in written)} in {output}", soft_wrap=True)


def backend(workers: int | None, cluster: str | None) -> Backend:
    """Return where to run: on a cluster, in this process if there is one worker, or else in a pool."""
    if cluster is not None:
        return DaskCluster(cluster)
    pool = ProcessPool(workers)
    return InProcess() if pool.size == 1 else pool


@contextmanager
def failures_on(console: Console) -> Iterator[None]:
    """Show warnings of failed cells on the console, where the progress is."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FailedCellsWarning)
            yield
    finally:
        for warning in caught:
            if issubclass(warning.category, FailedCellsWarning):
                console.print(f"[bold red]{escape(str(warning.message))}[/]", soft_wrap=True)
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _values(grid: Path | None, assignments: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the grid that the file and the options give."""
    values = {} if grid is None else grid_from_toml(grid)
    for name in AXES:
        if options[name] is not None:
            values[name] = options[name].split(",")
    for name in ("x0", "dtype", "method", "rtol", "atol", "t_max", "max_steps"):
        if options[name] is not None:
            values[name] = options[name]
    parameters = dict(values.get("parameters", {}))
    for name in ("dimension", "condition_number"):
        if options[name] is not None:
            parameters[name] = options[name].split(",")
    for assignment in assignments:
        name, text = split_assignment(assignment, "name=values")
        parameters[name] = text.split(",")
    return values | {"parameters": parameters}


def _show(table: pd.DataFrame, console: Console) -> None:
    problems = problem_columns(table)
    # What is the same in all rows is said once, below.
    rules = [name for name in ("step_map", "sensitivity") if table[name].nunique() > 1]
    same = [str(table[name].iloc[0]) for name in ("step_map", "sensitivity") if name not in rules]
    shown = Table(
        title="Relative error of h∇N against ∇T",
        caption=", ".join([*same, "one row per curve over h and the seeds"]),
    )
    shown.add_column("problem", overflow="fold", min_width=28)
    for column in ("ε", *(name.replace("_", " ") for name in rules), "order in h", "error", "NFE ratio", "cells"):
        shown.add_column(column, overflow="fold")
    for row in summarize(table).to_dict("records"):
        shown.add_row(
            problem_in_words({name: row[name] for name in problems}),
            f"{row['threshold']:g}",
            *(str(row[name]) for name in rules),
            "–" if math.isnan(row["order"]) else f"{row['order']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
            _range(row, "relative_error"),
            _range(row, "nfe_ratio"),
            f"{row['compared']}/{row['cells']}",
        )
    console.print(shown)


def _range(row: dict[Any, Any], name: str) -> str:
    low, high = (f"{row[f'{name}_{end}']:.2g}" for end in ("smallest", "largest"))
    return "–" if low == "nan" else low if low == high else f"{low} to {high}"


def _write(table: pd.DataFrame, grid: ComparisonGrid, output: Path, name: str, console: Console) -> list[Path]:
    """Write the table, what it was made with, and the figure if there is something to draw."""
    # Other commands should not wait for matplotlib.
    from odestop.plotting import comparison as figure
    from odestop.plotting.style import save

    path = output / f"{name}.csv"
    table.to_csv(path, index=False)
    record = {
        "grid": {key: None if value == math.inf else value for key, value in asdict(grid).items()},
        **provenance(),
    }
    parameters = output / f"{name}.json"
    parameters.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    written = [path, parameters]
    try:
        written += save(figure.draw(table), output / name)
    except ValueError as error:
        console.print(f"no figure: {error}", soft_wrap=True)
    return written
