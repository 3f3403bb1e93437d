"""``odestop results``: what a store holds, as a list, cell by cell, and as a file for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from odestop.cli.compare import STORE_NAME
from odestop.sweeps import CellStatus, Row, Store

app = typer.Typer(help="List, show and export what sweeps have computed.", no_args_is_help=True, add_completion=False)

_Path = Annotated[Path, typer.Option("--store", help="The store of the results.", metavar="<file>")]
_Sweep = Annotated[str, typer.Argument(help="Name of the sweep, as odestop results list shows it.", metavar="<sweep>")]
_Status = Annotated[CellStatus | None, typer.Option(help="Only cells with this status.", show_default="all")]
_DEFAULT = Path("results") / STORE_NAME


@app.command("list")
def list_sweeps(store: _Path = _DEFAULT) -> None:
    """List the sweeps: one line per sweep and version of the code that made its results."""
    with _opened(store) as opened:
        sweeps = opened.sweeps()
    table = Table(title=Text(str(store)))
    for column in sweeps.columns:
        table.add_column(str(column).removeprefix("git_"), overflow="fold")
    for row in sweeps.to_dict("records"):
        row["seconds"] = f"{row['seconds']:.0f}"
        row["date"] = row["date"][:16].replace("T", " ")
        row["git_commit"] = (row["git_commit"] or "–")[:8]
        table.add_row(*(Text(str(value)) for value in row.values()))
    Console(highlight=False).print(table)


@app.command("show")
def show(sweep: _Sweep, store: _Path = _DEFAULT, status: _Status = None) -> None:
    """Show the cells of a sweep, one JSON object per line, with parameters, record, error and seconds."""
    with _opened(store) as opened:
        rows = _rows(opened, sweep, status)
    for row in rows:
        typer.echo(json.dumps({"status": row.status, "seconds": row.seconds, **_content(row)}))


@app.command("export")
def export(
    sweep: _Sweep,
    path: Annotated[Path, typer.Argument(help="A file that ends in .csv or .parquet.", metavar="<file>")],
    store: _Path = _DEFAULT,
    status: _Status = CellStatus.DONE,
) -> None:
    """Write the cells of a sweep as a table: a column per parameter and per number measured."""
    if path.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"file must end in .csv or .parquet, got {path}")
    with _opened(store) as opened:
        rows = _rows(opened, sweep, status)
    table = pd.DataFrame(
        {
            **row.parameters,
            **(row.record or {}),
            "status": row.status.value,
            "error": row.error,
            "seconds": row.seconds,
            "code": row.fingerprint[:8],
        }
        for row in rows
    )
    try:
        table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path, index=False)
    except ImportError as error:
        raise typer.BadParameter("Parquet needs pyarrow; install it with pip install 'odestop[parquet]'") from error
    except OSError as error:
        raise typer.BadParameter(f"file must be in a folder that exists, got {path}: {error.strerror}") from error
    typer.echo(f"{len(table)} cells in {path}")


def _opened(path: Path) -> Store:
    """Open a store that exists."""
    if not path.is_file():
        raise typer.BadParameter(f"--store must be a file that odestop compare or odestop reproduce made, got {path}")
    try:
        return Store(path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _rows(store: Store, sweep: str, status: CellStatus | None) -> list[Row]:
    rows = store.rows(sweep)
    if not rows:
        known = ", ".join(dict.fromkeys(store.sweeps()["sweep"])) or "none"
        raise typer.BadParameter(f"sweep must be one in the store, got {sweep!r}; there: {known}")
    return [row for row in rows if status is None or row.status is status]


def _content(row: Row) -> dict[str, Any]:
    return {"parameters": row.parameters, **({"record": row.record} if row.record else {"error": row.error})}
