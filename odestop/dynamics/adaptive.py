"""Adaptive flows: each coordinate is scaled by the size of its past gradients, as in Adagrad, RMSprop and Adam.

Their state is the position and, behind it, the averages of past gradients: [x, v], or [x, m, v].  Products, roots
and quotients are taken coordinate by coordinate.  The learning rate of the algorithms is the step size: time is
measured in it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._numerics import square_root
from odestop.dynamics._memory import FlowWithMemory
from odestop.dynamics.gradient_driven import GradientDrivenFlow
from odestop.objectives.base import Objective, register_value


class _SquareMemoryFlow(GradientDrivenFlow, FlowWithMemory):
    """x' = -∇f(x)/(√v + ε) with a memory v of squared gradients that starts at δ > 0."""

    coordinatewise = True
    initial_square: Tensor
    eps: float | int | Tensor

    def __init__(self, objective: Objective, initial_square: float | int | Tensor, eps: float | int | Tensor) -> None:
        super().__init__(objective)
        self.register_hyperparameter("initial_square", initial_square)
        self.register_constant("eps", eps)

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return x0 with v = δ in every coordinate."""
        return torch.cat([x0, self.value_of("initial_square", x0) * torch.ones_like(x0)], dim=-1)

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch m"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch m"]:
        """Return [x', v']; t, of shape () or (*batch, 1), plays no part."""
        x, square = self.parts(state)
        direction = gradient / (square_root(square) + self.value_of("eps", x))
        return torch.cat([-direction, self._growth(x, square, gradient * gradient)], dim=-1)

    def _growth(self, x: Tensor, square: Tensor, latest: Tensor) -> Tensor:
        """Return v', with ∇f(x)² as ``latest``."""
        raise NotImplementedError


class AdagradFlow(_SquareMemoryFlow):
    """x' = -∇f(x)/(√v + ε), v' = ∇f(x)², v(t₀) = δ: Adagrad (Duchi, Hazan, Singer, 2011).

    It is the limit of `odestop.discrete.Adagrad` at the time h per step for h → 0, with the learning rate √h,
    ε/√h for its eps, and a sum of squares that starts at δ/h (torch's ``initial_accumulator_value``).

    From v = 0 the flow would leave with infinite speed, x ≈ x₀ - 2 √(t - t₀) sign(∇f(x₀)), whatever f is, and
    T would have no usable gradient; δ > 0 makes it smooth.  A small δ costs steps, of a size near δ/∇f(x₀)².

    Parameters
    ----------
    objective
        f.
    initial_square
        δ > 0, a number or a tensor of shape () or (*batch,); differentiable.
    eps
        ε >= 0, a number, or a tensor that may require a gradient.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = AdagradFlow(DiagonalQuadratic([1.0, 4.0]), initial_square=0.25)
    >>> state = flow.initial_state(torch.ones(2))
    >>> state.tolist()
    [1.0, 1.0, 0.25, 0.25]
    >>> flow(torch.tensor(0.0), state).tolist()
    [-2.0, -8.0, 1.0, 16.0]
    """

    def __init__(
        self,
        objective: Objective,
        initial_square: float | int | Tensor = 0.1,
        *,
        eps: float | int | Tensor = 1e-10,
    ) -> None:
        super().__init__(objective, initial_square, eps)

    def _growth(self, x: Tensor, square: Tensor, latest: Tensor) -> Tensor:
        return latest


class RMSpropFlow(_SquareMemoryFlow):
    """x' = -∇f(x)/(√v + ε), v' = (∇f(x)² - v)/τ, v(t₀) = δ: RMSprop (Tieleman, Hinton, 2012).

    The flow is that of da Silva and Gazeau (2020).  It is the limit of `odestop.discrete.RMSprop` with the
    learning rate h and α = exp(-h/τ), or 1 - h/τ, from v₀ = δ, at the time h per step, for h → 0.

    From v = 0, where torch starts, the flow would leave with infinite speed, x ≈ x₀ - 2 √(τ (t - t₀)) sign(∇f(x₀)),
    as `AdagradFlow` would; δ > 0 makes it smooth, and is forgotten after a few τ.  `AdamFlow` has the cure
    built in, its bias correction.

    Parameters
    ----------
    objective
        f.
    tau
        τ > 0, the time over which squares are averaged.  This and δ are a number or a tensor of shape () or
        (*batch,), and differentiable.
    initial_square
        δ > 0.
    eps
        ε >= 0, a number, or a tensor that may require a gradient.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = RMSpropFlow(DiagonalQuadratic([1.0, 4.0]), tau=0.5, initial_square=0.25, eps=0.0)
    >>> flow(torch.tensor(0.0), flow.initial_state(torch.ones(2))).tolist()
    [-2.0, -8.0, 1.5, 31.5]
    """

    tau: Tensor

    def __init__(
        self,
        objective: Objective,
        tau: float | int | Tensor = 1.0,
        initial_square: float | int | Tensor = 0.1,
        *,
        eps: float | int | Tensor = 1e-8,
    ) -> None:
        super().__init__(objective, initial_square, eps)
        self.register_hyperparameter("tau", tau)

    def _growth(self, x: Tensor, square: Tensor, latest: Tensor) -> Tensor:
        return (latest - square) / self.value_of("tau", x)


