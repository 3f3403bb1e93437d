"""Low-rank matrix factorisation: not convex, but without local minima that are not global."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_count
from odestop.objectives.base import Objective, check_features, register_value


class MatrixFactorization(Objective):
    """f(U, V) = ½ ‖U Vᵀ - M‖_F², with x = (U, V), each flattened row by row.

    Every critical point is a global minimizer or a strict saddle, where the Hessian has a negative eigenvalue
    (Baldi and Hornik 1989 and Kawaguchi 2016, on linear networks); at the origin the least is -σ₁(M).  The
    minimum is half the sum of the squared singular values past the rank (Eckart and Young 1936).  U -> U G,
    V -> V G⁻ᵀ does not change f: its minimizers form a manifold, of which ``minimizer`` is a balanced point.

    Parameters
    ----------
    matrix
        M, shape (m, n).  The minimum is left unknown if it requires a gradient.
    rank
        Number of columns of U and V, at most min(m, n).

    Raises
    ------
    ValueError
        If ``matrix`` is not a finite floating-point matrix, or it has not that many rows and columns.

    Examples
    --------
    >>> objective = MatrixFactorization(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), rank=1)
    >>> objective.dimension, objective.minimum
    (5, 0.5)
    >>> objective(torch.zeros(5))
    tensor(2.5000)
    >>> U, V = objective.factors_from(objective.minimizer)
    >>> torch.round(U @ V.mT)
    tensor([[2., 0.],
            [0., 0.],
            [0., 0.]])
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, rank: int) -> None:
        check_features(matrix, "matrix", "(m, n) with m, n >= 1")
        if check_count("rank", rank) > min(matrix.shape):
            raise ValueError(f"rank must be at most min(m, n) = {min(matrix.shape)}, got {rank}")
        minimum, minimizer = (None, None) if matrix.requires_grad else _best_approximation(matrix, rank)
        super().__init__(dimension=sum(matrix.shape) * rank, minimum=minimum, minimizer=minimizer)
        register_value(self, "matrix", matrix)
        self.rank = rank

    def factors_from(
        self, x: Float[Tensor, "*batch d"]
    ) -> tuple[Float[Tensor, "*batch m rank"], Float[Tensor, "*batch n rank"]]:
        """Return U and V."""
        factors = x.unflatten(-1, (sum(self.matrix.shape), self.rank))
        return factors[..., : len(self.matrix), :], factors[..., len(self.matrix) :, :]

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        U, V = self.factors_from(x)
        residual = U @ V.mT - self.matrix
        return 0.5 * (residual * residual).sum((-2, -1))

    def _gradient(self, x: Tensor) -> Tensor:
        U, V = self.factors_from(x)
        residual = U @ V.mT - self.matrix
        return _flattened(residual @ V, residual.mT @ U)

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        (U, V), (dU, dV) = self.factors_from(x), self.factors_from(v)
        residual, change = U @ V.mT - self.matrix, dU @ V.mT + U @ dV.mT
        return _flattened(change @ V + residual @ dV, change.mT @ U + residual.mT @ dU)


def _best_approximation(matrix: Tensor, rank: int) -> tuple[float, Tensor]:
    """Return the minimum, and a minimizer with UᵀU = VᵀV, from the singular value decomposition."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    roots = values[:rank].sqrt()
    return 0.5 * float(values[rank:].square().sum()), _flattened(left[:, :rank] * roots, right[:rank].mT * roots)


def _flattened(U: Tensor, V: Tensor) -> Tensor:
    return torch.cat([U, V], dim=-2).flatten(-2)
