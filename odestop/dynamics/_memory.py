"""Flows of an objective that remember: their state is the position and, concatenated behind it, their memory."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop.dynamics._hyperparameters import (
    POSITIVE,
    Accepted,
    checked_at_trajectories,
    register_constant,
    register_number,
)
from odestop.objectives.base import Objective, check_objective


class FlowWithMemory(nn.Module):
    """Base of the flows whose state is [x, memory], of shape (*batch, (1 + memories) d).

    Subclasses implement ``forward(t, state) -> dstate/dt``, and say how many vectors of the size of x they
    remember.  A hyperparameter is a number, which becomes a float64 parameter, exactly as written, or a tensor
    of shape (), or (*batch,) with a value for each trajectory; none changes the dtype of the state.

    Parameters
    ----------
    objective
        f.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`.
    """

    memories: ClassVar[int] = 1

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = check_objective(objective)

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return x0 with an empty memory."""
        return torch.cat([x0, *[torch.zeros_like(x0)] * self.memories], dim=-1)

    def position(self, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch d"]:
        """Return the x of a state."""
        return self.parts(state)[0]

    def parts(self, state: Float[Tensor, "*batch m"]) -> tuple[Tensor, ...]:
        """Return the position and the memories, each of shape (*batch, d)."""
        return state.chunk(1 + self.memories, dim=-1)

    def register_hyperparameter(self, name: str, value: float | int | Tensor, accepted: Accepted = POSITIVE) -> None:
        """Store a hyperparameter; a number becomes a parameter.

        Raises
        ------
        ValueError
            If it is neither a number nor a tensor, or its value is not accepted.
        """
        register_number(self, name, value, accepted)

    def register_constant(self, name: str, value: float | int | Tensor) -> None:
        """Store a hyperparameter that is at least 0 and, given as a number, is no parameter; errors as above."""
        register_constant(self, name, value)

    def value_of(self, name: str, x: Float[Tensor, "*batch d"]) -> float | int | Tensor:
        """Return a hyperparameter so that it broadcasts against x: a scalar, or of shape (*batch, 1).

        Raises
        ------
        ValueError
            If it has neither shape () nor that of the batch.
        """
        value = getattr(self, name)
        return checked_at_trajectories(name, value, x) if isinstance(value, Tensor) else value
