"""Derivatives of the k-th iterate: in reverse, all steps or the last few of them; and forward, along the iterates."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from odestop._functions import TrackedFunction
from odestop._validation import check_callable, check_count, check_positive, check_state
from odestop.discrete.adjoint import discrete_adjoint
from odestop.discrete.checkpoints import CheckpointedRecord, Checkpoints, RecentRecord, Record, resolve_checkpoints
from odestop.discrete.recurrence import position_of, recurrence_of
from odestop.discrete.step_maps import StepMap


def final_iterate(
    step_map: StepMap,
    x0: Tensor,
    steps: int,
    *,
    backward_steps: int | None = None,
    checkpoints: str | int | Checkpoints = "all",
) -> Tensor:
    """Return x_K, K = ``steps``, with the derivative of the algorithm that computed it.

    x_{k+1} = Φ_k(x_k, θ), whose derivative ∂x_K/∂θ = Σ_k A_{K-1} ⋯ A_{k+1} B_k, A_k = ∂Φ_k/∂x and B_k = ∂Φ_k/∂θ,
    is pulled back by Algorithm 1 (arXiv 2505.22509), as that of `odestop.discrete_stopping_time` is, but at a
    number of steps that is given.  No graph is stored.  First derivatives only.

    Parameters
    ----------
    step_map
        ``(k, state) -> state``; the tensors that it uses and that require a gradient are θ.
    x0
        Initial point, real floating point, shape (*batch, d); differentiable.
    steps
        K.
    backward_steps
        m to differentiate the last m steps alone (truncated backpropagation): x_{K-m} counts as a constant.  m = 1
        is one-step, or Jacobian-free, differentiation (Bolte, Pauwels, Vaiter, 2023, arXiv 2305.13768).
        `truncation_bias_bound` says what that costs.  None, the default, differentiates all steps.
    checkpoints
        Which iterates are stored, as for `odestop.discrete_stopping_time`; with ``backward_steps`` only the last m are.

    Returns
    -------
    Tensor
        The position in x_K, shape (*batch, d).

    Raises
    ------
    ValueError
        For an argument that cannot be used; the message names it and what is accepted.
    RuntimeError
        In the backward pass, if the step map hides its dependence on the state from autograd.

    Examples
    --------
    x_3 = (1 - s)³ x_0, and its derivative -3 (1 - s)² x_0 in s, of which the last step is a third:

    >>> import torch
    >>> rate = torch.tensor(0.5, requires_grad=True)
    >>> for backward_steps in (None, 1):
    ...     x = final_iterate(lambda k, x: x - rate * x, torch.tensor([8.0]), 3, backward_steps=backward_steps)
    ...     print(x.item(), torch.autograd.grad(x, rate)[0].item())
    1.0 -6.0
    1.0 -2.0
    """
    check_callable("step_map", step_map, "(k, state) -> state")
    check_count("steps", steps)
    x0 = check_state("x0", x0)
    record = _record(checkpoints, backward_steps)
    recurrence = recurrence_of(step_map, lambda x: x, x0, torch.zeros(x0.shape[:-1], dtype=x0.dtype, device=x0.device))
    step = TrackedFunction("step_map", recurrence.step)
    state = recurrence.start.detach()
    step.learn(0, state)
    differentiable = torch.is_grad_enabled() and (recurrence.start.requires_grad or bool(step.parameters))
    for k in range(steps):
        if differentiable:
            record.append(state, None)
        state = step(k, state)
    if not differentiable:
        return position_of(step_map)(state)
    record.finish(steps, step.again)
    run = _Unrolled(step, record, state, backward_steps)
    attached: Tensor = _AttachIterate.apply(run, recurrence.start, *step.parameters)
    return position_of(step_map)(attached)


def _record(checkpoints: str | int | Checkpoints, backward_steps: int | None) -> Record:
    if backward_steps is None:
        return CheckpointedRecord(resolve_checkpoints(checkpoints))
    if checkpoints != "all":
        raise ValueError(f"checkpoints must be left at 'all' with backward_steps, got {checkpoints!r}")
    return RecentRecord(check_count("backward_steps", backward_steps))


@dataclass(frozen=True)
class _Unrolled:
    """A finished run of K steps."""

    step: TrackedFunction
    record: Record
    final: Tensor
    backward_steps: int | None


class _AttachIterate(torch.autograd.Function):
    """Hands x_K to autograd, with Algorithm 1 as its backward."""

    @staticmethod
    def forward(ctx: Any, run: _Unrolled, start: Tensor, *parameters: Tensor) -> Tensor:
        ctx.run = run
        # Saved for autograd's own check that nothing was changed in place before the backward pass.
        ctx.save_for_backward(start, *parameters)
        return run.final.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        run = ctx.run
        _, *parameters = ctx.saved_tensors
        start, gradients = discrete_adjoint(
            run.step.function, run.record, cotangent, parameters, backward_steps=run.backward_steps
        )
        return None, start, *gradients


@dataclass(frozen=True)
class DerivativeIterates:
    """The iterates of an algorithm, and their derivatives in one direction of its parameter.

    Attributes
    ----------
    positions
        x_0, …, x_K, shape (K + 1, *batch, d).
    derivatives
        ∂x_0/∂θ θ', …, ∂x_K/∂θ θ' for the direction θ', shape (K + 1, *batch, d).
    """

    positions: Float[Tensor, "iterates *batch d"]
    derivatives: Float[Tensor, "iterates *batch d"]


def derivative_iterates(
    build: Callable[[Tensor], StepMap],
    x0: Tensor,
    parameter: Tensor,
    steps: int,
    *,
    direction: Tensor | None = None,
) -> DerivativeIterates:
    """Return x_0, …, x_K and ∂x_k/∂θ along them: forward mode, one Jacobian-vector product per step.

    ẋ_{k+1} = A_k ẋ_k + B_k θ' from ẋ_0 = 0, the recursion of Mehmood and Ochs (2025, arXiv 2410.15819) for updates
    Φ_k that may change with k, such as proximal gradient with variable step sizes and FISTA.  `final_iterate` is the
    reverse mode of the same.

    Parameters
    ----------
    build
        θ -> the step map at this θ, ``(k, state) -> state``.  Called once.
    x0
        Initial point, real floating point, shape (*batch, d); it does not depend on θ.
    parameter
        θ, real floating point, of any shape.
    steps
        K.
    direction
        θ', of the shape of θ; ones by default, which for a number is the derivative itself.

    Returns
    -------
    DerivativeIterates
        Positions and derivatives, without a graph.

    Raises
    ------
    ValueError
        For an argument that cannot be used.

    Examples
    --------
    >>> import torch
    >>> found = derivative_iterates(
    ...     lambda rate: lambda k, x: x - rate * x, torch.tensor([8.0]), torch.tensor(0.5), steps=3
    ... )
    >>> found.positions.flatten().tolist(), found.derivatives.flatten().tolist()
    ([8.0, 4.0, 2.0, 1.0], [0.0, -8.0, -8.0, -6.0])
    """
    check_callable("build", build, "θ -> step map")
    check_count("steps", steps)
    x0 = check_state("x0", x0).detach()
    direction = torch.ones_like(parameter) if direction is None else direction
    if direction.shape != parameter.shape:
        raise ValueError(f"direction must have the shape {tuple(parameter.shape)} of θ, got {tuple(direction.shape)}")
    with torch.no_grad(), forward_ad.dual_level():
        # A step map keeps a tensor as it is only if it requires a gradient.
        leaf = parameter.detach().clone().requires_grad_()
        step_map = build(_dual(leaf, direction.detach()))
        position = position_of(step_map)
        state = getattr(step_map, "initial_state", lambda x: x)(x0)
        pairs = [forward_ad.unpack_dual(position(state))]
        for k in range(steps):
            state = step_map(k, state)
            pairs.append(forward_ad.unpack_dual(position(state)))
        zero = torch.zeros_like(x0)
        positions = torch.stack([pair.primal.detach().clone() for pair in pairs])
        derivatives = torch.stack([zero if pair.tangent is None else pair.tangent.detach().clone() for pair in pairs])
    return DerivativeIterates(positions, derivatives)


def _dual(primal: Tensor, tangent: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # The first dual number makes torch load parts of itself that it warns about.
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        return forward_ad.make_dual(primal, tangent)


def truncation_bias_bound(
    contraction: float | int,
    parameter_jacobian: float | int,
    backward_steps: int = 1,
    *,
    jacobian_lipschitz: float | int = 0.0,
    distance: float | int = 0.0,
) -> float:
    """Bound ‖J_m - ∂x*/∂θ‖ for the derivative J_m of the last m steps of a contraction.

    With Φ a ρ-contraction in x, ‖∂Φ/∂θ‖ ≤ b and x* its fixed point, ∂x*/∂θ = Σ_j A^j B at x*, and the m last steps
    leave out the terms from j = m on:

        ‖J_m - ∂x*/∂θ‖ ≤ ρ^m b / (1 - ρ)  +  (what x_{K-m} is off x*).

    For m = 1 the second term is L ‖x_{K-1} - x*‖ with L a Lipschitz constant of ∂Φ/∂θ in x (Bolte, Pauwels, Vaiter,
    2023, arXiv 2305.13768, Corollary 1); for a run that started at x* it is zero for every m.

    Parameters
    ----------
    contraction
        ρ in [0, 1).
    parameter_jacobian
        b.
    backward_steps
        m.
    jacobian_lipschitz, distance
        L and ‖x_{K-1} - x*‖; for m = 1 alone.

    Returns
    -------
    float
        The bound.

    Raises
    ------
    ValueError
        If the contraction is not in [0, 1), or the distance is given with more steps than one.

    Examples
    --------
    >>> truncation_bias_bound(0.5, 3.0), truncation_bias_bound(0.5, 3.0, backward_steps=3)
    (3.0, 0.75)
    """
    if not 0 <= contraction < 1:
        raise ValueError(f"contraction must lie in [0, 1), got {contraction!r}")
    for name, value in (
        ("parameter_jacobian", parameter_jacobian),
        ("jacobian_lipschitz", jacobian_lipschitz),
        ("distance", distance),
    ):
        check_positive(name, value, allow_zero=True)
    check_count("backward_steps", backward_steps)
    if distance > 0 and backward_steps > 1:
        raise ValueError(f"distance must be left at 0 with more than one backward step, got {distance!r}")
    bias = float(contraction) ** backward_steps * parameter_jacobian / (1 - contraction)
    return bias + float(jacobian_lipschitz) * distance
