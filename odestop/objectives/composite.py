"""Composite objectives: a smooth part, and one that enters through its proximal operator only."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from odestop.objectives.base import Objective, check_objective


class CompositeObjective(Objective):
    """f = g + r: g is smooth, r is convex and has a proximal operator, but need not be differentiable.

    A subclass implements `penalty` and `proximal`.  There is no ``gradient``: where one is wanted, it is that
    of ``smooth``, or the `gradient_mapping`, which vanishes exactly where f is minimal if g is convex.

    Parameters
    ----------
    smooth
        g.
    minimum
        The least value of f, or None if unknown.
    minimizer
        A point of shape (d,) where it is attained, or None if unknown.

    Raises
    ------
    ValueError
        If ``smooth`` is not an `Objective`.

    Examples
    --------
    Least squares over the points without negative coordinates:

    >>> import torch
    >>> from odestop.objectives import DiagonalQuadratic
    >>> class NonNegative(CompositeObjective):
    ...     def penalty(self, x):
    ...         return torch.where((x >= 0).all(-1), 0.0, torch.inf)
    ...
    ...     def proximal(self, v, step):
    ...         return v.clamp_min(0.0)
    >>> objective = NonNegative(DiagonalQuadratic([1.0, 1.0], minimizer=torch.tensor([1.0, -2.0])))
    >>> objective(torch.tensor([[1.0, 0.0], [1.0, -2.0]]))
    tensor([2., inf])
    >>> objective.gradient_mapping(torch.tensor([1.0, 0.0]), step=0.5)
    tensor([0., 0.])
    """

    def __init__(
        self, smooth: Objective, *, minimum: float | int | None = None, minimizer: Tensor | None = None
    ) -> None:
        dimension = check_objective(smooth).dimension
        super().__init__(dimension=dimension, minimum=minimum, minimizer=minimizer)
        self.smooth = smooth

    def penalty(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return r(x)."""
        raise NotImplementedError(f"{type(self).__name__} must implement penalty(x)")

    def proximal(self, v: Float[Tensor, "*batch d"], step: float | int | Tensor) -> Float[Tensor, "*batch d"]:
        """Return the minimizer over u of step r(u) + ½ ‖u - v‖²; ``step`` broadcasts against v."""
        raise NotImplementedError(f"{type(self).__name__} must implement proximal(v, step)")

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x) = g(x) + r(x)."""
        return self.smooth(x) + self.penalty(x)

    def proximal_step(self, x: Float[Tensor, "*batch d"], step: float | int | Tensor) -> Float[Tensor, "*batch d"]:
        """Return the proximal operator at x - step ∇g(x): a step down g, and one that is implicit in r."""
        return self.proximal(x - step * self.smooth.gradient(x), step)

    def gradient_mapping(self, x: Float[Tensor, "*batch d"], step: float | int | Tensor) -> Float[Tensor, "*batch d"]:
        """Return (x - proximal_step(x, step)) / step, which is ∇f(x) where r is constant."""
        return (x - self.proximal_step(x, step)) / step

    def _gradient(self, x: Tensor) -> Tensor:
        raise NotImplementedError(
            f"{type(self).__name__} is not differentiable everywhere: use smooth.gradient or gradient_mapping; "
            "for subgradients by autograd wrap it, Objective.from_function(objective)"
        )

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError(
            f"{type(self).__name__} is not differentiable everywhere: use smooth.hessian_vector_product"
        )


def check_composite(objective: object) -> CompositeObjective:
    """Return ``objective`` if it is a `CompositeObjective`."""
    if not isinstance(objective, CompositeObjective):
        raise ValueError(
            f"objective must be an odestop.objectives.CompositeObjective such as Lasso, got {type(objective).__name__}"
        )
    return objective
