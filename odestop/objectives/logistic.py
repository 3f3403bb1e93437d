"""Regularised logistic regression, and the bundled real data set it is shown on."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from odestop._validation import check_positive
from odestop.objectives.base import check_features, register_value
from odestop.objectives.bundled import bundled_data
from odestop.objectives.finite_sum import FiniteSum, as_signs, largest_curvature, predictions, pulled_back


class LogisticRegression(FiniteSum):
    """f(x) = 1/n Σ_i log(1 + exp(-y_i a_iᵀ x)) + ½ λ ‖x‖².

    Every coordinate is regularised, an intercept among them.

    Parameters
    ----------
    features
        Rows a_i, shape (n, d); or (problems, n, d) for several problems at once (see `Objective.problems`).
    labels
        One per row, all in {0, 1} or all in {-1, 1}, any dtype, shape (n,) or (problems, n).
    regularization
        λ >= 0.

    Raises
    ------
    ValueError
        If the features are not a finite floating-point matrix, the labels do not match them or take other
        values, or λ is negative.

    Examples
    --------
    >>> features = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> objective = LogisticRegression(features, torch.tensor([1, 0]), regularization=0.1)
    >>> objective(torch.zeros(2))
    tensor(0.6931)
    >>> objective.gradient(torch.zeros(2))
    tensor([-0.2500,  0.2500])
    >>> objective.smoothness
    0.225
    """

    features: Tensor
    labels: Tensor
    _rows = ("features", "labels")

    def __init__(self, features: Tensor, labels: Tensor, regularization: float | int = 0.0) -> None:
        check_features(features, several=True)
        check_positive("regularization", regularization, allow_zero=True)
        super().__init__(
            dimension=features.shape[-1],
            smoothness=largest_curvature(features) / 4 + regularization,
            strong_convexity=float(regularization),
        )
        self._several_problems = features.ndim == 3
        register_value(self, "features", features)
        register_value(self, "labels", as_signs(labels, features))
        self.regularization = regularization

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        return self._value_at(self._margins(x), x)

    def value_and_gradient(
        self, x: Float[Tensor, "*batch d"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch d"]]:
        """Return f(x) and ∇f(x), from one product A x."""
        margins = self._margins(x)
        return self._value_at(margins, x), self._gradient_at(margins, x)

    def _gradient(self, x: Tensor) -> Tensor:
        return self._gradient_at(self._margins(x), x)

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        margins = self._margins(x)
        curvatures = torch.sigmoid(margins) * torch.sigmoid(-margins) / self.labels.shape[-1]
        return pulled_back(self.features, curvatures * predictions(self.features, v)) + self.regularization * v

    def _value_at(self, margins: Tensor, x: Tensor) -> Tensor:
        return functional.softplus(-margins).mean(-1) + 0.5 * self.regularization * (x * x).sum(-1)

    def _gradient_at(self, margins: Tensor, x: Tensor) -> Tensor:
        slopes = torch.sigmoid(-margins) * self.labels / -self.labels.shape[-1]
        return pulled_back(self.features, slopes) + self.regularization * x

    def _margins(self, x: Tensor) -> Tensor:
        """Return y_i a_iᵀ x, shape (*batch, n)."""
        return predictions(self.features, x) * self.labels


def breast_cancer(
    *,
    regularization: float | int = 1e-2,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LogisticRegression:
    """Logistic regression on scikit-learn's bundled breast-cancer data: n = 569, d = 31.

    The 30 features are standardised; the last column is a constant 1 for the intercept.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.

    Examples
    --------
    >>> breast_cancer(dtype=torch.float64).features.shape
    torch.Size([569, 31])
    """
    features, labels = bundled_data("breast-cancer", dtype=dtype, device=device)
    return LogisticRegression(features, labels, regularization)
