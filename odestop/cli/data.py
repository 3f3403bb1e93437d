"""``odestop data``: the data files that are known by name, and their download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from odestop.data import CATALOGUE, fetch

app = typer.Typer(no_args_is_help=True, help="List the LIBSVM files known by name, or download them.")


@app.command("list")
def list_files() -> None:
    """List the files: their size, and whether they can be downloaded by name."""
    table = Table("name", "rows", "features", "download", "terms of use")
    for entry in CATALOGUE.values():
        by_name = "by name" if entry.sha256 else "no checksum known: from a folder only"
        table.add_row(entry.name, str(entry.rows), str(entry.features), by_name, entry.licence)
    Console(highlight=False).print(table)


@app.command("fetch")
def fetch_files(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of the list.")],
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder to look in first; the one that ODESTOP_DATA names by default.")
    ] = None,
) -> None:
    """Download files that are not here yet, check them, and print where they are."""
    for name in names:
        try:
            path = fetch(name, data_dir)
        except (ValueError, OSError, ImportError) as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(code=1) from error
        typer.echo(f"{name}: {path}")
