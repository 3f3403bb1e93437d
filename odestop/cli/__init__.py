"""The ``odestop`` command."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import odestop
from odestop.cli import compare, data, explore, listing, reproduce, results, solve, train

# Typer does not export the class of all mistakes in using a command.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class OneLineErrors(TyperGroup):
    """A group of commands that answers a mistake with one line on stderr and exit code 2."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command and leave the interpreter, unless ``standalone_mode=False``."""
        if not options.get("standalone_mode", True):
            return super().main(*args, **options)
        try:
            exit_code = super().main(*args, **{**options, "standalone_mode": False})
        except _UsageError as error:
            # Empty where no command was named: the help, already shown, says it all.
            if message := _message(error):
                typer.echo(f"Error: {message}", err=True)
            exit_code = 2
        except typer.Abort:
            exit_code = 1
        sys.exit(exit_code if isinstance(exit_code, int) else 0)


def _message(error: Any) -> str:
    """Say what was wrong on one line."""
    return " ".join(error.format_message().removeprefix("Invalid value: ").split())


app = typer.Typer(
    cls=OneLineErrors,
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"odestop {odestop.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _odestop(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Differentiable stopping times of optimizers, as ODEs and as the discrete algorithms people run."""


app.command("solve", epilog=solve.EPILOG)(solve.solve)
app.command("compare", epilog=compare.EPILOG)(compare.compare)
app.command("explore", epilog=explore.EPILOG)(explore.explore)
app.command("train", epilog=train.EPILOG)(train.train)
app.command("list")(listing.list_entries)
app.command("reproduce")(reproduce.reproduce)
app.add_typer(results.app, name="results")
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line: the entry point of ``odestop`` and of ``python -m odestop``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that does not know ∇ shows a question mark.
            stream.reconfigure(errors="replace")
    app()
