"""``odestop solve``: one stopping-time question, answered by the flow and by its Euler steps."""

from __future__ import annotations

import inspect
import json
import math
import platform
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

import odestop
from odestop.cli.assignments import split_assignment
from odestop.question import (
    DTYPES,
    Answer,
    Question,
    answer_by_flow,
    answer_by_steps,
    ask,
    compare,
    warm_up,
)
from odestop.registry import CRITERIA, DYNAMICS, OBJECTIVES
from odestop.solvers import METHODS

EPILOG = "\n\n".join(
    (
        "[bold]Examples[/]",
        "odestop solve --threshold 1e-4 --step-size 0.05",
        "odestop solve --objective diagonal-quadratic --dynamics diagonal-preconditioner --set theta=0.5",
        "odestop solve --objective logistic-regression --dynamics gradient-flow --threshold 1e-4 --json",
        "[dim]odestop list shows the names and their parameters. A target that is not reached is an answer "
        "and gives exit code 0; a value that cannot be used gives exit code 2.[/]",
    )
)

_question = partial(typer.Option, rich_help_panel="The question")
_parameter = partial(typer.Option, rich_help_panel="Parameters")
_flow = partial(typer.Option, rich_help_panel="The flow, with stopping time T")
_steps = partial(typer.Option, rich_help_panel="Its Euler steps, with stopping time N")
_both = partial(typer.Option, rich_help_panel="Both")


