"""Gradient descent and its accelerations by momentum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from odestop.discrete.step_maps.analytic import pull_back_gradient_step
from odestop.discrete.step_maps.objective import Hyperparameter, ObjectiveStepMap
from odestop.dynamics._hyperparameters import NON_NEGATIVE, POSITIVE
from odestop.objectives.base import Objective


class GradientDescent(ObjectiveStepMap):
    """Gradient descent, x_{k+1} = x_k - s (∇f(x_k) + w x_k) (Cauchy, 1847), as ``torch.optim.SGD``.

    No memory: the state is x.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0.  This and every hyperparameter below is a number, a tensor of shape () or (*batch,), or a
        schedule by step, and differentiable (see `ObjectiveStepMap`).
    weight_decay
        w >= 0; None leaves the term out.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = GradientDescent(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.125)
    >>> step(0, torch.ones(2)).tolist()
    [0.875, 0.5]
    """

    def __init__(
        self, objective: Objective, learning_rate: Hyperparameter, *, weight_decay: Hyperparameter | None = None
    ) -> None:
        super().__init__(objective, memories=0)
        self.register_hyperparameter("learning_rate", learning_rate, POSITIVE)
        self.register_hyperparameter("weight_decay", weight_decay, NON_NEGATIVE)

    def forward(self, k: int, state: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return the state after step k."""
        return state - self.value_at("learning_rate", k, state) * self.decayed_gradient(k, state)

    def pull_back(
        self,
        k: int,
        state: Float[Tensor, "*batch d"],
        cotangent: Float[Tensor, "*batch d"],
        parameters: Sequence[Tensor],
    ) -> tuple[Tensor, list[Tensor]] | None:
        """Pull a cotangent through the step by the Hessian of f, without weight decay at a constant rate."""
        rate = self.learning_rate
        if self.weight_decay is not None or not isinstance(rate, Tensor):
            return None
        return pull_back_gradient_step(self.objective, rate, state, cotangent, parameters)


class _MomentumBuffer(ObjectiveStepMap):
    """A step along a buffer of past gradients: the memory is the buffer b, with b_{k+1} = μ b_k + g_k."""

    def __init__(
        self,
        objective: Objective,
        learning_rate: Hyperparameter,
        momentum: Hyperparameter,
        *,
        weight_decay: Hyperparameter | None = None,
    ) -> None:
        super().__init__(objective, memories=1)
        self.register_hyperparameter("learning_rate", learning_rate, POSITIVE)
        self.register_hyperparameter("momentum", momentum, NON_NEGATIVE)
        self.register_hyperparameter("weight_decay", weight_decay, NON_NEGATIVE)


class HeavyBall(_MomentumBuffer):
    """Heavy ball (Polyak, 1964), in the form of ``torch.optim.SGD(momentum=...)``.

    With g_k = ∇f(x_k) + w x_k:  b_{k+1} = μ b_k + g_k,  x_{k+1} = x_k - s b_{k+1}.  For constant s and μ this
    is x_{k+1} = x_k - s g_k + μ (x_k - x_{k-1}).  The state is [x, b], with b_0 = 0.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0.  This and every hyperparameter below is a number, a tensor of shape () or (*batch,), or a
        schedule by step, and differentiable (see `ObjectiveStepMap`).
    momentum
        μ >= 0.
    weight_decay
        w >= 0; None leaves the term out.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = HeavyBall(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.125, momentum=0.5)
    >>> step(0, step.initial_state(torch.ones(2))).tolist()
    [0.875, 0.5, 1.0, 4.0]
    """

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        x, buffer = state.chunk(2, dim=-1)
        buffer = self.value_at("momentum", k, x) * buffer + self.decayed_gradient(k, x)
        return torch.cat([x - self.value_at("learning_rate", k, x) * buffer, buffer], dim=-1)


