"""Least squares; the lasso and the elastic net, which add an ℓ1 penalty to it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_positive
from odestop.objectives.base import check_features, register_value
from odestop.objectives.composite import CompositeObjective
from odestop.objectives.finite_sum import FiniteSum, check_targets, gram_eigenvalues, predictions, pulled_back


class LeastSquares(FiniteSum):
    """f(x) = 1/(2n) ‖A x - b‖².

    Parameters
    ----------
    features
        A, shape (n, d); or (problems, n, d) for several problems at once (see `Objective.problems`).
    targets
        b, shape (n,) or (problems, n), in the dtype of the features.

    Raises
    ------
    ValueError
        If the features are not a finite floating-point matrix, or the targets do not match them.

    Examples
    --------
    >>> objective = LeastSquares(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([1.0, 2.0]))
    >>> objective(torch.zeros(2))
    tensor(1.2500)
    >>> objective.gradient(torch.zeros(2))
    tensor([-0.5000, -2.0000])
    """

    features: Tensor
    targets: Tensor

    def __init__(self, features: Tensor, targets: Tensor) -> None:
        check_features(features, several=True)
        check_targets(targets, features)
        smoothness, strong_convexity = _extreme_curvatures(features)
        super().__init__(dimension=features.shape[-1], smoothness=smoothness, strong_convexity=strong_convexity)
        self._several_problems = features.ndim == 3
        register_value(self, "features", features)
        register_value(self, "targets", targets)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        residual = self._residual(x)
        return (residual * residual).mean(-1) / 2

    def value_and_gradient(
        self, x: Float[Tensor, "*batch d"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch d"]]:
        """Return f(x) and ∇f(x), from one product A x."""
        residual = self._residual(x)
        return (residual * residual).mean(-1) / 2, self._pull_back(residual)

    def _gradient(self, x: Tensor) -> Tensor:
        return self._pull_back(self._residual(x))

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        return self._pull_back(predictions(self.features, v))

    def _residual(self, x: Tensor) -> Tensor:
        return predictions(self.features, x) - self.targets

    def _pull_back(self, residual: Tensor) -> Tensor:
        return pulled_back(self.features, residual) / self.features.shape[-2]


def _extreme_curvatures(features: Tensor) -> tuple[float | Tensor, float | Tensor]:
    """Return the extreme eigenvalues of AᵀA / n; fewer rows than columns leave directions in which f is flat."""
    n, d = features.shape[-2:]
    if features.ndim == 3:
        eigenvalues = gram_eigenvalues(features)
        return eigenvalues[..., -1], eigenvalues[..., 0] if n >= d else torch.zeros_like(eigenvalues[..., 0])
    singular_values = torch.linalg.svdvals(features.detach())
    smallest = float(singular_values[-1]) if n >= d else 0.0
    return float(singular_values[0]) ** 2 / n, smallest**2 / n


class Lasso(CompositeObjective):
    """f(x) = 1/(2n) ‖A x - b‖² + λ ‖x‖₁.

    The scaling is that of statistics, of glmnet and of scikit-learn's ``Lasso``; signal processing often
    writes ½ ‖A x - b‖² + λ' ‖x‖₁, which is n f with λ' = n λ.  Zero is a minimizer from λ = max |Aᵀb| / n on.

    Parameters
    ----------
    features
        A, shape (n, d); or (problems, n, d) for several problems at once (see `Objective.problems`).
    targets
        b, shape (n,) or (problems, n), in the dtype of the features.
    regularization
        λ >= 0: a number, or a tensor of shape () or (*batch,), one per trajectory; a tensor is kept as it is
        and may require a gradient.

    Raises
    ------
    ValueError
        If the features are not a finite floating-point matrix, the targets do not match them, or λ is negative.

    Examples
    --------
    >>> lasso = Lasso(torch.eye(2), torch.tensor([3.0, 0.5]), regularization=0.5)
    >>> minimizer = torch.tensor([2.0, 0.0])
    >>> lasso(minimizer)
    tensor(1.3125)
    >>> lasso.gradient_mapping(minimizer, step=0.1)
    tensor([0., 0.])
    >>> lasso.proximal(torch.tensor([3.0, -0.5, -2.0]), step=2.0)
    tensor([ 2.,  0., -1.])
    """

    regularization: float | Tensor

    def __init__(self, features: Tensor, targets: Tensor, regularization: float | int | Tensor) -> None:
        super().__init__(LeastSquares(features, targets))
        self._several_problems = features.ndim == 3
        register_value(self, "regularization", _check_weight("regularization", regularization))

    def penalty(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return λ ‖x‖₁."""
        return _like(self.regularization, x) * x.abs().sum(-1)

    def proximal(self, v: Float[Tensor, "*batch d"], step: float | int | Tensor) -> Float[Tensor, "*batch d"]:
        """Return sign(v) max(|v| - step λ, 0), the soft threshold, with the derivative 0 at its kinks."""
        threshold = step * _per_trajectory(self.regularization, v)
        return v - v.clamp(-threshold, threshold)


