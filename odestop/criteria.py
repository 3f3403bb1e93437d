"""Criteria J whose fall to the threshold ε is the stopping time (Def. 1 and 2 of arXiv 2505.22509)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop._validation import check_callable, check_positive
from odestop.objectives.base import Objective, check_objective, register_value
from odestop.objectives.composite import CompositeObjective, check_composite


class ObjectiveGap(nn.Module):
    """J(x) = f(x) - f*.

    Parameters
    ----------
    objective
        f; its parameters are the parameters φ of the criterion.
    minimum
        f*, a number or a tensor of shape (); ``objective.minimum`` by default.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or f* is neither known to it nor given.

    Examples
    --------
    >>> import torch
    >>> from odestop.objectives import DiagonalQuadratic
    >>> ObjectiveGap(DiagonalQuadratic([1.0, 4.0]))(torch.ones(5, 2))
    tensor([2.5000, 2.5000, 2.5000, 2.5000, 2.5000])
    """

    minimum: float | Tensor

    def __init__(self, objective: Objective, minimum: float | Tensor | None = None) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        if minimum is None:
            minimum = objective.minimum
        if minimum is None:
            raise ValueError(
                f"minimum must be given for {type(objective).__name__}, whose minimum is unknown; "
                "it is a number or a tensor of shape ()"
            )
        register_value(self, "minimum", minimum)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return J(x)."""
        return self.objective(x) - self.minimum


class SquaredGradientNorm(nn.Module):
    """J(x) = ‖∇f(x)‖².

    Shares ∇f(x) with a gradient flow evaluated at the same tensor x (see `Objective`).

    Parameters
    ----------
    objective
        f; its parameters are the parameters φ of the criterion.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`.

    Examples
    --------
    >>> import torch
    >>> from odestop.objectives import DiagonalQuadratic
    >>> SquaredGradientNorm(DiagonalQuadratic([1.0, 4.0]))(torch.ones(2))
    tensor(17.)
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = check_objective(objective)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return J(x)."""
        gradient = self.objective.gradient(x)
        return (gradient * gradient).sum(-1)


