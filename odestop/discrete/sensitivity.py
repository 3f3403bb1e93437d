"""How the step count answers a change: Definition 3, and the exact derivatives of two fractional steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_choice
from odestop.discrete.falling_root import falling_root


@dataclass(frozen=True)
class LastStep:
    """The step on which J meets the threshold, J(x_{N-1}) > ε ≥ J(x_N), for every trajectory of a batch.

    Attributes
    ----------
    previous, final
        x_{N-1} and x_N, shape (*batch, m).
    previous_value, final_value
        J there, shape (*batch,), without a graph.
    threshold
        ε, shape (*batch,), without a graph.
    criterion
        J of a state.
    increment
        ``(s, x) -> h dx/dt`` at the time t_{N-1} + s h and the state x, with s of shape (*batch,); None for step
        maps without a velocity.
    """

    previous: Float[Tensor, "*batch m"]
    final: Float[Tensor, "*batch m"]
    previous_value: Float[Tensor, "*batch"]
    final_value: Float[Tensor, "*batch"]
    threshold: Float[Tensor, "*batch"]
    criterion: Callable[[Tensor], Tensor]
    increment: Callable[[Tensor, Tensor], Tensor] | None = None


@runtime_checkable
class Sensitivity(Protocol):
    """A model p(s) of J on the last step, s in (0, 1], and the place s where it meets ε: N̂ = N - 1 + s.

    By the implicit function theorem dN̂ = (dε - dp(s)) / p'(s), with dp(s) taken at fixed s: the derivative of
    the step count in everything that p(s) depends on.

    Attributes
    ----------
    needs_velocity
        Whether it uses `LastStep.increment`, which only a `TimeStepMap` has.
    """

    needs_velocity: ClassVar[bool]

    def fraction(self, step: LastStep) -> Tensor:
        """Return s, shape (*batch,)."""
        ...

    def level(self, step: LastStep, fraction: Tensor) -> Tensor:
        """Return p(s), shape (*batch,), with the graph of the states and functions of ``step``."""
        ...

    def slope(self, step: LastStep, fraction: Tensor) -> Tensor:
        """Return p'(s), shape (*batch,), without a graph."""
        ...


