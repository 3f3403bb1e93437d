"""Hyperparameters θ of a dynamics: tensors that stopping times are differentiated in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn


def register_hyperparameter(
    module: nn.Module, name: str, value: Tensor | float | Sequence[float], *, dtype: torch.dtype
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


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype of the first floating-point tensor of ``module``, or the default dtype."""
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.get_default_dtype()