class ElasticNet(Lasso):
    """f(x) = 1/(2n) ‖A x - b‖² + λ₁ ‖x‖₁ + ½ λ₂ ‖x‖².

    Zou and Hastie (2005) in the scaling of statistics: glmnet and scikit-learn's ``ElasticNet`` write
    λ₁ = α ρ and λ₂ = α (1 - ρ).  Both penalties are in the proximal operator; ``smooth`` is the least squares.

    Parameters
    ----------
    features
        A, shape (n, d).
    targets
        b, shape (n,), in the dtype of the features.
    regularization
        λ₁ >= 0: a number, or a tensor of shape () or (*batch,), one per trajectory; a tensor is kept as it is
        and may require a gradient.
    ridge
        λ₂ >= 0, likewise.

    Raises
    ------
    ValueError
        If the features are not a finite floating-point matrix, the targets do not match them, or λ₁ or λ₂ is
        negative.

    Examples
    --------
    >>> elastic_net = ElasticNet(torch.eye(2), torch.tensor([3.0, 0.5]), regularization=0.5, ridge=0.5)
    >>> minimizer = torch.tensor([1.0, 0.0])
    >>> elastic_net.gradient_mapping(minimizer, step=1.0)
    tensor([0., 0.])
    >>> elastic_net.proximal(torch.tensor([3.0, -0.5, -2.0]), step=2.0)
    tensor([ 1.0000,  0.0000, -0.5000])
    """

    ridge: float | Tensor

    def __init__(
        self, features: Tensor, targets: Tensor, regularization: float | int | Tensor, ridge: float | int | Tensor
    ) -> None:
        super().__init__(features, targets, regularization)
        register_value(self, "ridge", _check_weight("ridge", ridge))

    def penalty(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return λ₁ ‖x‖₁ + ½ λ₂ ‖x‖²."""
        return super().penalty(x) + _like(self.ridge, x) * (x * x).sum(-1) / 2

    def proximal(self, v: Float[Tensor, "*batch d"], step: float | int | Tensor) -> Float[Tensor, "*batch d"]:
        """Return the soft threshold of `Lasso.proximal`, divided by 1 + step λ₂."""
        return super().proximal(v, step) / (1 + step * _per_trajectory(self.ridge, v))


def _check_weight(name: str, value: float | int | Tensor) -> float | Tensor:
    if not isinstance(value, Tensor):
        return check_positive(name, value, allow_zero=True)
    values = value.detach()
    if not value.is_floating_point() or not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError(f"{name} must be finite real numbers of at least 0, got {values}")
    return value


def _like(weight: float | Tensor, x: Tensor) -> Tensor:
    """Return the weight of a penalty in the dtype of the state, which it must not change."""
    return torch.as_tensor(weight, dtype=x.dtype, device=x.device)


def _per_trajectory(weight: float | Tensor, x: Tensor) -> Tensor:
    """Return the weight such that it broadcasts against the state."""
    weight = _like(weight, x)
    return weight if weight.ndim == 0 else weight.unsqueeze(-1)
