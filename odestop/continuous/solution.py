"""The answer to a continuous stopping-time question."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from odestop.continuous.dense_trajectory import DenseTrajectory
from odestop.status import StoppingStatus, statuses_from_codes, statuses_reached


@dataclass
class ContinuousStats:
    """What a continuous solve cost.

    Attributes
    ----------
    nfe
        Evaluations of the dynamics in the forward solve; one evaluation covers the whole batch.
    criterion_evaluations
        Evaluations of the criterion J in the forward solve.
    accepted_steps, rejected_steps
        Per trajectory, integer tensors of shape (*batch,).
    peak_bytes
        Memory of the states that the forward solve keeps for the gradient, with one retraced segment between
        checkpoints.
    vjps
        Vector-Jacobian products of the dynamics taken by backward passes so far.
    method
        Name of the method that took the steps, such as ``"Tsitouras5"``; for ``method="auto"`` the one it chose.
    """

    nfe: int
    criterion_evaluations: int
    accepted_steps: Int[Tensor, "*batch"]
    rejected_steps: Int[Tensor, "*batch"]
    peak_bytes: int = 0
    vjps: int = 0
    method: str = ""


@dataclass(frozen=True)
class ContinuousSolution:
    """Continuous stopping time T (Def. 1), the state there, and how the solve went.

    With ``levels=True`` every shape (*batch,) below gains a last dimension: (*batch, levels).

    Attributes
    ----------
    time
        T, shape (*batch,), in the dtype of x0; +inf where the threshold is never reached.  Differentiable.
    state
        x(T), shape (*batch, d); the last state computed where T = +inf.  Its gradient includes the dependence of T.
        For dynamics with a hidden state (momentum, moments) this is the whole state.
    position
        The part of ``state`` that the criterion sees; ``state`` itself for dynamics without a hidden state.
    criterion_rate
        dJ/dt along the flow at the event, shape (*batch,): the denominator of every gradient of T; nan without an
        event.  Not differentiable.
    stats
        What it cost.
    trajectory
        x(t) at any t in [t0, T], for looking at; None for `odestop.torchdiffeq_stopping_time`.  It keeps the states at
        the ends of the steps alive.
    """

    time: Float[Tensor, "*batch"]
    state: Float[Tensor, "*batch d"]
    position: Float[Tensor, "*batch p"]
    criterion_rate: Float[Tensor, "*batch"]
    stats: ContinuousStats
    status_codes: Int[Tensor, "*batch"]
    trajectory: DenseTrajectory | None = field(default=None, repr=False, compare=False)

    @property
    def status(self) -> StoppingStatus | np.ndarray:
        """One `StoppingStatus` for a single trajectory, an object array of shape (*batch,) for a batch."""
        return statuses_from_codes(self.status_codes)

    @property
    def reached(self) -> Bool[Tensor, "*batch"]:
        """Where T is finite."""
        return statuses_reached(self.status_codes)
