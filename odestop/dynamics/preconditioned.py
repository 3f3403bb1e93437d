"""Preconditioned gradient flows: diagonal, dense, and learned (eq. 4 of arXiv 2505.22509)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop._functions import Linearized
from odestop._validation import check_count, check_positive
from odestop.dynamics._hyperparameters import dtype_of, register_hyperparameter
from odestop.dynamics.gradient_driven import GradientDrivenFlow
from odestop.objectives.base import Objective, check_objective


class DiagonallyPreconditionedFlow(GradientDrivenFlow):
    """dx/dt = -diag(p) ∇f(x), the flow of the paper's Fig. 1 with p = (1, θ).

    The limit of x - h diag(p) ∇f(x), gradient descent with a learning rate h p_i of its own for each coordinate.

    Parameters
    ----------
    objective
        f.
    diagonal
        p, shape (d,).  Numbers become a parameter of the objective's dtype; a tensor keeps its dtype.  One
        that requires a gradient is used as it is, so that p = stack([1, θ]) sends gradients to θ.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or ``diagonal`` is not a finite vector of its dimension.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = DiagonallyPreconditionedFlow(DiagonalQuadratic([1.0, 4.0]), [1.0, 2.5])
    >>> flow(torch.tensor(0.0), torch.ones(2)).tolist()
    [-1.0, -10.0]
    """

    diagonal: Tensor
    coordinatewise = True

    def __init__(self, objective: Objective, diagonal: Tensor | Sequence[float | int]) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        register_hyperparameter(self, "diagonal", diagonal, dtype=dtype_of(objective))
        if self.diagonal.ndim != 1 or objective.dimension not in (None, len(self.diagonal)):
            raise ValueError(
                f"diagonal must have shape (d,) with d = {objective.dimension or 'any'}, "
                f"got shape {tuple(self.diagonal.shape)}"
            )

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        return -self.diagonal * gradient


class DensePreconditionedFlow(GradientDrivenFlow):
    """dx/dt = -L Lᵀ ∇f(x) with L lower triangular and positive on the diagonal.

    The limit of x - h L Lᵀ ∇f(x), preconditioned gradient descent.  Every positive definite matrix P is L Lᵀ for
    exactly one such L.  The parameters are the entries of L below the diagonal and the logarithms of those on it
    (Pinheiro, Bates, 1996, the log-Cholesky parametrisation), so that all real numbers are allowed and P stays
    positive definite.  The exponential, rather than softplus, makes a shift of the logarithms by c a factor of
    e^(2c) of P: speeds of all sizes are equally within reach.

    Parameters
    ----------
    objective
        f.
    log_cholesky
        The parameters as a matrix, shape (d, d): L with logarithms on its diagonal.  The entries above the
        diagonal play no part.  Zeros give the plain gradient flow.  Numbers become a parameter of the objective's
        dtype; a tensor keeps its dtype, and one that requires a gradient is used as it is.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or ``log_cholesky`` is not a finite square matrix of its dimension.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = DensePreconditionedFlow(DiagonalQuadratic([1.0, 4.0]), [[0.0, 0.0], [1.0, 0.0]])
    >>> flow.preconditioner().tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    >>> flow(torch.tensor(0.0), torch.ones(2)).tolist()
    [-5.0, -9.0]

    With the inverse of the Hessian, the flow of a quadratic is that of ½ ‖x‖²:

    >>> flow = DensePreconditionedFlow.from_matrix(flow.objective, torch.diag(torch.tensor([1.0, 0.25])))
    >>> flow(torch.tensor(0.0), torch.ones(2)).tolist()
    [-1.0, -1.0]
    """

    log_cholesky: Tensor

    def __init__(self, objective: Objective, log_cholesky: Tensor | Sequence[Sequence[float | int]]) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        register_hyperparameter(self, "log_cholesky", log_cholesky, dtype=dtype_of(objective))
        shape = tuple(self.log_cholesky.shape)
        if len(shape) != 2 or shape[0] != shape[1] or objective.dimension not in (None, shape[0]):
            raise ValueError(
                f"log_cholesky must have shape (d, d) with d = {objective.dimension or 'any'}, got shape {shape}"
            )

    @classmethod
    def from_matrix(cls, objective: Objective, matrix: Tensor) -> DensePreconditionedFlow:
        """Start from L Lᵀ = ``matrix``, symmetric positive definite, shape (d, d).

        Raises
        ------
        ValueError
            If the matrix is not symmetric positive definite, or not of the objective's dimension.
        """
        symmetric = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and torch.allclose(matrix, matrix.mT)
        factor, failure = torch.linalg.cholesky_ex(matrix) if symmetric else (matrix, torch.tensor(1))
        if int(failure) != 0 or not bool(torch.isfinite(factor).all()):
            raise ValueError(f"matrix must be symmetric positive definite, got {matrix}")
        return cls(objective, factor.tril(-1) + torch.diag(factor.diagonal().log()))

    def factor(self) -> Float[Tensor, "d d"]:
        """Return L."""
        return self.log_cholesky.tril(-1) + torch.diag(self.log_cholesky.diagonal().exp())

    def preconditioner(self) -> Float[Tensor, "d d"]:
        """Return P = L Lᵀ."""
        factor = self.factor()
        return factor @ factor.mT

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        factor = self.factor()
        return -(gradient @ factor) @ factor.mT

    def linearized(self, t: Float[Tensor, "m *time"], states: Float[Tensor, "m *batch d"]) -> Linearized | None:
        """Return dx/dt at m states, and products with its Jacobian -∇²f(x) L Lᵀ (see `GradientDrivenFlow`)."""
        if not self._is_as_defined() or type(self).response is not DensePreconditionedFlow.response:
            return None
        points = states.detach()
        with torch.enable_grad():
            slopes = self(t, points)
        factor = self.factor().detach()

        def pull_back(index: int, cotangent: Tensor) -> Tensor:
            return -self.objective.hessian_vector_product(points[index], (cotangent @ factor) @ factor.mT)

        return Linearized(slopes, pull_back)


class PreconditionedFlow(GradientDrivenFlow):
    """dx/dt = -diag(P(x, ∇f(x), t; θ)) ∇f(x) (eq. 4).

    The limit of x - h diag(P(x, ∇f(x), k h; θ)) ∇f(x), a learned optimizer of this form.

    Parameters
    ----------
    objective
        f.
    preconditioner
        P: maps (x, g, t), with x and g of shape (*batch, d) and t of shape () or (*batch, 1), to a positive
        diagonal of shape (*batch, d); its parameters are θ.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = PreconditionedFlow(DiagonalQuadratic([1.0, 4.0]), CoordinatewisePreconditioner(2))
    >>> flow(torch.tensor(0.0), torch.zeros(2)).abs().tolist()
    [0.0, 0.0]
    """

    def __init__(self, objective: Objective, preconditioner: nn.Module) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        self.preconditioner = preconditioner

    @property
    def coordinatewise(self) -> bool:  # type: ignore[override]
        """Whether P is known to work coordinate by coordinate."""
        return type(self.preconditioner) is CoordinatewisePreconditioner

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return dx/dt at t of shape () or (*batch, 1)."""
        return -self.preconditioner(state, gradient, t) * gradient


