"""Optimizers that scale each coordinate by the size of its past gradients, and the one that keeps only signs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._numerics import square_root
from odestop.discrete.step_maps.objective import Hyperparameter, ObjectiveStepMap
from odestop.dynamics._hyperparameters import AVERAGING, NON_NEGATIVE, POSITIVE
from odestop.objectives.base import Objective


class Adagrad(ObjectiveStepMap):
    """Adagrad (Duchi, Hazan, Singer, 2011), as ``torch.optim.Adagrad``.

    With g_k = ∇f(x_k) + w x_k, coordinate by coordinate:  v_{k+1} = v_k + g_k²,
    x_{k+1} = x_k - s g_k / (√v_{k+1} + ε).  The state is [x, v], with v_0 = 0.  torch's ``lr_decay`` is the
    schedule ``lambda k: learning_rate / (1 + k * lr_decay)``.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0.  This and the weight decay are a number, a tensor of shape () or (*batch,), or a schedule by
        step, and differentiable (see `ObjectiveStepMap`).
    weight_decay
        w >= 0; None leaves the term out.
    eps
        ε >= 0, a number, or a tensor that may require a gradient.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = Adagrad(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.125)
    >>> step(0, step.initial_state(torch.ones(2))).tolist()
    [0.875, 0.875, 1.0, 16.0]
    """

    def __init__(
        self,
        objective: Objective,
        learning_rate: Hyperparameter,
        *,
        weight_decay: Hyperparameter | None = None,
        eps: float | int | Tensor = 1e-10,
    ) -> None:
        super().__init__(objective, memories=1)
        self.register_hyperparameter("learning_rate", learning_rate, POSITIVE)
        self.register_hyperparameter("weight_decay", weight_decay, NON_NEGATIVE)
        self.register_constant("eps", eps, NON_NEGATIVE)

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        x, total = state.chunk(2, dim=-1)
        gradient = self.decayed_gradient(k, x)
        total = total + gradient * gradient
        direction = gradient / (square_root(total) + self.value_at("eps", k, x))
        return torch.cat([x - self.value_at("learning_rate", k, x) * direction, total], dim=-1)


class RMSprop(ObjectiveStepMap):
    """RMSprop (Tieleman, Hinton, 2012), as ``torch.optim.RMSprop``.

    With g_k = ∇f(x_k) + w x_k, coordinate by coordinate:  v_{k+1} = α v_k + (1 - α) g_k²,
    b_{k+1} = μ b_k + g_k / (√v_{k+1} + ε),  x_{k+1} = x_k - s b_{k+1}.  The state is [x, v, b], all zero but
    x_0; without momentum, μ = 0, it is [x, v].

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0.  This and every hyperparameter but ε is a number, a tensor of shape () or (*batch,), or a
        schedule by step, and differentiable (see `ObjectiveStepMap`).
    smoothing
        0 <= α < 1, torch's ``alpha``.
    momentum
        μ >= 0; None for none.
    weight_decay
        w >= 0; None leaves the term out.
    eps
        ε >= 0, a number, or a tensor that may require a gradient.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = RMSprop(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.125, smoothing=0.75)
    >>> step(0, step.initial_state(torch.ones(2))).tolist()
    [0.75, 0.75, 0.25, 4.0]
    """

    def __init__(
        self,
        objective: Objective,
        learning_rate: Hyperparameter,
        smoothing: Hyperparameter = 0.99,
        *,
        momentum: Hyperparameter | None = None,
        weight_decay: Hyperparameter | None = None,
        eps: float | int | Tensor = 1e-8,
    ) -> None:
        super().__init__(objective, memories=1 if momentum is None else 2)
        self.register_hyperparameter("learning_rate", learning_rate, POSITIVE)
        self.register_hyperparameter("smoothing", smoothing, AVERAGING)
        self.register_hyperparameter("momentum", momentum, NON_NEGATIVE)
        self.register_hyperparameter("weight_decay", weight_decay, NON_NEGATIVE)
        self.register_constant("eps", eps, NON_NEGATIVE)

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        x, square, *buffers = state.chunk(1 + self.memories, dim=-1)
        gradient = self.decayed_gradient(k, x)
        square = _average(self.value_at("smoothing", k, x), square, gradient * gradient)
        direction = gradient / (square_root(square) + self.value_at("eps", k, x))
        if buffers:
            direction = self.value_at("momentum", k, x) * buffers[0] + direction
            buffers = [direction]
        return torch.cat([x - self.value_at("learning_rate", k, x) * direction, square, *buffers], dim=-1)


class Adam(ObjectiveStepMap):
    """Adam with bias correction (Kingma, Ba, 2015), as ``torch.optim.Adam``.

    With g_k = ∇f(x_k) + w x_k, coordinate by coordinate:  m_{k+1} = β₁ m_k + (1 - β₁) g_k,
    v_{k+1} = β₂ v_k + (1 - β₂) g_k²,  x_{k+1} = x_k - s m̂ / (√v̂ + ε), where m̂ = m_{k+1} / (1 - β₁^{k+1})
    and v̂ = v_{k+1} / (1 - β₂^{k+1}).  The state is [x, m, v], with m_0 = v_0 = 0.

    Where a gradient is 0 from the start, so is the root's derivative: m̂ vanishes there faster than it grows.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0.  This and every hyperparameter but ε is a number, a tensor of shape () or (*batch,), or a
        schedule by step, and differentiable (see `ObjectiveStepMap`).
    beta1, beta2
        0 <= β₁, β₂ < 1.  With a schedule, the bias correction takes the power of the current value.
    weight_decay
        w >= 0, coupled: part of the gradient.  None leaves the term out.
    eps
        ε >= 0, a number, or a tensor that may require a gradient.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = Adam(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.125, beta1=0.5, beta2=0.75)
    >>> step(0, step.initial_state(torch.ones(2))).tolist()
    [0.875, 0.875, 0.5, 2.0, 0.25, 4.0]
    """

    def __init__(
        self,
        objective: Objective,
        learning_rate: Hyperparameter,
        beta1: Hyperparameter = 0.9,
        beta2: Hyperparameter = 0.999,
        *,
        weight_decay: Hyperparameter | None = None,
        eps: float | int | Tensor = 1e-8,
    ) -> None:
        super().__init__(objective, memories=2)
        self.register_hyperparameter("learning_rate", learning_rate, POSITIVE)
        self.register_hyperparameter("beta1", beta1, AVERAGING)
        self.register_hyperparameter("beta2", beta2, AVERAGING)
        self.register_hyperparameter("weight_decay", weight_decay, NON_NEGATIVE)
        self.register_constant("eps", eps, NON_NEGATIVE)

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        x, mean, square = state.chunk(3, dim=-1)
        mean, square, direction = self._moments_and_direction(k, x, mean, square, self.decayed_gradient(k, x))
        return torch.cat([x - self.value_at("learning_rate", k, x) * direction, mean, square], dim=-1)

    def _moments_and_direction(
        self, k: int, x: Tensor, mean: Tensor, square: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return m_{k+1}, v_{k+1} and m̂ / (√v̂ + ε)."""
        beta1, beta2 = self.value_at("beta1", k, x), self.value_at("beta2", k, x)
        mean = _average(beta1, mean, gradient)
        square = _average(beta2, square, gradient * gradient)
        root = square_root(square / (1 - beta2 ** (k + 1)))
        direction = mean / (1 - beta1 ** (k + 1)) / (root + self.value_at("eps", k, x))
        return mean, square, direction


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov, Hutter, 2019), as ``torch.optim.AdamW``.

    As `Adam` with g_k = ∇f(x_k), and x_{k+1} = x_k - s (m̂ / (√v̂ + ε) + w x_k).  The state is [x, m, v], with
    m_0 = v_0 = 0.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0.  This and every hyperparameter but ε is a number, a tensor of shape () or (*batch,), or a
        schedule by step, and differentiable (see `ObjectiveStepMap`).
    beta1, beta2
        0 <= β₁, β₂ < 1.  With a schedule, the bias correction takes the power of the current value.
    weight_decay
        w >= 0.
    eps
        ε >= 0, a number, or a tensor that may require a gradient.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = AdamW(DiagonalQuadratic([1.0, 4.0]), 0.125, beta1=0.5, beta2=0.75, weight_decay=0.5)
    >>> step(0, step.initial_state(torch.ones(2))).tolist()
    [0.8125, 0.8125, 0.5, 2.0, 0.25, 4.0]
    """

    def __init__(
        self,
        objective: Objective,
        learning_rate: Hyperparameter,
        beta1: Hyperparameter = 0.9,
        beta2: Hyperparameter = 0.999,
        *,
        weight_decay: Hyperparameter = 1e-2,
        eps: float | int | Tensor = 1e-8,
    ) -> None:
        super().__init__(objective, learning_rate, beta1, beta2, weight_decay=weight_decay, eps=eps)

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        x, mean, square = state.chunk(3, dim=-1)
        mean, square, direction = self._moments_and_direction(k, x, mean, square, self.objective.gradient(x))
        displacement = direction + self.value_at("weight_decay", k, x) * x
        return torch.cat([x - self.value_at("learning_rate", k, x) * displacement, mean, square], dim=-1)


class Lion(ObjectiveStepMap):
    """Lion, the sign of an interpolated momentum (Chen et al., 2023, Algorithm 2).

    With g_k = ∇f(x_k):  c = β₁ m_k + (1 - β₁) g_k,  x_{k+1} = x_k - s (sign(c) + w x_k),
    m_{k+1} = β₂ m_k + (1 - β₂) g_k.  The state is [x, m], with m_0 = 0.

    The sign has the derivative 0: the stopping time has a gradient in s, w and x_0, and none in β₁ and β₂ nor
    through the momentum.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0.  This and every hyperparameter below is a number, a tensor of shape () or (*batch,), or a
        schedule by step (see `ObjectiveStepMap`).
    beta1, beta2
        0 <= β₁, β₂ < 1.
    weight_decay
        w >= 0, decoupled; None leaves the term out.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = Lion(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.125, beta2=0.5)
    >>> step(0, step.initial_state(torch.ones(2))).tolist()
    [0.875, 0.875, 0.5, 2.0]
    """

    def __init__(
        self,
        objective: Objective,
        learning_rate: Hyperparameter,
        beta1: Hyperparameter = 0.9,
        beta2: Hyperparameter = 0.99,
        *,
        weight_decay: Hyperparameter | None = None,
    ) -> None:
        super().__init__(objective, memories=1)
        self.register_hyperparameter("learning_rate", learning_rate, POSITIVE)
        self.register_hyperparameter("beta1", beta1, AVERAGING)
        self.register_hyperparameter("beta2", beta2, AVERAGING)
        self.register_hyperparameter("weight_decay", weight_decay, NON_NEGATIVE)

    def forward(self, k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the state after step k."""
        x, mean = state.chunk(2, dim=-1)
        gradient = self.objective.gradient(x)
        displacement = torch.sign(_average(self.value_at("beta1", k, x), mean, gradient))
        if self.weight_decay is not None:
            displacement = displacement + self.value_at("weight_decay", k, x) * x
        mean = _average(self.value_at("beta2", k, x), mean, gradient)
        return torch.cat([x - self.value_at("learning_rate", k, x) * displacement, mean], dim=-1)


def _average(beta: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Return the exponential moving average."""
    return beta * old + (1 - beta) * new
