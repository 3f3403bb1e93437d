"""Schedules α(θ, t) that rescale a gradient flow (eq. 3 of arXiv 2505.22509).

The hyperparameters are scalars.  Numbers become float64 parameters, so that they are exactly what was
written; a scalar never changes the dtype of the state that it multiplies.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop.dynamics._hyperparameters import register_hyperparameter
from odestop.objectives.base import register_value


class ConstantSchedule(nn.Module):
    """α(θ, t) = θ₁.

    Parameters
    ----------
    scale
        θ₁, a number or a tensor of shape ().

    Raises
    ------
    ValueError
        If the hyperparameter is not a finite scalar.

    Examples
    --------
    >>> ConstantSchedule(2.0)(torch.tensor(5.0)).item()
    2.0
    """

    scale: Tensor

    def __init__(self, scale: float | Tensor) -> None:
        super().__init__()
        _register_scalar(self, "scale", scale)

    def forward(self, t: Float[Tensor, "*time"]) -> Float[Tensor, ""]:
        """Return α(t), the same at every t."""
        return self.scale


class ExponentialSchedule(nn.Module):
    """α(θ, t) = θ₁ exp(-θ₂ (t - t₀)).

    For θ₂ > 0 the integral of α is finite: the rescaled flow comes to rest where the plain one is at θ₁/θ₂.

    Parameters
    ----------
    scale, rate
        θ₁ and θ₂, numbers or tensors of shape ().
    t0
        t₀, a number or a tensor of shape (); not a parameter.

    Raises
    ------
    ValueError
        If a hyperparameter is not a finite scalar.

    Examples
    --------
    >>> schedule = ExponentialSchedule(scale=2.0, rate=0.5)
    >>> schedule(torch.tensor([[0.0], [2.0]], dtype=torch.float64))
    tensor([[2.0000],
            [0.7358]], dtype=torch.float64, grad_fn=<MulBackward0>)
    """

    scale: Tensor
    rate: Tensor
    t0: float | Tensor

    def __init__(self, scale: float | Tensor, rate: float | Tensor, t0: float | Tensor = 0.0) -> None:
        super().__init__()
        _register_scalar(self, "scale", scale)
        _register_scalar(self, "rate", rate)
        register_value(self, "t0", t0)

    def forward(self, t: Float[Tensor, "*time"]) -> Float[Tensor, "*time"]:
        """Return α(t), in the shape of t."""
        return self.scale * torch.exp(-self.rate * (t - self.t0))


class PolynomialSchedule(nn.Module):
    """α(θ, t) = θ₁ (1 + t)^(-θ₂), for t > -1.

    Parameters
    ----------
    scale, exponent
        θ₁ and θ₂, numbers or tensors of shape ().

    Raises
    ------
    ValueError
        If a hyperparameter is not a finite scalar.

    Examples
    --------
    >>> PolynomialSchedule(scale=3.0, exponent=0.5)(torch.tensor(8.0)).item()
    1.0
    """

    scale: Tensor
    exponent: Tensor

    def __init__(self, scale: float | Tensor, exponent: float | Tensor) -> None:
        super().__init__()
        _register_scalar(self, "scale", scale)
        _register_scalar(self, "exponent", exponent)

    def forward(self, t: Float[Tensor, "*time"]) -> Float[Tensor, "*time"]:
        """Return α(t), in the shape of t."""
        return self.scale * (1 + t) ** -self.exponent


def _register_scalar(module: nn.Module, name: str, value: float | Tensor) -> None:
    if isinstance(value, Tensor) and value.ndim != 0:
        raise ValueError(f"{name} must be a number or a tensor of shape (), got shape {tuple(value.shape)}")
    register_hyperparameter(module, name, value, dtype=torch.float64)
