"""∇T against h ∇N over a grid of objectives, dynamics, thresholds, step sizes and seeds: `odestop compare`."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from odestop._validation import check_choice, check_count, check_positive
from odestop.comparison import fit_order
from odestop.question import (
    DTYPES,
    STEP_MAPS,
    Answer,
    Question,
    answer_by_flow,
    answer_by_steps,
    ask,
    check_names,
    compare,
    find_entries,
)
from odestop.registry import parse_number, source_digest
from odestop.solvers import METHODS
from odestop.sweeps import Record, Sweep

SENSITIVITIES = ("definition3", "interpolated", "hermite")
_FEWEST_STEP_SIZES = 3
_BY_STEPS = ("step_map", "step_size", "sensitivity")

Number = float | int


@dataclass(frozen=True)
class ComparisonCell:
    """One comparison.

    Attributes
    ----------
    objective, dynamics, criterion
        Names in the registry, or classes in Python files.
    parameters
        Names and values of parameters of the three.
    seed
        Of every random draw.
    threshold
        ε.
    step_map, step_size, sensitivity
        How N is computed and differentiated: ``"euler"``, ``"heun"`` or ``"rk4"`` of step size h.
    x0
        Numbers with commas between, or None for the objective's customary point.
    dtype
        ``"float64"`` or ``"float32"``.
    method, rtol, atol, t_max
        How T is computed.
    max_steps
        Steps allowed to each of the two.
    code
        Digest of the Python files among the names.
    """

    objective: str
    dynamics: str
    criterion: str
    parameters: tuple[tuple[str, Number], ...]
    seed: int
    threshold: float
    step_map: str
    step_size: float
    sensitivity: str
    x0: str | None
    dtype: str
    method: str
    rtol: float
    atol: float
    t_max: float
    max_steps: int
    code: str

    def described(self) -> dict[str, Any]:
        """Return the fields by name, with those of ``parameters`` among them."""
        values = asdict(self)
        return values | dict(values.pop("parameters"))


@dataclass(frozen=True)
class ComparisonGrid:
    """Every combination of the values of each field; see `ComparisonCell`.

    Attributes
    ----------
    objective, dynamics, criterion, seed, threshold, step_map, step_size, sensitivity
        Values to combine.
    parameters
        Values to combine, by name of the parameter, such as ``{"dimension": (100, 1000)}``.  With a parameter that
        only some of the objectives or dynamics have, the others are compared without it.
    x0, dtype, method, rtol, atol, t_max, max_steps
        The same for all cells.

    Raises
    ------
    ValueError
        If a field has no values, or one that cannot be used; if a name is unknown, or a parameter is none of any
        objective, dynamics or criterion of the grid.
    """

    objective: tuple[str, ...] = ("quadratic",)
    dynamics: tuple[str, ...] = ("learned-preconditioner",)
    criterion: tuple[str, ...] = ("squared-gradient-norm",)
    seed: tuple[int, ...] = (0,)
    threshold: tuple[float, ...] = (1e-3,)
    step_map: tuple[str, ...] = ("euler",)
    step_size: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    sensitivity: tuple[str, ...] = ("definition3",)
    parameters: tuple[tuple[str, tuple[Number, ...]], ...] = ()
    x0: str | None = None
    dtype: str = "float64"
    method: str = "dopri5"
    rtol: float = 1e-7
    atol: float = 1e-9
    t_max: float = math.inf
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        for name in (*AXES, *(name for name, _ in self.parameters)):
            values = getattr(self, name) if name in AXES else dict(self.parameters)[name]
            if not values:
                raise ValueError(f"{name} must have at least one value, got none")
        for name, choices in (("step_map", STEP_MAPS), ("sensitivity", SENSITIVITIES)):
            for value in getattr(self, name):
                check_choice(name, value, tuple(choices))
        check_choice("method", self.method, tuple(METHODS))
        check_choice("dtype", self.dtype, tuple(DTYPES))
        for step_size in self.step_size:
            check_positive("step_size", step_size)
        for name in ("rtol", "atol"):
            check_positive(name, getattr(self, name), allow_zero=name == "atol")
        check_count("max_steps", self.max_steps)
        everything = [
            entry
            for names in itertools.product(self.objective, self.dynamics, self.criterion)
            for entry in find_entries(*names)
        ]
        check_names(dict(self.parameters), everything)

    def cells(self) -> list[ComparisonCell]:
        """Return the cells; those that share an ODE solve follow each other."""
        same = {name: getattr(self, name) for name in ("x0", "dtype", "method", "rtol", "atol", "t_max", "max_steps")}
        cells = []
        for names in itertools.product(self.objective, self.dynamics, self.criterion):
            code = source_digest(names)
            known = {parameter.name for entry in find_entries(*names) for parameter in entry.parameters}
            axes = [[(name, value) for value in values] for name, values in self.parameters if name in known]
            combinations = itertools.product(
                itertools.product(*axes), self.seed, self.threshold, self.step_map, self.step_size, self.sensitivity
            )
            cells += [
                ComparisonCell(*names, parameters, seed, threshold, step_map, step_size, rule, **same, code=code)
                for parameters, seed, threshold, step_map, step_size, rule in combinations
            ]
        return cells

    def sweep(self) -> Sweep:
        """Return what to run."""
        return Sweep(
            "comparison",
            self.cells(),
            solve,
            cost=_cost,
            group=_flow_part,
            describe=ComparisonCell.described,
        )


AXES = ("objective", "dynamics", "criterion", "seed", "threshold", "step_map", "step_size", "sensitivity")
"""The fields of a grid that have several values."""


def grid_from_toml(path: Path) -> dict[str, Any]:
    """Read the fields of a grid from a TOML file; a field with several values may have one without brackets.

    Parameters
    ----------
    path
        A file such as ``threshold = [1e-3, 1e-4]``, one line per field, and a table ``[parameters]``.

    Raises
    ------
    ValueError
        If the file cannot be read, is not TOML, or has a name that is no field.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"grid must be a file that can be read, got {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"grid must be a TOML file, got {path}: {error}") from error
    known = [field.name for field in fields(ComparisonGrid)]
    for name in content:
        if name not in known:
            raise ValueError(f"grid must have fields among {', '.join(known)}, got {name!r} in {path}")
    if not isinstance(content.get("parameters", {}), dict):
        raise ValueError(f"parameters must be a table, such as [parameters] and dimension = 100, in {path}")
    return content


