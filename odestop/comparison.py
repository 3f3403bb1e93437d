"""Theorem 2 measured: ∇T and h ∇N side by side, and the order in h at which they meet; and equation 12."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from odestop._validation import check_count, check_positive, check_positive_tensor, check_state
from odestop.continuous.solution import ContinuousSolution
from odestop.discrete.recurrence import recurrence_of
from odestop.discrete.solution import DiscreteSolution
from odestop.discrete.step_maps import StepMap
from odestop.discrete.stopping_time import discrete_stopping_time


def relative_error(approximation: Tensor | Sequence[Tensor], reference: Tensor | Sequence[Tensor]) -> float:
    """Return ‖a - b‖₂ / ‖b‖₂ of two tensors, or of two sequences of tensors taken as one long vector each.

    It is inf where only the reference vanishes and nan where both do.

    Parameters
    ----------
    approximation, reference
        a and b: tensors of equal shapes, any floating dtype.

    Raises
    ------
    ValueError
        If the numbers of tensors or their shapes differ.

    Examples
    --------
    >>> import torch
    >>> relative_error(torch.tensor([0.0, 4.5]), torch.tensor([0.0, 4.0]))
    0.125
    """
    a, b = _as_vectors(approximation, reference)
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def cosine_similarity(first: Tensor | Sequence[Tensor], second: Tensor | Sequence[Tensor]) -> float:
    """Return the cosine of the angle between two tensors, or two sequences of them; nan with a zero.

    Parameters
    ----------
    first, second
        Tensors of equal shapes, any floating dtype.

    Raises
    ------
    ValueError
        If the numbers of tensors or their shapes differ.

    Examples
    --------
    >>> import torch
    >>> cosine_similarity(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 4.0]))
    0.6
    """
    a, b = _as_vectors(first, second)
    return float(a @ b / (torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b)))


@dataclass(frozen=True)
class GradientComparison:
    """∇T and h ∇N side by side (Thm. 2 of arXiv 2505.22509); a batch stands for the sum of its trajectories.

    Attributes
    ----------
    relative_error
        ‖h ∇N - ∇T‖₂ / ‖∇T‖₂ over all parameters together.
    cosine
        Cosine of the angle between h ∇N and ∇T.
    continuous_nfe, discrete_nfe
        Evaluations of the dynamics in the two forward solves.
    time, steps
        T and N, shape (*batch,), without a graph.
    time_gradient, scaled_steps_gradient
        ∇T and h ∇N, one tensor per parameter.
    """

    relative_error: float
    cosine: float
    continuous_nfe: int
    discrete_nfe: int
    time: Float[Tensor, "*batch"]
    steps: Float[Tensor, "*batch"]
    time_gradient: tuple[Tensor, ...]
    scaled_steps_gradient: tuple[Tensor, ...]

    @property
    def nfe_ratio(self) -> float:
        """Evaluations of the discrete run by those of the continuous solve; below 1, the run is cheaper."""
        return self.discrete_nfe / self.continuous_nfe

    @property
    def time_gradient_norm(self) -> float:
        """‖∇T‖₂ over all parameters together."""
        return float(torch.linalg.vector_norm(_flattened(self.time_gradient)))

    @property
    def scaled_steps_gradient_norm(self) -> float:
        """‖h ∇N‖₂ over all parameters together."""
        return float(torch.linalg.vector_norm(_flattened(self.scaled_steps_gradient)))


def compare_gradients(
    continuous: ContinuousSolution,
    discrete: DiscreteSolution,
    step_size: float | int | Tensor,
    parameters: Tensor | Sequence[Tensor],
) -> GradientComparison:
    """Compute ∇T and ∇N by autograd and compare h ∇N with ∇T (Thm. 2 of arXiv 2505.22509).

    For a single trajectory these are the gradients of T and of N; for a batch, those of the sums of T and of
    h N over the trajectories that stopped in both solutions.  The graphs are retained, so that the solutions
    can be differentiated again; the memory they hold is released with the solutions.

    Parameters
    ----------
    continuous, discrete
        Solutions of the same question, with equal batch shapes.
    step_size
        h, a positive number or tensor of shape () or (*batch,); taken as a constant.
    parameters
        The tensors to differentiate in; those that a solution does not depend on get a zero gradient.

    Raises
    ------
    ValueError
        If the batch shapes differ, the step size is not positive, there are no parameters, or no trajectory
        stopped in both solutions.

    Examples
    --------
    >>> import torch
    >>> from odestop.continuous import continuous_stopping_time
    >>> from odestop.discrete import Euler, discrete_stopping_time
    >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> flow, x0 = lambda t, x: -rate * x, torch.ones(1, dtype=torch.float64)
    >>> question = dict(x0=x0, criterion=lambda x: x[..., 0], threshold=0.1)
    >>> continuous = continuous_stopping_time(flow, **question)
    >>> discrete = discrete_stopping_time(Euler(flow, step_size=0.01), **question)
    >>> compare_gradients(continuous, discrete, 0.01, rate).relative_error < 0.02
    True
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not parameters:
        raise ValueError("parameters must hold at least one tensor, got none")
    if continuous.time.shape != discrete.steps.shape:
        raise ValueError(
            f"discrete must have the batch shape {tuple(continuous.time.shape)} of continuous, "
            f"got {tuple(discrete.steps.shape)}"
        )
    stopped = continuous.reached & discrete.reached
    if not bool(stopped.any()):
        raise ValueError("continuous and discrete must have a trajectory that stopped in both, got none")
    h = _constant(step_size)
    time_gradient = _gradients(continuous.time[stopped].sum(), parameters)
    scaled_steps_gradient = _gradients((h * discrete.steps)[stopped].sum(), parameters)
    return GradientComparison(
        relative_error=relative_error(scaled_steps_gradient, time_gradient),
        cosine=cosine_similarity(scaled_steps_gradient, time_gradient),
        continuous_nfe=continuous.stats.nfe,
        discrete_nfe=discrete.stats.nfe,
        time=continuous.time.detach(),
        steps=discrete.steps.detach(),
        time_gradient=time_gradient,
        scaled_steps_gradient=scaled_steps_gradient,
    )


