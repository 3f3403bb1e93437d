"""A stopping-time question made from names and numbers, and its two answers."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odestop._validation import check_choice
from odestop.comparison import cosine_similarity, relative_error
from odestop.continuous import ContinuousSolution, continuous_stopping_time
from odestop.discrete import DiscreteSolution, discrete_stopping_time
from odestop.discrete.step_maps import Euler, Heun, RungeKutta4, TimeStepMap
from odestop.registry import (
    CRITERIA,
    DYNAMICS,
    OBJECTIVES,
    Entry,
    ObjectiveEntry,
    Parameter,
    find_entry,
    parse_number,
)
from odestop.status import StoppingStatus, TangencyWarning

DTYPES = {"float32": torch.float32, "float64": torch.float64}
"""The precisions that a question can be asked in."""

STEP_MAPS: dict[str, type[TimeStepMap]] = {"euler": Euler, "heun": Heun, "rk4": RungeKutta4}
"""The discretisations of the flow that N can be that of."""

Number = float | int


@dataclass(frozen=True)
class Part:
    """An entry of the registry with values of its parameters, and the module that they make."""

    name: str
    values: dict[str, Number | None]
    module: Any


@dataclass(frozen=True)
class Question:
    """The question when J falls to ε along a dynamics."""

    objective: Part
    dynamics: Part
    criterion: Part
    x0: Tensor
    threshold: Number

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """The objective, the dynamics and the criterion."""
        return self.objective, self.dynamics, self.criterion

    @property
    def parameters(self) -> list[Tensor]:
        """What T and N are differentiated in: the parameters of the dynamics, or x0 if it has none."""
        return list(self.dynamics.module.parameters()) or [self.x0]

    @property
    def parameters_in_words(self) -> str:
        """The same for people."""
        owner = "x0" if self.x0.requires_grad else "the dynamics' parameters"
        return f"{owner} ({sum(parameter.numel() for parameter in self.parameters)} numbers)"


@dataclass(frozen=True)
class Answer:
    """T or N with its gradient and its cost; for N, the time is h N and the gradient is h ∇N."""

    time: float
    steps: Number
    status: StoppingStatus
    gradient: tuple[Tensor, ...] | None
    nfe: int
    vjps: int
    seconds: float

    @property
    def gradient_norm(self) -> float:
        """Euclidean norm over all parameters together; nan without a usable gradient."""
        if self.gradient is None:
            return math.nan
        return float(torch.cat([part.double().flatten() for part in self.gradient]).norm())


def ask(
    objective: str,
    dynamics: str,
    criterion: str,
    threshold: Number,
    x0: str | None,
    dtype: str,
    values: Mapping[str, Number | str],
    seed: int,
) -> Question:
    """Build what the names say.

    Parameters
    ----------
    objective, dynamics, criterion
        Names in the registry, or of classes in Python files: see `odestop.registry.find_entry`.
    threshold
        ε.
    x0
        Numbers with commas between, or None for the objective's customary point.
    dtype
        Name of a precision.
    values
        Values of any parameters of the three, or how these are written.
    seed
        Of every random draw whose seed is not among the values.

    Raises
    ------
    ValueError
        If a name is unknown or a value cannot be used.
    """
    precision = DTYPES[check_choice("dtype", dtype, tuple(DTYPES))]
    entries = find_entries(objective, dynamics, criterion)
    check_names(values, entries)
    values = {"seed": seed, **values}
    f = _part(entries[0], values, dtype=precision)
    flow = _part(entries[1], values, objective=f.module, dtype=precision)
    target = _part(entries[2], values, objective=f.module, dtype=precision)
    start = _initial_point(x0, entries[0], f.module.dimension).to(precision)
    start.requires_grad_(not list(flow.module.parameters()))
    return Question(f, flow, target, start, threshold)


def find_entries(objective: str, dynamics: str, criterion: str) -> tuple[ObjectiveEntry, Entry[Any], Entry[Any]]:
    """Return what three names, or classes in Python files, stand for."""
    return find_entry(OBJECTIVES, objective), find_entry(DYNAMICS, dynamics), find_entry(CRITERIA, criterion)


def check_names(values: Mapping[str, object], entries: Sequence[Entry[Any]]) -> None:
    """Raise a ValueError if a value is for a parameter that none of the entries has."""
    known = {parameter.name for entry in entries for parameter in entry.parameters}
    for name in values:
        if name not in known:
            chosen = ", ".join(entry.name for entry in entries)
            accepted = ", ".join(sorted(known)) or "none"
            raise ValueError(f"{name} is not a parameter of {chosen}; theirs: {accepted}")


def warm_up() -> None:
    """Make PyTorch load now what it loads at the first vector-Jacobian product, so that nobody's time has it."""
    x = torch.ones(1, requires_grad=True)
    torch.autograd.grad(2 * x, x, torch.ones(1))


