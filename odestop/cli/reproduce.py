"""``odestop reproduce``: the paper's figures and claims, from the experiments of a checkout."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import odestop
from odestop.cli.compare import STORE_NAME, backend, failures_on
from odestop.data.files import FOLDER_VARIABLE
from odestop.sweeps import Runner, Store


class Target(StrEnum):
    """What can be reproduced."""

    FIGURE_1 = "fig1"
    FIGURE_2 = "fig2"
    FIGURE_5 = "fig5"
    REAL_DATA = "real-data"
    DISSIPATION = "dissipation"
    ORDERS = "orders"
    DYNAMICS = "dynamics"
    BEYOND = "beyond"
    COST = "cost"
    LIMITS = "limits"
    ITERATES = "iterates"
    BILEVEL = "bilevel"
    FIGURE_3 = "fig3"
    FIGURE_4 = "fig4"
    NETWORK = "network"
    ALL = "all"


class Scale(StrEnum):
    """How large the grids are."""

    QUICK = "quick"
    MIDDLE = "middle"
    PAPER = "paper"


def reproduce(
    target: Annotated[Target, typer.Argument(help="What to reproduce; all is all from fig1 to orders.")] = Target.ALL,
    scale: Annotated[
        Scale,
        typer.Option(help="quick: d up to 1000, minutes; paper: the paper's grid up to d = 10000; middle: fig3 alone."),
    ] = Scale.QUICK,
    output: Annotated[Path, typer.Option(help="Folder for figures, data and claims.")] = Path("results"),
    workers: Annotated[
        int | None, typer.Option(help="Processes; 1 stays in this one.", show_default="one per processor")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler to run on instead, such as tcp://127.0.0.1:8786.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try cells again that failed.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of data files for fig4; ODESTOP_DATA by default.")
    ] = None,
) -> None:
    """Recompute the paper's figures and test its claims; figures, data and claims go to a folder.

    What has been computed is kept there too: a run that was interrupted goes on where it stopped.
    """
    checkout = find_checkout()
    if checkout is None:
        typer.echo(
            "Error: the experiments are not part of the installed package. Clone the odestop repository and run "
            "odestop reproduce there.",
            err=True,
        )
        raise typer.Exit(1)
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    try:
        import_module("sklearn")
        from experiments.reproduce import reproduce as run
    except ModuleNotFoundError as error:
        typer.echo(f"Error: {error.name} is needed; install it with pip install 'odestop[experiments]'.", err=True)
        raise typer.Exit(1) from error
    if data_dir is not None:
        # Cells may run in other processes, which inherit the environment.
        os.environ[FOLDER_VARIABLE] = str(data_dir.resolve())
    console = Console()
    try:
        with Store(output / STORE_NAME) as store, failures_on(console):
            runner = Runner(store, backend(workers, cluster), retry=retry, console=console)
            run([target.value], scale.value, output, runner)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error


def find_checkout() -> Path | None:
    """Return the folder that holds the experiments: beside the package, or else the current one; None without."""
    candidates = (Path(odestop.__file__).resolve().parent.parent, Path.cwd())
    return next((folder for folder in candidates if _is_checkout(folder)), None)


def _is_checkout(folder: Path) -> bool:
    return all((folder / file).is_file() for file in ("experiments/reproduce.py", "figures/figure_1a.py"))
