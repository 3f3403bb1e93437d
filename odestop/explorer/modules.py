"""The library's modules that a scene stands for, at one value of θ or at many at once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from odestop.discrete import StepMap
from odestop.explorer.scene import Number, Scene, entry_of, values_of
from odestop.explorer.step_maps import build_step_map
from odestop.objectives import Objective
from odestop.registry import OBJECTIVES

DTYPE = torch.float64


@dataclass(frozen=True)
class Modules:
    """What the solvers are called with.

    Attributes
    ----------
    objective, flow, criterion
        f, dx/dt and J.
    x0
        Shape (*batch, d).
    threshold
        The first ε, shape () or (*batch,).
    theta
        The swept parameter, shape () or (*batch,); requires a gradient.
    """

    objective: Objective
    flow: nn.Module
    criterion: nn.Module
    x0: Tensor
    threshold: Tensor
    theta: Tensor

    def step_map(self, name: str, step_size: Tensor) -> StepMap:
        """Return an update rule of the flow with a step size of shape () or (*batch,)."""
        return build_step_map(name, self.objective, self.flow, step_size)


def build(scene: Scene) -> Modules:
    """Return the modules at the scene's own θ.

    Raises
    ------
    ValueError
        If a name is unknown, or the library refuses a value.
    """
    theta = torch.tensor(scene.theta, dtype=DTYPE, requires_grad=True)
    return _modules(scene, _flow(scene, theta), theta)


def build_family(scene: Scene, thetas: Tensor) -> Modules:
    """Return the modules of a batch of trajectories, each with its own θ.

    Parameters
    ----------
    scene
        Its own θ plays no part.
    thetas
        Shape (n,).

    Raises
    ------
    ValueError
        If the library refuses one of the values.
    """
    if not thetas.requires_grad:
        thetas = thetas.clone().requires_grad_()
    return _modules(scene, _family(scene, thetas), thetas)


def objective_of(scene: Scene) -> Objective:
    """Return f, in double precision; scenes with the same one share it."""
    return _objective(scene.objective, tuple(sorted(values_of(scene, "objective").items())))


@lru_cache(maxsize=16)
def _objective(name: str, values: tuple[tuple[str, Number | None], ...]) -> Objective:
    return OBJECTIVES[name].build(dtype=DTYPE, **dict[str, Any](values))


def _modules(scene: Scene, flow: nn.Module, theta: Tensor) -> Modules:
    objective = objective_of(scene)
    criterion = entry_of(scene, "criterion").build(objective=objective, dtype=DTYPE, **values_of(scene, "criterion"))
    x0 = torch.tensor(scene.x0, dtype=DTYPE).expand(*theta.shape, len(scene.x0))
    threshold = theta if scene.parameter == "threshold" else torch.tensor(scene.threshold, dtype=DTYPE)
    return Modules(objective, flow, criterion, x0, threshold, theta)


def _flow(scene: Scene, theta: Tensor) -> nn.Module:
    """Return dx/dt with θ in the place of the swept parameter."""
    values: dict[str, Number | Tensor | None] = dict(values_of(scene, "dynamics"))
    if scene.parameter != "threshold":
        values[scene.parameter] = theta
    flow = entry_of(scene, "dynamics").build(objective=objective_of(scene), dtype=DTYPE, **values)
    # Only θ is differentiated in.
    for parameter in flow.parameters():
        parameter.requires_grad_(False)
    return flow


def _family(scene: Scene, thetas: Tensor) -> nn.Module:
    """Return dx/dt of a batch whose rows have different θ."""
    if scene.parameter == "threshold":
        return _flow(scene, thetas)
    # From the fastest to the one that always works.
    with suppress(ValueError, RuntimeError):
        flow = _flow(scene, thetas)
        if _agrees(flow, scene, thetas):
            return flow
    members = [_flow(scene, theta) for theta in thetas.unbind()]
    pattern = _flow(scene, thetas[0].detach())
    with suppress(ValueError, RuntimeError):
        flow = _Broadcast(pattern, members)
        if _agrees(flow, scene, thetas):
            return flow
    return _Mapped(pattern, members)


def _agrees(flow: nn.Module, scene: Scene, thetas: Tensor) -> bool:
    """Whether the first and the last row of a batch move as they would alone."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(len(thetas), len(scene.x0), generator=generator, dtype=DTYPE) + 0.1
    states = getattr(flow, "initial_state", lambda x: x)(x)
    t = torch.linspace(0.5, 1.0, len(thetas), dtype=DTYPE)
    with torch.no_grad():
        slopes = flow(t.unsqueeze(-1), states)
        alone = torch.stack([_flow(scene, thetas[k])(t[k], states[k]) for k in (0, -1)])
    return slopes.shape == states.shape and torch.allclose(slopes[[0, -1]], alone)


class _Broadcast(nn.Module):
    """Dynamics side by side whose hyperparameters multiply the state: each a number, or one number per coordinate."""

    def __init__(self, pattern: nn.Module, members: list[nn.Module]) -> None:
        super().__init__()
        self.pattern = pattern
        self.columns = {
            name: value.unsqueeze(-1) if value.ndim == 1 else value for name, value in _stacked(members).items()
        }

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return dx/dt, shape (n, d), at t of shape (n, 1): row k follows the k-th dynamics."""
        return torch.func.functional_call(self.pattern, self.columns, (t, x))


class _Mapped(nn.Module):
    """The same for any dynamics without memory."""

    def __init__(self, pattern: nn.Module, members: list[nn.Module]) -> None:
        super().__init__()
        self.pattern = pattern
        self.stacked = _stacked(members)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return dx/dt, shape (n, d), at t of shape (n, 1): row k follows the k-th dynamics."""
        return torch.vmap(self._at)(self.stacked, t.squeeze(-1), x)

    def _at(self, tensors: dict[str, Tensor], t: Tensor, x: Tensor) -> Tensor:
        return torch.func.functional_call(self.pattern, tensors, (t, x))


def _stacked(members: list[nn.Module]) -> dict[str, Tensor]:
    """Return the tensors that are not the same object in all of them, each with a new first dimension."""
    tensors = [_tensors(member) for member in members]
    differing = [name for name, value in tensors[0].items() if any(one[name] is not value for one in tensors)]
    return {name: torch.stack([one[name] for one in tensors]) for name in differing}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())
