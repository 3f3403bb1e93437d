"""Step maps that minimise an objective, and their hyperparameters: numbers, tensors or schedules by step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop.dynamics._hyperparameters import (
    NON_NEGATIVE,
    POSITIVE,
    Accepted,
    checked_at_trajectories,
    register_constant,
    register_number,
)
from odestop.objectives.base import Objective, check_objective

Hyperparameter = float | int | Tensor | Callable[[Tensor], Tensor | float]
"""What `ObjectiveStepMap` accepts for each hyperparameter."""


class ObjectiveStepMap(nn.Module):
    """Base of the step maps of an objective f: the position and, concatenated to it, the memory.

    Subclasses implement ``forward(k, state) -> state``.  A map with memory has ``memories`` vectors of the
    size of x beside x itself, all zero at the start; its state has shape (*batch, (1 + memories) d), the
    position first.

    Every hyperparameter is one of

    * a number, which becomes a parameter of the map in float64, exactly as written;
    * a tensor of shape (), or (*batch,) with a value for each trajectory; a tensor that requires a gradient
      is kept as it is, another becomes a parameter;
    * a schedule by step, a callable or module such as those of `odestop.dynamics`: called with the step index
      k = 0, 1, … as a tensor of shape () in the dtype of the state, it returns a value of shape () or
      (*batch,).  Its values are not checked.

    The stopping time is differentiable in all of them, and none of them changes the dtype of the state.

    Parameters
    ----------
    objective
        f; its parameters are parameters of the map as well.
    memories
        Number of vectors that the map remembers.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`.

    Examples
    --------
    A rule of one's own, gradient descent with normalised gradients:

    >>> import torch
    >>> from odestop.objectives import DiagonalQuadratic
    >>> class NormalizedDescent(ObjectiveStepMap):
    ...     def __init__(self, objective, learning_rate):
    ...         super().__init__(objective, memories=0)
    ...         self.register_hyperparameter("learning_rate", learning_rate)
    ...
    ...     def forward(self, k, state):
    ...         gradient = self.objective.gradient(state)
    ...         length = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    ...         return state - self.value_at("learning_rate", k, state) * gradient / length
    >>> step = NormalizedDescent(DiagonalQuadratic([3.0, 4.0]), learning_rate=lambda k: 1 / (1 + k))
    >>> step(0, torch.ones(2))
    tensor([0.4000, 0.2000])
    """

    weight_decay: Tensor | Callable | None

    def __init__(self, objective: Objective, memories: int) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        self.memories = memories

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return x0 with an empty memory."""
        return torch.cat([x0, *[torch.zeros_like(x0)] * self.memories], dim=-1) if self.memories else x0

    def position(self, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch d"]:
        """Return the x of a state."""
        return state.chunk(1 + self.memories, dim=-1)[0] if self.memories else state

    def register_hyperparameter(self, name: str, value: Hyperparameter | None, accepted: Accepted = POSITIVE) -> None:
        """Store a hyperparameter; None stands for a term that is left out.

        Raises
        ------
        ValueError
            If it is no hyperparameter, or its value is not accepted.
        """
        if value is None or (callable(value) and not isinstance(value, Tensor)):
            setattr(self, name, value)
            return
        kinds = "a number, a tensor of shape () or (*batch,), or a schedule k -> value"
        register_number(self, name, value, accepted, kinds)

    def register_constant(self, name: str, value: float | int | Tensor, accepted: Accepted = NON_NEGATIVE) -> None:
        """Store a hyperparameter that is a constant if given as a number; only a tensor may require a gradient.

        Raises
        ------
        ValueError
            If it is neither, or its value is not accepted.
        """
        register_constant(self, name, value, accepted)

    def value_at(self, name: str, k: int, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "..."]:
        """Return a hyperparameter at step k: 0-d, or of shape (*batch, 1) in the dtype of x.

        Raises
        ------
        ValueError
            If it has neither shape () nor that of the batch.
        """
        value = getattr(self, name)
        if not isinstance(value, Tensor):
            value = value(torch.tensor(k, dtype=x.dtype, device=x.device))
            if not isinstance(value, Tensor):
                value = torch.tensor(value, dtype=torch.float64, device=x.device)
        # A 0-d factor never promotes x, so that it may keep its own precision.
        return checked_at_trajectories(name, value, x)

    def decayed_gradient(self, k: int, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return ∇f(x) + weight_decay · x, the gradient with the usual ℓ2 penalty."""
        gradient = self.objective.gradient(x)
        return gradient if self.weight_decay is None else gradient + self.value_at("weight_decay", k, x) * x
