"""A ridge penalty that enters by its proximal operator, and the derivative of a lasso in its penalty."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_positive, check_state
from odestop.objectives import CompositeObjective, Lasso, Objective
from odestop.objectives.base import register_value


class SquaredNormPenalty(CompositeObjective):
    """f = g + ½ λ ‖x‖² with the penalty in the proximal operator, prox_{s r}(v) = v / (1 + s λ).

    With `odestop.objectives.LogisticRegression` as g this is ℓ2-regularised logistic regression, with
    `odestop.objectives.LeastSquares` ridge regression, both differentiable in λ.

    Parameters
    ----------
    smooth
        g.
    regularization
        λ ≥ 0, a number or a tensor of shape (); a tensor is kept as it is and may require a gradient.

    Raises
    ------
    ValueError
        If ``smooth`` is not an `Objective`, or λ is negative.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> objective = SquaredNormPenalty(DiagonalQuadratic([1.0, 3.0]), regularization=1.0)
    >>> objective.proximal_step(torch.ones(2), step=0.25).tolist()
    [0.6000000238418579, 0.20000000298023224]
    """

    regularization: float | int | Tensor

    def __init__(self, smooth: Objective, regularization: float | int | Tensor) -> None:
        super().__init__(smooth)
        value = regularization.detach() if isinstance(regularization, Tensor) else torch.tensor(float(regularization))
        check_positive("regularization", float(value), allow_zero=True)
        register_value(self, "regularization", regularization)

    def penalty(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return ½ λ ‖x‖²."""
        return self.regularization * (x * x).sum(-1) / 2

    def proximal(self, v: Float[Tensor, "*batch d"], step: float | int | Tensor) -> Float[Tensor, "*batch d"]:
        """Return v / (1 + step λ)."""
        return v / (1 + step * self.regularization)


def lasso_derivative(lasso: Lasso, x_star: Tensor) -> Tensor:
    """Return ∂x*/∂λ of a lasso by the implicit function theorem on its active manifold, the support S.

    On S the optimality condition A_Sᵀ(A_S x_S - b)/n + λ sign(x_S) = 0 is smooth, and its derivative is
    ∂x_S/∂λ = -(A_SᵀA_S/n)⁻¹ sign(x_S), with 0 off S (Bertrand et al., 2020, arXiv 2002.08943, Proposition 1).  It
    holds while S and the signs stay as they are; where a coordinate enters or leaves S, x* has a kink, and the
    two one-sided derivatives differ.

    Parameters
    ----------
    lasso
        The objective.
    x_star
        Its minimizer, shape (d,), with exact zeros off the support.

    Returns
    -------
    Tensor
        ∂x*/∂λ, shape (d,).

    Raises
    ------
    ValueError
        If ``x_star`` is not one point, or the columns of the support are linearly dependent.

    Examples
    --------
    >>> lasso = Lasso(torch.eye(2), torch.tensor([3.0, 0.5]), regularization=0.5)
    >>> lasso_derivative(lasso, torch.tensor([2.0, 0.0])).tolist()
    [-2.0, 0.0]
    """
    x_star = check_state("x_star", x_star).detach()
    features = lasso.smooth.get_buffer("features").detach()
    if x_star.shape != features.shape[1:]:
        raise ValueError(f"x_star must have shape {tuple(features.shape[1:])}, got {tuple(x_star.shape)}")
    support = x_star != 0
    active = features[:, support]
    if active.shape[1] and int(torch.linalg.matrix_rank(active)) < active.shape[1]:
        raise ValueError(
            f"x_star must have a support of linearly independent columns, got rank "
            f"{int(torch.linalg.matrix_rank(active))} of {active.shape[1]}; the minimizer is not unique"
        )
    derivative = torch.zeros_like(x_star)
    derivative[support] = -torch.linalg.solve(active.T @ active / len(features), x_star[support].sign())
    return derivative