@dataclass(frozen=True)
class Definition3:
    """The paper's sensitivity: N itself, with the derivative that Definition 3 gives it.

    ∂N/∂θ := -∇J(x_N)ᵀ ∂x_N/∂θ / (J(x_N) - J(x_{N-1})) (eq. 8), and the same for x0.  The same rule gives
    1 / (J(x_N) - J(x_{N-1})) for the threshold and -∂J(x_N; φ)/∂φ / (J(x_N) - J(x_{N-1})) for parameters φ of
    the criterion.  It jumps with N, and h ∂N/∂θ is O(h) off ∂T/∂θ (Thm. 2), whatever the step map.

    Examples
    --------
    >>> import torch
    >>> from odestop.discrete import discrete_stopping_time
    >>> x0 = torch.tensor([4.0], requires_grad=True)
    >>> steps = discrete_stopping_time(lambda k, x: 0.5 * x, x0, lambda x: x[..., 0], 1.25).steps
    >>> steps, torch.autograd.grad(steps, x0)  # x = 4, 2, 1: the derivative is (1/4) / (2 - 1)
    (tensor(2., grad_fn=<...>), (tensor([0.2500]),))
    """

    needs_velocity: ClassVar[bool] = False

    def fraction(self, step: LastStep) -> Float[Tensor, "*batch"]:
        """Return 1, so that the step count is N."""
        return torch.ones_like(step.final_value)

    def level(self, step: LastStep, fraction: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return J(x_N)."""
        return step.criterion(step.final)

    def slope(self, step: LastStep, fraction: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return J(x_N) - J(x_{N-1})."""
        return step.final_value - step.previous_value


@dataclass(frozen=True)
class Interpolated:
    """The fractional step N̂ = N - 1 + (J(x_{N-1}) - ε) / (J(x_{N-1}) - J(x_N)), with its exact derivative.

    N̂ lies in (N - 1, N], is continuous in everything it depends on, also where N jumps, and is
    differentiable within a step count.  With a step map of order two or more, t0 + h N̂ is O(h²) off T; its
    derivative remains O(h) off, because the error of the interpolation repeats itself with every step.

    Examples
    --------
    >>> import torch
    >>> from odestop.discrete import Interpolated, discrete_stopping_time
    >>> halve, x0 = lambda k, x: 0.5 * x, torch.tensor([4.0])
    >>> discrete_stopping_time(halve, x0, lambda x: x[..., 0], 1.25, sensitivity=Interpolated()).steps
    tensor(1.7500)
    """

    needs_velocity: ClassVar[bool] = False

    def fraction(self, step: LastStep) -> Float[Tensor, "*batch"]:
        """Return the place where the straight line from J(x_{N-1}) to J(x_N) meets ε."""
        return (step.previous_value - step.threshold) / (step.previous_value - step.final_value)

    def level(self, step: LastStep, fraction: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return (1 - s) J(x_{N-1}) + s J(x_N)."""
        return (1 - fraction) * step.criterion(step.previous) + fraction * step.criterion(step.final)

    def slope(self, step: LastStep, fraction: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return J(x_N) - J(x_{N-1})."""
        return step.final_value - step.previous_value


@dataclass(frozen=True)
class Hermite:
    """The fractional step N̂ = N - 1 + s with J(x̂(s)) = ε on a Hermite interpolant x̂, and its exact derivative.

    x̂ is the polynomial of degree four with x̂(0) = x_{N-1}, x̂(1) = x_N and the slopes h dx/dt there and, by the
    cubic through the same ends, at one place in between.  It is O(h⁵) off the flow through x_{N-1}, so that the
    derivative of N̂, which loses one power of h, keeps the order of maps up to the fourth: h ∂N̂/∂θ is O(h),
    O(h²) and O(h⁴) off ∂T/∂θ for Euler, Heun and Runge-Kutta 4.  The cubic alone would stop at O(h³).  J is
    evaluated on x̂ rather than interpolated: no derivative of J but its gradient is needed.

    For a `TimeStepMap`.  It costs three evaluations of the dynamics and about ten of J at the end of the run,
    and as many products in the backward pass.  If J rises and falls within the step, s is the first crossing that
    a scan in quarters of the step sees.  If J(x̂) is nearly flat at ε, |p'(s)| ≤ √(machine precision) ·
    (J(x_{N-1}) - J(x_N)), the status is TANGENTIAL: N̂ is finite, its gradient zero, and a `TangencyWarning` is
    given.

    Examples
    --------
    >>> import torch
    >>> from odestop.discrete import Hermite, RungeKutta4, discrete_stopping_time
    >>> runge_kutta, x0 = RungeKutta4(lambda t, x: -x, step_size=0.5), torch.tensor([4.0])
    >>> solution = discrete_stopping_time(runge_kutta, x0, lambda x: x[..., 0], 1.25, sensitivity=Hermite())
    >>> round(solution.time.item(), 3)  # T = ln(3.2) = 1.1632
    1.164
    """

    needs_velocity: ClassVar[bool] = True

    def fraction(self, step: LastStep) -> Float[Tensor, "*batch"]:
        """Return the place where J(x̂) falls to ε, to rounding."""
        curve = _hermite_curve(step)
        return falling_root(
            lambda s: step.criterion(curve(s)) - step.threshold,
            step.previous_value - step.threshold,
            step.final_value - step.threshold,
        )

    def level(self, step: LastStep, fraction: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return J(x̂(s))."""
        return step.criterion(_hermite_curve(step)(fraction))

    def slope(self, step: LastStep, fraction: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return ∇J(x̂(s))ᵀ x̂'(s)."""
        with torch.enable_grad():
            s = fraction.detach().requires_grad_()
            level = self.level(step, s)
        return torch.autograd.grad(level, s, torch.ones_like(level))[0]


def _hermite_curve(step: LastStep) -> Callable[[Tensor], Tensor]:
    """Return s -> x̂(s), from shape (*batch,) to shape (*batch, m)."""
    assert step.increment is not None
    start, end = torch.zeros_like(step.final_value), torch.ones_like(step.final_value)
    ends = (step.previous, step.final, step.increment(start, step.previous), step.increment(end, step.final))
    # The bump (s (1 - s))² leaves the ends and their slopes alone; its own slope is steepest at this place.
    place = end * (0.5 + math.sqrt(3) / 6)
    bump_slope = -1 / (3 * math.sqrt(3))
    missing = step.increment(place, _cubic(place, *ends)) - _cubic_slope(place, *ends)
    height = missing / bump_slope
    return lambda s: _cubic(s, *ends) + (s * (1 - s)).unsqueeze(-1) ** 2 * height


def _cubic(s: Tensor, x0: Tensor, x1: Tensor, slope0: Tensor, slope1: Tensor) -> Tensor:
    """Return the cubic with the values x0, x1 and the slopes at 0 and 1."""
    s = s.unsqueeze(-1)
    r = 1 - s
    return r * r * ((1 + 2 * s) * x0 + s * slope0) + s * s * ((1 + 2 * r) * x1 - r * slope1)


def _cubic_slope(s: Tensor, x0: Tensor, x1: Tensor, slope0: Tensor, slope1: Tensor) -> Tensor:
    """Return the derivative of the cubic."""
    s = s.unsqueeze(-1)
    r = 1 - s
    return 6 * s * r * (x1 - x0) + r * (1 - 3 * s) * slope0 + s * (3 * s - 2) * slope1


_ALIASES: dict[str, Sensitivity] = {
    "definition3": Definition3(),
    "interpolated": Interpolated(),
    "hermite": Hermite(),
}


def resolve_sensitivity(sensitivity: str | Sensitivity) -> Sensitivity:
    """Return the sensitivity behind a string alias; an object passes through."""
    if isinstance(sensitivity, str):
        return _ALIASES[check_choice("sensitivity", sensitivity, tuple(_ALIASES))]
    if not isinstance(sensitivity, Sensitivity):
        raise ValueError(
            f"sensitivity must be one of {', '.join(map(repr, _ALIASES))} or a Sensitivity object, got {sensitivity!r}"
        )
    return sensitivity