def make_grid(values: Mapping[str, Any]) -> ComparisonGrid:
    """Make a grid from the values that a file or options give, single or in lists, and parameters as a dictionary.

    Raises
    ------
    ValueError
        If a value is of the wrong kind, or what `ComparisonGrid` refuses.
    """
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name == "parameters":
            pairs = {key: tuple(_number(key, item) for item in _as_list(item)) for key, item in value.items()}
            given[name] = tuple(pairs.items())
        elif name in AXES:
            given[name] = tuple(_typed(name, item) for item in _as_list(value))
        else:
            given[name] = _typed(name, value)
    return ComparisonGrid(**given)


def solve(cell: ComparisonCell) -> Record:
    """Answer the question by the flow and by its steps, and compare the gradients; pure.

    Returns
    -------
    dict
        T, N, h N, both statuses, norms of ∇T and h ∇N, their relative error and cosine, evaluations and VJPs of both,
        and the ratio of the evaluations.  What has no value, as where the threshold is not reached, is nan.
    """
    question, flow = _answer_of_flow(_flow_part(cell))
    steps = answer_by_steps(
        question,
        step_size=cell.step_size,
        sensitivity=cell.sensitivity,
        max_steps=cell.max_steps,
        step_map=cell.step_map,
    )
    return {
        "number_of_parameters": sum(parameter.numel() for parameter in question.parameters),
        "time": flow.time,
        "steps": steps.steps,
        "scaled_steps": steps.time,
        "status_continuous": flow.status.name,
        "status_discrete": steps.status.name,
        "time_gradient_norm": flow.gradient_norm,
        "scaled_steps_gradient_norm": steps.gradient_norm,
        **compare(flow, steps),
        "nfe_continuous": flow.nfe,
        "nfe_discrete": steps.nfe,
        "vjps_continuous": flow.vjps,
        "vjps_discrete": steps.vjps,
    }


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per curve of relative error against h.

    Parameters
    ----------
    table
        What a `odestop.sweeps.Runner` returns for `ComparisonGrid.sweep`.

    Returns
    -------
    pandas.DataFrame
        `problem_columns`, ``threshold``, ``step_map`` and ``sensitivity``; ``cells``, and ``compared``, the number of
        cells with both gradients; the fitted ``order`` in h with its 95 % interval ``low`` to ``high`` (nan with
        fewer than three step sizes); the smallest and largest ``relative_error``; smallest and largest ``nfe_ratio``.
    """
    by = [*problem_columns(table), "threshold", "step_map", "sensitivity"]
    rows = []
    for key, curve in table.groupby(by, dropna=False, sort=False):
        compared = curve[curve["relative_error"].gt(0) & curve["relative_error"].lt(math.inf)]
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "cells": len(curve),
                "compared": len(compared),
                **_fitted_order(compared),
                **_extremes(compared, "relative_error"),
                **_extremes(compared, "nfe_ratio"),
            }
        )
    return pd.DataFrame(rows)


def problem_columns(table: pd.DataFrame) -> list[str]:
    """Return the parameters that tell the problems of a table apart: objective, dynamics, and what else varies.

    Threshold, seed, step size, step map and sensitivity are not among them.
    """
    parameters = list(table.columns[: table.columns.get_loc("number_of_parameters")])
    never = ("threshold", "seed", "code", *_BY_STEPS)
    return [
        name
        for name in parameters
        if name in ("objective", "dynamics") or (name not in never and table[name].nunique(dropna=False) > 1)
    ]


def problem_in_words(values: Mapping[str, Any]) -> str:
    """Name a problem by the values of its `problem_columns`.

    Examples
    --------
    >>> problem_in_words({"objective": "quadratic", "dynamics": "flows/my_file.py:MyFlow", "dimension": 10})
    'my_file.py:MyFlow on quadratic, dimension 10'
    """
    objective, dynamics = (str(values[name]).rpartition("/")[2] for name in ("objective", "dynamics"))
    rest = {name: value for name, value in values.items() if name not in ("objective", "dynamics")}
    written = [
        f"{name.replace('_', ' ')} {value if isinstance(value, str) else format(value, 'g')}"
        for name, value in rest.items()
        if not pd.isna(value)
    ]
    return ", ".join([f"{dynamics} on {objective}", *written])


def _flow_part(cell: ComparisonCell) -> ComparisonCell:
    """Return the cell without what the flow does not depend on."""
    return replace(cell, step_map="", step_size=0.0, sensitivity="")


@lru_cache(maxsize=1)
def _answer_of_flow(cell: ComparisonCell) -> tuple[Question, Answer]:
    values = dict(cell.parameters)
    question = ask(
        cell.objective, cell.dynamics, cell.criterion, cell.threshold, cell.x0, cell.dtype, values, cell.seed
    )
    flow = answer_by_flow(
        question, method=cell.method, rtol=cell.rtol, atol=cell.atol, t_max=cell.t_max, max_steps=cell.max_steps
    )
    return question, flow


def _cost(cell: ComparisonCell) -> float:
    """Number of evaluations up to a factor, times a guess of what one costs."""
    evaluations = STEP_MAPS[cell.step_map].evaluations_per_step / cell.step_size
    return evaluations * (1.0 + dict(cell.parameters).get("dimension", 100) / 1000)


def _fitted_order(curve: pd.DataFrame) -> dict[str, float]:
    if curve["step_size"].nunique() < _FEWEST_STEP_SIZES:
        return dict.fromkeys(("order", "low", "high"), math.nan)
    fit = fit_order(curve["step_size"].to_numpy(), curve["relative_error"].to_numpy())
    return {"order": fit.order, "low": fit.low, "high": fit.high}


def _extremes(curve: pd.DataFrame, column: str) -> dict[str, float]:
    return {f"{column}_smallest": curve[column].min(), f"{column}_largest": curve[column].max()}


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _typed(name: str, value: Any) -> Any:
    """Turn a value into the type of a field, whether it comes as text or as a number."""
    kind = _KINDS[name]
    if kind is str:
        if not isinstance(value, str):
            raise ValueError(f"{name} must be text, got {value!r}")
        return value
    number = _number(name, value) if value not in ("inf", math.inf) else math.inf
    if kind is int:
        if number != int(number):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        return int(number)
    return float(number)


def _number(name: str, value: Any) -> Number:
    if isinstance(value, str):
        value = parse_number(name, value)
        return int(value) if value.is_integer() else value
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return value


_KINDS: dict[str, type] = {
    **dict.fromkeys(("objective", "dynamics", "criterion", "step_map", "sensitivity", "x0", "dtype", "method"), str),
    **dict.fromkeys(("threshold", "step_size", "rtol", "atol", "t_max"), float),
    **dict.fromkeys(("seed", "max_steps"), int),
}