@dataclass(frozen=True)
class OrderFit:
    """The power law error ≈ exp(intercept) · h^order, fitted to measurements.

    Attributes
    ----------
    order
        Slope of log error against log h.
    low, high
        Ends of the confidence interval of the order.
    intercept
        Natural logarithm of the error at h = 1.
    """

    order: float
    low: float
    high: float
    intercept: float


def fit_order(
    step_sizes: Sequence[float | int] | np.ndarray,
    errors: Sequence[float | int] | np.ndarray,
    confidence: float = 0.95,
) -> OrderFit:
    """Fit the order p of error = C h^p in logarithms, with the Student-t confidence interval of p.

    The interval takes the deviations from the power law for independent noise of one size; curvature, as from
    a next-order term, widens it but is not modelled.

    Parameters
    ----------
    step_sizes, errors
        At least three positive numbers each, of equal length; at least two distinct step sizes.
    confidence
        Probability that the interval covers the order, between 0 and 1.

    Raises
    ------
    ValueError
        For fewer than three points, different lengths, numbers that are not positive and finite, step sizes
        that are all equal, or a confidence outside (0, 1).

    Examples
    --------
    >>> fit = fit_order([0.1, 0.05, 0.025, 0.0125], [0.21, 0.10, 0.051, 0.025])
    >>> round(fit.order, 3), round(fit.low, 3), round(fit.high, 3)
    (1.018, 0.963, 1.074)
    """
    if len(step_sizes) != len(errors) or len(errors) < 3:
        raise ValueError(
            "step_sizes and errors must hold the same number of points, at least 3, "
            f"got {len(step_sizes)} and {len(errors)}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    x, y = _logarithms("step_sizes", step_sizes), _logarithms("errors", errors)
    spread = float(((x - x.mean()) ** 2).sum())
    if spread == 0.0:
        raise ValueError(f"step_sizes must hold at least two distinct values, got {list(step_sizes)}")
    order = float((x - x.mean()) @ (y - y.mean())) / spread
    intercept = float(y.mean() - order * x.mean())
    freedom = len(x) - 2
    deviation = math.sqrt(float(((y - intercept - order * x) ** 2).sum()) / freedom / spread)
    half_width = float(stdtrit(freedom, 0.5 + confidence / 2)) * deviation
    return OrderFit(order=order, low=order - half_width, high=order + half_width, intercept=intercept)


class LossIdentity(NamedTuple):
    """Both sides of equation 12, one tensor per parameter."""

    by_losses: tuple[Tensor, ...]
    by_stopping_times: tuple[Tensor, ...]


def loss_identity(
    step_map: StepMap,
    x0: Tensor,
    objective: Callable[[Tensor], Tensor],
    steps: int,
    parameters: Tensor | Sequence[Tensor],
    *,
    t0: float | int = 0.0,
) -> LossIdentity:
    """Compute both sides of Σ_k df(x_k)/dθ = Σ_k (f(x_{k-1}) - f(x_k)) ∂N_{f(x_k)}/∂θ (eq. 12 of arXiv 2505.22509).

    N_{f(x_k)} is the stopping time of f at the threshold f(x_k), with the sensitivity of Definition 3, so that each
    term on the right is the one on the left where N_{f(x_k)} = k.  That needs two readings that the equation leaves
    open.  The sums run over k = 1, …, K: k = 0 has no f(x_{-1}), and df(x_0)/dθ vanishes except for θ = x_0.  And
    f(x_k) must be below all values before it; otherwise N_{f(x_k)} is an earlier step and the two sides differ.

    The left side is computed by automatic differentiation through all steps, the right side by Algorithm 1 from one
    run of K trajectories, one per threshold.  The thresholds are taken midway between f(x_k) and f(x_{k-1}), where N
    and its sensitivity are those of f(x_k) and rounding cannot change them.

    Parameters
    ----------
    step_map
        ``(k, state) -> state``, for one trajectory and for a batch; see `odestop.discrete.StepMap`.
    x0
        Initial point, shape (d,).
    objective
        f, ``x -> f(x)`` of shape (*batch,).
    steps
        K.
    parameters
        θ: the tensors to differentiate in, ``x0`` among them if wanted.
    t0
        Initial time of a `TimeStepMap`.

    Raises
    ------
    ValueError
        If x0 is not one point, K is not a positive integer, or f does not fall below all its earlier values.

    Examples
    --------
    >>> import torch
    >>> rate = torch.tensor(0.5, requires_grad=True)
    >>> loss_identity(lambda k, x: x - rate * x, torch.tensor([2.0]), lambda x: x[..., 0], 2, rate)  # 2 r + 2 r²
    LossIdentity(by_losses=(tensor(-4.),), by_stopping_times=(tensor(-4.),))
    """
    x0 = check_state("x0", x0)
    if x0.ndim != 1:
        raise ValueError(f"x0 must be one point of shape (d,), got {tuple(x0.shape)}")
    check_count("steps", steps)
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    losses = _losses(step_map, x0, objective, steps, t0)
    values = losses.detach()
    earlier = values.cummin(0).values[:-1]
    if not bool((values[1:] < earlier).all()):
        k = int((values[1:] >= earlier).int().argmax()) + 1
        raise ValueError(f"objective must fall below all its earlier values up to k = {steps}, but not so at k = {k}")
    solution = discrete_stopping_time(
        step_map, x0.expand(steps, -1), objective, (values[:-1] + values[1:]) / 2, t0=t0, max_steps=steps
    )
    return LossIdentity(
        by_losses=_gradients(losses[1:].sum(), parameters),
        by_stopping_times=_gradients(((values[:-1] - values[1:]) * solution.steps).sum(), parameters),
    )


def _losses(
    step_map: StepMap, x0: Tensor, objective: Callable[[Tensor], Tensor], steps: int, t0: float | int
) -> Float[Tensor, "n"]:
    """Return f(x_0), …, f(x_K) with the graph of all steps."""
    recurrence = recurrence_of(step_map, objective, x0, x0.new_tensor(t0))
    with torch.enable_grad():
        # Rules that call autograd inside need a state with a graph.
        state = recurrence.start if recurrence.start.requires_grad else recurrence.start.clone().requires_grad_()
        values = [recurrence.criterion(state)]
        for k in range(steps):
            state = recurrence.step(k, state)
            values.append(recurrence.criterion(state))
        return torch.stack(values)


def _logarithms(name: str, values: Sequence[float | int] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{name} must be positive and finite, got {list(values)}")
    return np.log(array)


def _constant(step_size: float | int | Tensor) -> float | Tensor:
    if isinstance(step_size, Tensor):
        return check_positive_tensor("step_size", step_size).detach()
    return check_positive("step_size", step_size)


def _gradients(total: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)


def _as_vectors(
    first: Tensor | Sequence[Tensor], second: Tensor | Sequence[Tensor]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Each argument as one vector in double precision, after a check that the two have the same shapes."""
    parts = [[value] if isinstance(value, Tensor) else list(value) for value in (first, second)]
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in parts]
    if shapes[0] != shapes[1]:
        raise ValueError(f"both arguments must hold tensors of the same shapes, got {shapes[0]} and {shapes[1]}")
    return _flattened(parts[0]), _flattened(parts[1])


def _flattened(tensors: Sequence[Tensor]) -> Float[Tensor, "n"]:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])