def solve(
    objective: Annotated[str, _question(help=f"f: {', '.join(OBJECTIVES)}.")] = "quadratic",
    dynamics: Annotated[str, _question(help=f"dx/dt: {', '.join(DYNAMICS)}.")] = "learned-preconditioner",
    criterion: Annotated[str, _question(help=f"J: {', '.join(CRITERIA)}.")] = "squared-gradient-norm",
    threshold: Annotated[float, _question(help="ε: the target is J(x) ≤ ε.")] = 1e-3,
    x0: Annotated[
        str | None,
        _question(
            metavar="<numbers>",
            help="Initial point: one number for every coordinate, or d with commas between.",
            show_default="customary for the objective",
        ),
    ] = None,
    dimension: Annotated[int | None, _parameter(help="d.", show_default="the objective's")] = None,
    condition_number: Annotated[float | None, _parameter(help="κ.", show_default="the objective's")] = None,
    seed: Annotated[int, _parameter(help="Seed of every random draw.")] = 0,
    assignments: Annotated[
        list[str] | None,
        _parameter(
            "--set",
            metavar="<name>=<number>",
            help="A parameter of the objective, the dynamics or the criterion; may be repeated.",
        ),
    ] = None,
    method: Annotated[str, _flow(help=f"ODE solver: {', '.join(METHODS)}.")] = "dopri5",
    rtol: Annotated[float, _flow(help="Relative tolerance.")] = 1e-7,
    atol: Annotated[float, _flow(help="Absolute tolerance.")] = 1e-9,
    t_max: Annotated[float, _flow(help="Horizon.")] = math.inf,
    step_size: Annotated[float, _steps(help="h.")] = 0.1,
    sensitivity: Annotated[str, _steps(help="Gradient of N: definition3, interpolated, hermite.")] = "definition3",
    dtype: Annotated[str, _both(help=f"Precision: {', '.join(DTYPES)}.")] = "float64",
    max_steps: Annotated[int, _both(help="Steps allowed to each of the two.")] = 100_000,
    as_json: Annotated[bool, _both("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Answer one stopping-time question twice: T of the flow, and N of its Euler steps, with both gradients.

    The gradients are those in the parameters of the dynamics, or in x0 where it has none.
    """
    settings = {
        **{"threshold": threshold, "x0": x0, "dtype": dtype, "seed": seed, "max_steps": max_steps},
        **{"method": method, "rtol": rtol, "atol": atol, "t_max": t_max},
        **{"step_size": step_size, "sensitivity": sensitivity},
    }
    try:
        values = _values(assignments or [], dimension=dimension, condition_number=condition_number)
        question = ask(objective, dynamics, criterion, threshold, x0, dtype, values, seed)
        warm_up()
        steps = answer_by_steps(question, step_size=step_size, sensitivity=sensitivity, max_steps=max_steps)
        flow = answer_by_flow(question, method=method, rtol=rtol, atol=atol, t_max=t_max, max_steps=max_steps)
    except ValueError as error:
        raise typer.BadParameter(_with_option_name(str(error))) from error
    if as_json:
        report = _json_ready(_as_dict(question, flow, steps, settings))
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        Console(highlight=False).print(_as_table(question, flow, steps, settings))


def _values(assignments: Sequence[str], **options: float | int | None) -> dict[str, float | int | str]:
    """Gather the parameters given by an option of their own or, still as text, by ``--set``."""
    given: dict[str, float | int | str] = {name: value for name, value in options.items() if value is not None}
    for assignment in assignments:
        name, text = split_assignment(assignment, "name=number")
        if name in given:
            raise ValueError(f"{name} must be given once, got it twice")
        given[name] = text
    return given


def _with_option_name(message: str) -> str:
    """Turn the argument that an error message begins with into the option that it came from."""
    name = message.partition(" ")[0]
    if name in inspect.signature(solve).parameters:
        return message.replace(name, "--" + name.replace("_", "-"), 1)
    catalogues = (OBJECTIVES, DYNAMICS, CRITERIA)
    entries = [entry for catalogue in catalogues for entry in catalogue.values()]
    is_parameter = any(parameter.name == name for entry in entries for parameter in entry.parameters)
    return f"--set {message}" if is_parameter else message


def _as_dict(question: Question, flow: Answer, steps: Answer, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the question, both answers and all that is needed to ask again."""
    return {
        "objective": {"name": question.objective.name, "parameters": question.objective.values},
        "dynamics": {"name": question.dynamics.name, "parameters": question.dynamics.values},
        "criterion": {"name": question.criterion.name, "parameters": question.criterion.values},
        "dimension": question.x0.numel(),
        "settings": settings,
        "gradients_with_respect_to": question.parameters_in_words,
        "continuous": _answer_as_dict(flow),
        "discrete": _answer_as_dict(steps),
        "comparison": compare(flow, steps),
        "versions": {
            "odestop": odestop.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _answer_as_dict(answer: Answer) -> dict[str, Any]:
    return {
        "time": answer.time,
        "steps": answer.steps,
        "status": answer.status.name,
        "status_in_words": answer.status.value,
        "gradient_norm": answer.gradient_norm,
        "nfe": answer.nfe,
        "vjps": answer.vjps,
        "seconds": answer.seconds,
    }


def _json_ready(value: Any) -> Any:
    """Replace the numbers that JSON does not have, infinities and nan, by None."""
    if isinstance(value, dict):
        return {key: _json_ready(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_table(question: Question, flow: Answer, steps: Answer, settings: dict[str, Any]) -> Table:
    """Return both answers side by side, and the comparison below them."""
    objective, dynamics, criterion = (part.name for part in question.parts)
    n = "N" if settings["sensitivity"] == "definition3" else "N̂"
    table = Table(
        "",
        f"flow ({settings['method']})",
        f"Euler steps (h = {settings['step_size']:g})",
        title=f"{dynamics} on {objective}\n"
        f"until {criterion} ≤ {question.threshold:g}\n"
        f"gradients ∇ with respect to {question.parameters_in_words}",
        caption=_values_in_words(question, settings),
    )
    table.add_row(f"stopping time T, h·{n}", _number(flow.time), _number(steps.time))
    table.add_row(f"steps, {n}", _number(flow.steps), _number(steps.steps))
    table.add_row("status", flow.status.value, steps.status.value)
    table.add_row(f"gradient ‖∇T‖, ‖h∇{n}‖", _number(flow.gradient_norm), _number(steps.gradient_norm))
    table.add_row("evaluations (NFE)", str(flow.nfe), str(steps.nfe))
    table.add_row("VJPs", str(flow.vjps), str(steps.vjps))
    table.add_row("seconds", f"{flow.seconds:.2f}", f"{steps.seconds:.2f}", end_section=True)
    comparison = compare(flow, steps)
    table.add_row(f"relative error of h∇{n}", "", _number(comparison["relative_error"]))
    table.add_row(f"cosine of h∇{n} and ∇T", "", _number(comparison["cosine"]))
    table.add_row("NFE ratio", "", _number(comparison["nfe_ratio"]))
    return table


def _values_in_words(question: Question, settings: dict[str, Any]) -> str:
    """Say which values the question was asked with."""
    values = {name: value for part in question.parts for name, value in part.values.items()}
    written = [f"{name} = {value:g}" for name, value in values.items() if value is not None]
    return ", ".join([*written, settings["dtype"]])


def _number(value: float | int) -> str:
    """Six digits; a dash where there is nothing to tell."""
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.6g}"
