"""Hyperparameters θ of a dynamics: tensors that stopping times are differentiated in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn


def register_hyperparameter(
    module: nn.Module,
    name: str,
    value: Tensor | float | int | Sequence[float | int] | Sequence[Sequence[float | int]],
    *,
    dtype: torch.dtype,
) -> None:
    """Store ``value`` on ``module`` as a parameter; numbers get ``dtype``, a tensor keeps its own.

    A tensor that already requires a gradient is stored as it is, so that gradients arrive at the caller's
    tensor.
    """
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=dtype)
    if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} must be finite real floating-point numbers, got {value!r}")
    if tensor.requires_grad and not isinstance(tensor, nn.Parameter):
        module.register_buffer(name, tensor)
    else:
        module.register_parameter(name, tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor))


def register_positive(module: nn.Module, name: str, value: Tensor | float | int, *, allow_zero: bool = False) -> None:
    """Store a positive hyperparameter of shape () or, with a value per trajectory, (*batch,); see `at_trajectories`.

    A number becomes a 0-d parameter in float64: exact, and it never changes the dtype of a state.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        raise ValueError(f"{name} must be a number or a tensor of shape () or (*batch,), got {type(value).__name__}")
    register_hyperparameter(module, name, value, dtype=torch.float64)
    smallest = float(getattr(module, name).detach().min())
    if smallest < 0 or (smallest == 0 and not allow_zero):
        raise ValueError(f"{name} must be {'at least 0' if allow_zero else 'positive'}, got {smallest}")


def at_trajectories(value: Tensor, x: Tensor) -> Tensor:
    """Return a hyperparameter so that it multiplies states x of shape (*batch, d): 0-d, or of shape (*batch, 1)."""
    return value if value.ndim == 0 else value.to(x.dtype).unsqueeze(-1)


def checked_at_trajectories(name: str, value: Tensor, x: Tensor) -> Tensor:
    """Return a hyperparameter as `at_trajectories` does; a ValueError if its shape is neither () nor (*batch,)."""
    if value.ndim > 0 and value.shape != x.shape[:-1]:
        raise ValueError(
            f"{name} must have shape () or the batch shape {tuple(x.shape[:-1])}, got {tuple(value.shape)}"
        )
    return at_trajectories(value, x)


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype of the first floating-point tensor of ``module``, or the default dtype."""
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.get_default_dtype()
