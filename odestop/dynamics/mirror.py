"""Mirror flows: the gradient moves the dual variable ∇ψ(x) of a convex potential ψ."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop.dynamics._hyperparameters import at_trajectories, register_number
from odestop.objectives.base import Objective, check_objective


class Potential(nn.Module):
    """Base of the potentials ψ: subclasses implement ∇ψ and its inverse ∇ψ*.

    Examples
    --------
    The potential ½ ‖x‖², whose mirror flow is the gradient flow:

    >>> from odestop.objectives import DiagonalQuadratic
    >>> class Euclidean(Potential):
    ...     def to_dual(self, x):
    ...         return x
    ...
    ...     def to_primal(self, y):
    ...         return y
    >>> MirrorFlow(DiagonalQuadratic([1.0, 4.0]), Euclidean())(torch.tensor(0.0), torch.ones(2))
    tensor([-1., -4.])
    """

    def to_dual(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return y = ∇ψ(x)."""
        raise NotImplementedError(f"{type(self).__name__} must implement to_dual(x)")

    def to_primal(self, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return x = ∇ψ*(y)."""
        raise NotImplementedError(f"{type(self).__name__} must implement to_primal(y)")

    def restrict(self, x: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return the gradient without a part that changes y but not x; all of it, unless ψ has a smaller domain."""
        return gradient


class SimplexEntropy(Potential):
    """ψ(x) = Σ xᵢ log xᵢ on the probability simplex.

    The flow is the replicator equation dxᵢ/dt = -xᵢ (∂ᵢf - Σⱼ xⱼ ∂ⱼf), the limit of exponentiated gradient,
    xᵢ exp(-h ∂ᵢf) / Σⱼ xⱼ exp(-h ∂ⱼf) (Kivinen, Warmuth, 1997; mirror descent with this ψ: Beck, Teboulle, 2003).  The
    state is log x.  A start is divided by its sum.

    Examples
    --------
    >>> entropy = SimplexEntropy()
    >>> entropy.to_primal(entropy.to_dual(torch.tensor([1.0, 3.0])))
    tensor([0.2500, 0.7500])
    """

    def to_dual(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return y = log x; a ValueError if x is not positive."""
        return _check_inside(x).log()

    def to_primal(self, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return x = exp(y) / Σ exp(y)."""
        return torch.softmax(y, dim=-1)

    def restrict(self, x: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return ∇f - ⟨x, ∇f⟩, with which the state stays log x, and comes to rest where x does."""
        return gradient - (x * gradient).sum(-1, keepdim=True)


class OrthantEntropy(Potential):
    """ψ(x) = Σ xᵢ log xᵢ - xᵢ on the positive orthant.

    The flow is dxᵢ/dt = -xᵢ ∂ᵢf, the limit of the exponentiated gradient without normalisation, xᵢ exp(-h ∂ᵢf)
    (Kivinen, Warmuth, 1997).  The state is log x.

    Examples
    --------
    >>> OrthantEntropy().to_primal(torch.zeros(2))
    tensor([1., 1.])
    """

    def to_dual(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return y = log x; a ValueError if x is not positive."""
        return _check_inside(x).log()

    def to_primal(self, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return x = exp(y)."""
        return y.exp()


class HyperbolicEntropy(Potential):
    """ψ(x) = Σ xᵢ arcsinh(xᵢ/β) - √(xᵢ² + β²) on all of R^d (Ghai, Hazan, Singer, 2020).

    The flow is dxᵢ/dt = -√(xᵢ² + β²) ∂ᵢf: multiplicative as with the entropy where |xᵢ| ≫ β, and for β → ∞ the
    gradient flow with its time multiplied by β.  The limit of β sinh(arcsinh(xᵢ/β) - h ∂ᵢf).

    Parameters
    ----------
    beta
        β > 0, a number or a tensor of shape () or (*batch,); differentiable.

    Raises
    ------
    ValueError
        If β is not positive.

    Examples
    --------
    >>> entropy = HyperbolicEntropy(beta=0.5)
    >>> entropy.to_primal(entropy.to_dual(torch.tensor([-2.0, 0.0]))).detach()
    tensor([-2.0000,  0.0000])
    """

    beta: Tensor

    def __init__(self, beta: float | int | Tensor) -> None:
        super().__init__()
        register_number(self, "beta", beta)

    def to_dual(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return y = arcsinh(x/β)."""
        return torch.asinh(x / at_trajectories(self.beta, x))

    def to_primal(self, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return x = β sinh(y)."""
        return at_trajectories(self.beta, y) * torch.sinh(y)


class PNorm(Potential):
    """ψ(x) = 1/p Σ |xᵢ|^p on all of R^d.

    The flow is dxᵢ/dt = -|xᵢ|^(2-p) ∂ᵢf/(p - 1), the limit of mirror descent with this ψ (Sun, Ahn, Thrampoulidis,
    Azizan, 2022).  A p near 1 favours sparse points, and leaves a coordinate at 0 slowly; p = 2 is the gradient
    flow.  In y the field is smooth at 0 only for p ≤ 2: with a larger p a coordinate passes 0 at infinite speed.

    The derivative of T in a coordinate of x0 that is 0 is infinite for p < 2, and comes out as a huge number.

    Parameters
    ----------
    p
        p > 1, a number or a tensor of shape () or (*batch,); differentiable.

    Raises
    ------
    ValueError
        If p is not greater than 1.

    Examples
    --------
    >>> PNorm(1.5).to_primal(torch.tensor([2.0, -3.0])).tolist()
    [4.0, -9.0]
    """

    p: Tensor

    def __init__(self, p: float | int | Tensor) -> None:
        super().__init__()
        register_number(self, "p", p)
        if not bool((self.p.detach() > 1).all()):
            raise ValueError(f"p must be greater than 1, got {float(self.p.detach().min())}")

    def to_dual(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return y = sign(x) |x|^(p-1)."""
        return x * _size(x) ** (at_trajectories(self.p, x) - 2)

    def to_primal(self, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return x = sign(y) |y|^(1/(p-1))."""
        return y * _size(y) ** (1 / (at_trajectories(self.p, y) - 1) - 1)


class MirrorFlow(nn.Module):
    """d/dt ∇ψ(x) = -∇f(x) (Nemirovski, Yudin, 1983).

    The same as dx/dt = -(∇²ψ(x))⁻¹ ∇f(x), and the limit of mirror descent, ∇ψ(x_{k+1}) = ∇ψ(x_k) - h ∇f(x_k), as
    the learning rate h goes to 0; ``odestop.Euler(flow, h)`` is mirror descent itself.

    The state is the dual variable y = ∇ψ(x), of the shape of x, with the position x = ∇ψ*(y).  The error of a step
    in x could leave the domain of ψ, where the field above is undefined or unstable.  Any y will do: x is positive,
    and sums to one on the simplex, at every stage of every solver.  J then depends on θ directly as well:
    `odestop.torchdiffeq_stopping_time`, which refuses that, takes the flow with ``requires_grad_(False)``.

    Parameters
    ----------
    objective
        f; only its values in the domain of ψ matter.
    potential
        ψ; its parameters are θ.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`; from `initial_state`, if x0 is outside the domain of ψ.

    Examples
    --------
    >>> import odestop
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = MirrorFlow(DiagonalQuadratic([1.0, 3.0]), SimplexEntropy())
    >>> x0 = torch.tensor([0.5, 0.5], dtype=torch.float64)
    >>> solution = odestop.continuous_stopping_time(flow, x0, odestop.criteria.ObjectiveGap(flow.objective), 0.4)
    >>> solution.position
    tensor([0.6382, 0.3618], dtype=torch.float64)
    """

    def __init__(self, objective: Objective, potential: Potential) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        self.potential = potential

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return y = ∇ψ(x0)."""
        return self.potential.to_dual(x0)

    def position(self, state: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return x = ∇ψ*(y)."""
        return self.potential.to_primal(state)

    def forward(self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return dy/dt; t, of shape () or (*batch, 1), plays no part."""
        x = self.potential.to_primal(state)
        return -self.potential.restrict(x, self.objective.gradient(x))


def _size(x: Tensor) -> Tensor:
    """Return |x|, but at 0 a number whose powers and logarithm are finite: a factor 0 then leaves no NaN behind."""
    return x.abs().clamp_min(torch.finfo(x.dtype).tiny)


def _check_inside(x: Tensor) -> Tensor:
    if not bool((x.detach() > 0).all()):
        raise ValueError(f"x0 must be positive for this potential, got {float(x.detach().min())}")
    return x
