"""The answer to a discrete stopping-time question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from odestop.status import StoppingStatus, statuses_from_codes, statuses_reached


@dataclass
class DiscreteStats:
    """What a discrete run cost.

    Attributes
    ----------
    nfe
        Evaluations of the dynamics in the forward run, or of the step map where it is no step of a dynamics; one
        evaluation covers the whole batch.
    criterion_evaluations
        Evaluations of the criterion J in the forward run: one per iterate, the start included.
    peak_bytes
        Most bytes of iterates stored for the gradient at one time, over the forward run and the backward passes so
        far.
    recomputed_steps
        Steps taken again by backward passes so far, from one stored iterate to the next.
    vjps
        Vector-Jacobian products of the step map taken by backward passes so far.
    """

    nfe: int
    criterion_evaluations: int
    peak_bytes: int = 0
    recomputed_steps: int = 0
    vjps: int = 0


@dataclass(frozen=True)
class DiscreteSolution:
    """Discrete stopping time N (Def. 2), the iterate there, and how the run went.

    Attributes
    ----------
    steps
        N, integer-valued, or the fractional N̂, shape (*batch,), in the dtype of x0; +inf where the threshold
        is never reached.  Differentiable by the sensitivity that was chosen.
    time
        t0 + h · steps, shape (*batch,), differentiable through h, t0 and steps; None for step maps without a
        step size.
    state
        x_N, shape (*batch, m); the last finite iterate where N = +inf.  Its gradient holds N fixed.  For step
        maps with memory (momentum, moments) this is the whole state.
    position
        The part of ``state`` that the criterion sees, shape (*batch, d); ``state`` itself for step maps
        without memory.
    status_codes
        `StoppingStatus.code` of each trajectory, shape (*batch,).
    stats
        What it cost.
    """

    steps: Float[Tensor, "*batch"]
    time: Float[Tensor, "*batch"] | None
    state: Float[Tensor, "*batch m"]
    position: Float[Tensor, "*batch d"]
    status_codes: Int[Tensor, "*batch"]
    stats: DiscreteStats

    @property
    def status(self) -> StoppingStatus | np.ndarray:
        """One `StoppingStatus` for a single trajectory, an object array of shape (*batch,) for a batch."""
        return statuses_from_codes(self.status_codes)

    @property
    def reached(self) -> Bool[Tensor, "*batch"]:
        """Where N is finite."""
        return statuses_reached(self.status_codes)
