"""Flows that divide the gradient by curvature: Newton's, damped, Gauss-Newton and natural, cubic, and lazy.

Matrices are dense: a Hessian is assembled from d Hessian-vector products, evaluated as one batch, and a linear
system with it is solved by elimination, which is practical up to a few hundred dimensions.  Both are differentiable
to any order.  A singular system gives a non-finite velocity, which ends a solve with a status that says so.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop._validation import check_callable, check_shape
from odestop.dynamics._hyperparameters import NON_NEGATIVE, at_trajectories, register_number
from odestop.dynamics._memory import FlowWithMemory
from odestop.objectives.base import Objective, check_objective


class NewtonFlow(nn.Module):
    """dx/dt = -∇²f(x)⁻¹ ∇f(x).

    The limit of the relaxed Newton method x - h ∇²f(x)⁻¹ ∇f(x); Newton's own step is h = 1.  Along the flow
    ∇f(x(t)) = e^(-t) ∇f(x0), whatever f is (Smale, 1976, "A convergent process of price adjustment and global
    Newton methods"): ‖∇f‖² falls to ε at T = ½ log(‖∇f(x0)‖²/ε), and f - f* falls by e^(-2t) if f is quadratic.
    It therefore goes to the stationary point at hand, be it a minimum or not.  No hyperparameters.

    Parameters
    ----------
    objective
        f, with a Hessian that is regular along the way.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> NewtonFlow(DiagonalQuadratic([1.0, 4.0]))(torch.tensor(0.0), torch.tensor([2.0, 3.0]))
    tensor([-2., -3.])
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = check_objective(objective)

    def forward(self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        return -_solve(_hessian(self.objective, x), self.objective.gradient(x))


class RegularizedNewtonFlow(nn.Module):
    """dx/dt = -(∇²f(x) + λ I)⁻¹ ∇f(x) with λ = c ‖∇f(x)‖^p.

    The limit of the relaxed, regularised Newton method x - h (∇²f(x) + λ I)⁻¹ ∇f(x).  For p = 0 this is
    Levenberg's and Marquardt's constant damping: c → 0 gives the Newton flow, c → ∞ the gradient flow at speed
    1/c.  For p = ½ it is the gradient regularisation of Mishchenko (2023, "Regularized Newton method with global
    O(1/k²) convergence"), which fades at a minimum.

    Parameters
    ----------
    objective
        f; ∇²f(x) + λ I has to be regular along the way.
    damping
        c ≥ 0, a number or a tensor of shape () or (*batch,); differentiable.
    exponent
        p ≥ 0, likewise.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is negative.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = RegularizedNewtonFlow(DiagonalQuadratic([1.0, 3.0]), damping=1.0)
    >>> flow(torch.tensor(0.0), torch.tensor([2.0, 4.0])).tolist()
    [-1.0, -3.0]
    """

    damping: Tensor
    exponent: Tensor

    def __init__(
        self, objective: Objective, damping: float | int | Tensor, exponent: float | int | Tensor = 0.0
    ) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        register_number(self, "damping", damping, NON_NEGATIVE)
        register_number(self, "exponent", exponent, NON_NEGATIVE)

    def forward(self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        gradient = self.objective.gradient(x)
        norm = _away_from_zero(torch.linalg.vector_norm(gradient, dim=-1, keepdim=True))
        # As an exponential: autograd's second derivatives of a power are wrong where the exponent is 0.
        damping = at_trajectories(self.damping, x) * torch.exp(at_trajectories(self.exponent, x) * torch.log(norm))
        return -_solve(_hessian(self.objective, x), gradient, damping)


class NaturalGradientFlow(nn.Module):
    """dx/dt = -(G(x) + λ I)⁻¹ ∇f(x), the steepest descent in the metric G.

    The limit of the natural gradient method x - h (G(x) + λ I)⁻¹ ∇f(x) with learning rate h (Amari, 1998, "Natural
    gradient works efficiently in learning"), where G is a Fisher information matrix: `GaussNewtonMetric` makes it
    for a loss that is a negative log-likelihood.  Without damping the path is the same in any coordinates.

    Parameters
    ----------
    objective
        f.
    metric
        G: maps x of shape (*batch, d) to positive semidefinite matrices of shape (*batch, d, d).  A module becomes
        a submodule, and its parameters are θ as well.
    damping
        λ ≥ 0, a number or a tensor of shape () or (*batch,); differentiable.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, ``metric`` cannot be called or returns another shape, or the
        damping is negative.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> metric = lambda x: torch.diag_embed(1 + x * x)
    >>> flow = NaturalGradientFlow(DiagonalQuadratic([1.0, 4.0]), metric, damping=1.0)
    >>> flow(torch.tensor(0.0), torch.tensor([1.0, 2.0]))
    tensor([-0.3333, -1.3333], grad_fn=<NegBackward0>)
    """

    damping: Tensor

    def __init__(
        self, objective: Objective, metric: Callable[[Tensor], Tensor], damping: float | int | Tensor = 0.0
    ) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        self.metric = check_callable("metric", metric, "(x) -> G(x)")
        register_number(self, "damping", damping, NON_NEGATIVE)

    def forward(self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        matrix = check_shape("metric", self.metric(x), torch.Size((*x.shape, x.shape[-1])), "one matrix per point")
        return -_solve(matrix, self.objective.gradient(x), at_trajectories(self.damping, x))


class GaussNewtonMetric(nn.Module):
    """G(x) = J(x)ᵀ ∇²ℓ(z) J(x): the generalised Gauss-Newton matrix of f = ℓ ∘ z, with J the Jacobian of z.

    It is positive semidefinite if ℓ is convex, and leaves out the curvature of z.  If ℓ is the negative
    log-likelihood of an exponential family with natural parameters z, such as the cross-entropy of logits, it is the
    Fisher information (Martens, 2020, "New insights and perspectives on the natural gradient method").

    Parameters
    ----------
    outputs
        z: maps x of shape (*batch, d) to shape (*batch, n).  A module becomes a submodule.
    loss
        ℓ: maps z of shape (*batch, n) to shape (*batch,); ½ ‖z‖² if not given, so that G = JᵀJ.

    Raises
    ------
    ValueError
        If an argument cannot be called.

    Examples
    --------
    The Fisher information of two coins with log-odds x, one of them tossed twice:

    >>> loss = lambda z: torch.nn.functional.softplus(z).sum(-1)
    >>> metric = GaussNewtonMetric(lambda x: x[..., [0, 1, 1]], loss)
    >>> metric(torch.zeros(2)).tolist()
    [[0.25, 0.0], [0.0, 0.5]]
    """

    def __init__(self, outputs: Callable[[Tensor], Tensor], loss: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.outputs = check_callable("outputs", outputs, "(x) -> z(x)")
        self.loss = None if loss is None else Objective.from_function(check_callable("loss", loss, "(z) -> ℓ(z)"))

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d d"]:
        """Return G(x)."""
        columns, outputs = _jacobian_columns(self.outputs, x)
        curved = columns if self.loss is None else self.loss.hessian_vector_product(outputs, columns)
        return torch.einsum("j...n,k...n->...jk", columns, curved)


class GaussNewtonFlow(NaturalGradientFlow):
    """dx/dt = -(JᵀJ + λ I)⁻¹ Jᵀ r for the least-squares problem f = ½ ‖r(x)‖², with J the Jacobian of r.

    The limit of the relaxed Gauss-Newton method x - h (JᵀJ + λ I)⁻¹ Jᵀ r; with λ > 0 it is that of Levenberg (1944)
    and Marquardt (1963).  Where J is square and regular and λ = 0, r(x(t)) = e^(-t) r(x0).

    Parameters
    ----------
    residuals
        r: maps x of shape (*batch, d) to shape (*batch, n).  A module becomes a submodule.
    damping
        λ ≥ 0, a number or a tensor of shape () or (*batch,); differentiable.  Positive where J may lose rank.

    Attributes
    ----------
    objective
        f, for criteria.

    Raises
    ------
    ValueError
        If ``residuals`` cannot be called, or the damping is negative.

    Examples
    --------
    >>> rosenbrock = lambda x: torch.stack([1 - x[..., 0], 10 * (x[..., 1] - x[..., 0] ** 2)], dim=-1)
    >>> flow = GaussNewtonFlow(rosenbrock)
    >>> flow.objective(torch.zeros(2))
    tensor(0.5000)
    >>> flow(torch.tensor(0.0), torch.tensor([0.0, 2.0])).tolist()
    [1.0, -2.0]
    """

    def __init__(self, residuals: Callable[[Tensor], Tensor], damping: float | int | Tensor = 0.0) -> None:
        super().__init__(_HalfSquaredNorm(residuals), GaussNewtonMetric(residuals), damping)


class CubicRegularizedFlow(nn.Module):
    """dx/dt = argmin_s ∇f(x)ᵀ s + ½ sᵀ ∇²f(x) s + M/6 ‖s‖³.

    The limit of cubic-regularised Newton (Nesterov and Polyak, 2006, "Cubic regularization of Newton method and its
    global performance") with relaxed steps x + h s; the method itself is h = 1.  The minimiser is
    s = -(∇²f + M r/2 I)⁻¹ ∇f with r = ‖s‖ and a positive semidefinite matrix; r is found in the eigenbasis, and two
    differentiable Newton corrections of r = ‖s(r)‖ make its first and second derivatives exact.  Unlike the Newton
    flow it descends where f is not convex.  M → 0 gives the Newton flow where f is convex.

    The velocity jumps, and is not computed, where ∇f has no part along the lowest eigenvectors of an indefinite
    Hessian (the "hard case").

    Parameters
    ----------
    objective
        f.
    cubic
        M > 0, a number or a tensor of shape () or (*batch,); differentiable.  A Lipschitz constant of ∇²f makes the
        model an upper bound of f.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or M is not positive.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = CubicRegularizedFlow(DiagonalQuadratic([2.0]), cubic=2.0)
    >>> flow(torch.tensor(0.0), torch.tensor([4.0]))  # 2 r + r² = 8
    tensor([-2.], grad_fn=<NegBackward0>)
    """

    cubic: Tensor

    def __init__(self, objective: Objective, cubic: float | int | Tensor = 1.0) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        register_number(self, "cubic", cubic)

    def forward(self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        gradient, matrix, half = self.objective.gradient(x), _hessian(self.objective, x), self._half(x)
        radius = _cubic_radius(gradient.detach(), matrix.detach(), half.detach())
        for _ in range(2):
            step = _solve(matrix, gradient, half * radius)
            length = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
            slope = half * torch.linalg.vecdot(step, _solve(matrix, step, half * radius)).unsqueeze(-1)
            radius = radius - (radius - length) / (1 + slope / _away_from_zero(length))
        return -_solve(matrix, gradient, half * radius)

    def _half(self, x: Tensor) -> Tensor:
        """M/2 of shape (*batch, 1), in the dtype of x."""
        return at_trajectories(self.cubic, x) / 2 * torch.ones_like(x[..., :1])


class LazyNewtonFlow(FlowWithMemory):
    """dx/dt = -∇²f(y)⁻¹ ∇f(x), dy/dt = (x - y)/τ: Newton's flow with a Hessian from an average of earlier points.

    Newton's method with lazy Hessians (Doikov, Chayti and Jaggi, 2023, "Second-order optimization with lazy
    Hessians") computes the Hessian every m steps and keeps it in between.  At a fixed period that is a flow whose
    memory y jumps to x, which an ODE solver would have to stop at; here y follows x instead, with the age τ on
    average.  This is the limit of the relaxed steps x - h ∇²f(y)⁻¹ ∇f(x), y + h/τ (x - y), and not of the periodic
    ones.  These have Hessians of age m h/2 on average: with τ = m h/2 the two agree up to O(τ²), and they differ by
    O(τ) from the Newton flow.

    The state is (x, y), of shape (*batch, 2d); it starts with y = x0.

    Parameters
    ----------
    objective
        f, with a Hessian that is regular along the way.
    time_constant
        τ > 0, a number or a tensor of shape () or (*batch,); differentiable.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or τ is not positive.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = LazyNewtonFlow(DiagonalQuadratic([1.0, 4.0]), time_constant=0.5)
    >>> flow(torch.tensor(0.0), flow.initial_state(torch.tensor([2.0, 3.0]))).tolist()
    [-2.0, -3.0, 0.0, 0.0]
    """

    time_constant: Tensor

    def __init__(self, objective: Objective, time_constant: float | int | Tensor) -> None:
        super().__init__(objective)
        self.register_hyperparameter("time_constant", time_constant)

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return (x0, x0)."""
        return torch.cat([x0, x0], dim=-1)

    def forward(self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return d(x, y)/dt; t, of shape () or (*batch, 1), plays no part."""
        x, y = self.parts(state)
        velocity = -_solve(_hessian(self.objective, y), self.objective.gradient(x))
        return torch.cat([velocity, (x - y) / self.value_of("time_constant", x)], dim=-1)


class _HalfSquaredNorm(Objective):
    """f(x) = ½ ‖r(x)‖²."""

    def __init__(self, residuals: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.residuals = check_callable("residuals", residuals, "(x) -> r(x)")
        # A plain function may read values whose changes cannot be noticed.
        self._may_remember = isinstance(residuals, nn.Module)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        return 0.5 * (self.residuals(x) ** 2).sum(-1)


def _hessian(objective: Objective, x: Tensor) -> Tensor:
    """∇²f(x), shape (*batch, d, d)."""
    directions = _unit_vectors(x)
    columns = objective.hessian_vector_product(x.expand_as(directions), directions)
    return columns.movedim(0, -1)


def _unit_vectors(x: Tensor) -> Tensor:
    """Every direction e_i at every point: shape (d, *batch, d)."""
    d = x.shape[-1]
    identity = torch.eye(d, dtype=x.dtype, device=x.device)
    return identity.reshape(d, *[1] * (x.ndim - 1), d).expand(d, *x.shape)


def _jacobian_columns(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """J(x) e_i and z(x), both of shape (d, *batch, n), by differentiating the product Jᵀ u in u."""
    create_graph = torch.is_grad_enabled()
    directions = _unit_vectors(x)
    with torch.enable_grad():
        point = x.expand_as(directions) + torch.zeros_like(directions, requires_grad=True)
        outputs = function(point)
        weights = torch.zeros_like(outputs, requires_grad=True)
        (product,) = torch.autograd.grad(outputs, point, weights, create_graph=True, materialize_grads=True)
        (columns,) = torch.autograd.grad(product, weights, directions, create_graph=create_graph)
    return (columns, outputs) if create_graph else (columns.detach(), outputs.detach())


def _solve(matrix: Tensor, right: Tensor, shift: Tensor | None = None) -> Tensor:
    """(matrix + shift I)⁻¹ right, non-finite where the matrix is singular; the shift is 0-d or (*batch, 1)."""
    if shift is not None:
        matrix = matrix + (shift * torch.ones_like(right)).diag_embed()
    return torch.linalg.solve_ex(matrix, right.unsqueeze(-1)).result.squeeze(-1)


@torch.no_grad()
def _cubic_radius(gradient: Tensor, matrix: Tensor, half: Tensor) -> Tensor:
    """The r with ‖(matrix + half r I)⁻¹ gradient‖ = r and a positive definite matrix, shape (*batch, 1)."""
    eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
    parts = (gradient.unsqueeze(-2) @ eigenvectors).squeeze(-2).abs()
    # Each part alone gives a lower bound; r - ‖s(r)‖ is increasing and concave, so that Newton rises to its root.
    bounds = ((eigenvalues.square() + 4 * half * parts).sqrt() - eigenvalues) / (2 * half)
    radius = bounds.amax(-1, keepdim=True)
    for _ in range(_CUBIC_ITERATIONS):
        shifted = eigenvalues + half * radius
        step = parts / shifted
        length = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
        slope = half * (step * step / shifted).sum(-1, keepdim=True) / _away_from_zero(length)
        radius = radius - (radius - length) / (1 + slope)
    return radius


_CUBIC_ITERATIONS = 5


def _away_from_zero(length: Tensor) -> Tensor:
    """A divisor that differs from the length only where this is 0, at a stationary point."""
    return length.clamp(min=torch.finfo(length.dtype).tiny)
