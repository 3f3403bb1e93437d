"""``odestop list``: what `odestop solve` knows by name."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from odestop.registry import CRITERIA, DYNAMICS, OBJECTIVES, Entry, Parameter


def list_entries() -> None:
    """List the objectives, dynamics and criteria, with their parameters and the ranges worth exploring."""
    console = Console(highlight=False)
    _print_section(console, "Objectives", OBJECTIVES.values())
    _print_section(console, "Dynamics", DYNAMICS.values())
    _print_section(console, "Criteria", CRITERIA.values())


def _print_section(console: Console, title: str, entries: Iterable[Entry]) -> None:
    console.print(Text(title, style="bold underline"))
    for entry in entries:
        _print_entry(console, entry)
    console.print()


def _print_entry(console: Console, entry: Entry) -> None:
    special = f"  (for {entry.special_objectives})" if entry.special_objectives else ""
    console.print(Text.assemble((entry.name, "bold cyan"), "  ", entry.summary, (special, "dim")))
    if not entry.parameters:
        return
    table = Table.grid(padding=(0, 2))
    for parameter in entry.parameters:
        table.add_row("  ", parameter.name, *map(Text, _describe(parameter)))
    console.print(table)


def _describe(parameter: Parameter) -> tuple[str, str, str]:
    """Default, range and meaning of a parameter."""
    default = "" if parameter.default is None else f" = {parameter.default:g}"
    bounds = f"{parameter.low:g} … {parameter.high:g}"
    return f"{parameter.symbol}{default}", bounds, parameter.description
