"""Steps pulled backward stage by stage, by the arithmetic that made them: a cotangent of x_1 becomes one of x.

A step is linear in its start and in the slopes of its stages.  So its adjoint needs of F only the products of
cotangents with ∂F/∂x at the stages, one after the other from the last stage to the first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from odestop.solvers.tableaus import ButcherTableau

Coefficient = float | Tensor
Pull = Callable[[int, Tensor], Tensor]
"""Maps a stage and what its slope receives, over h, to what the stage's state receives; (*batch, d) both."""


class StageAdjoint(ABC):
    """The adjoint of a step.

    Attributes
    ----------
    nodes
        τ of every stage, whose time is t + τ h; numbers, or tensors (*batch,) where trajectories differ.
    """

    nodes: Sequence[Coefficient]

    @abstractmethod
    def __call__(self, cotangent: Tensor, pull: Pull) -> Tensor:
        """Return the cotangent of x from that of x_1, shape (*batch, d), asking ``pull`` once for every stage."""


class ButcherAdjoint(StageAdjoint):
    """The adjoint of a step with a Butcher tableau.

    Parameters
    ----------
    tableau
        The method.
    like
        A state; the storage that is made for states like it serves one call after the other.
    """

    def __init__(self, tableau: ButcherTableau, like: Tensor) -> None:
        self.nodes = tableau.nodes
        matrix, weights = tableau.matrix, tableau.weights
        # λ at every stage and, last, at the end: what a stage collects its own from is in the rows below it.
        self._reached = like.new_empty(len(weights) + 1, *like.shape)
        flat = self._reached.flatten(1)
        self._backward = [
            (stage, flat[stage + 1 :].mT, like.new_tensor([row[stage] for row in (*matrix[stage + 1 :], weights)]))
            for stage in reversed(range(len(weights)))
        ]

    def __call__(self, cotangent: Tensor, pull: Pull) -> Tensor:
        """Return the cotangent of x."""
        reached = self._reached
        reached[-1] = cotangent
        for stage, below, weights in self._backward:
            reached[stage] = pull(stage, torch.mv(below, weights).view_as(cotangent))
        return reached.sum(0)


class RecurrenceAdjoint(StageAdjoint):
    """The adjoint of a step of stages in a three-term recurrence, with four Runge-Kutta stages at its end or without.

    Parameters
    ----------
    rows, finish
        Coefficients as in `odestop.solvers.stabilised_coefficients.StageCoefficients`.
    with_start
        Whether the recurrence contains y_0 and F(t, y_0).
    """

    def __init__(
        self, rows: Sequence[Sequence[Coefficient]], finish: Sequence[Coefficient], *, with_start: bool
    ) -> None:
        self._rows, self._finish, self._with_start = rows, finishing_stages(finish), with_start
        self.nodes = [row[0] for row in rows] + list(self._finish.nodes)

    def __call__(self, cotangent: Tensor, pull: Pull) -> Tensor:
        """Return the cotangent of x."""
        last = self._through_finish(cotangent, pull)
        before, start, first_slope = (torch.zeros_like(cotangent) for _ in range(3))
        for stage, (_, keep, previous, rate, origin, first_rate) in reversed(list(enumerate(self._rows))):
            received = scaled(rate, last)
            if self._with_start:
                start, first_slope = plus(start, origin, last), plus(first_slope, first_rate, last)
                received = received + first_slope if stage == 0 else received
            pulled = pull(stage, received)
            last, before = plus(pulled + before, keep, last), scaled(previous, last)
        return last + before + start

    def _through_finish(self, cotangent: Tensor, pull: Pull) -> Tensor:
        """The cotangent of the recurrence's end."""
        _, matrix, weights = self._finish
        pulled: dict[int, Tensor] = {}
        for stage in reversed(range(len(weights))):
            received = scaled(weights[stage], cotangent)
            for later, own in pulled.items():
                received = plus(received, matrix[later][stage], own)
            pulled[stage] = pull(len(self._rows) + stage, received)
        return torch.stack([cotangent, *pulled.values()]).sum(0)


class FinishingStages(NamedTuple):
    """Nodes, rows of the lower triangle and weights of the stages that a step ends with; empty without any."""

    nodes: Sequence[Coefficient]
    matrix: Sequence[Sequence[Coefficient]]
    weights: Sequence[Coefficient]


def finishing_stages(finish: Sequence[Coefficient]) -> FinishingStages:
    """Return the parts of a row of coefficients as `StageCoefficients` has it; what follows them is left."""
    nodes, triangle, weights = finish[:4], finish[4:10], finish[10:14]
    rows = [triangle[stage * (stage - 1) // 2 : stage * (stage + 1) // 2] for stage in range(len(nodes))]
    return FinishingStages(nodes, rows, weights)


def scaled(coefficient: Coefficient, tensor: Tensor) -> Tensor:
    """Product with a number, or with one number per trajectory."""
    if isinstance(coefficient, Tensor) and tensor.ndim > coefficient.ndim:
        coefficient = coefficient.unsqueeze(-1)
    return coefficient * tensor


def plus(total: Tensor, coefficient: Coefficient, tensor: Tensor) -> Tensor:
    """Return ``total`` plus such a product."""
    if isinstance(coefficient, Tensor):
        return torch.addcmul(total, coefficient.unsqueeze(-1), tensor)
    return torch.add(total, tensor, alpha=coefficient)
