"""The shipped dynamics by name."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from odestop.dynamics import (
    CoordinatewisePreconditioner,
    DiagonallyPreconditionedFlow,
    ExponentialSchedule,
    GradientFlow,
    PolynomialSchedule,
    PreconditionedFlow,
    RescaledGradientFlow,
)
from odestop.objectives import Objective
from odestop.registry.catalogue import Catalogue, Entry, Range, Seed

DYNAMICS: Catalogue[Entry[nn.Module]] = Catalogue("dynamics", Entry)
"""Dynamics dx/dt = -A(θ, x, t), each for an objective."""

Scale = Annotated[float | Tensor, Range("θ₁", 0.1, 10.0, "speed at the start")]


DYNAMICS.register("gradient-flow")(GradientFlow)


@DYNAMICS.register("exponential-flow", RescaledGradientFlow, ExponentialSchedule)
def _exponential_flow(
    objective: Objective,
    scale: Scale = 1.0,
    rate: Annotated[float | Tensor, Range("θ₂", 0.0, 0.1, "rate at which it slows down")] = 0.005,
) -> RescaledGradientFlow:
    return RescaledGradientFlow(objective, ExponentialSchedule(scale, rate))


@DYNAMICS.register("polynomial-flow", RescaledGradientFlow, PolynomialSchedule)
def _polynomial_flow(
    objective: Objective,
    scale: Scale = 1.0,
    exponent: Annotated[float | Tensor, Range("θ₂", 0.0, 1.0, "power of time by which it slows down")] = 0.25,
) -> RescaledGradientFlow:
    return RescaledGradientFlow(objective, PolynomialSchedule(scale, exponent))


@DYNAMICS.register("diagonal-preconditioner", DiagonallyPreconditionedFlow)
def _diagonal_preconditioner(
    objective: Objective,
    dtype: torch.dtype | None,
    theta: Annotated[float | Tensor, Range("θ", 0.1, 3.0, "every entry of the diagonal p but the first")] = 2.5,
) -> DiagonallyPreconditionedFlow:
    theta = torch.as_tensor(theta, dtype=dtype or torch.get_default_dtype())
    return DiagonallyPreconditionedFlow(
        objective, torch.cat([theta.new_ones(1), theta.expand(_dimension(objective) - 1)])
    )


@DYNAMICS.register("learned-preconditioner", PreconditionedFlow, CoordinatewisePreconditioner)
def _learned_preconditioner(
    objective: Objective,
    dtype: torch.dtype | None,
    hidden: Annotated[int, Range("m", 1, 8, "hidden units per coordinate")] = 2,
    scale: Annotated[float, Range("σ", 0.0, 1.0, "standard deviation of the initial parameters")] = 0.1,
    seed: Seed = 0,
) -> PreconditionedFlow:
    network = CoordinatewisePreconditioner(_dimension(objective), hidden, scale=scale, seed=seed, dtype=dtype)
    return PreconditionedFlow(objective, network)


def _dimension(objective: Objective) -> int:
    if objective.dimension is None:
        raise ValueError("objective must have a known dimension, got one for any dimension")
    return objective.dimension
