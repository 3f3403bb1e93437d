"""Huber regression: least squares that outliers cannot pull far."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_positive
from odestop.objectives.base import check_features, check_positive_value, register_value
from odestop.objectives.finite_sum import FiniteSum, check_targets, largest_curvature


class HuberRegression(FiniteSum):
    """f(x) = 1/n Σ_i h_δ(a_iᵀ x - b_i) + ½ λ ‖x‖², with h_δ(r) = r²/2 for |r| ≤ δ and δ |r| - δ²/2 beyond.

    The loss of Huber, "Robust estimation of a location parameter" (1964).  scikit-learn's ``HuberRegressor``
    estimates a scale σ as well; at its σ, its minimizer is ours for δ = ε σ and λ = α σ / n.

    ∇f is continuous and piecewise linear; the Hessian-vector product is that of the piece around x.

    Parameters
    ----------
    features
        Rows a_i, shape (n, d).
    targets
        b, shape (n,), in the dtype of the features.
    delta
        δ > 0, the residual from which on a row pulls with constant strength: a number, or a tensor of shape ()
        that may require a gradient.
    regularization
        λ >= 0.

    Raises
    ------
    ValueError
        If the features are not a finite floating-point matrix, the targets do not match them, δ is not
        positive, or λ is negative.

    Examples
    --------
    >>> objective = HuberRegression(torch.eye(2), torch.tensor([0.5, 10.0]), delta=1.0)
    >>> objective(torch.zeros(2))
    tensor(4.8125)
    >>> objective.gradient(torch.zeros(2))
    tensor([-0.2500, -0.5000])
    """

    features: Tensor
    targets: Tensor
    delta: float | Tensor

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        delta: float | int | Tensor = 1.0,
        regularization: float | int = 0.0,
    ) -> None:
        check_features(features)
        check_targets(targets, features)
        check_positive("regularization", regularization, allow_zero=True)
        delta = check_positive_value("delta", delta)
        super().__init__(
            dimension=features.shape[1],
            smoothness=largest_curvature(features) + regularization,
            strong_convexity=float(regularization),
        )
        register_value(self, "features", features)
        register_value(self, "targets", targets)
        register_value(self, "delta", delta)
        self.regularization = regularization

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        residual = self._residual(x)
        pull = self._pull(residual)
        return (pull * (residual - pull / 2)).mean(-1) + 0.5 * self.regularization * (x * x).sum(-1)

    def _gradient(self, x: Tensor) -> Tensor:
        return self._pull(self._residual(x)) @ self.features / len(self.features) + self.regularization * x

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        inside = self._residual(x).abs() <= self.delta
        return (inside * (v @ self.features.mT)) @ self.features / len(self.features) + self.regularization * v

    def _residual(self, x: Tensor) -> Tensor:
        return x @ self.features.mT - self.targets

    def _pull(self, residual: Tensor) -> Tensor:
        """Return h_δ'(r): the residual, but at most δ."""
        delta = torch.as_tensor(self.delta, dtype=residual.dtype, device=residual.device)
        return residual.clamp(-delta, delta)
