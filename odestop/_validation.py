"""Checks of arguments: each failure names the argument, what came and what is accepted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def check_state(name: str, value: object) -> Tensor:
    """Return ``value`` if it is a finite, real floating-point tensor of shape (*batch, d)."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor of shape (*batch, d), got {type(value).__name__}")
    if not value.is_floating_point():
        raise ValueError(f"{name} must have a real floating-point dtype such as torch.float64, got {value.dtype}")
    if value.ndim == 0 or value.numel() == 0:
        raise ValueError(f"{name} must have shape (*batch, d), all at least 1, got {tuple(value.shape)}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} must be finite, got {int((~torch.isfinite(value)).sum())} non-finite entries")
    return value


def check_per_trajectory(name: str, value: object, like: Tensor, batch: torch.Size) -> Tensor:
    """Return ``value`` as a finite tensor of ``like``'s dtype and device that broadcasts to ``batch``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        raise ValueError(f"{name} must be a number or a tensor of shape {tuple(batch)}, got {type(value).__name__}")
    if isinstance(value, Tensor):
        tensor = value.to(dtype=like.dtype, device=like.device)
    else:
        tensor = torch.tensor(value, dtype=like.dtype, device=like.device)
    try:
        tensor = tensor.expand(batch)
    except RuntimeError:
        raise ValueError(
            f"{name} must be a number or a tensor that broadcasts to the batch shape {tuple(batch)}, "
            f"got shape {tuple(tensor.shape)}"
        ) from None
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} must be finite, got {value}")
    return tensor


def check_levels(threshold: object, like: Tensor, batch: torch.Size) -> Tensor:
    """Return several thresholds as a finite tensor of shape (*batch, levels)."""
    if not isinstance(threshold, Tensor) or threshold.ndim == 0 or threshold.shape[-1] == 0:
        came = tuple(threshold.shape) if isinstance(threshold, Tensor) else type(threshold).__name__
        raise ValueError(
            f"threshold must be a tensor of shape (levels,) or {(*batch, 'levels')} with levels=True, got {came}"
        )
    return check_per_trajectory("threshold", threshold, like, torch.Size((*batch, threshold.shape[-1])))


def check_positive(name: str, value: float | int, *, allow_zero: bool = False, allow_infinite: bool = False) -> float:
    """Return ``value`` as a float if it is a positive number."""
    accepted = ("a non-negative" if allow_zero else "a positive") + (
        " number or inf" if allow_infinite else " finite number"
    )
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    if value < 0 or (value == 0 and not allow_zero) or (math.isinf(value) and not allow_infinite):
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    return float(value)


def check_positive_tensor(name: str, value: Tensor) -> Tensor:
    """Return ``value`` if it is a floating-point tensor whose entries are all positive and finite."""
    if not value.is_floating_point():
        raise ValueError(f"{name} must have a real floating-point dtype such as torch.float64, got {value.dtype}")
    values = value.detach()
    if not bool((torch.isfinite(values) & (values > 0)).all()):
        raise ValueError(f"{name} must be positive and finite, got {values}")
    return value


def check_count(name: str, value: int) -> int:
    """Return ``value`` if it is an integer of at least one."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return value


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_callable(name: str, value: object, signature: str) -> Callable:
    """Return ``value`` if it can be called."""
    if not callable(value):
        raise ValueError(f"{name} must be a callable {signature}, got {type(value).__name__}")
    return value


def check_shape(name: str, value: object, shape: torch.Size, explanation: str) -> Tensor:
    """Return ``value`` if it is a tensor of exactly ``shape``."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must return a torch.Tensor, got {type(value).__name__}")
    if value.shape != shape:
        raise ValueError(f"{name} must return shape {tuple(shape)}, got {tuple(value.shape)} ({explanation})")
    return value


def check_dtype(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``value`` if it has the dtype of the state."""
    if value.dtype != dtype:
        raise ValueError(
            f"{name} must return the dtype of x0, {dtype}, got {value.dtype}; cast its parameters or x0 to one dtype"
        )
    return value
