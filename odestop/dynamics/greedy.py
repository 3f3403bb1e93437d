"""Greedy-optimal flows dx/dt = -Q ∇f(x): at every moment the fastest descent among all Q of a trust region.

After Lee and Lee (2025, arXiv 2512.06370, "Optimizing Optimizers for Fast Gradient-Based Learning"): an optimizer is a
positive semidefinite operator Q on gradients g, and -df/dt = gᵀQg = ⟨Q, ggᵀ⟩.  With a running mean M of ggᵀ in its
place, the greedy choice is the Q that maximises ⟨Q, M⟩ = tr(QM) over a trust region.  The docstrings state each region
and derive its maximiser.  The regions carry the names of the paper's families; they are not claimed to be its sets
to the letter.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop._validation import check_positive
from odestop.dynamics._hyperparameters import NON_NEGATIVE, at_trajectories, register_number
from odestop.objectives.base import Objective, check_objective


class GreedyFlow(nn.Module):
    """Base of the greedy-optimal flows: x' = -B Q(M) ∇f(x), M' = (moment(∇f(x)) - M)/τ.

    Subclasses say what they remember of a gradient, `moment`; how Q of the unit trust region acts, `precondition`;
    and the dimension d of a state, `dimension`.  The state is x with M behind it, from M = moment(∇f(x0)).

    The discrete algorithm is M ← β M + (1 - β) moment(g), x ← x - η Q(M) g, and the flow is its limit for h → 0 with
    η = B h and β = 1 - h/τ.  The budget only rescales time: B and τ run the path of 1 and B τ, B times as fast.

    Parameters
    ----------
    objective
        f.
    budget
        B > 0, the size of the trust region: a number or a tensor of shape () or (*batch,); differentiable.
    time_constant
        τ > 0, over which the moment of gradients is averaged; likewise.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is not positive.
    """

    budget: Tensor
    time_constant: Tensor

    def __init__(
        self, objective: Objective, budget: float | int | Tensor = 1.0, time_constant: float | int | Tensor = 1.0
    ) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        register_number(self, "budget", budget)
        register_number(self, "time_constant", time_constant)

    def moment(self, gradient: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return what is averaged of gradients, flattened."""
        raise NotImplementedError(f"{type(self).__name__} must implement moment(gradient)")

    def precondition(
        self, moment: Float[Tensor, "*batch m"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return Q(M) g for B = 1."""
        raise NotImplementedError(f"{type(self).__name__} must implement precondition(moment, gradient)")

    def dimension(self, size: int) -> int:
        """Return d from the size d + m of a state."""
        raise NotImplementedError(f"{type(self).__name__} must implement dimension(size)")

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch n"]:
        """Return x0 with the moment of ∇f(x0)."""
        return torch.cat([x0, self.moment(self.objective.gradient(x0))], dim=-1)

    def position(self, state: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch d"]:
        """Return the x of a state."""
        return state[..., : self.dimension(state.shape[-1])]

    def forward(self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Return d(x, M)/dt; t, of shape () or (*batch, 1), plays no part."""
        x, moment = state.tensor_split([self.dimension(state.shape[-1])], dim=-1)
        gradient = self.objective.gradient(x)
        velocity = -at_trajectories(self.budget, x) * self.precondition(moment, gradient)
        return torch.cat([velocity, (self.moment(gradient) - moment) / at_trajectories(self.time_constant, x)], dim=-1)


class GreedySchattenFlow(GreedyFlow):
    """dx/dt = -B Mⁿ ∇f(x) / ‖Mⁿ‖_p: the fastest descent among all Q with a Schatten norm ‖Q‖_p ≤ B, p = 1 + 1/n.

    ‖Q‖_p is the ℓ_p norm of the eigenvalues.  By Hölder's inequality ⟨Q, M⟩ ≤ ‖Q‖_p ‖M‖_(n+1), with equality for
    Q = B Mⁿ/‖Mⁿ‖_p, where ‖Mⁿ‖_p = (tr Mⁿ⁺¹)^(1/p).

    * n = 1, the Frobenius ball: Q = B M/‖M‖_F.
    * n = 0, the spectral ball, of Q with no eigenvalue above B: Q = B I, the gradient flow.
    * n → ∞, the trace ball, of Q with tr Q ≤ B: Q → B u uᵀ with u the top eigenvector of M.

    Beside the diagonal methods it favours the directions in which gradients have been large.  M is the running mean
    of ∇f ∇fᵀ, with d² numbers; see `GreedyFlow` for the discrete algorithm.

    Parameters
    ----------
    objective
        f.
    budget, time_constant
        B > 0 and τ > 0, numbers or tensors of shape () or (*batch,); differentiable.
    order
        n, an integer of at least 0.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    It starts like the gradient flow, with M = ∇f(x0) ∇f(x0)ᵀ:

    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = GreedySchattenFlow(DiagonalQuadratic([3.0, 4.0]))
    >>> flow(torch.tensor(0.0), flow.initial_state(torch.ones(2))).tolist()
    [-3.0, -4.0, 0.0, 0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        objective: Objective,
        budget: float | int | Tensor = 1.0,
        time_constant: float | int | Tensor = 1.0,
        order: int = 1,
    ) -> None:
        super().__init__(objective, budget, time_constant)
        if isinstance(order, bool) or not isinstance(order, int) or order < 0:
            raise ValueError(f"order must be an integer of at least 0, got {order!r}")
        self.order = order

    def moment(self, gradient: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return g gᵀ."""
        return (gradient.unsqueeze(-1) * gradient.unsqueeze(-2)).flatten(-2)

    def precondition(
        self, moment: Float[Tensor, "*batch m"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return Q(M) g for B = 1."""
        matrix = moment.unflatten(-1, (gradient.shape[-1], gradient.shape[-1]))
        # Q does not depend on the size of M, which falls to that of rounding.
        matrix = matrix / _trace(matrix)[..., None, None]
        power = torch.linalg.matrix_power(matrix, self.order)
        norm = _trace(power @ matrix) ** (self.order / (self.order + 1))
        return (power @ gradient.unsqueeze(-1)).squeeze(-1) / norm.unsqueeze(-1)

    def dimension(self, size: int) -> int:
        """Return d from the size d + d² of a state."""
        return (math.isqrt(1 + 4 * size) - 1) // 2


class GreedyLyapunovFlow(GreedyFlow):
    """dx/dt = -B ∇f(x)/√(tr M): the fastest descent among all Q with tr(QMQ) ≤ B².

    The constraint bounds the mean squared speed, E‖Qg‖² = tr(QMQ).  A maximiser satisfies the Lyapunov equation
    M = μ (QM + MQ), hence Q = I/(2μ) on the range of M, and the constraint gives Q = B I/√(tr M); by Cauchy and
    Schwarz, tr(QM) ≤ √(tr(QMQ) tr M) = B √(tr M), no Q is better.  This is gradient descent normalised by a running
    norm, RMSprop with one scale for all coordinates; τ → 0 gives the flow of normalised gradients.  See `GreedyFlow`
    for the discrete algorithm.

    Its memory is one number, the running mean of ‖∇f‖².  Where that lags behind, x may overshoot the minimum.

    Parameters
    ----------
    objective
        f.
    budget, time_constant
        B > 0 and τ > 0, numbers or tensors of shape () or (*batch,); differentiable.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is not positive.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = GreedyLyapunovFlow(DiagonalQuadratic([3.0, 4.0]), budget=10.0)
    >>> flow(torch.tensor(0.0), flow.initial_state(torch.ones(2))).tolist()
    [-6.0, -8.0, 0.0]
    """

    def moment(self, gradient: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch 1"]:
        """Return ‖g‖²."""
        return (gradient * gradient).sum(-1, keepdim=True)

    def precondition(
        self, moment: Float[Tensor, "*batch 1"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return Q(M) g for B = 1."""
        return gradient / _positive(moment).sqrt()

    def dimension(self, size: int) -> int:
        """Return d from the size d + 1 of a state."""
        return size - 1


class GreedyDiagonalFlow(GreedyFlow):
    """dx_i/dt = -B q_i ∂_i f(x): the fastest descent among all Q = diag(q) with Σ c_i q_i² ≤ B².

    With v the diagonal of M, ⟨Q, M⟩ = Σ q_i v_i, and by Cauchy and Schwarz its maximiser is q_i = (v_i/c_i)/√(Σ v²/c).
    The costs are powers of the moments at hand, c_i = (v_i + ε)^p:

    * p = 0, the Frobenius ball: q_i ∝ v_i.
    * p = 1, the diagonal form of `GreedyLyapunovFlow`: q_i = 1/√(Σ v), the same for all coordinates.
    * p = 3/2: q_i ∝ 1/√v_i, the scaling of RMSprop and Adam, with a common factor 1/√(Σ √v).

    The memory v has the size of x; see `GreedyFlow` for the discrete algorithm.

    Parameters
    ----------
    objective
        f.
    budget, time_constant
        B > 0 and τ > 0, numbers or tensors of shape () or (*batch,); differentiable.
    power
        p ≥ 0, likewise.
    eps
        ε > 0, a constant that keeps the costs positive; of the size of a negligible squared partial derivative.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or a hyperparameter is out of range.

    Examples
    --------
    At the start v is the squared gradient, and p = 3/2 makes all coordinates equally fast:

    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = GreedyDiagonalFlow(DiagonalQuadratic([1.0, 3.0]), budget=2.0)
    >>> velocity = flow(torch.tensor(0.0), flow.initial_state(torch.ones(2)))
    >>> [round(rate, 5) for rate in flow.position(velocity).tolist()]
    [-1.0, -1.0]
    """

    power: Tensor

    def __init__(
        self,
        objective: Objective,
        budget: float | int | Tensor = 1.0,
        time_constant: float | int | Tensor = 1.0,
        power: float | int | Tensor = 1.5,
        *,
        eps: float | int = 1e-8,
    ) -> None:
        super().__init__(objective, budget, time_constant)
        register_number(self, "power", power, NON_NEGATIVE)
        self.eps = check_positive("eps", eps)

    def moment(self, gradient: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return the squares of g."""
        return gradient * gradient

    def precondition(
        self, moment: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return Q(M) g for B = 1."""
        # As an exponential: autograd's second derivatives of a power are wrong where the exponent is 0.
        gain = moment * torch.exp(-at_trajectories(self.power, moment) * torch.log(moment + self.eps))
        return gain * gradient / _positive((moment * gain).sum(-1, keepdim=True)).sqrt()

    def dimension(self, size: int) -> int:
        """Return d from the size 2 d of a state."""
        return size // 2


def _trace(matrix: Tensor) -> Tensor:
    """Trace of positive semidefinite matrices, above 0."""
    return _positive(matrix.diagonal(dim1=-2, dim2=-1).sum(-1))


def _positive(value: Tensor) -> Tensor:
    """A divisor that differs from a value ≥ 0 only where this is 0, without any gradient so far."""
    return value.clamp(min=torch.finfo(value.dtype).tiny)
