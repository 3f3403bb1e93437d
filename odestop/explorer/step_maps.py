"""The update rules that N can be that of: discretisations of the flow, and optimizers as they are run.

An optimizer is paired with the flow that it tends to for h → 0, at the time h per step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odestop.discrete import Adam, HeavyBall, Nesterov, NesterovStronglyConvex, StepMap
from odestop.objectives import Objective
from odestop.question import STEP_MAPS


@dataclass(frozen=True)
class Optimizer:
    """An optimizer as it is run.

    Attributes
    ----------
    dynamics
        Name of the flow that it tends to.
    title
        For people.
    build
        Makes it from the objective, the flow and h.
    formula
        How its hyperparameters follow from those of the flow, for people.
    code
        The same as Python, with the names ``objective``, ``flow`` and ``h``.
    """

    dynamics: str
    title: str
    build: Callable[[Objective, Any, Tensor], nn.Module]
    formula: str
    code: str


OPTIMIZERS: dict[str, Optimizer] = {
    "heavy-ball": Optimizer(
        "heavy-ball",
        "heavy ball as it is run",
        lambda objective, flow, h: HeavyBall(objective, h * h, 1 - flow.friction * h),
        "learning rate h², momentum 1 - c h",
        "HeavyBall(objective, h * h, 1 - flow.friction * h)",
    ),
    "nesterov": Optimizer(
        "nesterov",
        "Nesterov's method as it is run",
        lambda objective, flow, h: Nesterov(objective, h * h),
        "learning rate h², momentum (k - 1)/(k + 2): r = 3 whatever the flow's r",
        "Nesterov(objective, h * h)",
    ),
    "nesterov-strongly-convex": Optimizer(
        "strongly-convex-nesterov",
        "Nesterov's method for strongly convex f",
        lambda objective, flow, h: NesterovStronglyConvex(objective, h * h, flow.strong_convexity),
        "learning rate h², the same μ",
        "NesterovStronglyConvex(objective, h * h, flow.strong_convexity)",
    ),
    "adam": Optimizer(
        "adam",
        "Adam as it is run",
        lambda objective, flow, h: Adam(objective, h, torch.exp(-h / flow.tau1), torch.exp(-h / flow.tau2)),
        "learning rate h, β = exp(-h/τ)",
        "Adam(objective, h, torch.exp(-h / flow.tau1), torch.exp(-h / flow.tau2))",
    ),
}
"""Optimizers by the name of a step map."""


def step_maps_for(dynamics: str) -> tuple[str, ...]:
    """Return the names of the step maps of a dynamics."""
    return *STEP_MAPS, *(name for name, optimizer in OPTIMIZERS.items() if optimizer.dynamics == dynamics)


def build_step_map(name: str, objective: Objective, flow: nn.Module, step_size: Tensor) -> StepMap:
    """Return a step map.

    Parameters
    ----------
    name
        One of those of the dynamics, see `step_maps_for`.
    objective, flow
        f and the dynamics.
    step_size
        h, of shape () or (*batch,).
    """
    if name in STEP_MAPS:
        return STEP_MAPS[name](flow, step_size)
    return OPTIMIZERS[name].build(objective, flow, step_size)
