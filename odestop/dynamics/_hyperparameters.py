"""Hyperparameters θ of a dynamics: tensors that stopping times are differentiated in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from odestop.objectives.base import register_value


class Accepted(NamedTuple):
    """The values that a hyperparameter may have, in words and as a test of each entry."""

    description: str
    holds: Callable[[Tensor], Tensor]


POSITIVE = Accepted("positive", lambda values: values > 0)
NON_NEGATIVE = Accepted("at least 0", lambda values: values >= 0)
AVERAGING = Accepted("at least 0 and less than 1", lambda values: (values >= 0) & (values < 1))

NUMBERS = "a number or a tensor of shape () or (*batch,)"


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
    _check_finite(name, tensor, value)
    if tensor.requires_grad and not isinstance(tensor, nn.Parameter):
        module.register_buffer(name, tensor)
    else:
        module.register_parameter(name, tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor))


def register_number(
    module: nn.Module, name: str, value: Tensor | float | int, accepted: Accepted = POSITIVE, kinds: str = NUMBERS
) -> None:
    """Store a hyperparameter of shape () or, with a value per trajectory, (*batch,); see `at_trajectories`.

    A number becomes a 0-d parameter in float64: exact, and it never changes the dtype of a state.  ``kinds`` says in
    an error message what the value may be.
    """
    _check_kind(name, value, kinds)
    register_hyperparameter(module, name, value, dtype=torch.float64)
    _check_accepted(name, getattr(module, name), accepted)


def register_constant(
    module: nn.Module, name: str, value: Tensor | float | int, accepted: Accepted = NON_NEGATIVE
) -> None:
    """Store a hyperparameter that is no parameter, in float64 if it is a number; a tensor is kept as it is."""
    _check_kind(name, value, NUMBERS)
    tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    _check_finite(name, tensor, value)
    _check_accepted(name, tensor, accepted)
    register_value(module, name, tensor)


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


def _check_kind(name: str, value: object, kinds: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        raise ValueError(f"{name} must be {kinds}, got {type(value).__name__}")


def _check_finite(name: str, tensor: Tensor, given: object) -> None:
    if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} must be finite real floating-point numbers, got {given!r}")


def _check_accepted(name: str, tensor: Tensor, accepted: Accepted) -> None:
    values = tensor.detach()
    refused = values[~accepted.holds(values)]
    if refused.numel():
        raise ValueError(f"{name} must be {accepted.description}, got {float(refused[0])}")
