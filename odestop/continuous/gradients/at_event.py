"""The implicit function theorem at events: what the crossings of levels hand back to the trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.event import Event
from odestop.continuous.forward import ForwardSolve
from odestop.continuous.gradients.first_order import StoppingGradients, add_to, vector_jacobian_product
from odestop.continuous.gradients.rows import donate
from odestop.continuous.problem import StoppingProblem

AlongDrift = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Maps a cotangent of x(T) for every event, (*batch, d), to its products with ∂Φ/∂h', (*batch,)."""


@dataclass(frozen=True)
class EventCotangents:
    """One level's events with cotangents of T, shape (*batch,), and of x(T), shape (*batch, d).

    As they come from a loss; or, with the last step's size h' held fixed, as they go on.
    """

    event: Event
    level: int
    time: Tensor
    state: Tensor

    @property
    def rows(self) -> np.ndarray:
        """Trajectories with a gradient, shape (n,)."""
        return self.event.rows & ~self.event.tangential


def received_at_events(solve: ForwardSolve, time_cotangent: Tensor, state_cotangent: Tensor) -> list[EventCotangents]:
    """Cotangents of T (*batch, levels) and x(T) (*batch, levels, d), level by level where there is an event to use."""
    every = (
        EventCotangents(event, level, time_cotangent[..., level], state_cotangent[..., level, :])
        for level, event in enumerate(solve.events)
        if event is not None
    )
    return [received for received in every if received.rows.any()]


def pull_through_criterion(
    problem: StoppingProblem,
    received: Sequence[EventCotangents],
    along_drift: AlongDrift,
    gradients: StoppingGradients,
) -> list[EventCotangents]:
    """Pull cotangents τ of T and v of x(T) through J(T, x(T)) = ε, which determines h'.

    With Φ = x(T) as a function of h', D = ∇J·∂Φ/∂h' + ∂J/∂t and c = τ + v·∂Φ/∂h':  the threshold receives c/D, the
    criterion's parameters -(c/D) ∂J/∂φ, x(T) at fixed h' v - (c/D) ∇J, and T at fixed h' τ - (c/D) ∂J/∂t.

    ``gradients`` receives what belongs to the threshold and to the criterion.
    """
    linear = [_LinearCriterion(problem, each) for each in received]
    rates = along_drift([each.gradient for each in linear])
    states = [each.received.state for each in linear]
    # Mostly the loss sees T alone.
    moves = along_drift(states) if bool(torch.stack(states).any()) else [torch.zeros_like(rate) for rate in rates]
    return [each.pull_back(rate, move, gradients) for each, rate, move in zip(linear, rates, moves, strict=True)]


class _LinearCriterion:
    """J near one level's events.

    Attributes
    ----------
    received
        The cotangents, without those of trajectories that have no gradient.
    gradient
        ∇J, shape (*batch, d).
    """

    def __init__(self, problem: StoppingProblem, received: EventCotangents) -> None:
        self._parameters, self._usable = problem.criterion.parameters, problem.row_mask(received.rows)
        self.received = replace(
            received,
            time=torch.where(self._usable, received.time, 0.0),
            state=torch.where(self._usable.unsqueeze(-1), received.state, 0.0),
        )
        end = donate(received.event.end, self._usable).detach().requires_grad_()
        time = donate(problem.to_device(received.event.time), self._usable).detach().requires_grad_()
        self._value = problem.criterion.with_graph(time, end)
        self.gradient, self._time_slope = vector_jacobian_product(
            self._value, (end, time), torch.ones_like(self._value), retain_graph=True
        )

    def pull_back(self, rate: Tensor, move: Tensor, gradients: StoppingGradients) -> EventCotangents:
        """Cotangents at fixed h', from ∇J·∂Φ/∂h' and v·∂Φ/∂h'."""
        received, usable = self.received, self._usable
        rate = torch.where(usable, rate + self._time_slope, 1.0)
        weight = torch.where(usable, (received.time + move) / rate, 0.0)
        gradients.threshold[..., received.level] += weight
        add_to(gradients.criterion, vector_jacobian_product(self._value, self._parameters, -weight))
        state = received.state - weight.unsqueeze(-1) * self.gradient
        return replace(received, time=received.time - weight * self._time_slope, state=state)
