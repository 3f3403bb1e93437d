"""One explicit Runge-Kutta step, its error estimate and its dense output, for a batch with a step size per trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from odestop.solvers.dense_output import DenseOutput
from odestop.solvers.step_control import PIController
from odestop.solvers.tableaus import DORMAND_PRINCE_5, ButcherTableau

Field = Callable[[Tensor, Tensor], Tensor]
"""Right-hand side F(t, x) with t of shape (*batch,) and x of shape (*batch, d)."""


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
        All slopes, the end slope last.
    """

    start: Tensor
    end: Tensor
    end_slope: Tensor
    error: Tensor
    step_size: Tensor
    slopes: tuple[Tensor, ...]


@dataclass(frozen=True)
class RungeKutta:
    """Explicit embedded Runge-Kutta method, driven by its tableau.

    Parameters
    ----------
    controller
        Proportional-integral step-size controller.
    stability_fraction
        Steps are kept below this fraction of the linear stability limit β/ρ, where ρ estimates the spectral radius of
        ∂F/∂x.  Error control alone lets the step hover at the limit, where errors in the stiff modes never decay and
        spoil the gradient; ``math.inf`` switches the cap off.
    """

    tableau: ClassVar[ButcherTableau]

    controller: PIController = field(default_factory=PIController)
    stability_fraction: float = 0.95

    def advance(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        x: Float[Tensor, "*batch d"],
        step_size: Float[Tensor, "*batch"],
        first_slope: Float[Tensor, "*batch d"] | None = None,
    ) -> tuple[Float[Tensor, "*batch d"], list[Tensor]]:
        """x_1 and the slopes of the stages; differentiable in everything when grad mode is on."""
        tableau = self.tableau
        h = step_size.unsqueeze(-1)
        slopes = [field(t, x) if first_slope is None else first_slope]
        for node, row in zip(tableau.nodes[1:], tableau.matrix[1:], strict=True):
            stage = torch.addcmul(x, h, linear_combination(row, slopes))
            slopes.append(field(torch.add(t, step_size, alpha=node), stage))
        return torch.addcmul(x, h, linear_combination(tableau.weights, slopes)), slopes

    def step(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        x: Float[Tensor, "*batch d"],
        step_size: Float[Tensor, "*batch"],
        first_slope: Float[Tensor, "*batch d"],
    ) -> Step:
        """One step with its error estimate and the slope at its end."""
        end, slopes = self.advance(field, t, x, step_size, first_slope)
        end_slope = field(t + step_size, end)
        slopes.append(end_slope)
        error = step_size.unsqueeze(-1) * linear_combination(self.tableau.error_weights, slopes)
        return Step(x, end, end_slope, error, step_size, tuple(slopes))

    def dense_output(self, step: Step) -> DenseOutput:
        """Continuous extension of a step."""
        return DenseOutput(step.start, step.step_size, step.slopes, self.tableau.interpolant)

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of F that determine x_1: what one vector-Jacobian product of the step recomputes."""
        return len(self.tableau.weights)


def linear_combination(coefficients: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Σ c_i v_i, skipping zero coefficients."""
    terms = [(c, v) for c, v in zip(coefficients, tensors, strict=True) if c != 0.0]
    total = terms[0][0] * terms[0][1]
    for coefficient, tensor in terms[1:]:
        total = torch.add(total, tensor, alpha=coefficient)
    return total


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
