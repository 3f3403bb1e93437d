"""What every method provides: a step of each trajectory's own size, its error estimate and its dense output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from odestop.solvers.dense_output import DenseOutput, HermiteOutput
from odestop.solvers.stage_adjoints import StageAdjoint
from odestop.solvers.step_control import PIController

Array = np.ndarray

Field = Callable[[Tensor, Tensor], Tensor]
"""Right-hand side F(t, x) with t of shape (*batch,) and x of shape (*batch, d)."""

Segment = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
"""Part of a step: takes what the part before it returned."""


StepParts = tuple[Tensor, Tensor, tuple[Tensor, ...], Tensor | None]
"""``end``, ``error``, ``slopes`` and ``slope_error`` of a `Step`."""


@dataclass(frozen=True)
class Step:
    """One attempted step of size h from (t, x).

    Attributes
    ----------
    start, end
        x and x_1, shape (*batch, d).
    end_slope
        F(t + h, x_1), the next step's first slope.
    error
        Estimate of the local error of x_1, shape (*batch, d).
    step_size
        h, shape (*batch,).
    slopes
        The slopes that the dense output needs, F(t, x) first and the end slope last.
    stages
        Number of stages of each trajectory, shape (n,) on the host.
    slope_error
        F(t + h, x_1) - F(t + h, x_1 - error), shape (*batch, d), where the method evaluates it; None elsewhere.
    """

    start: Tensor
    end: Tensor
    end_slope: Tensor
    error: Tensor
    step_size: Tensor
    slopes: tuple[Tensor, ...]
    stages: Array
    slope_error: Tensor | None = None

    @staticmethod
    def of_parts(start: Tensor, step_size: Tensor, stages: Array, parts: StepParts) -> Step:
        """Return the step from ``start`` that a method computed."""
        end, error, slopes, slope_error = parts
        return Step(start, end, slopes[-1], error, step_size, slopes, stages, slope_error)


@dataclass(frozen=True)
class OneStepMethod(ABC):
    """A Runge-Kutta method, whose number of stages may differ from step to step and from trajectory to trajectory.

    Parameters
    ----------
    controller
        Proportional-integral step-size controller.
    stability_fraction
        Steps are kept below this fraction of the linear stability limit β/ρ, where ρ estimates the spectral
        radius of ∂F/∂x; ``math.inf`` switches the cap off where the number of stages is fixed.
    """

    controller: PIController = field(default_factory=PIController)
    stability_fraction: float = 0.95

    @property
    @abstractmethod
    def order(self) -> int:
        """Order of the solution that is propagated."""

    @property
    @abstractmethod
    def error_order(self) -> int:
        """Order of the solution that it is compared with; ``order`` itself without an error estimate."""

    @property
    @abstractmethod
    def stability_limit(self) -> float:
        """β of the most stages: |R(z)| ≤ 1 on the real interval [-β, 0]."""

    @property
    @abstractmethod
    def fewest_stages(self) -> int:
        """Stages of the cheapest step."""

    @property
    def fixed_step_size(self) -> float | None:
        """Size of every step but the last; None for a method that chooses its steps."""
        return None

    @property
    def fixed_stages(self) -> bool:
        """Whether all steps have the same number of stages."""
        return True

    def stages_for(self, step_size: Array, radius: Array) -> Array:
        """Stages that each trajectory's step takes: as few as are stable, shape (n,).

        Parameters
        ----------
        step_size, radius
            h and the spectral radius ρ of ∂F/∂x, shape (n,).
        """
        return np.full(np.shape(step_size), self.fewest_stages)

    def evaluations(self, stages: Array) -> int:
        """Evaluations of F that determine x_1 for a batch with these numbers of stages."""
        return int(stages.max())

    @abstractmethod
    def advance(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        x: Float[Tensor, "*batch d"],
        step_size: Float[Tensor, "*batch"],
        first_slope: Float[Tensor, "*batch d"] | None = None,
        stages: Array | int | None = None,
    ) -> tuple[Float[Tensor, "*batch d"], list[Tensor]]:
        """x_1 and slopes; differentiable in everything when grad mode is on."""

    @abstractmethod
    def step_parts(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        x: Float[Tensor, "*batch d"],
        step_size: Float[Tensor, "*batch"],
        first_slope: Float[Tensor, "*batch d"],
        stages: Array | int | None = None,
    ) -> StepParts:
        """What a step computes, as a function of tensors only."""

    def step(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        x: Float[Tensor, "*batch d"],
        step_size: Float[Tensor, "*batch"],
        first_slope: Float[Tensor, "*batch d"],
        stages: Array | int | None = None,
    ) -> Step:
        """One step with its error estimate and the slope at its end."""
        parts = self.step_parts(field, t, x, step_size, first_slope, stages)
        counts = np.broadcast_to(self.fewest_stages if stages is None else stages, (step_size.numel(),))
        return Step.of_parts(x, step_size, counts, parts)

    def segments(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        step_size: Float[Tensor, "*batch"],
        stages: Array | int | None = None,
    ) -> list[Segment]:
        """`advance` in parts, from ``(x,)`` to ``(x_1,)``, each with few enough stages to keep their graph."""
        return [lambda carry: (self.advance(field, t, carry[0], step_size, stages=stages)[0],)]

    def adjoint(self, stages: Array, like: Float[Tensor, "*batch d"]) -> StageAdjoint | None:
        """The adjoint of a step with these numbers of stages, shape (n,), on states like this one; None without."""
        return None

    def dense_output(self, step: Step) -> DenseOutput | HermiteOutput:
        """Continuous extension of a step."""
        return HermiteOutput(step)
