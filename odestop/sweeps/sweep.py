"""What to run: cells, the pure function that solves one, and the key under which its record is kept."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from types import FunctionType
from typing import Any

import odestop

Record = dict[str, Any]
"""What a cell gives: numbers, strings, booleans and None by name."""


@dataclass(frozen=True)
class Sweep:
    """A grid of cells and a pure function cell → record.

    Parameters
    ----------
    name
        Name of the sweep in the store and in the progress report.
    cells
        Instances of a frozen dataclass whose fields are numbers, strings, booleans, None, or tuples of these.  Equal
        cells are solved once.
    solve
        Maps a cell to a record.  A function at the top level of a module, or a `functools.partial` of one, so that
        other processes find it.  It must be pure: the same cell always gives the same record.
    cost
        Expected cost of a cell in any unit; expensive cells go first, and the time left is told from it.
    group
        Cells of equal group share work: one worker solves them one after the other, in their order.
    describe
        Maps a cell to its parameters by name, as they stand in the store and in the table; its fields by default.
    alone
        Solve in this process, one cell at a time, whatever the backend: for records that hold measured times.

    Raises
    ------
    ValueError
        If ``solve`` is not a function, a cell is not a dataclass instance, or a field of it holds something else than
        told above.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from odestop.sweeps import Runner, Sweep
    >>> @dataclass(frozen=True)
    ... class Cell:
    ...     side: float
    >>> def area(cell):
    ...     return {"area": cell.side**2}
    >>> Runner().run(Sweep("squares", [Cell(1.0), Cell(3.0)], area))[["side", "area"]].values.tolist()
    [[1.0, 1.0], [3.0, 9.0]]
    """

    name: str
    cells: Sequence[Any]
    solve: Callable[[Any], Record]
    cost: Callable[[Any], float] = lambda cell: 1.0
    group: Callable[[Any], Hashable] = lambda cell: cell
    describe: Callable[[Any], dict[str, Any]] = asdict
    alone: bool = False

    def __post_init__(self) -> None:
        if not isinstance(_innermost(self.solve), FunctionType):
            raise ValueError(f"solve must be a function, or a functools.partial of one, got {self.solve!r}")
        for cell in self.cells:
            if not is_dataclass(cell) or isinstance(cell, type):
                raise ValueError(f"cells must hold dataclass instances, got {cell!r}")
            for name, value in self.describe(cell).items():
                if not _is_plain(value):
                    raise ValueError(
                        "cells must have fields that are numbers, strings, booleans, None or tuples of these, "
                        f"got {name}={value!r}"
                    )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the source code that the records depend on: that of odestop and of the package of ``solve``.

        The arguments of a `functools.partial` are part of it.  A record made by other code is not taken for this one.
        """
        function = _innermost(self.solve)
        digest = hashlib.sha256(f"{function.__qualname__} {_bound_arguments(self.solve)}".encode())
        for source in _sources(function):
            digest.update(source)
        return digest.hexdigest()

    def key(self, cell: Any) -> str:
        """Return what identifies a cell in a store: a hash of the sweep's name and code, and of the parameters."""
        parts = [self.name, self.fingerprint, json.dumps(self.describe(cell), sort_keys=True)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _innermost(function: Callable[..., Any]) -> Any:
    return _innermost(function.func) if isinstance(function, partial) else function


def _bound_arguments(function: Callable[..., Any]) -> str:
    """Write the arguments that partial functions have bound."""
    if not isinstance(function, partial):
        return ""
    return f"{function.args} {sorted(function.keywords.items())} {_bound_arguments(function.func)}"


def _sources(function: FunctionType) -> Iterable[bytes]:
    """Yield the source files of odestop, and of the package or the module of a function."""
    yield from _package_sources(Path(odestop.__file__).parent)
    module = sys.modules.get(function.__module__)
    top = sys.modules.get(function.__module__.partition(".")[0])
    if top is not odestop and (folders := getattr(top, "__path__", None)):
        for folder in folders:
            yield from _package_sources(Path(folder))
    elif (file := getattr(module, "__file__", None)) and Path(file).is_file():
        yield Path(file).read_bytes()
    else:
        # Typed into an interpreter: there is no file.
        yield function.__code__.co_code + repr(function.__code__.co_consts).encode()


def _package_sources(folder: Path) -> Iterable[bytes]:
    for file in sorted(folder.rglob("*.py")):
        yield file.relative_to(folder).as_posix().encode()
        yield file.read_bytes()