class CoordinatewisePreconditioner(nn.Module):
    """A tiny network per coordinate: P_i = exp(Σ_j v_ij tanh(w^x_ij x_i + w^g_ij g_i + w^t_ij t + b_ij)).

    The paper's experiments have a preconditioner with "10 d learnable parameters" and do not specify it.
    This one is our choice: with two hidden units, each coordinate has 3·2 input weights, 2 biases and 2
    output weights.  The exponential keeps it positive and within exp(±Σ_j |v_ij|).

    Parameters
    ----------
    dimension
        d.
    hidden
        Hidden units per coordinate; the parameters number 5·hidden·d.
    scale
        Standard deviation of the normal distribution that all parameters are drawn from, at least 0.
    seed
        Seed of that draw; the same numbers, up to rounding, in every dtype and on every device.
    dtype, device
        Where the parameters go; PyTorch's defaults if not given.

    Raises
    ------
    ValueError
        If ``dimension`` or ``hidden`` is not a positive integer, or ``scale`` is negative.

    Examples
    --------
    >>> preconditioner = CoordinatewisePreconditioner(100)
    >>> sum(parameter.numel() for parameter in preconditioner.parameters())
    1000
    >>> x, gradient = torch.zeros(7, 100), torch.ones(7, 100)
    >>> preconditioner(x, gradient, torch.tensor(0.0)).shape
    torch.Size([7, 100])
    """

    def __init__(
        self,
        dimension: int,
        hidden: int = 2,
        *,
        scale: float = 0.1,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        shape = (5, check_count("hidden", hidden), check_count("dimension", dimension))
        check_positive("scale", scale, allow_zero=True)
        draws = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        # Coordinates come last, so that every operation runs over contiguous memory.
        weight_x, weight_g, weight_t, bias, readout = draws.to(
            dtype=dtype or torch.get_default_dtype(), device=device
        ).unbind()
        self.weight_x = nn.Parameter(weight_x.clone())
        self.weight_g = nn.Parameter(weight_g.clone())
        self.weight_t = nn.Parameter(weight_t.clone())
        self.bias = nn.Parameter(bias.clone())
        self.readout = nn.Parameter(readout.clone())

    def forward(
        self, x: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"], t: Float[Tensor, "*time"]
    ) -> Float[Tensor, "*batch d"]:
        """Return the diagonal of the preconditioner at t of shape () or (*batch, 1)."""
        # The axis before the last is that of the hidden units: (*batch, hidden, d).
        hidden = torch.addcmul(self.bias, self.weight_t, t.unsqueeze(-1))
        hidden = torch.addcmul(hidden, self.weight_x, x.unsqueeze(-2))
        hidden = torch.addcmul(hidden, self.weight_g, gradient.unsqueeze(-2))
        return torch.linalg.vecdot(self.readout, torch.tanh(hidden), dim=-2).exp()
