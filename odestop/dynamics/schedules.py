"""Schedules α(θ, t) that rescale a gradient flow (eq. 3 of arXiv 2505.22509).

The hyperparameters are scalars.  Numbers become float64 parameters, so that they are exactly what was
written; a scalar never changes the dtype of the state that it multiplies.

A schedule is a module or any other callable of t, of shape () for one trajectory and (*batch, 1) for a batch: the
classes here are for convenience.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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

    def __init__(self, scale: float | int | Tensor) -> None:
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
    t0: float | int | Tensor

    def __init__(self, scale: float | int | Tensor, rate: float | int | Tensor, t0: float | int | Tensor = 0.0) -> None:
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

    def __init__(self, scale: float | int | Tensor, exponent: float | int | Tensor) -> None:
        super().__init__()
        _register_scalar(self, "scale", scale)
        _register_scalar(self, "exponent", exponent)

    def forward(self, t: Float[Tensor, "*time"]) -> Float[Tensor, "*time"]:
        """Return α(t), in the shape of t."""
        return self.scale * (1 + t) ** -self.exponent


class CosineSchedule(nn.Module):
    """α(θ, t) = θ₂ + ½ (θ₁ - θ₂) (1 + cos(π (t - t₀)/θ₃)) from t₀ to t₀ + θ₃; θ₁ before and θ₂ after.

    Cosine annealing without restarts (Loshchilov, Hutter, 2017, eq. 5).  torch's ``CosineAnnealingLR`` with
    ``T_max`` steps is the schedule of duration h·T_max for a step size h.  α has a continuous derivative.  For
    θ₂ = 0 the rescaled flow comes to rest, where the plain one is at ½ θ₁ θ₃.

    Parameters
    ----------
    scale, final
        θ₁ and θ₂, the values at the start and from the end on: numbers or tensors of shape ().
    duration
        θ₃ > 0, a number or a tensor of shape ().
    t0
        t₀, a number or a tensor of shape (); not a parameter.

    Raises
    ------
    ValueError
        If a hyperparameter is not a finite scalar, or the duration is not positive.

    Examples
    --------
    >>> CosineSchedule(scale=3.0, final=1.0, duration=10.0)(torch.tensor(5.0)).item()
    2.0
    """

    scale: Tensor
    final: Tensor
    duration: Tensor
    t0: float | int | Tensor

    def __init__(
        self,
        scale: float | int | Tensor,
        final: float | int | Tensor,
        duration: float | int | Tensor,
        t0: float | int | Tensor = 0.0,
    ) -> None:
        super().__init__()
        _register_scalar(self, "scale", scale)
        _register_scalar(self, "final", final)
        _register_scalar(self, "duration", duration)
        if float(self.duration.detach()) <= 0:
            raise ValueError(f"duration must be positive, got {float(self.duration.detach())}")
        register_value(self, "t0", t0)

    def forward(self, t: Float[Tensor, "*time"]) -> Float[Tensor, "*time"]:
        """Return α(t), in the shape of t."""
        phase = ((t - self.t0) / self.duration).clamp(0.0, 1.0)
        return self.final + 0.5 * (self.scale - self.final) * (1 + torch.cos(math.pi * phase))


class PiecewiseSchedule(nn.Module):
    """α(θ, t): linear between the points (kₙ, vₙ), constant before the first and after the last.

    Linear rather than constant pieces: α is continuous, so that an adaptive solver passes a knot without a jump
    to locate, and every value, and every knot, moves α continuously.  At a knot only the derivative of α
    jumps, and a solver takes short steps there.  A warm-up is the schedule with knots (0, w) and values (0, 1).

    Parameters
    ----------
    knots
        Times kₙ in increasing order, at least two, shape (n,).  Numbers are constants; a tensor that requires a
        gradient, or a parameter, is kept as it is.
    values
        vₙ, shape (n,).

    Raises
    ------
    ValueError
        If the knots are not increasing, there are fewer than two, or the values are not finite numbers, one for
        each knot.

    Examples
    --------
    >>> schedule = PiecewiseSchedule(knots=[0.0, 1.0, 3.0], values=[0.0, 1.0, 0.5])
    >>> [schedule(torch.tensor(t)).item() for t in (-1.0, 0.5, 2.0, 4.0)]
    [0.0, 0.5, 0.75, 0.5]
    """

    knots: Tensor
    values: Tensor

    def __init__(self, knots: Tensor | Sequence[float | int], values: Tensor | Sequence[float | int]) -> None:
        super().__init__()
        times = knots if isinstance(knots, Tensor) else torch.tensor(knots, dtype=torch.float64)
        if times.ndim != 1 or len(times) < 2 or not bool((times.detach().diff() > 0).all()):
            raise ValueError(f"knots must be at least two increasing times, got {times.detach().tolist()}")
        register_value(self, "knots", times)
        register_hyperparameter(self, "values", values, dtype=torch.float64)
        if self.values.shape != times.shape:
            raise ValueError(
                f"values must have one entry for each of the {len(times)} knots, got shape {tuple(self.values.shape)}"
            )

    def forward(self, t: Float[Tensor, "*time"]) -> Float[Tensor, "*time"]:
        """Return α(t), in the shape and dtype of t."""
        passed = (t.unsqueeze(-1) - self.knots[:-1]) / self.knots.diff()
        risen = passed.clamp(0.0, 1.0) * self.values.diff()
        return (self.values[0] + risen.sum(-1)).to(t.dtype)


def _register_scalar(module: nn.Module, name: str, value: float | int | Tensor) -> None:
    if isinstance(value, Tensor) and value.ndim != 0:
        raise ValueError(f"{name} must be a number or a tensor of shape (), got shape {tuple(value.shape)}")
    register_hyperparameter(module, name, value, dtype=torch.float64)
