"""Every gradient method on a dozen flows: ``python -m experiments.gradient_methods``.

The error of ∇T is measured against an eighth-order solve at rtol 1e-12 in float64 with its discrete adjoint, for the
parameters of the dynamics.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

import odestop
from odestop import dynamics as flows
from odestop import objectives
from odestop.criteria import ObjectiveGap, SquaredGradientNorm
from odestop.sweeps import provenance

METHODS = (
    "discrete_adjoint",
    "continuous_adjoint",
    "forward_sensitivity",
    "unrolled",
    "finite_difference",
    "backsolve",
)


class InertialFlow(nn.Module):
    """ẍ + γ(t) ẋ + ∇f(x) = 0 from rest, with γ(t) = friction / (1 + t)^decay; the state is (x, ẋ)."""

    def __init__(self, objective: objectives.Objective, friction: float, decay: float) -> None:
        super().__init__()
        self.objective = objective
        self.friction = nn.Parameter(torch.tensor(friction, dtype=torch.float64))
        self.decay = nn.Parameter(torch.tensor(decay, dtype=torch.float64))

    def initial_state(self, x0: Tensor) -> Tensor:
        """Start at rest."""
        return torch.cat([x0, torch.zeros_like(x0)], dim=-1)

    def position(self, state: Tensor) -> Tensor:
        """The first half of the state."""
        return state[..., : state.shape[-1] // 2]

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """Velocity and acceleration."""
        x, velocity = state.chunk(2, dim=-1)
        friction = self.friction * (1 + t) ** -self.decay
        return torch.cat([velocity, -friction * velocity - self.objective.gradient(x)], dim=-1)


@dataclass(frozen=True)
class Question:
    """A flow, where it starts and when it stops."""

    dynamics: nn.Module
    x0: Tensor
    criterion: nn.Module
    threshold: float


def _quadratic(dimension: int, condition: float, dtype: torch.dtype = torch.float64) -> objectives.Quadratic:
    return objectives.Quadratic.with_condition_number(dimension, condition, seed=0, dtype=dtype)


def _rescaled(
    objective: objectives.Objective, schedule: nn.Module, threshold: float, dtype: torch.dtype = torch.float64
) -> Question:
    flow = flows.RescaledGradientFlow(objective, schedule)
    x0 = torch.ones(objective.dimension or 1, dtype=dtype)
    return Question(flow, x0, SquaredGradientNorm(objective), threshold)


def _value(number: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(number, dtype=dtype)


def _learned() -> Question:
    objective = _quadratic(5, 50.0)
    flow = flows.PreconditionedFlow(objective, flows.CoordinatewisePreconditioner(5, scale=0.3, dtype=torch.float64))
    return Question(flow, torch.ones(5, dtype=torch.float64), SquaredGradientNorm(objective), 1e-3)


def _diagonal() -> Question:
    objective = objectives.DiagonalQuadratic(torch.tensor([1.0, 4.0], dtype=torch.float64))
    flow = flows.DiagonallyPreconditionedFlow(objective, torch.tensor([1.0, 0.5], dtype=torch.float64))
    return Question(flow, torch.ones(2, dtype=torch.float64), SquaredGradientNorm(objective), 1e-3)


def _rosenbrock() -> Question:
    objective = objectives.Rosenbrock(2, 1.0, 5.0)
    flow = flows.DiagonallyPreconditionedFlow(objective, torch.tensor([1.0, 0.5], dtype=torch.float64))
    return Question(flow, torch.tensor([-1.2, 1.0], dtype=torch.float64), ObjectiveGap(objective), 1e-2)


def _logistic() -> Question:
    objective = objectives.breast_cancer(regularization=1e-1, dtype=torch.float64)
    schedule = flows.ExponentialSchedule(_value(2.0), _value(0.05))
    flow = flows.RescaledGradientFlow(objective, schedule)
    return Question(flow, torch.zeros(31, dtype=torch.float64), SquaredGradientNorm(objective), 1e-3)


def _inertial(friction: float, decay: float) -> Question:
    objective = objectives.DiagonalQuadratic(torch.tensor([1.0, 4.0], dtype=torch.float64))
    flow = InertialFlow(objective, friction, decay)
    return Question(flow, torch.ones(2, dtype=torch.float64), ObjectiveGap(objective), 1e-2)


QUESTIONS: dict[str, Callable[[], Question]] = {
    "linear, κ = 4": lambda: _rescaled(_quadratic(3, 4.0), flows.ConstantSchedule(_value(1.5)), 1e-3),
    "linear, κ = 100": lambda: _rescaled(_quadratic(20, 1e2), flows.ConstantSchedule(_value(1.5)), 1e-4),
    "stiff linear, κ = 1e4": lambda: _rescaled(_quadratic(20, 1e4), flows.ConstantSchedule(_value(1.0)), 1e-5),
    "linear, float32": lambda: _rescaled(
        _quadratic(3, 4.0, torch.float32), flows.ConstantSchedule(_value(1.5, torch.float32)), 1e-3, torch.float32
    ),
    "exponential schedule": lambda: _rescaled(
        _quadratic(5, 30.0), flows.ExponentialSchedule(_value(2.0), _value(0.01)), 1e-3
    ),
    "polynomial schedule": lambda: _rescaled(
        _quadratic(5, 30.0), flows.PolynomialSchedule(_value(2.0), _value(0.3)), 1e-3
    ),
    "diagonal (Fig. 1)": _diagonal,
    "learned preconditioner": _learned,
    "Rosenbrock": _rosenbrock,
    "logistic regression": _logistic,
    "heavy ball": lambda: _inertial(0.6, 0.0),
    "vanishing friction": lambda: _inertial(3.0, 1.0),
}


def gradient(question: Question, **arguments: object) -> tuple[Tensor, odestop.ContinuousSolution]:
    """∇T for the parameters of the dynamics, in one vector, and the solution it came from."""
    solution = odestop.continuous_stopping_time(
        question.dynamics,
        question.x0,
        question.criterion,
        question.threshold,
        **arguments,  # type: ignore[arg-type]
    )
    parts = torch.autograd.grad(solution.time, list(question.dynamics.parameters()))
    return joined(parts), solution


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return a gradient in one vector."""
    return torch.cat([part.flatten() for part in parts])


