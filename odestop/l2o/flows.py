"""A flow whose coefficients are learned through its stopping time: the entry of ODEs into learning to optimize."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from odestop._validation import check_count, check_positive
from odestop.continuous import continuous_stopping_time
from odestop.dynamics._hyperparameters import at_trajectories
from odestop.dynamics._memory import FlowWithMemory
from odestop.l2o.problems import ProblemDistribution
from odestop.objectives.base import Objective
from odestop.status import StoppingStatus, TangencyWarning

_MARGIN = 0.95
"""How close β comes to the limit of stability."""


class Coefficients(NamedTuple):
    """a, β and ω of a `LearnedInertialFlow` at times t, each in the shape of t."""

    friction: Tensor
    damping: Tensor
    force: Tensor


class InertialCoefficients(nn.Module):
    """Coefficients of a `LearnedInertialFlow` that are stable whatever the weights.

    a(t) = α/(t + τ),  β(t) = 0.95 (2 - a(t)) σ(b(t)),  ω(t) = β(t) σ(c(t)),  0 < α < 2 τ,

    with the logistic function σ, and b and c from one layer of tanh units of log(1 + t/τ).  At the start of a training
    b and c are constant: α = τ, β = 1 where a = 0, and ω = 0.9 β, close to Nesterov's method.

    Explicit Euler with the step size 1 on f(x) = ½ μ L x², 0 < μ ≤ 1, has the matrix of trace 2 - β μ - a and
    determinant 1 - β μ - a + ω μ for coefficients at rest.  Its eigenvalues are inside the unit circle if and only if
    0 < ω μ < β μ + a and 4 - 2 (β μ + a) + ω μ > 0, and ω < β < 2 - a is enough for both.

    Parameters
    ----------
    hidden
        Number of tanh units.
    offset
        τ > 0, which is no parameter.
    seed
        Seed of the weights; the same numbers, up to rounding, in every dtype.
    dtype, device
        Where the weights go; PyTorch's defaults if not given.

    Raises
    ------
    ValueError
        If ``hidden`` is not a positive integer, or τ not a positive number.

    Examples
    --------
    >>> coefficients = InertialCoefficients()(torch.tensor(0.0))
    >>> [round(value.item(), 3) for value in coefficients]
    [1.0, 0.5, 0.45]
    """

    def __init__(
        self,
        hidden: int = 8,
        offset: float | int = 3.0,
        *,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_count("hidden", hidden)
        self.offset = check_positive("offset", offset)
        dtype = dtype or torch.get_default_dtype()
        first = torch.randn(2, hidden, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.alpha_logit = nn.Parameter(torch.zeros((), dtype=dtype, device=device))
        self.inner = nn.Parameter(first.to(dtype=dtype, device=device))
        self.outer = nn.Parameter(torch.zeros(hidden, 2, dtype=dtype, device=device))
        levels = torch.tensor([1 / (2 * _MARGIN), 0.9], dtype=dtype, device=device)
        self.levels = nn.Parameter(torch.logit(levels))

    @property
    def alpha(self) -> Float[Tensor, ""]:
        """α, between 0 and 2 τ."""
        return 2 * self.offset * torch.sigmoid(self.alpha_logit)

    def forward(self, t: Float[Tensor, "*time"]) -> Coefficients:
        """Return the coefficients at t ≥ 0."""
        scaled = torch.log1p(t / self.offset).unsqueeze(-1)
        share = torch.sigmoid(torch.tanh(scaled * self.inner[0] + self.inner[1]) @ self.outer + self.levels)
        friction = self.alpha / (t + self.offset)
        damping = _MARGIN * (2 - friction) * share[..., 0]
        return Coefficients(friction, damping, damping * share[..., 1])


class LearnedInertialFlow(FlowWithMemory):
    """x' = v,  ψ' = -a(t) v - ω(t) g  with  v = ψ - β(t) g,  g = ∇f(x)/L, and learned a, β and ω.

    The inertial system with Hessian-driven damping of Xie, Yin and Wen (2024, "ODE-based learning to optimize"),
    x'' + a x' + β ∇²f x'/L + (ω + β') ∇f/L = 0: `odestop.dynamics.InertialHessianDampedFlow` of f/L with
    γ = ω + β' and t₀ = -τ.  In the variable ψ it needs neither ∇²f nor β', and explicit Euler on it is the algorithm
    that they make of it.

    The gradient is divided by the smoothness L of each problem, so that a time of 1 is one step of Euler with step size
    1, that is one iteration of `odestop.discrete.Euler(flow, step_size=1.0)`.  Without such a scale T says nothing: any
    flow reaches any target sooner when it is sped up.  The `InertialCoefficients` keep these steps stable.

    The state is [x, ψ], and the flow starts at rest, at v = 0.

    Parameters
    ----------
    objective
        f, with a known smoothness: a number, or one for each trajectory, shape (*batch,).
    coefficients
        a, β and ω of t.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective` of known smoothness.

    Examples
    --------
    >>> import odestop
    >>> from odestop.objectives import DiagonalQuadratic
    >>> f = DiagonalQuadratic(torch.tensor([0.1, 4.0], dtype=torch.float64))
    >>> flow = LearnedInertialFlow(f, InertialCoefficients(dtype=torch.float64))
    >>> step = odestop.Euler(flow, step_size=1.0)
    >>> odestop.discrete_stopping_time(step, torch.ones(2, dtype=torch.float64), f, threshold=1e-2).steps.item()
    16.0
    """

    smoothness: Tensor

    def __init__(self, objective: Objective, coefficients: InertialCoefficients) -> None:
        super().__init__(objective)
        if objective.smoothness is None:
            raise ValueError(f"objective must know its smoothness, that of {type(objective).__name__} is None")
        self.register_constant("smoothness", objective.smoothness)
        self.coefficients = coefficients

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return [x0, β(0) g(x0)], which is at rest."""
        damping = self.coefficients(x0.new_zeros(())).damping
        return torch.cat([x0, damping * self._scaled_gradient(x0)], dim=-1)

    def forward(self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return [x', ψ'] at t of shape () or (*batch, 1)."""
        x, psi = self.parts(state)
        friction, damping, force = self.coefficients(t)
        gradient = self._scaled_gradient(x)
        v = psi - damping * gradient
        return torch.cat([v, -friction * v - force * gradient], dim=-1)

    def _scaled_gradient(self, x: Tensor) -> Tensor:
        return self.objective.gradient(x) / at_trajectories(self.smoothness, x)


def stopping_times(
    coefficients: InertialCoefficients,
    objective: Objective,
    x0: Float[Tensor, "*batch d"],
    criterion: Callable[[Objective], Callable[[Tensor], Tensor]],
    threshold: float | int,
    t_max: float | int,
) -> tuple[Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
    """Return T of the flow on every problem, and where it has a gradient.

    Parameters
    ----------
    coefficients
        Of the flow.
    objective, x0
        Problems, such as a `ProblemDistribution` draws, and where to start.
    criterion
        From f to J, such as `odestop.criteria.ObjectiveGap`.
    threshold
        ε.
    t_max
        Horizon: a problem that has not stopped by then counts T = t_max, without a gradient.

    Returns
    -------
    tuple
        T, differentiable in the coefficients, and which problems have a gradient, both of shape (*batch,).
    """
    with warnings.catch_warnings():
        # A tangential crossing has a zero gradient: its problem does not count in this step.
        warnings.simplefilter("ignore", TangencyWarning)
        solution = continuous_stopping_time(
            LearnedInertialFlow(objective, coefficients),
            x0,
            criterion(objective),
            threshold,
            t_max=t_max,
            rtol=1e-6,
            atol=1e-8,
        )
    time = torch.where(solution.reached, solution.time, float(t_max))
    return time, solution.status_codes == StoppingStatus.REACHED.code


def train_inertial_flow(
    coefficients: InertialCoefficients,
    distribution: ProblemDistribution,
    criterion: Callable[[Objective], Callable[[Tensor], Tensor]],
    threshold: float | int,
    *,
    t_max: float | int,
    steps: int = 50,
    batch: int = 16,
    learning_rate: float | int = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Minimise the mean of T over problems with Adam, by the gradient of Theorem 1 of arXiv 2505.22509.

    Every step draws new problems.

    Parameters
    ----------
    coefficients
        What is trained, in place; their dtype is that of the solves, which should be float64.
    distribution
        Of the problems.
    criterion, threshold, t_max
        J, ε and horizon, as in `stopping_times`.
    steps, batch
        Training steps and problems in each.
    learning_rate
        Of Adam.
    seed
        Of the problems.

    Returns
    -------
    pandas.DataFrame
        One row per step, as things are before it: ``step``, ``time`` (the mean of T over the batch), ``reached`` (the
        share of problems with a gradient), ``alpha``.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    for name, count in (("steps", steps), ("batch", batch)):
        check_count(name, count)
    check_positive("learning_rate", learning_rate)
    generator = torch.Generator(coefficients.inner.device).manual_seed(seed)
    adam = torch.optim.Adam(coefficients.parameters(), lr=learning_rate)
    rows = []
    for step in range(1, steps + 1):
        objective, x0 = distribution.sample(batch, generator, dtype=coefficients.inner.dtype)
        time, reached = stopping_times(coefficients, objective, x0, criterion, threshold, t_max)
        adam.zero_grad()
        time.mean().backward()
        alpha = float(coefficients.alpha.detach())
        adam.step()
        means = {"time": float(time.detach().mean()), "reached": float(reached.double().mean())}
        rows.append({"step": step, **means, "alpha": alpha})
    return pd.DataFrame(rows)
