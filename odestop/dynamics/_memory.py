"""Flows of an objective that remember: their state is the position and, concatenated behind it, their memory."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop.dynamics._hyperparameters import checked_at_trajectories, register_positive
from odestop.objectives.base import Objective, check_objective, register_value


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

    # Bound to the class: a criterion of positions has none of the flow's parameters.
    @classmethod
    def position(cls, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch d"]:
        """Return the x of a state."""
        return cls.parts(state)[0]

    @classmethod
    def parts(cls, state: Float[Tensor, "*batch m"]) -> tuple[Tensor, ...]:
        """Return the position and the memories, each of shape (*batch, d)."""
        return state.chunk(1 + cls.memories, dim=-1)

    def register_hyperparameter(self, name: str, value: float | int | Tensor, *, allow_zero: bool = False) -> None:
        """Store a hyperparameter that is positive, or at least 0; a number becomes a parameter."""
        register_positive(self, name, value, allow_zero=allow_zero)

    def register_constant(self, name: str, value: float | int | Tensor) -> None:
        """Store a hyperparameter that is at least 0 and, given as a number, is no parameter."""
        smallest = float(value.detach().min()) if isinstance(value, Tensor) else value
        if not 0 <= smallest < math.inf:
            raise ValueError(f"{name} must be finite and at least 0, got {smallest}")
        register_value(self, name, value)

    def value_of(self, name: str, x: Float[Tensor, "*batch d"]) -> float | int | Tensor:
        """Return a hyperparameter so that it broadcasts against x: a scalar, or of shape (*batch, 1).

        Raises
        ------
        ValueError
            If it has neither shape () nor that of the batch.
        """
        value = getattr(self, name)
        return checked_at_trajectories(name, value, x) if isinstance(value, Tensor) else value
