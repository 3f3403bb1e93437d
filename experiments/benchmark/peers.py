"""Whoever computes T and ∇T: this package, and others as their users call them.

Each peer gets the case and its tolerance and returns T of every trajectory and the gradient of their sum.  What a peer
cannot do in one call (events of its own for every trajectory of a batch), it does in a loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torchdiffeq
from scipy.integrate import solve_ivp
from torch import Tensor

import odestop
from experiments.benchmark.cases import SCHEDULE, Case, Problem, pose
from experiments.benchmark.cases import SCHEDULE_PARAMETERS as SCHEDULE_VALUES
from experiments.gradient_methods import joined

# Below the stability limit of Dormand-Prince 5(4), 3.3/ρ, with room for the preconditioner; set by hand.
MAX_STEP = 2.6
# Makes the 1e-12 harmless that torchdiffeq adds to dJ/dt before it divides by it.
_EVENT_SCALE = 1e8


@dataclass(frozen=True)
class Answer:
    """T of shape (batch,), the gradient of its sum, and what they took; nan where the peer does not count.

    The tensors are on the CPU.
    """

    time: Tensor
    gradient: Tensor
    evaluations: float
    pullbacks: float


class Peer(Protocol):
    """One way to T and ∇T."""

    @property
    def name(self) -> str:
        """What tables and legends call it."""
        ...

    def accepts(self, case: Case) -> bool:
        """Return whether the peer can answer in reasonable time."""
        ...

    def answer(self, case: Case, tolerance: float) -> Answer:
        """Return T and ∇T at a relative tolerance."""
        ...


@dataclass(frozen=True)
class Odestop:
    """The package that is measured here, with the discrete adjoint."""

    method: str
    compile: bool = False

    @property
    def name(self) -> str:
        """The method's name after the package's."""
        return f"odestop {self.method}" + (", compiled" if self.compile else "")

    def accepts(self, case: Case) -> bool:
        """Return whether there is something to learn: from compiling a single trajectory that is no toy, or at all."""
        if self.compile:
            return case.batch == 1 and case.dimension >= 100
        # Differs little from "tsit5".
        return not (self.method == "dopri5" and case.is_large)

    def answer(self, case: Case, tolerance: float) -> Answer:
        """One call for the whole batch."""
        problem = pose(case)
        solution = odestop.continuous_stopping_time(
            problem.dynamics,
            problem.x0,
            problem.criterion,
            problem.threshold,
            method=self.method,
            rtol=tolerance,
            atol=_absolute(problem, tolerance),
            compile=self.compile,
            max_steps=10**6,
            on_failure="raise",
        )
        gradient = joined(torch.autograd.grad(solution.time.sum(), problem.parameters))
        return Answer(solution.time.detach().cpu(), gradient.cpu(), solution.stats.nfe, solution.stats.vjps)


@dataclass(frozen=True)
class Torchdiffeq:
    """``odeint_event`` with ``backward()``, as it comes or with the two settings that make its gradient right."""

    tuned: bool

    @property
    def name(self) -> str:
        """With what was tuned."""
        return "torchdiffeq dopri5" + (", tuned by hand" if self.tuned else "")

    def accepts(self, case: Case) -> bool:
        """Return whether the graph of all steps fits; untuned, it is not tried where tuning decides."""
        if self.tuned:
            return case.condition_number <= 1e4 and case.batch <= 32
        return case.condition_number <= 1e3 and case.batch <= 32 and not case.is_large

    def answer(self, case: Case, tolerance: float) -> Answer:
        """One trajectory after the other."""
        problem = pose(case)
        counted = CountedField(problem.dynamics)
        times = torch.stack([self._time(problem, counted, x0, tolerance) for x0 in problem.x0])
        gradient = joined(torch.autograd.grad(times.sum(), problem.parameters))
        return Answer(times.detach().cpu(), gradient.cpu(), counted.evaluations, counted.evaluations)

    def _time(self, problem: Problem, field: Callable[..., Tensor], x0: Tensor, tolerance: float) -> Tensor:
        scale = _EVENT_SCALE if self.tuned else 1.0
        time, _ = torchdiffeq.odeint_event(
            field,
            x0,
            torch.zeros((), dtype=x0.dtype, device=x0.device),
            event_fn=lambda t, x: scale * (problem.criterion(x) - problem.threshold),
            odeint_interface=torchdiffeq.odeint,
            rtol=tolerance,
            atol=_absolute(problem, tolerance),
            method="dopri5",
            options={"max_step": MAX_STEP} if self.tuned else {},
        )
        return time


class CountedField:
    """A dynamics that counts its calls."""

    def __init__(self, dynamics: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.dynamics, self.evaluations = dynamics, 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """Return dx/dt."""
        self.evaluations += 1
        return self.dynamics(t, x)


@dataclass(frozen=True)
class Scipy:
    """``solve_ivp`` with a terminal event, and central differences for the gradient."""

    name: str = "scipy RK45, differences"

    def accepts(self, case: Case) -> bool:
        """Return whether there are few parameters, each of which costs two solves, and NumPy has the numbers."""
        return case.parameters == SCHEDULE and case.batch <= 32 and case.device == "cpu"

    def answer(self, case: Case, tolerance: float) -> Answer:
        """One trajectory after the other, five solves each."""
        problem = pose(case)
        matrix, starts = problem.matrix.numpy(), problem.x0.numpy()
        theta = np.array(SCHEDULE_VALUES)
        evaluations = 0

        def time(x0: np.ndarray, theta: np.ndarray) -> float:
            nonlocal evaluations
            found = solve_ivp(
                lambda t, x: -theta[0] * math.exp(-theta[1] * t) * (matrix @ x),
                (0.0, 1e9),
                x0,
                method="RK45",
                events=_terminal(matrix, problem.threshold),
                rtol=max(tolerance, 1e-13),
                atol=_absolute(problem, tolerance),
            )
            evaluations += found.nfev
            assert found.t_events is not None
            return float(found.t_events[0][0])

        # Where truncation, of order width², and the error of T divided by the width are alike.
        widths = tolerance ** (1 / 3) * theta
        times = [time(x0, theta) for x0 in starts]
        gradient = [
            sum(time(x0, theta + step) - time(x0, theta - step) for x0 in starts) / (2 * width)
            for width, step in zip(widths, np.diag(widths), strict=True)
        ]
        as_tensor = torch.tensor(gradient, dtype=torch.float64)
        return Answer(torch.tensor(times, dtype=torch.float64), as_tensor, evaluations, math.nan)


def _terminal(matrix: np.ndarray, threshold: float) -> Callable[[float, np.ndarray], float]:
    def event(t: float, x: np.ndarray) -> float:
        gradient = matrix @ x
        return float(gradient @ gradient) - threshold

    event.terminal = True  # type: ignore[attr-defined]
    return event


def _absolute(problem: Problem, tolerance: float) -> float:
    """Return the absolute tolerance: at the event ‖∇f‖ is √ε."""
    return tolerance * problem.threshold**0.5
