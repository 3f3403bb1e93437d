"""The implicit function theorem at an event: what the crossing of a level hands back to the trajectory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from odestop.continuous.event import Event
from odestop.continuous.gradients.first_order import StoppingGradients, add_to, vector_jacobian_product
from odestop.continuous.gradients.rows import donate
from odestop.continuous.problem import StoppingProblem


@dataclass(frozen=True)
class EventCotangents:
    """Cotangents of x(T), shape (*batch, d), and of T, shape (*batch,), with the last step's size h' held fixed."""

    state: Tensor
    time: Tensor


def pull_through_criterion(
    problem: StoppingProblem,
    event: Event,
    level: int,
    time_cotangent: Tensor,
    state_cotangent: Tensor,
    along_drift: Callable[[Tensor], Tensor],
    gradients: StoppingGradients,
) -> EventCotangents:
    """Pull cotangents τ of T and v of x(T) through J(T, x(T)) = ε, which determines h'.

    With Φ = x(T) as a function of h', D = ∇J·∂Φ/∂h' + ∂J/∂t and c = τ + v·∂Φ/∂h':  the threshold receives c/D, the
    criterion's parameters -(c/D) ∂J/∂φ, x(T) at fixed h' v - (c/D) ∇J, and T at fixed h' τ - (c/D) ∂J/∂t.

    ``along_drift`` maps a cotangent of x(T), shape (*batch, d), to its products with ∂Φ/∂h', shape (*batch,).
    ``gradients`` receives what belongs to the threshold and to the criterion.
    """
    usable = problem.row_mask(event.rows & ~event.tangential)
    time_cotangent = torch.where(usable, time_cotangent, 0.0)
    state_cotangent = torch.where(usable.unsqueeze(-1), state_cotangent, 0.0)
    end = donate(event.end, usable).detach().requires_grad_()
    time = donate(problem.to_device(event.time), usable).detach().requires_grad_()
    value = problem.criterion.with_graph(time, end)
    gradient, time_slope = vector_jacobian_product(value, (end, time), torch.ones_like(value), retain_graph=True)
    rate = torch.where(usable, along_drift(gradient) + time_slope, 1.0)
    weight = torch.where(usable, (time_cotangent + along_drift(state_cotangent)) / rate, 0.0)
    gradients.threshold[..., level] += weight
    add_to(gradients.criterion, vector_jacobian_product(value, problem.criterion.parameters, -weight))
    return EventCotangents(state_cotangent - weight.unsqueeze(-1) * gradient, time_cotangent - weight * time_slope)
