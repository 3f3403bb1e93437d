"""Inertial flows, x'' + friction + ∇f(x) = 0: heavy ball, Nesterov's flows, and Hessian-driven damping.

Their state is [x, v], the position and the velocity v = x', of shape (*batch, 2d).  They start at rest, at
v = 0, where nothing else is said.  f need not decrease along them: a target is met the first time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_callable
from odestop.dynamics._hyperparameters import NON_NEGATIVE
from odestop.dynamics._memory import FlowWithMemory
from odestop.dynamics.gradient_driven import GradientDrivenFlow, has_forward_of
from odestop.objectives.base import Objective, register_value

Coefficient = float | int | Tensor | Callable[[Tensor], Tensor]
"""A coefficient of `InertialHessianDampedFlow`: constant, or a schedule of t."""


class InertialFlow(FlowWithMemory):
    """Base of the flows of second order: x' = v, v' = ``acceleration(t, x, v)``.

    Parameters
    ----------
    objective
        f.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`.

    Examples
    --------
    A flow of one's own, with a friction that grows with the speed:

    >>> from odestop.objectives import DiagonalQuadratic
    >>> class DragFlow(InertialFlow):
    ...     def __init__(self, objective, drag):
    ...         super().__init__(objective)
    ...         self.register_hyperparameter("drag", drag)
    ...
    ...     def acceleration(self, t, x, v):
    ...         speed = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    ...         return -self.value_of("drag", x) * speed * v - self.objective.gradient(x)
    >>> flow = DragFlow(DiagonalQuadratic([1.0, 4.0]), drag=0.5)
    >>> flow(torch.tensor(0.0), torch.tensor([1.0, 1.0, 3.0, 4.0])).tolist()
    [3.0, 4.0, -8.5, -14.0]
    """

    def forward(self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return [x', v'] at t of shape () or (*batch, 1)."""
        x, v = self.parts(state)
        return torch.cat([v, self.acceleration(t, x, v)], dim=-1)

    def acceleration(
        self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return x''."""
        raise NotImplementedError(f"{type(self).__name__} must implement acceleration(t, x, v)")


class _GradientDrivenInertialFlow(GradientDrivenFlow, InertialFlow):
    """An inertial flow whose acceleration depends on f through ∇f(x) alone: subclasses implement `pushed`."""

    coordinatewise = True
    forward = InertialFlow.forward

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch m"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch m"]:
        """Return [x', v'], given ∇f(x)."""
        x, v = self.parts(state)
        return torch.cat([v, self.pushed(t, x, v, gradient)], dim=-1)

    def acceleration(
        self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return x''."""
        return self.pushed(t, x, v, self.objective.gradient(x))

    def pushed(self, t: Tensor, x: Tensor, v: Tensor, gradient: Tensor) -> Tensor:
        """Return x'', given ∇f(x)."""
        raise NotImplementedError

    def _is_as_defined(self) -> bool:
        own = _GradientDrivenInertialFlow
        return has_forward_of(self, own) and type(self).acceleration is own.acceleration


class HeavyBallFlow(_GradientDrivenInertialFlow):
    """x'' + c x' + ∇f(x) = 0, the heavy ball with constant friction (Polyak, 1964).

    On a quadratic each eigendirection is a damped oscillator, critically damped at c = 2 √λ.

    It is the limit of `odestop.discrete.HeavyBall` with rate = h² and momentum = 1 - c h, at the time h per
    step, for h → 0.  torch's buffer b is then the velocity v = -h b, and the two steps are the same:
    `odestop.discrete.SymplecticEuler` with step size h, up to rounding.

    Parameters
    ----------
    objective
        f.
    friction
        c >= 0, a number or a tensor of shape () or (*batch,); differentiable.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or c is negative or not finite.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = HeavyBallFlow(DiagonalQuadratic([1.0, 4.0]), friction=0.5)
    >>> flow(torch.tensor(0.0), torch.tensor([1.0, 1.0, -2.0, 0.0])).tolist()
    [-2.0, 0.0, 0.0, -4.0]
    """

    friction: Tensor

    def __init__(self, objective: Objective, friction: float | int | Tensor) -> None:
        super().__init__(objective)
        self.register_hyperparameter("friction", friction, NON_NEGATIVE)

    def pushed(self, t: Tensor, x: Tensor, v: Tensor, gradient: Tensor) -> Tensor:
        """Return x'', given ∇f(x); t plays no part."""
        return -self.value_of("friction", x) * v - gradient


class NesterovFlow(_GradientDrivenInertialFlow):
    """x'' + r/(t - t₀) x' + ∇f(x) = 0, the limit of Nesterov's method (Su, Boyd, Candès, 2016).

    f - f* = O(1/t²) for convex f and r >= 3.  On a quadratic each eigendirection is a Bessel function: with
    r = 3 and τ = √λ (t - t₀), x(t) = 2 x₀ J₁(τ)/τ.

    It is the limit of `odestop.discrete.Nesterov` with rate = h², at the time h per step, for r = 3.

    The friction is singular at t₀, the solution that starts there at rest is not: x'/(t - t₀) → x''(t₀) =
    -∇f(x₀)/(1 + r), which is what the flow returns at t = t₀ for every v (and before it).

    Parameters
    ----------
    objective
        f.
    friction
        r >= 0, a number or a tensor of shape () or (*batch,); differentiable.
    t0
        t₀, a number or a tensor of shape () or (*batch,); not a parameter.  See the notes.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or r is negative or not finite.

    Notes
    -----
    A trajectory that starts later than t₀ starts with the finite friction that the flow has by then, and T
    changes with that start in second order only: in the start time alone the gradient at t₀ is 0, up to the
    size of the first step.  To move the start together with the singularity, give the same tensor to the flow
    and to `odestop.continuous_stopping_time`; ∂T/∂t₀ is then 1.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = NesterovFlow(DiagonalQuadratic([1.0, 4.0]))
    >>> flow(torch.tensor(0.0), flow.initial_state(torch.ones(2))).tolist()
    [0.0, 0.0, -0.25, -1.0]
    >>> flow(torch.tensor(2.0), torch.tensor([1.0, 1.0, -2.0, 0.0])).tolist()
    [-2.0, 0.0, 2.0, -4.0]
    """

    friction: Tensor
    t0: float | int | Tensor

    def __init__(
        self, objective: Objective, friction: float | int | Tensor = 3.0, *, t0: float | int | Tensor = 0.0
    ) -> None:
        super().__init__(objective)
        self.register_hyperparameter("friction", friction, NON_NEGATIVE)
        register_value(self, "t0", t0)

    def pushed(self, t: Tensor, x: Tensor, v: Tensor, gradient: Tensor) -> Tensor:
        """Return x'', given ∇f(x)."""
        force = -gradient
        return force - _vanishing_friction(self.value_of("friction", x), t - self.value_of("t0", x), v, force)


class StronglyConvexNesterovFlow(_GradientDrivenInertialFlow):
    """x'' + 2 √μ x' + ∇f(x) = 0, the limit of Nesterov's method for μ-strongly convex f.

    f - f* = O(exp(-√μ t)) (Wilson, Recht, Jordan, 2021).  It is a `HeavyBallFlow` whose friction is critical
    for the flattest direction.

    It is the limit of `odestop.discrete.NesterovStronglyConvex` with rate = h² and the same μ, at the time h
    per step.

    Parameters
    ----------
    objective
        f.
    strong_convexity
        μ > 0, a number or a tensor of shape () or (*batch,); differentiable.  ``objective.strong_convexity``
        by default.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or μ is not positive and finite, or neither known to the
        objective nor given.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = StronglyConvexNesterovFlow(DiagonalQuadratic([1.0, 4.0]))  # μ = 1
    >>> flow(torch.tensor(0.0), torch.tensor([1.0, 1.0, -2.0, 0.0])).tolist()
    [-2.0, 0.0, 3.0, -4.0]
    """

    strong_convexity: Tensor

    def __init__(self, objective: Objective, strong_convexity: float | int | Tensor | None = None) -> None:
        super().__init__(objective)
        self.register_hyperparameter("strong_convexity", _strong_convexity(objective, strong_convexity))

    def pushed(self, t: Tensor, x: Tensor, v: Tensor, gradient: Tensor) -> Tensor:
        """Return x'', given ∇f(x); t plays no part."""
        return -2 * self.value_of("strong_convexity", x) ** 0.5 * v - gradient


class HighResolutionNesterovFlow(InertialFlow):
    """x'' + 2 √μ x' + √s ∇²f(x) x' + (1 + √(μ s)) ∇f(x) = 0, Nesterov's method to the next order in √s.

    The high-resolution ODE of Shi, Du, Jordan and Su (2022) for NAG-SC.  It starts, as theirs, at the velocity
    v₀ = -2 √s ∇f(x₀)/(1 + √(μ s)) of the first step.  The term with the Hessian, absent from
    `StronglyConvexNesterovFlow`, is what tells Nesterov's method from the heavy ball.

    It models the method at the learning rate s: its points y_k = x_k + (1 - √(μ s))/(1 + √(μ s)) (x_k - x_{k-1}),
    where the gradient is taken, in the terms of `odestop.discrete.NesterovStronglyConvex`, at the time √s per
    step.  For s → 0 both tend to `StronglyConvexNesterovFlow`.  The two stay within O(√s) of each other with
    the velocity v₀, and within O(s) with -3/2 √s ∇f(x₀), which leaves out the change during the first step.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0.  This and μ are a number or a tensor of shape () or (*batch,), and differentiable.
    strong_convexity
        μ > 0; ``objective.strong_convexity`` by default.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is not positive and finite, or μ is neither
        known to the objective nor given.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = HighResolutionNesterovFlow(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.25)  # μ = 1
    >>> flow.initial_state(torch.tensor([3.0, 0.0])).tolist()
    [3.0, 0.0, -2.0, -0.0]
    >>> flow(torch.tensor(0.0), torch.tensor([1.0, 1.0, -2.0, 0.0])).tolist()
    [-2.0, 0.0, 3.5, -6.0]
    """

    learning_rate: Tensor
    strong_convexity: Tensor

    def __init__(
        self,
        objective: Objective,
        learning_rate: float | int | Tensor,
        strong_convexity: float | int | Tensor | None = None,
    ) -> None:
        super().__init__(objective)
        self.register_hyperparameter("learning_rate", learning_rate)
        self.register_hyperparameter("strong_convexity", _strong_convexity(objective, strong_convexity))

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return x0 with the velocity of Nesterov's first step."""
        root_s, root_mu = self._roots(x0)
        return torch.cat([x0, -2 * root_s / (1 + root_mu * root_s) * self.objective.gradient(x0)], dim=-1)

    def acceleration(
        self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return x''; t plays no part."""
        root_s, root_mu = self._roots(x)
        curvature = self.objective.hessian_vector_product(x, v)
        return -2 * root_mu * v - root_s * curvature - (1 + root_mu * root_s) * self.objective.gradient(x)

    def _roots(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return √s and √μ."""
        return self.value_of("learning_rate", x) ** 0.5, self.value_of("strong_convexity", x) ** 0.5


class HighResolutionConvexNesterovFlow(InertialFlow):
    """x'' + 3/t x' + √s ∇²f(x) x' + (1 + 3 √s/(2 t)) ∇f(x) = 0 from t = 3 √s/2, Nesterov's method to the next order.

    The high-resolution ODE of Shi, Du, Jordan and Su (2022) for NAG-C, which starts at the velocity -√s ∇f(x₀) and has
    no singularity.  It models Nesterov's method for convex f at the learning rate s: its points
    y_k = x_k + (k - 1)/(k + 2) (x_k - x_{k-1}), where the gradient is taken, in the terms of
    `odestop.discrete.Nesterov`, at the time √s per step from y_0 = x₀ on.  The two stay within O(s) of each other,
    and within O(√s) of `NesterovFlow`, to which both tend for s → 0.

    Parameters
    ----------
    objective
        f.
    learning_rate
        s > 0, a number or a tensor of shape () or (*batch,); differentiable.
    t0
        The time of the start, at which the t of the equation is 3 √s/2; a number or a tensor of shape () or
        (*batch,), not a parameter.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or s is not positive and finite.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = HighResolutionConvexNesterovFlow(DiagonalQuadratic([1.0, 4.0]), learning_rate=0.25)
    >>> flow.initial_state(torch.ones(2)).tolist()
    [1.0, 1.0, -0.5, -2.0]
    >>> flow(torch.tensor(0.75), torch.tensor([1.0, 1.0, -1.0, 0.0])).tolist()  # t = 1.5
    [-1.0, 0.0, 1.0, -6.0]
    """

    learning_rate: Tensor
    t0: float | int | Tensor

    def __init__(
        self, objective: Objective, learning_rate: float | int | Tensor, *, t0: float | int | Tensor = 0.0
    ) -> None:
        super().__init__(objective)
        self.register_hyperparameter("learning_rate", learning_rate)
        register_value(self, "t0", t0)

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return x0 with the velocity of Nesterov's first step."""
        return torch.cat([x0, -self._root(x0) * self.objective.gradient(x0)], dim=-1)

    def acceleration(
        self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return x''."""
        root = self._root(x)
        age = t - self.value_of("t0", x) + 1.5 * root
        curvature = self.objective.hessian_vector_product(x, v)
        return -3 / age * v - root * curvature - (1 + 1.5 * root / age) * self.objective.gradient(x)

    def _root(self, x: Tensor) -> Tensor:
        """Return √s."""
        return self.value_of("learning_rate", x) ** 0.5


class InertialHessianDampedFlow(InertialFlow):
    """x'' + α/(t - t₀) x' + β(t) ∇²f(x) x' + γ(t) ∇f(x) = 0, the inertial system with Hessian-driven damping.

    ISHD, after Attouch, Peypouquet and Redont (2016) and Attouch, Chbani, Fadili and Riahi (2022); with learned
    coefficients, Xie, Yin and Wen (2024).  The term with the Hessian damps the oscillations that the flow has
    without it; for β = 0 and γ = 1 it is `NesterovFlow`.

    It is the limit of explicit Euler on the system of first order without a Hessian, ψ = x' + β(t) ∇f(x), from
    which Xie, Yin and Wen make an algorithm: with g_k = ∇f(x_k) at t_k and the time h per step,
    x_{k+1} = x_k + h (ψ_k - β g_k),  ψ_{k+1} = ψ_k - h (α/(t_k - t₀) (ψ_k - β g_k) + (γ - β') g_k).

    Parameters
    ----------
    objective
        f.
    alpha
        α >= 0, a number or a tensor of shape () or (*batch,); differentiable.
    beta, gamma
        β and γ: numbers or tensors of shape () or (*batch,), or schedules such as those of `odestop.dynamics`
        that map t of shape () or (*batch, 1) to factors that broadcast against x.  Numbers and tensors are
        differentiable, and at least 0; so are the parameters of a schedule, whose values are not checked.
    t0
        t₀, a number or a tensor of shape () or (*batch,); not a parameter.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a constant coefficient is negative or not finite.

    Notes
    -----
    The convention of the papers is a start at t > t₀ = 0, usually at t = 1, since γ may be singular at 0: call
    ``continuous_stopping_time(..., t0=1.0)``, or set ``t0=-1.0`` here and start at 0.  With β and γ finite the
    start at t₀ is regular, as that of `NesterovFlow`, and its notes on the start time hold.

    Examples
    --------
    >>> from odestop.dynamics import ExponentialSchedule
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = InertialHessianDampedFlow(
    ...     DiagonalQuadratic([1.0, 4.0]), beta=0.5, gamma=ExponentialSchedule(2.0, rate=0.0)
    ... )
    >>> flow(torch.tensor(1.0), torch.tensor([1.0, 1.0, -2.0, 1.0])).tolist()
    [-2.0, 1.0, 5.0, -13.0]
    """

    alpha: Tensor
    beta: Tensor | Callable[[Tensor], Tensor]
    gamma: Tensor | Callable[[Tensor], Tensor]
    t0: float | int | Tensor

    def __init__(
        self,
        objective: Objective,
        alpha: float | int | Tensor = 3.0,
        beta: Coefficient = 1.0,
        gamma: Coefficient = 1.0,
        *,
        t0: float | int | Tensor = 0.0,
    ) -> None:
        super().__init__(objective)
        self.register_hyperparameter("alpha", alpha, NON_NEGATIVE)
        for name, value in (("beta", beta), ("gamma", gamma)):
            if isinstance(value, (int, float, Tensor)):
                self.register_hyperparameter(name, value, NON_NEGATIVE)
            else:
                setattr(self, name, check_callable(name, value, "t -> value"))
        register_value(self, "t0", t0)

    def acceleration(
        self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return x''."""
        force = -self._coefficient("gamma", t, x) * self.objective.gradient(x)
        friction = _vanishing_friction(self.value_of("alpha", x), t - self.value_of("t0", x), v, force)
        return force - friction - self._coefficient("beta", t, x) * self.objective.hessian_vector_product(x, v)

    def _coefficient(self, name: str, t: Tensor, x: Tensor) -> float | int | Tensor:
        """Return β or γ at t, so that it broadcasts against x."""
        coefficient = getattr(self, name)
        return self.value_of(name, x) if isinstance(coefficient, Tensor) else coefficient(t)


def _vanishing_friction(r: float | int | Tensor, age: Tensor, v: Tensor, force: Tensor) -> Tensor:
    """Return r v / age; at the age 0, for a start at rest, its limit r x'' with x'' = force / (1 + r)."""
    started = age > 0
    # Dividing by 0 in the branch that is not taken would make the other one's gradient NaN.
    return torch.where(started, r * v / torch.where(started, age, 1.0), r / (1 + r) * force)


def _strong_convexity(objective: Objective, given: float | int | Tensor | None) -> float | int | Tensor:
    """Return μ as given, or else as the objective knows it."""
    value = objective.strong_convexity if given is None else given
    if value is None:
        raise ValueError(
            f"strong_convexity must be given for {type(objective).__name__}, whose constant is unknown; "
            "it is a positive number or tensor"
        )
    return value
