"""Softmax regression: the classification of more than two classes by a linear model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from odestop._validation import check_positive
from odestop.objectives.base import check_features, register_value
from odestop.objectives.finite_sum import FiniteSum, largest_curvature


class SoftmaxRegression(FiniteSum):
    """f(x) = 1/n Σ_i [log Σ_k exp(w_kᵀ a_i) - w_{y_i}ᵀ a_i] + ½ λ ‖x‖², the rows w_k of W flattened into x.

    Multinomial logistic regression.  Every coordinate is regularised, intercepts among them; without
    regularisation a vector added to every row of W changes nothing.

    The smoothness is the largest eigenvalue of AᵀA / (2n), plus λ (Böhning, "Multinomial logistic regression
    algorithm", 1992: the Hessian diag(p) - ppᵀ of the log-sum-exp is at most ½ I).

    Parameters
    ----------
    features
        Rows a_i, shape (n, d / classes).
    labels
        y_i, integers from 0 to classes - 1, shape (n,).
    regularization
        λ >= 0.
    classes
        Number of rows of W; one more than the largest label by default.

    Raises
    ------
    ValueError
        If the features are not a finite floating-point matrix, the labels do not match them or are no
        classes, or λ is negative.

    Examples
    --------
    >>> features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> objective = SoftmaxRegression(features, torch.tensor([0, 1, 2]), regularization=0.1)
    >>> objective.dimension
    6
    >>> objective(torch.zeros(6))
    tensor(1.0986)
    >>> objective.weights_from(objective.gradient(torch.zeros(6)))
    tensor([[-0.1111,  0.2222],
            [ 0.2222, -0.1111],
            [-0.1111, -0.1111]])
    """

    features: Tensor
    indicators: Tensor
    _rows = ("features", "indicators")

    def __init__(
        self, features: Tensor, labels: Tensor, regularization: float | int = 0.0, *, classes: int | None = None
    ) -> None:
        check_features(features)
        check_positive("regularization", regularization, allow_zero=True)
        indicators = _indicators(labels, features, classes)
        super().__init__(
            dimension=features.shape[1] * indicators.shape[1],
            smoothness=largest_curvature(features) / 2 + regularization,
            strong_convexity=float(regularization),
        )
        register_value(self, "features", features)
        register_value(self, "indicators", indicators)
        self.regularization = regularization

    def weights_from(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch classes features"]:
        """Return W, whose rows follow one another in x."""
        return x.unflatten(-1, (self.indicators.shape[1], self.features.shape[1]))

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        logits = self._logits(x)
        losses = logits.logsumexp(-1) - (self.indicators * logits).sum(-1)
        return losses.mean(-1) + 0.5 * self.regularization * (x * x).sum(-1)

    def _gradient(self, x: Tensor) -> Tensor:
        return self._pulled_back(self._logits(x).softmax(-1) - self.indicators) + self.regularization * x

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        probabilities, change = self._logits(x).softmax(-1), self._logits(v)
        mean_change = (probabilities * change).sum(-1, keepdim=True)
        return self._pulled_back(probabilities * (change - mean_change)) + self.regularization * v

    def _logits(self, x: Tensor) -> Tensor:
        """Return w_kᵀ a_i, shape (*batch, n, classes)."""
        return self.features @ self.weights_from(x).mT

    def _pulled_back(self, slopes: Tensor) -> Tensor:
        """Return the gradient in x from that in the logits of the sum of all losses."""
        return (slopes.mT @ self.features).flatten(-2) / len(self.features)


def _indicators(labels: Tensor, features: Tensor, classes: int | None) -> Tensor:
    """Return the labels as rows of the identity matrix, in the dtype and on the device of the features."""
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels must have shape (n,) = ({len(features)},), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.dtype is torch.bool:
        raise ValueError(f"labels must be integers from 0 to classes - 1, got {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        raise ValueError(f"labels must be integers from 0 to classes - 1, got {low} to {high} for {classes=}")
    return functional.one_hot(labels.long(), classes or high + 1).to(features)
