"""Regularised logistic regression, and the bundled real data set it is shown on."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from odestop._validation import check_positive
from odestop.objectives.base import Objective, register_value


class LogisticRegression(Objective):
    """f(x) = 1/n Σ_i log(1 + exp(-y_i a_iᵀ x)) + ½ λ ‖x‖².

    Every coordinate is regularised, an intercept among them.

    Parameters
    ----------
    features
        Rows a_i, shape (n, d).
    labels
        One per row, all in {0, 1} or all in {-1, 1}, any dtype, shape (n,).
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

    def __init__(self, features: Tensor, labels: Tensor, regularization: float = 0.0) -> None:
        _check_features(features)
        check_positive("regularization", regularization, allow_zero=True)
        spectral_norm = float(torch.linalg.matrix_norm(features.detach(), 2))
        super().__init__(
            dimension=features.shape[1],
            smoothness=spectral_norm**2 / (4 * len(features)) + regularization,
            strong_convexity=regularization,
        )
        register_value(self, "features", features)
        register_value(self, "labels", _signs(labels, features))
        self.regularization = regularization

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        penalty = 0.5 * self.regularization * (x * x).sum(-1)
        return functional.softplus(-self._margins(x)).mean(-1) + penalty

    def _gradient(self, x: Tensor) -> Tensor:
        slopes = torch.sigmoid(-self._margins(x)) * self.labels / -len(self.labels)
        return slopes @ self.features + self.regularization * x

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        margins = self._margins(x)
        curvatures = torch.sigmoid(margins) * torch.sigmoid(-margins) / len(self.labels)
        return (curvatures * (v @ self.features.mT)) @ self.features + self.regularization * v

    def _margins(self, x: Tensor) -> Tensor:
        """Return y_i a_iᵀ x, shape (*batch, n)."""
        return (x @ self.features.mT) * self.labels


def breast_cancer(
    *,
    regularization: float = 1e-2,
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
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError as error:
        raise ImportError(
            "breast_cancer needs scikit-learn; install it with pip install 'odestop[experiments]'"
        ) from error
    raw, labels = (torch.as_tensor(array) for array in load_breast_cancer(return_X_y=True))
    standardised = (raw - raw.mean(0)) / raw.std(0, correction=0)
    features = torch.cat([standardised, torch.ones_like(raw[:, :1])], dim=1)
    features = features.to(dtype=dtype or torch.get_default_dtype(), device=device)
    return LogisticRegression(features, labels, regularization)


def _check_features(features: Tensor) -> None:
    if not features.is_floating_point() or features.ndim != 2 or features.numel() == 0:
        raise ValueError(
            "features must be real floating-point numbers of shape (n, d) with n, d >= 1, "
            f"got {features.dtype} of shape {tuple(features.shape)}"
        )
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features must be finite, got non-finite entries")


def _signs(labels: Tensor, features: Tensor) -> Tensor:
    """Labels as -1 and 1, in the dtype and on the device of the features."""
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels must have shape (n,) = ({len(features)},), got {tuple(labels.shape)}")
    values = set(labels.unique().tolist())
    if not (values <= {0, 1} or values <= {-1, 1}):
        raise ValueError(f"labels must all be in {{0, 1}} or all in {{-1, 1}}, got the values {sorted(values)}")
    return torch.where(labels > 0, 1, -1).to(features)
