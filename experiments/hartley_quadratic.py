"""A quadratic whose matrix is dense and never stored: random eigenvectors that a fast transform applies."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from odestop.objectives import QuadraticForm, log_spaced_spectrum


class HartleyQuadratic(QuadraticForm):
    """f(x) = ½ xᵀ Q x, Q = S H diag(eigenvalues) H S: H the orthonormal Hartley transform, S random signs.

    With the eigenvalues in random order, the off-diagonal entries of Q have mean 0 and the size they have for
    uniformly random eigenvectors, so that a diagonal preconditioner finds it as hard; time is O(d log d) and
    memory O(d).

    Parameters
    ----------
    eigenvalues
        Eigenvalues of Q in the order of the frequencies of H, shape (d,).
    signs
        Diagonal of S, each 1 or -1, shape (d,).

    Examples
    --------
    >>> quadratic = HartleyQuadratic.with_condition_number(10_000, 100.0, seed=0, dtype=torch.float64)
    >>> x = quadratic.from_eigenbasis(torch.ones(10_000, dtype=torch.float64))
    >>> torch.testing.assert_close(quadratic.to_eigenbasis(quadratic.gradient(x)), quadratic.eigenvalues)
    """

    signs: Tensor

    def __init__(self, eigenvalues: Tensor, signs: Tensor) -> None:
        super().__init__(eigenvalues)
        self.register_buffer("signs", signs)

    @classmethod
    def with_condition_number(
        cls, dimension: int, condition_number: float, seed: int, *, dtype: torch.dtype | None = None
    ) -> HartleyQuadratic:
        """Draw Q with eigenvalues spaced logarithmically from 1 / condition_number to 1."""
        generator = torch.Generator().manual_seed(seed)
        eigenvalues = log_spaced_spectrum(dimension, condition_number, dtype=dtype)
        order = torch.randperm(dimension, generator=generator)
        signs = 2.0 * torch.randint(2, (dimension,), generator=generator) - 1.0
        return cls(eigenvalues[order], signs.to(eigenvalues))

    def to_eigenbasis(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return H S x: the coordinates of x along the eigenvectors."""
        return _hartley_transform(self.signs * x)

    def from_eigenbasis(self, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return S H y: the point with coordinates y along the eigenvectors."""
        return self.signs * _hartley_transform(y)


class _HartleyTransform(torch.autograd.Function):
    """H x. H is symmetric and orthogonal: its own inverse, and its own vector-Jacobian product."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        spectrum = torch.fft.fft(x, norm="ortho")
        return spectrum.real - spectrum.imag

    @staticmethod
    def backward(context: Any, *cotangents: Any) -> Any:
        return _HartleyTransform.apply(*cotangents)


def _hartley_transform(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    transformed: Tensor = _HartleyTransform.apply(x)
    return transformed
