"""The generalised cross-entropy loss of a linear classifier, between cross-entropy and absolute error."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from odestop.objectives import Objective


class GeneralizedCrossEntropy(Objective):
    """f(x) = 1/n Σ_i (1 - p_i^q) / q with p_i = σ(y_i a_iᵀ x) (Zhang, Sabuncu, 2018, arXiv 1805.07836, eq. 6).

    q -> 0 is the cross-entropy, q = 1 the absolute error, which does not trust confidently wrong labels.  Not convex
    for q > 0.  |f''| of a row is at most ‖a_i‖²/4, as for q -> 0.

    Parameters
    ----------
    features
        Rows a_i, shape (n, d).
    signs
        y_i in {-1, 1}, shape (n,), in the dtype of the features.
    exponent
        q in (0, 1], shape (); may require a gradient.
    """

    def __init__(self, features: Tensor, signs: Tensor, exponent: Tensor) -> None:
        largest = float(torch.linalg.matrix_norm(features, 2)) ** 2 / len(features)
        super().__init__(dimension=features.shape[1], smoothness=largest / 4)
        self.features, self.signs, self.exponent = features, signs, exponent

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        return (-torch.expm1(self.exponent * functional.logsigmoid(self._margins(x))) / self.exponent).mean(-1)

    def _gradient(self, x: Tensor) -> Tensor:
        margins = self._margins(x)
        powers = torch.exp(self.exponent * functional.logsigmoid(margins))
        return (-powers * torch.sigmoid(-margins) * self.signs) @ self.features / len(self.signs)

    def _margins(self, x: Tensor) -> Tensor:
        return (x @ self.features.mT) * self.signs
