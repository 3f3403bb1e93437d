"""A vector-Jacobian product of a user's function, and the refusal of functions that hide one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor


def pull_back(
    function: Callable[[Tensor], Tensor],
    state: Float[Tensor, "*batch m"],
    parameters: Sequence[Tensor],
    cotangent: Tensor,
) -> tuple[Tensor | None, list[Tensor]]:
    """Recompute ``function(state)`` with a graph and pull the cotangent of its value through it.

    Returns the cotangent of the state, None if the graph does not lead there, and those of the parameters.
    """
    with torch.enable_grad():
        leaf = state.detach().requires_grad_()
        output = function(leaf)
    if not output.requires_grad:
        return None, [torch.zeros_like(parameter) for parameter in parameters]
    pulled, *gradients = torch.autograd.grad(output, (leaf, *parameters), cotangent, allow_unused=True)
    return pulled, [
        torch.zeros_like(parameter) if gradient is None else gradient
        for gradient, parameter in zip(gradients, parameters, strict=True)
    ]


def own_pull_back(step_map: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Sequence[Tensor]] | None]:
    """Return the ``pull_back`` of a step map, or a function that never has an answer."""
    if isinstance(step_map, partial):
        return partial(own_pull_back(step_map.func), *step_map.args, **step_map.keywords)
    return getattr(step_map, "pull_back", _no_answer)


def _no_answer(*arguments: object, **keywords: object) -> None:
    return None


def refuse_detached_step(step: Callable[[Tensor], Tensor], state: Float[Tensor, "*batch m"]) -> None:
    """Raise if a step moves with its state in a way that its graph does not show.

    A map that detaches its state, or calls autograd inside without ``create_graph=True``, leaves one of two
    traces: no graph at all, as if the map were constant, or the graph of ``state + constant`` alone, whose
    pull-back is the identity.  In these two cases the map is evaluated nearby, to see whether it really is
    so.

    Raises
    ------
    RuntimeError
        If it is not.
    """
    generic = _wave(state)
    pulled, _ = pull_back(step, state, (), generic)
    if pulled is not None and not torch.equal(pulled, generic):
        return
    resolution = torch.finfo(state.dtype).eps
    displacement = math.sqrt(resolution) * (1 + state.abs()) * generic
    with torch.enable_grad():
        output = step(state.detach().requires_grad_()).detach()
        displaced = step((state + displacement).detach().requires_grad_()).detach()
    expected = output if pulled is None else output + displacement
    rounding = 4 * resolution * (state.abs() + output.abs() + displacement.abs())
    if bool(((displaced - expected).abs() > rounding).any()):
        raise RuntimeError(
            "step_map depends on its state in a way that autograd does not see: it detaches the state, or "
            "calls autograd inside without create_graph=True"
        )


def _wave(like: Tensor) -> Tensor:
    """Return a direction that is in no null space in particular, without touching the random generator."""
    index = torch.arange(1, like.numel() + 1, dtype=like.dtype, device=like.device)
    return torch.cos(index).reshape(like.shape)