class SquaredGradientMapping(nn.Module):
    """J(x) = ‖G_s(x)‖² with the gradient mapping G_s(x) = (x - prox_{s r}(x - s ∇g(x)))/s of f = g + r.

    It takes the place of ‖∇f(x)‖² where f has no gradient: G_s is ∇g if r = 0, and for convex g it vanishes exactly
    at the minimizers (Beck, First-Order Methods in Optimization, 2017, chapter 10).

    Parameters
    ----------
    objective
        f; its parameters are the parameters φ of the criterion.
    step
        s > 0; 1/L by default, for the smoothness L of g.

    Raises
    ------
    ValueError
        If ``objective`` is not a `CompositeObjective`, or s is not positive, or neither given nor L known.

    Examples
    --------
    >>> import torch
    >>> from odestop.objectives import Lasso
    >>> lasso = Lasso(torch.eye(2), torch.tensor([4.0, 1.0]), regularization=0.5)
    >>> SquaredGradientMapping(lasso)(torch.tensor([[3.0, 0.0], [2.0, 0.0]]))
    tensor([0.0000, 0.2500])
    """

    def __init__(self, objective: CompositeObjective, step: float | int | None = None) -> None:
        super().__init__()
        self.objective = check_composite(objective)
        if step is None:
            smoothness = objective.smooth.smoothness
            if isinstance(smoothness, Tensor) or not smoothness:
                raise ValueError(
                    f"step must be given for {type(objective).__name__}, whose smoothness is not one known number"
                )
            step = 1 / smoothness
        self.step = check_positive("step", step)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return J(x)."""
        mapping = self.objective.gradient_mapping(x, self.step)
        return (mapping * mapping).sum(-1)


class TimeDependent(nn.Module):
    """J(t, x): marks a criterion of `odestop.continuous_stopping_time` that depends on time as well.

    Parameters
    ----------
    function
        ``(t, x) -> J(t, x)`` of shape (*batch,), with x of shape (*batch, d) and t of shape (*batch,), 0-d for one
        trajectory.  A module becomes a submodule; parameters receive gradients as those of any criterion.

    Raises
    ------
    ValueError
        If ``function`` cannot be called.

    Examples
    --------
    >>> import torch, odestop
    >>> distance_to_moving_target = odestop.criteria.TimeDependent(lambda t, x: x[..., 0] - 0.1 * t)
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -x, torch.ones(1, dtype=torch.float64), distance_to_moving_target, threshold=0.0
    ... )
    >>> round(solution.time.item(), 6)  # exp(-T) = T / 10
    1.745528
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = check_callable("function", function, "(t, x) -> J(t, x)")

    def __call__(self, t: Tensor, x: Tensor | None = None) -> Tensor:
        """Return J(t, x).

        Raises
        ------
        ValueError
            Without a point, as where a criterion of x alone is expected.
        """
        if x is None:
            raise ValueError(
                "TimeDependent is a criterion J(t, x), and got one argument only; continuous_stopping_time gives it "
                "two, a discrete run has no time of its own: let t be a coordinate of the state there"
            )
        return super().__call__(t, x)

    def forward(self, t: Float[Tensor, "*batch"], x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return J(t, x)."""
        return self.function(t, x)


class HistoryCriterion(nn.Module):
    """Base of the criteria of `odestop.discrete_stopping_time` that see the previous iterate too, J(x_k, x_{k-1}).

    Subclasses implement ``forward(x, previous_x) -> J`` of shape (*batch,), from two points of shape (*batch, d);
    `from_function` wraps a function.  The run augments its state with the previous one, as the paper does, and
    differentiates J in both points.  There is no x_{-1}, so that J begins at k = 1 and N ≥ 1.  Where J(x_1, x_0) ≤ ε
    already, N = 1 with the status ALREADY_SATISFIED and a zero gradient: there is no J(x_0, x_{-1}) above the
    threshold to fall from.

    Examples
    --------
    >>> import torch
    >>> from odestop.discrete import discrete_stopping_time
    >>> class LargestMove(HistoryCriterion):
    ...     def forward(self, x, previous_x):
    ...         return (x - previous_x).abs().amax(-1)
    >>> discrete_stopping_time(lambda k, x: 0.5 * x, torch.tensor([8.0, 4.0]), LargestMove(), 1.0).steps
    tensor(3.)
    """

    @staticmethod
    def from_function(function: Callable[[Tensor, Tensor], Tensor]) -> HistoryCriterion:
        """Return the criterion of a function ``(x, previous_x) -> J``; a module becomes a submodule.

        Raises
        ------
        ValueError
            If ``function`` cannot be called.
        """
        return _HistoryFunction(function)

    def __call__(self, x: Tensor, previous_x: Tensor | None = None) -> Tensor:
        """Return J(x, previous_x).

        Raises
        ------
        ValueError
            Without a previous point.
        """
        if previous_x is None:
            raise ValueError(
                f"{type(self).__name__} is a criterion on history, J(x_k, x_{{k-1}}), and got one point only; "
                "discrete_stopping_time gives it two, a flow has no previous point"
            )
        return super().__call__(x, previous_x)


class _HistoryFunction(HistoryCriterion):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = check_callable("function", function, "(x, previous_x) -> J")

    def forward(self, x: Float[Tensor, "*batch d"], previous_x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return self.function(x, previous_x)


class StepDecrease(HistoryCriterion):
    """J = f(x_{k-1}) - f(x_k), the decrease of f by the last step: the criterion of the paper's L2O experiments.

    As in the paper it has a sign: a step on which f rises has J < 0 and stops the run at any ε ≥ 0.  For rules that
    are not monotone, wrap the absolute value with `HistoryCriterion.from_function`.

    Parameters
    ----------
    objective
        f; its parameters are the parameters φ of the criterion.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`.

    Examples
    --------
    >>> import torch
    >>> from odestop.objectives import DiagonalQuadratic
    >>> StepDecrease(DiagonalQuadratic([2.0]))(torch.tensor([1.0]), torch.tensor([3.0]))
    tensor(8.)
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = check_objective(objective)

    def forward(self, x: Float[Tensor, "*batch d"], previous_x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return J(x, previous_x)."""
        return self.objective(previous_x) - self.objective(x)


class RelativeChange(HistoryCriterion):
    """J = ‖x_k - x_{k-1}‖ / max(1, ‖x_k‖): relative for large points, absolute for points in the unit ball.

    Examples
    --------
    >>> import torch
    >>> RelativeChange()(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0]))
    tensor(0.2000)
    """

    def forward(self, x: Float[Tensor, "*batch d"], previous_x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return J(x, previous_x)."""
        size = torch.linalg.vector_norm(x, dim=-1)
        return torch.linalg.vector_norm(x - previous_x, dim=-1) / size.clamp(min=1.0)