@functools.cache
def reference(name: str) -> Tensor:
    """∇T in float64 from an eighth-order solve at rtol 1e-12."""
    question = QUESTIONS[name]()
    return accurate_gradient(
        Question(question.dynamics.double(), question.x0.double(), question.criterion.double(), question.threshold)
    )


def accurate_gradient(question: Question) -> Tensor:
    """∇T of a question in float64, from an eighth-order solve at rtol 1e-12."""
    return gradient(question, method="dopri8", rtol=1e-12, atol=1e-15)[0]


def measure(name: str, method: str) -> dict[str, object]:
    """One cell of the table; a method that gives up says so."""
    exact = reference(name)
    record: dict[str, object] = {"flow": name, "method": method, "parameters": exact.numel()}
    try:
        measured, solution = gradient(QUESTIONS[name](), gradient=method)
    except RuntimeError as failure:
        return record | {"error": float("nan"), "note": str(failure)}
    error = float((measured.double() - exact).norm() / exact.norm())
    return record | {
        "time": solution.time.item(),
        "error": error,
        "evaluations": solution.stats.nfe,
        "vjps": solution.stats.vjps,
    }


def as_markdown(table: pd.DataFrame) -> str:
    """Flows down, methods across, relative errors of ∇T in the cells."""
    lines = ["| flow | " + " | ".join(f"`{method}`" for method in METHODS) + " |", "| --- |" + " ---: |" * len(METHODS)]
    for name, rows in table.groupby("flow", sort=False):
        errors = rows.set_index("method")["error"]
        cells = ("gives up" if pd.isna(errors[method]) else f"{errors[method]:.0e}" for method in METHODS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(output: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("results")) -> None:
    """Measure the error of ∇T of every gradient method at default tolerances on a dozen flows."""
    torch.set_num_threads(1)
    console = Console()
    cells = [(name, method) for name in QUESTIONS for method in METHODS]
    with Progress(console=console, transient=True) as progress:
        records = [measure(*cell) for cell in progress.track(cells, description="gradient methods")]
    table = pd.DataFrame(records)
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "gradient_methods.csv", index=False)
    (output / "gradient_methods.md").write_text(as_markdown(table), encoding="utf-8")
    (output / "gradient_methods.json").write_text(json.dumps(provenance(), indent=2), encoding="utf-8")
    console.print(as_markdown(table), markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
