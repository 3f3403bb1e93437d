"""Explicit Runge-Kutta methods: a step, its error estimate, its dense output; a step size per trajectory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_positive
from odestop.solvers.dense_output import DenseOutput
from odestop.solvers.one_step import Field, OneStepMethod, Step, StepParts
from odestop.solvers.stage_adjoints import ButcherAdjoint
from odestop.solvers.step_control import PIController
from odestop.solvers.tableaus import (
    BOGACKI_SHAMPINE_3,
    DORMAND_PRINCE_5,
    EXPLICIT_EULER,
    HEUN_2,
    PRINCE_DORMAND_8,
    RUNGE_KUTTA_4,
    TSITOURAS_5,
    ButcherTableau,
)


@dataclass(frozen=True)
class RungeKutta(OneStepMethod):
    """Explicit Runge-Kutta method, driven by its tableau; a method of your own is a subclass with a tableau.

    Parameters
    ----------
    controller
        Proportional-integral step-size controller.
    stability_fraction
        Steps are kept below this fraction of the linear stability limit β/ρ, where ρ estimates the spectral
        radius of ∂F/∂x.  Error control alone lets the step hover at the limit, where errors in the stiff
        modes never decay and spoil the gradient; ``math.inf`` switches the cap off.

    Examples
    --------
    >>> import torch, odestop
    >>> method = odestop.solvers.DormandPrince5()
    >>> decay = lambda t, x: -x
    >>> t, x, h = torch.zeros(1), torch.ones(1, 2), torch.tensor([0.1])
    >>> step = method.step(decay, t, x, h, decay(t, x))
    >>> torch.allclose(step.end, torch.exp(-h))
    True
    >>> torch.allclose(method.dense_output(step)(torch.tensor([0.5])), torch.exp(-h / 2))
    True
    """

    tableau: ClassVar[ButcherTableau]

    @property
    def order(self) -> int:
        """Order of the solution that is propagated."""
        return self.tableau.order

    @property
    def error_order(self) -> int:
        """Order of the embedded solution; ``order`` itself for a method without one."""
        return self.tableau.error_order

    @property
    def stability_limit(self) -> float:
        """β: |R(z)| ≤ 1 on the real interval [-β, 0]."""
        return self.tableau.stability_limit

    @property
    def fewest_stages(self) -> int:
        """Stages of every step."""
        return self.evaluations_per_step

    def evaluations(self, stages: np.ndarray) -> int:
        """Evaluations of F that determine x_1."""
        return self.evaluations_per_step

    def advance(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        x: Float[Tensor, "*batch d"],
        step_size: Float[Tensor, "*batch"],
        first_slope: Float[Tensor, "*batch d"] | None = None,
        stages: np.ndarray | int | None = None,
    ) -> tuple[Float[Tensor, "*batch d"], list[Tensor]]:
        """x_1 and the slopes of the stages, of which there are always as many; differentiable in everything."""
        tableau = self.tableau
        h = step_size.unsqueeze(-1)
        slopes = [field(t, x) if first_slope is None else first_slope]
        for node, row in zip(tableau.nodes[1:], tableau.matrix[1:], strict=True):
            stage = torch.addcmul(x, h, linear_combination(row, slopes))
            slopes.append(field(torch.add(t, step_size, alpha=node), stage))
        return torch.addcmul(x, h, linear_combination(tableau.weights, slopes)), slopes

    def step_parts(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        x: Float[Tensor, "*batch d"],
        step_size: Float[Tensor, "*batch"],
        first_slope: Float[Tensor, "*batch d"],
        stages: np.ndarray | int | None = None,
    ) -> StepParts:
        """What a step computes, as a function of tensors only."""
        end, slopes = self.advance(field, t, x, step_size, first_slope)
        slopes.append(field(t + step_size, end))
        error = step_size.unsqueeze(-1) * linear_combination(self.tableau.error_weights, slopes)
        return end, error, tuple(slopes), None

    def adjoint(self, stages: np.ndarray, like: Float[Tensor, "*batch d"]) -> ButcherAdjoint:
        """The adjoint of a step."""
        return ButcherAdjoint(self.tableau, like)

    def dense_output(self, step: Step) -> DenseOutput:
        """Continuous extension of a step."""
        return DenseOutput(step.start, step.step_size, step.slopes, self.tableau.interpolant)

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of F that determine x_1: what one vector-Jacobian product of the step recomputes."""
        return len(self.tableau.weights)