class AdamFlow(GradientDrivenFlow, FlowWithMemory):
    """x' = -m̂/(√v̂ + ε), m' = (∇f(x) - m)/τ₁, v' = (∇f(x)² - v)/τ₂: Adam with its bias correction.

    With m̂ = m/(1 - exp(-(t - t₀)/τ₁)) and v̂ = v/(1 - exp(-(t - t₀)/τ₂)) (da Silva, Gazeau, 2020; Barakat,
    Bianchi, 2021).  The state is [x, m, v], and m and v start at 0.

    It is the limit of `odestop.discrete.Adam` with the learning rate h and β = exp(-h/τ), or 1 - h/τ, for each
    of the two averages, at the time h per step, for h → 0.

    The corrections are 0/0 at t₀; the solution is not singular: m̂ → ∇f(x₀) and v̂ → ∇f(x₀)², which is what the
    flow takes at t = t₀ for every m and v (and before it).

    Parameters
    ----------
    objective
        f.
    tau1, tau2
        τ₁, τ₂ > 0, numbers or tensors of shape () or (*batch,); differentiable.  τ₂ >= τ₁ is usual.
    eps
        ε >= 0, a number, or a tensor that may require a gradient.
    t0
        t₀, a number or a tensor of shape () or (*batch,); not a parameter.  See the notes.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Notes
    -----
    The bias correction knows the time since the averages were 0, so that its clock has to start with the
    trajectory: where `odestop.continuous_stopping_time` is given a ``t0``, the flow needs the same one.  A
    tensor that requires a gradient is given to both; ∂T/∂t₀ is then 1.  In the start time of the trajectory alone
    T is not differentiable at t₀.

    A coordinate whose gradient vanishes moves by -m̂/ε: the flow is stiff there, and a larger ε helps.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = AdamFlow(DiagonalQuadratic([1.0, 4.0]), tau1=0.5, tau2=2.0)
    >>> flow(torch.tensor(0.0), flow.initial_state(torch.ones(2))).tolist()
    [-1.0, -1.0, 2.0, 8.0, 0.5, 8.0]
    """

    memories = 2
    coordinatewise = True
    tau1: Tensor
    tau2: Tensor
    eps: float | int | Tensor
    t0: float | int | Tensor

    def __init__(
        self,
        objective: Objective,
        tau1: float | int | Tensor = 0.1,
        tau2: float | int | Tensor = 1.0,
        *,
        eps: float | int | Tensor = 1e-8,
        t0: float | int | Tensor = 0.0,
    ) -> None:
        super().__init__(objective)
        self.register_hyperparameter("tau1", tau1)
        self.register_hyperparameter("tau2", tau2)
        self.register_constant("eps", eps)
        register_value(self, "t0", t0)

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch m"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch m"]:
        """Return [x', m', v'] at t of shape () or (*batch, 1)."""
        x, mean, square = self.parts(state)
        age, latest = t - self.value_of("t0", x), gradient * gradient
        tau1, tau2 = self.value_of("tau1", x), self.value_of("tau2", x)
        root = square_root(_without_bias(square, latest, age / tau2))
        direction = _without_bias(mean, gradient, age / tau1) / (root + self.value_of("eps", x))
        return torch.cat([-direction, (gradient - mean) / tau1, (latest - square) / tau2], dim=-1)


def _without_bias(average: Tensor, latest: Tensor, age: Tensor) -> Tensor:
    """Return average / (1 - exp(-age)); at the age 0, where both are 0, its limit ``latest``."""
    started = age > 0
    # Dividing by 0 in the branch that is not taken would make the other one's gradient NaN.
    return torch.where(started, average / -torch.expm1(-torch.where(started, age, 1.0)), latest)
