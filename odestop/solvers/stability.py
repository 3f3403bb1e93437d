"""Spectral radius of ∂F/∂x along a solve, for the stability limit of explicit methods."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from odestop.solvers.one_step import Field

_FIRST_ITERATIONS = 12
_SETTLED = 0.01


class SpectralRadius:
    """Nonlinear power iteration v ← (F(x + δv) - F(x))/δ, kept warm from one call to the next.

    Each iteration costs one evaluation of F.  The first `update` iterates until the estimate settles to 1 %; later
    ones take a single iteration each, so that the direction keeps converging while the state moves.
    """

    def __init__(self, field: Field, t: Tensor, x: Tensor, slope: Tensor) -> None:
        self._field = field
        self._direction = _normalised(slope, fallback=torch.ones_like(x))
        self.value = torch.zeros_like(t)
        for _ in range(_FIRST_ITERATIONS):
            previous = self.value
            self.update(t, x, slope)
            if bool(((self.value - previous).abs() <= _SETTLED * self.value).all()):
                break

    def update(
        self, t: Float[Tensor, "*batch"], x: Float[Tensor, "*batch d"], slope: Float[Tensor, "*batch d"]
    ) -> None:
        """Refine ``value``, shape (*batch,), at the state x with slope F(t, x)."""
        size = torch.linalg.vector_norm(x, dim=-1)
        size = torch.where(size > 0, size, torch.ones_like(size))
        delta = (size * torch.finfo(x.dtype).eps ** 0.5).unsqueeze(-1)
        change = (self._field(t, torch.addcmul(x, delta, self._direction)) - slope) / delta
        growth = torch.linalg.vector_norm(change, dim=-1)
        usable: Bool[Tensor, "*batch"] = torch.isfinite(growth)
        self.value = torch.where(usable, growth, self.value)
        change = torch.where(usable.unsqueeze(-1), change, self._direction)
        self._direction = _normalised(change, fallback=self._direction)


def _normalised(vector: Tensor, fallback: Tensor) -> Tensor:
    """Unit vectors along ``vector``, or along ``fallback`` where it vanishes or is not finite."""
    usable = torch.isfinite(vector).all(-1, keepdim=True) & (vector != 0).any(-1, keepdim=True)
    vector = torch.where(usable, vector, fallback)
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