def linear_combination(coefficients: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Σ c_i v_i, skipping zero coefficients."""
    total = None
    for coefficient, tensor in zip(coefficients, tensors, strict=True):
        if coefficient != 0.0:
            total = coefficient * tensor if total is None else torch.add(total, tensor, alpha=coefficient)
    return torch.zeros_like(tensors[0]) if total is None else total


@dataclass(frozen=True)
class DormandPrince5(RungeKutta):
    """Dormand-Prince 5(4): six evaluations per step, dense output of order 4.  Alias ``"dopri5"``.

    Examples
    --------
    >>> import odestop
    >>> method = odestop.solvers.DormandPrince5(stability_fraction=0.9)
    >>> method.tableau.order
    5
    """

    tableau: ClassVar[ButcherTableau] = DORMAND_PRINCE_5


@dataclass(frozen=True)
class Tsitouras5(RungeKutta):
    """Tsitouras 5(4): six evaluations per step, dense output of order 4.  Alias ``"tsit5"``.

    Its leading error terms are smaller than those of `DormandPrince5`, and its stability limit is 6 % larger.

    Examples
    --------
    >>> import torch, odestop
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -x, torch.ones(1, dtype=torch.float64), lambda x: x[..., 0], 0.1, method="tsit5"
    ... )
    >>> round(solution.time.item(), 6)  # ln(10)
    2.302585
    """

    tableau: ClassVar[ButcherTableau] = TSITOURAS_5


@dataclass(frozen=True)
class BogackiShampine3(RungeKutta):
    """Bogacki-Shampine 3(2): three evaluations per step, for loose tolerances.  Alias ``"bosh3"``.

    Its dense output is the cubic Hermite interpolant, of order 3.  It only locates the event, which is
    settled by taking the last step again, and serves plots.

    Examples
    --------
    >>> import odestop
    >>> odestop.solvers.BogackiShampine3().evaluations_per_step
    3
    """

    tableau: ClassVar[ButcherTableau] = BOGACKI_SHAMPINE_3


@dataclass(frozen=True)
class PrinceDormand8(RungeKutta):
    """Prince-Dormand 8(7): thirteen evaluations per step, for tight tolerances.  Alias ``"dopri8"``.

    Its dense output needs no further evaluation and is of order 5.  It only locates the event, which is
    settled by taking the last step again, and serves plots.

    Examples
    --------
    >>> import torch, odestop
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -x,
    ...     torch.ones(1, dtype=torch.float64),
    ...     lambda x: x[..., 0],
    ...     0.1,
    ...     method=odestop.solvers.PrinceDormand8(),
    ...     rtol=1e-12,
    ... )
    >>> round(solution.time.item(), 11)  # ln(10)
    2.30258509299
    """

    tableau: ClassVar[ButcherTableau] = PRINCE_DORMAND_8


_CONSTANT_STEP = PIController(min_factor=1.0, max_factor=1.0)


@dataclass(frozen=True)
class FixedStepRungeKutta(RungeKutta):
    """Explicit Runge-Kutta method with one size for every step: no error estimate and no stability cap.

    Only the last step differs: it ends at the event.

    Parameters
    ----------
    step_size
        h > 0.

    Raises
    ------
    ValueError
        If the step size is not a positive finite number.

    Examples
    --------
    >>> import odestop
    >>> method = odestop.solvers.Heun(step_size=0.1)
    >>> isinstance(method, odestop.solvers.FixedStepRungeKutta), method.fixed_step_size
    (True, 0.1)
    """

    controller: PIController = field(default=_CONSTANT_STEP, init=False, repr=False)
    stability_fraction: float = field(default=math.inf, init=False, repr=False)
    step_size: float | int

    def __post_init__(self) -> None:
        check_positive("step_size", self.step_size)

    @property
    def fixed_step_size(self) -> float:
        """Size of every step but the last."""
        return float(self.step_size)


@dataclass(frozen=True)
class ExplicitEuler(FixedStepRungeKutta):
    """Forward Euler with a fixed step, of order 1.

    The event ends the last step early, so that T is real-valued; the step count of the same iteration, and
    its sensitivity, is what `odestop.discrete_stopping_time` with `odestop.Euler` answers.

    Examples
    --------
    >>> import odestop
    >>> odestop.solvers.ExplicitEuler(step_size=0.01)
    ExplicitEuler(step_size=0.01)
    """

    tableau: ClassVar[ButcherTableau] = EXPLICIT_EULER


@dataclass(frozen=True)
class Heun(FixedStepRungeKutta):
    """Heun's explicit trapezoidal rule with a fixed step, of order 2: two evaluations per step.

    Examples
    --------
    >>> import odestop
    >>> odestop.solvers.Heun(step_size=0.01).tableau.order
    2
    """

    tableau: ClassVar[ButcherTableau] = HEUN_2


@dataclass(frozen=True)
class RungeKutta4(FixedStepRungeKutta):
    """The classical Runge-Kutta method with a fixed step, of order 4: four evaluations per step.

    Examples
    --------
    >>> import odestop
    >>> odestop.solvers.RungeKutta4(step_size=0.01).tableau.order
    4
    """

    tableau: ClassVar[ButcherTableau] = RUNGE_KUTTA_4
