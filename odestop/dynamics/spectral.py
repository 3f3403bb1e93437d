"""Spectral flow of matrix variables: the continuous Muon."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop._validation import check_count
from odestop.dynamics._hyperparameters import at_trajectories, register_number
from odestop.objectives.base import Objective, check_objective


class SpectralFlow(nn.Module):
    """dX/dt = -G (GᵀG + s² I)^(-1/2), the orthogonalised gradient: singular values σ of G become σ/√(σ² + s²).

    The limit of Muon (Jordan et al., 2024) without momentum, X - h U Vᵀ for G = U Σ Vᵀ, as the learning rate h and s
    go to 0; Muon itself replaces each singular value by one near 1, by five Newton-Schulz iterations.  For s → 0 it
    is steepest descent in the spectral norm (Bernstein, Newhouse, 2024).  A single row or column is normalised,
    g/√(‖g‖² + s²).  On ½ ‖X - X*‖² the singular vectors of X - X* are fixed and each singular value σ falls at the
    rate σ/√(σ² + s²): linearly for s → 0, when it is discontinuous at 0, so stop above.

    The inverse root is exact, for all s > 0, and so are its first and second derivatives, at repeated singular values
    too: unlike those of an eigendecomposition, they have no differences of eigenvalues in a denominator.  Directions
    in which σ and s are both below √(machine epsilon) times the largest σ are lost in GᵀG.

    Parameters
    ----------
    objective
        f, of vectors x = vec(X): the rows of X one after the other.
    shape
        (rows, columns) of X.
    smoothing
        s > 0, a number or a tensor of shape () or (*batch,); differentiable.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, ``shape`` does not match its dimension, or the smoothing is not
        positive.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = SpectralFlow(DiagonalQuadratic([1.0] * 4), shape=(2, 2), smoothing=0.75)
    >>> flow(torch.tensor(0.0), torch.tensor([1.0, 0.0, 0.0, 0.0])).detach()
    tensor([-0.8000, -0.0000, -0.0000, -0.0000])
    """

    smoothing: Tensor

    def __init__(self, objective: Objective, shape: tuple[int, int], smoothing: float | int | Tensor = 1e-2) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        self.shape = (check_count("shape[0]", shape[0]), check_count("shape[1]", shape[1]))
        if objective.dimension not in (None, shape[0] * shape[1]):
            raise ValueError(
                f"shape must be (rows, columns) with rows · columns = {objective.dimension}, got {self.shape}"
            )
        register_number(self, "smoothing", smoothing)

    def forward(self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        gradient = self.objective.gradient(x).unflatten(-1, self.shape)
        # The smaller of GᵀG and GGᵀ will do.
        tall = gradient if self.shape[0] >= self.shape[1] else gradient.mT
        gram, eye = tall.mT @ tall, torch.eye(min(self.shape), dtype=x.dtype, device=x.device)
        variance = at_trajectories(self.smoothing, x) ** 2
        root = _square_root(gram + (variance if variance.ndim == 0 else variance.unsqueeze(-1)) * eye)
        direction = torch.linalg.solve(root, tall, left=False)
        return -(direction if tall is gradient else direction.mT).flatten(-2)


def _square_root(matrix: Tensor) -> Tensor:
    """Square root of positive definite matrices by Newton's method on Y² = A, from the root without its derivatives.

    From there Newton's first correction has the right first derivative, and the second one the right second derivative
    as well; both are zero up to rounding.  Each solves Y Δ + Δ Y = A - Y² in the eigenbasis, where it is a division by
    sums of the roots of eigenvalues.
    """
    eigenvalues, basis = torch.linalg.eigh(matrix.detach())
    roots = eigenvalues.clamp_min(torch.finfo(matrix.dtype).tiny).sqrt()
    sums = roots.unsqueeze(-1) + roots.unsqueeze(-2)
    root = (basis * roots.unsqueeze(-2)) @ basis.mT
    for _ in range(2):
        residual = basis.mT @ (matrix - root @ root) @ basis
        root = root + basis @ (residual / sums) @ basis.mT
    return root