class NesterovMomentum(_MomentumBuffer):
    """Nesterov's momentum as networks are trained with it, ``torch.optim.SGD(nesterov=True)``.

    With g_k = ∇f(x_k) + w x_k:  b_{k+1} = μ b_k + g_k,  x_{k+1} = x_k - s (g_k + μ b_{k+1}) (Sutskever,
    Martens, Dahl, Hinton, 2013, written for the point where the gradient is taken).  The state is [x, b],
    with b_0 = 0.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0.  This and every hyperparameter below is a number, a tensor of shape () or (*batch,), or a
        schedule by step, and differentiable (see `ObjectiveStepMap`).
    momentum
        μ >= 0.
    weight_decay
        w >= 0; None leaves the term out.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = NesterovMomentum(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.125, momentum=0.5)
    >>> step(0, step.initial_state(torch.ones(2))).tolist()
    [0.8125, 0.25, 1.0, 4.0]
    """

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        x, buffer = state.chunk(2, dim=-1)
        gradient, momentum = self.decayed_gradient(k, x), self.value_at("momentum", k, x)
        buffer = momentum * buffer + gradient
        return torch.cat([x - self.value_at("learning_rate", k, x) * (gradient + momentum * buffer), buffer], dim=-1)


class Nesterov(ObjectiveStepMap):
    """Nesterov's accelerated gradient for convex f: f(x_k) - f* ≤ 2 ‖x_0 - x*‖² / (s (k + 1)²) if s ≤ 1/L.

    With the last displacement v_k = x_k - x_{k-1}:  y_k = x_k + (k - 1)/(k + 2) v_k,
    x_{k+1} = y_k - s ∇f(y_k) (Nesterov, 1983; the sequence and the bound as in Su, Boyd, Candès, 2016).  The
    state is [x, v], with v_0 = 0.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0: a number, a tensor of shape () or (*batch,), or a schedule by step; differentiable (see
        `ObjectiveStepMap`).

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or the learning rate is not positive.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = Nesterov(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.125)
    >>> step(4, torch.tensor([1.0, 1.0, -0.5, 0.0])).tolist()
    [0.65625, 0.5, -0.34375, -0.5]
    """

    def __init__(self, objective: Objective, learning_rate: Hyperparameter) -> None:
        super().__init__(objective, memories=1)
        self.register_hyperparameter("learning_rate", learning_rate, POSITIVE)

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        x, displacement = state.chunk(2, dim=-1)
        momentum, rate = (k - 1) / (k + 2), self.value_at("learning_rate", k, x)
        return _accelerated_step(self.objective, x, displacement, momentum, rate)


class NesterovStronglyConvex(ObjectiveStepMap):
    """Nesterov's accelerated gradient for μ-strongly convex f: f(x_k) - f* = O((1 - √(μ s))^k) if s ≤ 1/L.

    With κ = 1/(μ s) and the last displacement v_k = x_k - x_{k-1}:  y_k = x_k + (√κ - 1)/(√κ + 1) v_k,
    x_{k+1} = y_k - s ∇f(y_k) (Nesterov, Lectures on Convex Optimization, 2018, section 2.2).  The state is
    [x, v], with v_0 = 0.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0.  This and μ are a number, a tensor of shape () or (*batch,), or a schedule by step, and
        differentiable (see `ObjectiveStepMap`).
    strong_convexity
        μ > 0; ``objective.strong_convexity`` by default.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is not positive, or μ is neither known to
        the objective nor given.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = NesterovStronglyConvex(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.25)  # momentum 1/3
    >>> step(4, torch.tensor([1.0, 1.0, -0.75, 0.0])).tolist()
    [0.5625, 0.0, -0.4375, -1.0]
    """

    def __init__(
        self, objective: Objective, learning_rate: Hyperparameter, strong_convexity: Hyperparameter | None = None
    ) -> None:
        super().__init__(objective, memories=1)
        self.register_hyperparameter("learning_rate", learning_rate, POSITIVE)
        if strong_convexity is None:
            strong_convexity = objective.strong_convexity
        if strong_convexity is None:
            raise ValueError(
                f"strong_convexity must be given for {type(objective).__name__}, whose constant is unknown; "
                "it is a positive number or tensor, or a schedule k -> value"
            )
        self.register_hyperparameter("strong_convexity", strong_convexity, POSITIVE)

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        x, displacement = state.chunk(2, dim=-1)
        rate = self.value_at("learning_rate", k, x)
        root = torch.sqrt(self.value_at("strong_convexity", k, x) * rate)
        return _accelerated_step(self.objective, x, displacement, (1 - root) / (1 + root), rate)


def _accelerated_step(
    objective: Objective, x: Tensor, displacement: Tensor, momentum: float | Tensor, rate: Tensor
) -> Tensor:
    """Return [x_{k+1}, v_{k+1}] from a gradient step at the extrapolated point."""
    inertia = momentum * displacement
    displacement = inertia - rate * objective.gradient(x + inertia)
    return torch.cat([x + displacement, displacement], dim=-1)