def answer_by_flow(
    question: Question, *, method: str, rtol: float, atol: float, t_max: float, max_steps: int
) -> Answer:
    """Return T and ∇T."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        # The status tells it.
        warnings.simplefilter("ignore", TangencyWarning)
        solution = continuous_stopping_time(
            question.dynamics.module,
            question.x0,
            question.criterion.module,
            question.threshold,
            method=method,
            rtol=rtol,
            atol=atol,
            t_max=t_max,
            max_steps=max_steps,
        )
    return _answer(question, solution, solution.stats.accepted_steps.item(), began)


def answer_by_steps(
    question: Question, *, step_size: float, sensitivity: str, max_steps: int, step_map: str = "euler"
) -> Answer:
    """Return N, h N and h ∇N."""
    kind = STEP_MAPS[check_choice("step_map", step_map, tuple(STEP_MAPS))]
    began = time.perf_counter()
    solution = discrete_stopping_time(
        kind(question.dynamics.module, step_size),
        question.x0,
        question.criterion.module,
        question.threshold,
        sensitivity=sensitivity,
        max_steps=max_steps,
    )
    return _answer(question, solution, solution.steps.item(), began)


def compare(flow: Answer, steps: Answer) -> dict[str, float]:
    """Return the steps' error and cost against the flow's; nan where one of them has no usable gradient."""
    if flow.gradient is None or steps.gradient is None:
        return dict.fromkeys(("relative_error", "cosine", "nfe_ratio"), math.nan)
    return {
        "relative_error": relative_error(steps.gradient, flow.gradient),
        "cosine": cosine_similarity(steps.gradient, flow.gradient),
        "nfe_ratio": steps.nfe / flow.nfe,
    }


def _part(entry: Entry[Any], values: Mapping[str, Number | str], **context: Any) -> Part:
    """Make the module; whatever goes wrong is due to the values."""
    chosen: dict[str, Any] = {parameter.name: _value(parameter, values) for parameter in entry.parameters}
    try:
        return Part(entry.name, chosen, entry.build(**context, **chosen))
    except (ImportError, MemoryError, OverflowError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{entry.name} cannot be made from these parameters: {reason}") from error


def _value(parameter: Parameter, values: Mapping[str, Number | str]) -> Number | None:
    value = values.get(parameter.name, parameter.default)
    if isinstance(value, str):
        value = parameter.parse(value)
    if value is not None and not parameter.is_integer:
        return float(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"{parameter.name} must be an integer of at most 64 bits, got {value}")
    return value


def _initial_point(text: str | None, entry: ObjectiveEntry, dimension: int) -> Tensor:
    if text is None:
        return entry.start(dimension)
    numbers = [parse_number("x0", part) for part in text.split(",")]
    if len(numbers) not in (1, dimension):
        raise ValueError(f"x0 must be one number, or d = {dimension} of them, got {len(numbers)}")
    return torch.tensor(numbers, dtype=torch.float64).expand(dimension).clone()


def _answer(question: Question, solution: ContinuousSolution | DiscreteSolution, steps: Number, began: float) -> Answer:
    """Differentiate the time and note what it all cost."""
    assert isinstance(solution.status, StoppingStatus)
    assert solution.time is not None
    return Answer(
        time=solution.time.item(),
        steps=steps,
        status=solution.status,
        gradient=_gradient(solution.time, solution.status, question.parameters),
        nfe=solution.stats.nfe,
        vjps=solution.stats.vjps,
        seconds=time.perf_counter() - began,
    )


def _gradient(stopping_time: Tensor, status: StoppingStatus, parameters: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
    if status is StoppingStatus.ALREADY_SATISFIED:
        return tuple(torch.zeros_like(parameter) for parameter in parameters)
    if status is StoppingStatus.REACHED:
        return torch.autograd.grad(stopping_time, parameters)
    return None
