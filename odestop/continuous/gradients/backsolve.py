"""The adjoint equation with x integrated backward as well: what not to do on dissipative flows, for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop._validation import check_count, check_positive
from odestop.continuous.forward import ForwardSolve
from odestop.continuous.gradients.continuous_adjoint import AdjointSweep, AdjointTolerances
from odestop.continuous.gradients.first_order import StoppingGradients, attach_first_order
from odestop.continuous.problem import StoppingProblem
from odestop.continuous.solution import ContinuousStats
from odestop.solvers import OneStepMethod


@dataclass(frozen=True)
class Backsolve:
    """The adjoint equation along an x(t) that is reconstructed backward from x(T).  Alias ``"backsolve"``.

    This is the constant-memory adjoint of neural ODEs, here for research only.  Optimizers are dissipative flows: they
    forget where they came from, and what a mode decayed by forward, e^(ρT), its rounding errors and tolerances grow by
    backward.  On anything but short, mild problems the gradient is wrong, without a sign of it, or the reconstruction
    fails: on a preconditioned 20-d quadratic of condition number 100, the default has an error of 5e-7 at Tρ = 4, 7e-5
    at 12, 2e7 at 22, and nothing to show at 60.  Everything but the source of x(t) is shared with `ContinuousAdjoint`,
    so that the two differ by that alone.

    * Cost: one vector-Jacobian product per evaluation of the backward steps, and three more per step for θ.
    * Memory: one state per level would do; the states of the steps are not read.
    * Accuracy: ``rtol`` times e^(ρT), with ρ the largest decay rate.
    * First derivatives only.

    Parameters
    ----------
    rtol
        Error of λ and of x allowed per step, relative to ‖λ‖ and ‖x‖.
    atol
        The same in absolute terms.
    max_steps
        Step attempts allowed per trajectory; a reconstruction that fails usually takes them all.

    Raises
    ------
    RuntimeError
        In the backward pass, if the reconstruction needs steps that are too small or too many.

    Examples
    --------
    >>> import torch, odestop
    >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -rate * x,
    ...     torch.ones(1, dtype=torch.float64),
    ...     lambda x: x[..., 0],
    ...     threshold=0.1,
    ...     gradient=odestop.gradients.Backsolve(rtol=1e-8),
    ... )
    >>> solution.time.backward()
    >>> round(rate.grad.item(), 6)  # -ln(10) / 4
    -0.575646
    """

    rtol: float = 1e-6
    atol: float = 0.0
    max_steps: int = 2_000

    def __post_init__(self) -> None:
        check_positive("rtol", self.rtol)
        check_positive("atol", self.atol, allow_zero=True)
        check_count("max_steps", self.max_steps)

    def attach(
        self, problem: StoppingProblem, solver: OneStepMethod, solve: ForwardSolve, stats: ContinuousStats
    ) -> tuple[Tensor, Tensor]:
        """T of shape (*batch, levels) and x(T) of shape (*batch, levels, d), as differentiable tensors."""

        def pull_back(time_cotangent: Tensor, state_cotangent: Tensor) -> StoppingGradients:
            tolerances = AdjointTolerances(self.rtol, self.atol, self.max_steps)
            return _Reconstruction(problem, solver, solve, stats, tolerances).run(time_cotangent, state_cotangent)

        return attach_first_order(problem, solve, pull_back)


class _Reconstruction(AdjointSweep):
    """x(t) integrated backward beside λ, and put right at every event."""

    def joined(self, adjoint: Tensor, state: Tensor) -> Tensor:
        return torch.cat([adjoint, state], dim=-1)

    def state(self, time: np.ndarray, y: Tensor) -> Tensor:
        return y[..., self.dimension :]
