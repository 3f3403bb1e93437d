"""A network bound to an objective: a step map with hidden state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop.objectives.base import Objective, check_objective

if TYPE_CHECKING:
    from odestop.l2o.networks import LearnedOptimizer


class LearnedStepMap(nn.Module):
    """x_{k+1} = x_k + (the network's move), made by `LearnedOptimizer.optimizer`.

    The state is x and, behind it, the rows of the network's memory, each of the size of x and all zero at the start:
    shape (*batch, (1 + rows) d).  `advance` is the same step on x and a memory in parts, which saves long loops from
    taking the state apart and putting it together again.

    By default the derivative of a step is the exact one, with that of ∇f(x_k) in it: what Definition 3 and Algorithm 1
    ask for.  With ``detach_gradient`` the gradient enters the network as a constant, which leaves out ∇²f and is how
    both networks were trained by their authors.  The exact derivative is larger than useful for a long training: the
    logarithm of `L2ODM` has the derivative 1/(p g), up to eᵖ/p.

    Parameters
    ----------
    network
        The weights.
    objective
        f.
    detach_gradient
        Whether ∇f(x_k) enters the network as a constant.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`; at a step, if x is not in the dtype of the network.
    """

    def __init__(self, network: LearnedOptimizer, objective: Objective, *, detach_gradient: bool = False) -> None:
        super().__init__()
        self.network = network
        self.objective = check_objective(objective)
        self.detach_gradient = detach_gradient

    def initial_memory(self, x0: Float[Tensor, "*batch d"]) -> tuple[Tensor, ...]:
        """Return the empty memory, in parts of shape (*batch, rows, d)."""
        dtype = next(self.network.parameters()).dtype
        if x0.dtype != dtype:
            raise ValueError(
                f"x0 must have the dtype of the network, {dtype}, got {x0.dtype}; network.to(...) casts it"
            )
        *batch, d = x0.shape
        return tuple(x0.new_zeros(*batch, rows, d) for rows in self.network.memory_rows)

    def advance(
        self, k: int, x: Float[Tensor, "*batch d"], memory: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*batch d"], tuple[Tensor, ...]]:
        """Return x_{k+1} and the memory there."""
        if self.detach_gradient:
            with torch.no_grad():
                gradient = self.objective.gradient(x)
        else:
            gradient = self.objective.gradient(x)
        move, memory = self.network.update(k, gradient, memory)
        return x + move, memory

    def iterates(self, x0: Float[Tensor, "*batch d"], steps: int) -> Iterator[Float[Tensor, "*batch d"]]:
        """Yield x_0, …, x_steps."""
        x, memory = x0, self.initial_memory(x0)
        yield x
        for k in range(steps):
            x, memory = self.advance(k, x, memory)
            yield x

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return x0 with an empty memory."""
        return _flat(x0, self.initial_memory(x0))

    def position(self, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch d"]:
        """Return the x of a state."""
        return state[..., : state.shape[-1] // (1 + sum(self.network.memory_rows))]

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        x = self.position(state)
        rows = state[..., x.shape[-1] :].unflatten(-1, (-1, x.shape[-1]))
        return _flat(*self.advance(k, x, rows.split(self.network.memory_rows, dim=-2)))


def _flat(x: Tensor, memory: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([x, *(part.flatten(-2) for part in memory)], dim=-1)
