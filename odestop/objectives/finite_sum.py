"""Objectives that are sums over the rows of a data set, and their minibatches."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from odestop.objectives.base import Objective


class FiniteSum(Objective):
    """f(x) = 1/n Σ_i f_i(x) + r(x), with one f_i per row of the data.

    A subclass names in ``_rows`` the buffers that hold the data, one row per i, and implements `Objective`'s
    methods by means over these rows.

    Examples
    --------
    Gradients of minibatches of one size that together have every row once average to the gradient of f:

    >>> from odestop.objectives import LeastSquares
    >>> objective = LeastSquares(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.ones(4))
    >>> x = torch.zeros(1)
    >>> objective.gradient(x)
    tensor([-2.5000])
    >>> [objective.minibatch(torch.tensor(rows)).gradient(x).item() for rows in ([0, 2], [1, 3])]
    [-2.0, -3.0]
    """

    _rows: tuple[str, ...] = ("features", "targets")

    def minibatch(self, indices: Tensor) -> FiniteSum:
        """Return 1/m Σ_{i in indices} f_i(x) + r(x), whose expectation over uniformly random rows is f.

        It is cheap to make, once per step: nothing is checked or decomposed again, so that its constants
        (minimum, smoothness, …) are None.  It has a copy of the rows, through which derivatives in the data pass.

        Parameters
        ----------
        indices
            Integers of shape (m,), m >= 1; a row that appears twice counts twice.

        Raises
        ------
        ValueError
            If the indices are not integers of this shape.
        IndexError
            If there is no such row.
        """
        if indices.is_floating_point() or indices.dtype is torch.bool or indices.ndim != 1 or len(indices) == 0:
            raise ValueError(
                "indices must be integers of shape (m,) with m >= 1, "
                f"got {indices.dtype} of shape {tuple(indices.shape)}"
            )
        batch = copy.copy(self)
        batch._parameters, batch._buffers = dict(self._parameters), dict(self._buffers)
        for name in self._rows:
            batch._parameters.pop(name, None)
            batch._buffers[name] = getattr(self, name)[(slice(None),) * self._several_problems + (indices,)]
        batch.minimum = batch.minimizer = batch.smoothness = batch.strong_convexity = None
        return batch


def predictions(features: Tensor, x: Tensor) -> Tensor:
    """Return A x: shape (*batch, n) for A of shape (n, d), and (*batch, problems, n) for one A per problem."""
    return x @ features.mT if features.ndim == 2 else _per_problem(x, features.mT)


def pulled_back(features: Tensor, weights: Tensor) -> Tensor:
    """Return Aᵀ w: shape (*batch, d) for A of shape (n, d), and (*batch, problems, d) for one A per problem."""
    return weights @ features if features.ndim == 2 else _per_problem(weights, features)


def _per_problem(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Return vᵀ M for one M per problem, shapes (*batch, problems, a) and (problems, a, b)."""
    rows = vectors.reshape(-1, *vectors.shape[-2:]).transpose(0, 1)
    return (rows @ matrices).transpose(0, 1).reshape(*vectors.shape[:-1], matrices.shape[-1])


def check_targets(targets: Tensor, features: Tensor) -> Tensor:
    """Return ``targets`` if there is one number per row of the features, in their dtype."""
    if targets.shape != features.shape[:-1] or targets.dtype != features.dtype:
        raise ValueError(
            f"targets must have shape {_row_shape(features)} and dtype {features.dtype}, "
            f"got shape {tuple(targets.shape)} and dtype {targets.dtype}"
        )
    return targets


def as_signs(labels: Tensor, features: Tensor) -> Tensor:
    """Return labels in {0, 1} or {-1, 1} as -1 and 1, in the dtype and on the device of the features."""
    if labels.shape != features.shape[:-1]:
        raise ValueError(f"labels must have shape {_row_shape(features)}, got {tuple(labels.shape)}")
    values = set(labels.unique().tolist())
    if not (values <= {0, 1} or values <= {-1, 1}):
        raise ValueError(f"labels must all be in {{0, 1}} or all in {{-1, 1}}, got the values {sorted(values)}")
    return torch.where(labels > 0, 1, -1).to(features)


def _row_shape(features: Tensor) -> str:
    """Return what holds one number per row has this shape."""
    dimensions = ("(n,)", "(problems, n)")[features.ndim - 2]
    return f"{dimensions} = {tuple(features.shape[:-1])}"


def largest_curvature(features: Tensor) -> float | Tensor:
    """Return the largest eigenvalue of AᵀA / n; shape (problems,) for one A per problem."""
    if features.ndim == 2:
        return float(torch.linalg.matrix_norm(features.detach(), 2)) ** 2 / len(features)
    return gram_eigenvalues(features)[..., -1]


def gram_eigenvalues(features: Tensor) -> Tensor:
    """Return the min(n, d) largest eigenvalues of AᵀA / n in rising order, shape (problems, min(n, d))."""
    rows = features.detach()
    n, d = rows.shape[-2:]
    # Far cheaper than the singular values, and exact enough where the smallest are not small beside the largest.
    return torch.linalg.eigvalsh((rows @ rows.mT if n <= d else rows.mT @ rows) / n).clamp_min(0.0)
