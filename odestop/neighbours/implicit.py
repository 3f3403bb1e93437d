"""The derivative of a solution, from the condition that it satisfies: the implicit function theorem."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from odestop._validation import check_callable, check_choice, check_positive, check_shape, check_state
from odestop.neighbours.linear import LinearSolution, LinearSolver, LinearStatus, LinearSystem, resolve_solver


class ImplicitGradientWarning(UserWarning):
    """The point does not satisfy its condition, or the linear solve of a gradient did not succeed."""


class ImplicitGradientError(RuntimeError):
    """The linear solve of a gradient did not succeed, and ``on_failure="raise"`` asked for an exception.

    Attributes
    ----------
    solve
        The `LinearSolution`, with the status of every system.
    """

    def __init__(self, message: str, solve: LinearSolution) -> None:
        super().__init__(message)
        self.solve = solve


def implicit_gradient(
    optimality: Callable[..., Tensor],
    x_star: Tensor,
    parameters: Tensor | Sequence[Tensor] = (),
    *,
    solver: str | LinearSolver = "auto",
    residual_tolerance: float | int = 1e-3,
    on_failure: str = "warn",
    on_solve: Callable[[LinearSolution], object] | None = None,
) -> Tensor:
    """Return x* with the derivative that F(x*, θ) = 0 gives it, however x* was computed.

    By the implicit function theorem ∂x*/∂θ = -(∂F/∂x)⁻¹ ∂F/∂θ (Blondel et al., 2022, arXiv 2105.15183, eq. 2),
    with F = ``optimality``: the gradient of an objective, Φ(x, θ) - x for a fixed point of Φ, or any system of as
    many equations as unknowns.  A backward pass with the cotangent v solves (∂F/∂x)ᵀ u = v from vector-Jacobian
    products of F alone, and gives θ the gradient -(∂F/∂θ)ᵀ u.  Nothing happens before that.  First derivatives
    only.

    Parameters
    ----------
    optimality
        ``(x, *parameters) -> F`` of the shape of x.  The rows of a batch are independent systems.  It must be
        differentiable in x by autograd; it may call autograd inside with ``create_graph=True``.
    x_star
        The solution, real floating point, shape (*batch, d), or () for a single unknown.  It counts as a number: a
        graph behind it is not followed.
    parameters
        θ: a tensor or several, passed to ``optimality`` after x.  Tensors that ``optimality`` uses by itself, such
        as those of a module, are differentiated in as well.
    solver
        Of the linear systems.  ``"auto"`` writes the matrix out up to d = 128 and is ``"gmres"`` beyond;
        ``"cg"`` is cheaper where ∂F/∂x is symmetric positive definite, as the Hessian at a strict minimum;
        ``"normal"`` takes little memory for any matrix, and ``"dense"`` writes it out at any d.  An object has the
        knobs: `ConjugateGradient(tolerance=...)`, `GMRES`, `NormalEquations`, `Dense`.
    residual_tolerance
        A warning is given if ‖F(x*, θ)‖ exceeds this times 1 + ‖x*‖ in any row: the derivative is off by about as
        much as x* is.
    on_failure
        ``"warn"`` to warn when a solve does not succeed, ``"raise"`` for `ImplicitGradientError`.
    on_solve
        Called with the `LinearSolution` of every backward pass: its status, residual and cost.

    Returns
    -------
    Tensor
        x*, the same numbers in the same shape, attached to the graph of θ.  Where a solve only ran out of iterations
        (`LinearStatus.NOT_CONVERGED`) the gradient is that of its last iterate; where it broke down, or the
        system is singular, the row's gradient is zero.  Both are told by a warning.

    Raises
    ------
    ValueError
        For an argument that cannot be used, or if F has another shape than x.
    RuntimeError
        In the backward pass, if it is asked for a graph of the gradient.

    Warns
    -----
    ImplicitGradientWarning
        If the point does not satisfy the condition, with ‖F‖; in the backward pass, if a solve fails.

    Examples
    --------
    The ridge regression of one number, x* = ab / (a² + θ), by its optimality condition:

    >>> import torch
    >>> a, b, theta = 2.0, 3.0, torch.tensor(2.0, requires_grad=True)
    >>> x = implicit_gradient(lambda x, theta: a * (a * x - b) + theta * x, torch.tensor(1.0), theta)
    >>> x.backward()
    >>> theta.grad  # -ab / (a² + θ)²
    tensor(-0.1667)
    """
    check_callable("optimality", optimality, "(x, *parameters) -> F(x)")
    check_choice("on_failure", on_failure, ("warn", "raise"))
    check_positive("residual_tolerance", residual_tolerance, allow_infinite=True)
    theta = (parameters,) if isinstance(parameters, Tensor) else tuple(parameters)
    point = _check_point(x_star)
    linear_solver = resolve_solver(solver, point.shape[-1] if point.ndim else 1)
    with torch.enable_grad():
        residual = check_shape("optimality", optimality(point, *theta), point.shape, "one equation per unknown")
    _warn_if_not_solved(residual.detach(), point, float(residual_tolerance))
    if not (torch.is_grad_enabled() and residual.requires_grad):
        return point.clone()

    def solve_for(cotangent: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("implicit_gradient has first derivatives only; do not ask for create_graph=True")
        solved = _solve_transposed(linear_solver, lambda x: optimality(x, *theta), point, cotangent)
        if on_solve is not None:
            on_solve(solved)
        _report(solved, on_failure)
        return solved.solution.reshape(point.shape)

    residual.register_hook(solve_for)
    # In value x* exactly; its cotangent reaches the residual with the sign of the theorem.
    return point - (residual - residual.detach())


def _check_point(x_star: Tensor) -> Tensor:
    if isinstance(x_star, Tensor) and x_star.ndim == 0:
        return check_state("x_star", x_star.unsqueeze(0)).detach().squeeze(0)
    return check_state("x_star", x_star).detach()


def _warn_if_not_solved(residual: Tensor, point: Tensor, tolerance: float) -> None:
    sizes = torch.linalg.vector_norm(torch.atleast_1d(residual), dim=-1)
    allowed = tolerance * (1 + torch.linalg.vector_norm(torch.atleast_1d(point), dim=-1))
    missed = ~(sizes <= allowed)
    if bool(missed.any()):
        warnings.warn(
            f"x_star does not satisfy its condition: ‖optimality(x_star)‖ is up to {sizes.max().item():.3g}, more than "
            f"residual_tolerance (1 + ‖x_star‖) = {allowed.min().item():.3g}, in {int(missed.sum())} of "
            f"{missed.numel()} systems; the derivative is about as inexact as x_star",
            ImplicitGradientWarning,
            stacklevel=3,
        )


def _solve_transposed(
    solver: LinearSolver, function: Callable[[Tensor], Tensor], point: Tensor, cotangent: Tensor
) -> LinearSolution:
    """Solve (∂F/∂x)ᵀ u = cotangent; the shape () of a single unknown becomes (1,)."""
    with torch.enable_grad():
        leaf = point.clone().requires_grad_()
        value = function(leaf)
        weights = torch.zeros_like(value, requires_grad=True)

    def pull_back(u: Tensor) -> Tensor:
        if not value.requires_grad:
            return torch.zeros_like(u)
        return _gradient(value, leaf, u.reshape(value.shape)).reshape(u.shape)

    def push_forward(p: Tensor) -> Tensor:
        # The derivative of the pull-back, which is linear in what it pulls back.
        with torch.enable_grad():
            (pulled,) = torch.autograd.grad(value, leaf, weights, create_graph=True, materialize_grads=True)
        if not pulled.requires_grad:
            return torch.zeros_like(p)
        return _gradient(pulled, weights, p.reshape(value.shape)).reshape(p.shape)

    return solver.solve(LinearSystem(pull_back, push_forward), torch.atleast_1d(cotangent))


def _gradient(output: Tensor, source: Tensor, cotangent: Tensor) -> Tensor:
    return torch.autograd.grad(output, source, cotangent, retain_graph=True, materialize_grads=True)[0]


def _report(solved: LinearSolution, on_failure: str) -> None:
    if bool((solved.codes == LinearStatus.CONVERGED.code).all()):
        return
    message = f"the gradient of x_star may be unusable: {solved.message}"
    if on_failure == "raise":
        raise ImplicitGradientError(message, solved)
    warnings.warn(message, ImplicitGradientWarning, stacklevel=3)
