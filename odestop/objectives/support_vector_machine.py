"""The smooth support vector machine, on which the paper adapts step sizes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_positive
from odestop.objectives.base import check_features, register_value
from odestop.objectives.finite_sum import FiniteSum, as_signs, largest_curvature


class SmoothSupportVectorMachine(FiniteSum):
    """f(w, b) = ½ Σ_i max(0, 1 - y_i (wᵀ a_i - b))² + ½ λ ‖w‖², with x = (w, b).

    As in the paper (Sec. 5) the squared hinges are summed, not averaged, and b is not regularised;
    scikit-learn's ``LinearSVC(loss="squared_hinge")`` minimises f / λ for C = 1 / (2 λ).  A minibatch of m rows
    has the factor n / m instead, so that its expectation is f.

    ∇f is continuous and piecewise linear; the Hessian-vector product is that of the piece around x.

    Parameters
    ----------
    features
        Rows a_i, shape (n, d - 1).
    labels
        y_i, all in {0, 1} or all in {-1, 1}, any dtype, shape (n,).
    regularization
        λ >= 0.

    Raises
    ------
    ValueError
        If the features are not a finite floating-point matrix, the labels do not match them or take other
        values, or λ is negative.

    Examples
    --------
    >>> features = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> objective = SmoothSupportVectorMachine(features, torch.tensor([1, 1]), regularization=0.1)
    >>> objective(torch.zeros(3))
    tensor(1.)
    >>> objective.gradient(torch.zeros(3))
    tensor([-1., -2.,  2.])
    """

    features: Tensor
    labels: Tensor
    _rows = ("features", "labels")

    def __init__(self, features: Tensor, labels: Tensor, regularization: float | int = 0.0) -> None:
        check_features(features)
        check_positive("regularization", regularization, allow_zero=True)
        with_intercept = torch.cat([features, -torch.ones_like(features[:, :1])], dim=1)
        super().__init__(
            dimension=features.shape[1] + 1,
            smoothness=largest_curvature(with_intercept) * len(features) + regularization,
            # Where every hinge is zero, f is flat along b.
            strong_convexity=0.0,
        )
        register_value(self, "features", features)
        register_value(self, "labels", as_signs(labels, features))
        self.regularization = regularization
        self._rows_in_all = len(features)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        slack, w = self._slack(x), x[..., :-1]
        return 0.5 * self._factor * (slack * slack).sum(-1) + 0.5 * self.regularization * (w * w).sum(-1)

    def _gradient(self, x: Tensor) -> Tensor:
        return self._pulled_back(-self._slack(x) * self.labels, x)

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        return self._pulled_back((self._slack(x) > 0) * self._outputs(v), v)

    def _slack(self, x: Tensor) -> Tensor:
        """Return max(0, 1 - y_i (wᵀ a_i - b)), shape (*batch, n)."""
        return (1 - self.labels * self._outputs(x)).clamp_min(0)

    def _outputs(self, x: Tensor) -> Tensor:
        """Return wᵀ a_i - b, shape (*batch, n)."""
        return x[..., :-1] @ self.features.mT - x[..., -1:]

    def _pulled_back(self, slopes: Tensor, x: Tensor) -> Tensor:
        """Return the gradient in x from that in the outputs of the sum of all losses, and the penalty's at x."""
        along_w = self._factor * slopes @ self.features + self.regularization * x[..., :-1]
        return torch.cat([along_w, -self._factor * slopes.sum(-1, keepdim=True)], dim=-1)

    @property
    def _factor(self) -> float:
        return self._rows_in_all / len(self.features)
