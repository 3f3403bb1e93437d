"""How a stopping-time question ended: the status of each trajectory, and the exception and warning about it."""

from __future__ import annotations

import enum

import numpy as np
from torch import Tensor


class StoppingStatus(enum.Enum):
    """Outcome of one trajectory; the value says it in words."""

    REACHED = "the criterion fell to the threshold"
    ALREADY_SATISFIED = "the criterion is at or below the threshold at the start"
    TANGENTIAL = "the criterion only touches the threshold, so the stopping time has no usable gradient"
    HORIZON = "the horizon t_max came before the threshold"
    MAX_STEPS = "the step budget max_steps ran out before the threshold"
    STATIONARY = "the dynamics came to rest above the threshold"
    NON_FINITE = "the state, the dynamics or the criterion became non-finite"
    STEP_UNDERFLOW = "the step size needed fell below the resolution of time"

    @property
    def is_success(self) -> bool:
        """Whether the stopping time is finite."""
        return self in _SUCCESSES

    @property
    def code(self) -> int:
        """Position in the enumeration: how a tensor of statuses stores it."""
        return _MEMBERS.index(self)


_MEMBERS = tuple(StoppingStatus)
_SUCCESSES = (StoppingStatus.REACHED, StoppingStatus.ALREADY_SATISFIED, StoppingStatus.TANGENTIAL)


def statuses_from_codes(codes: Tensor) -> StoppingStatus | np.ndarray:
    """Turn a tensor of codes into one status (0-d) or an object array of statuses of the same shape."""
    if codes.ndim == 0:
        return _MEMBERS[int(codes)]
    statuses = np.empty(codes.shape, dtype=object)
    for index in np.ndindex(codes.shape):
        statuses[index] = _MEMBERS[int(codes[index])]
    return statuses


class StoppingTimeError(RuntimeError):
    """A trajectory did not stop, and ``on_failure="raise"`` asked for an exception.

    Attributes
    ----------
    solution
        The complete solution object, with every trajectory's status; nothing computed is lost.
    """

    def __init__(self, message: str, solution: object) -> None:
        super().__init__(message)
        self.solution = solution


class TangencyWarning(UserWarning):
    """A crossing is (nearly) tangential: dJ/dt is too small at the event for a usable gradient."""


def statuses_reached(codes: Tensor) -> Tensor:
    """Boolean tensor of the same shape: where the stopping time is finite."""
    return codes <= StoppingStatus.TANGENTIAL.code


def raise_on_failure(solution: object, codes: Tensor) -> None:
    """Raise `StoppingTimeError` if any trajectory in ``codes`` did not stop."""
    failed = ~statuses_reached(codes)
    if not bool(failed.any()):
        return
    first = _MEMBERS[int(codes[failed].reshape(-1)[0])]
    raise StoppingTimeError(
        f"{int(failed.sum())} of {codes.numel()} trajectories did not stop; the first: {first.value}",
        solution,
    )
