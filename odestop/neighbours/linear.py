"""Matrix-free linear solves for implicit differentiation: batches of systems, each with a status of its own."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from odestop._validation import check_count, check_positive


class LinearStatus(enum.Enum):
    """Outcome of one linear solve; the value says it in words."""

    CONVERGED = "the residual met the tolerance"
    NOT_CONVERGED = "the iterations ran out before the residual met the tolerance"
    BREAKDOWN = (
        "conjugate gradient met a direction p with pᵀAp <= 0, so the matrix is not symmetric positive definite; "
        "solver='gmres' does not need that"
    )
    SINGULAR = "the matrix is singular to working precision and the system has no solution or many"
    NON_FINITE = "the matrix or the right-hand side holds non-finite numbers"

    @property
    def code(self) -> int:
        """Position in the enumeration: how a tensor of statuses stores it."""
        return _MEMBERS.index(self)

    @property
    def has_solution(self) -> bool:
        """Whether the numbers that came out are an approximation of the solution, if a rough one."""
        return self in (LinearStatus.CONVERGED, LinearStatus.NOT_CONVERGED)


_MEMBERS = tuple(LinearStatus)
_BREAKDOWN, _CONVERGED = LinearStatus.BREAKDOWN.code, LinearStatus.CONVERGED.code


@dataclass
class LinearSystem:
    """A batch of square matrices A, known by their products alone, which it counts.

    Attributes
    ----------
    forward
        u -> A u, between tensors of shape (*batch, d), for every member of the batch at once.
    transposed
        p -> Aᵀ p, likewise.
    products
        Products so far, of either kind.
    """

    forward: Callable[[Tensor], Tensor]
    transposed: Callable[[Tensor], Tensor]
    products: int = 0

    def product(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return A u."""
        self.products += 1
        return self.forward(u)

    def transposed_product(self, p: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return Aᵀ p."""
        self.products += 1
        return self.transposed(p)


@dataclass(frozen=True)
class LinearSolution:
    """What came out of a batch of linear systems A u = b.

    Attributes
    ----------
    solution
        u, shape (*batch, d); zero where the status has no solution.
    codes
        `LinearStatus.code` of each system, shape (*batch,).
    relative_residual
        ‖A u - b‖ / ‖b‖ of the iterate that the solver ended with, evaluated anew at the end, shape (*batch,); 0
        where b = 0.
    products
        Products with A or Aᵀ, each for the whole batch.
    """

    solution: Float[Tensor, "*batch d"]
    codes: Int[Tensor, "*batch"]
    relative_residual: Float[Tensor, "*batch"]
    products: int

    @property
    def status(self) -> LinearStatus | np.ndarray:
        """One `LinearStatus` for a single system, an object array of shape (*batch,) for a batch."""
        if self.codes.ndim == 0:
            return _MEMBERS[int(self.codes)]
        statuses = np.empty(self.codes.shape, dtype=object)
        for index in np.ndindex(*self.codes.shape):
            statuses[index] = _MEMBERS[int(self.codes[index])]
        return statuses

    @property
    def message(self) -> str:
        """The worst outcome in words and numbers."""
        worst = _MEMBERS[int(self.codes.max())]
        count = int((self.codes == worst.code).sum())
        return (
            f"{count} of {self.codes.numel()} linear systems: {worst.value} "
            f"(relative residual {self.relative_residual.max().item():.2g} after {self.products} products)"
        )


@runtime_checkable
class LinearSolver(Protocol):
    """Solves a batch of linear systems."""

    def solve(self, system: LinearSystem, right: Tensor) -> LinearSolution:
        """Return the solution of A u = ``right``, shape (*batch, d)."""
        ...


@dataclass(frozen=True)
class Dense:
    """Writes the matrix out, by d products, and solves by its singular values; for small d.

    A system is singular if σ_min ≤ d · eps · σ_max.

    Examples
    --------
    >>> system = LinearSystem(lambda u: 2 * u, lambda p: 2 * p)
    >>> Dense().solve(system, torch.ones(2)).solution
    tensor([0.5000, 0.5000])
    """

    def solve(self, system: LinearSystem, right: Float[Tensor, "*batch d"]) -> LinearSolution:
        """Return the solution; d products."""
        dimension = right.shape[-1]
        basis = torch.eye(dimension, dtype=right.dtype, device=right.device)
        matrix = torch.stack([system.product(vector.expand_as(right)) for vector in basis], dim=-1)
        finite = torch.isfinite(matrix).all(-1).all(-1) & torch.isfinite(right).all(-1)
        left, values, transposed = torch.linalg.svd(torch.where(finite[..., None, None], matrix, 0.0))
        right = torch.where(finite.unsqueeze(-1), right, 0.0)
        negligible = values <= dimension * torch.finfo(right.dtype).eps * values[..., :1]
        inverse = torch.where(negligible, 0.0, 1 / torch.where(negligible, 1.0, values))
        solution = (transposed.mT @ (inverse * (left.mT @ right.unsqueeze(-1)).squeeze(-1)).unsqueeze(-1)).squeeze(-1)
        residual = _relative((matrix @ solution.unsqueeze(-1)).squeeze(-1) - right, right)
        codes = torch.where(negligible.any(-1), LinearStatus.SINGULAR.code, LinearStatus.CONVERGED.code)
        return _finished(system, solution, torch.where(finite, codes, LinearStatus.NON_FINITE.code), residual)


@dataclass(frozen=True)
class _IterativeSolver:
    """What the iterative solvers have in common: when they stop."""

    tolerance: float | None = None
    max_iterations: int | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None:
            check_positive("tolerance", self.tolerance)
        if self.max_iterations is not None:
            check_count("max_iterations", self.max_iterations)

    def _limits(self, right: Float[Tensor, "*batch d"]) -> tuple[float, int]:
        """Return the tolerance and the iterations, with their defaults for the dtype and the dimension."""
        # Never fewer than a hundred: a bound that shrinks with d is zero for a single unknown.
        return (
            math.sqrt(torch.finfo(right.dtype).eps) if self.tolerance is None else self.tolerance,
            max(10 * right.shape[-1], 100) if self.max_iterations is None else self.max_iterations,
        )


@dataclass(frozen=True)
class ConjugateGradient(_IterativeSolver):
    """Conjugate gradient (Hestenes, Stiefel, 1952), for symmetric positive definite matrices.

    Parameters
    ----------
    tolerance
        Of the relative residual ‖A u - b‖ / ‖b‖; the root of the machine precision by default.
    max_iterations
        max(10 d, 100) by default.

    Raises
    ------
    ValueError
        If the tolerance is not positive, or the iterations are no count.

    Examples
    --------
    >>> indefinite = LinearSystem(lambda u: -u, lambda p: -p)
    >>> ConjugateGradient().solve(indefinite, torch.ones(1)).status.name
    'BREAKDOWN'
    """

    def solve(self, system: LinearSystem, right: Float[Tensor, "*batch d"]) -> LinearSolution:
        """Return the solution; a product per iteration, and one for the residual at the end."""
        tolerance, iterations = self._limits(right)
        rounding = right.shape[-1] * torch.finfo(right.dtype).eps
        solution, residual, direction = torch.zeros_like(right), right, right
        square, goal = _dot(right, right), tolerance * _norm(right)
        codes = _start(right)
        largest = torch.zeros_like(square)
        for _ in range(iterations):
            image = system.product(direction)
            curvature, length = _dot(direction, image), _norm(direction)
            stretch = _norm(image) / length
            largest = torch.fmax(largest, torch.where(length > 0, stretch, 0.0))
            running = codes == LinearStatus.NOT_CONVERGED.code
            codes = torch.where(running & (curvature <= rounding * length * _norm(image)), _BREAKDOWN, codes)
            codes = torch.where(running & (stretch <= rounding * largest), LinearStatus.SINGULAR.code, codes)
            codes = torch.where(running & ~torch.isfinite(curvature), LinearStatus.NON_FINITE.code, codes)
            running = (codes == LinearStatus.NOT_CONVERGED.code).unsqueeze(-1)
            step = (square / curvature).unsqueeze(-1)
            solution = torch.where(running, solution + step * direction, solution)
            residual = torch.where(running, residual - step * image, residual)
            following = _dot(residual, residual)
            codes = torch.where(running.squeeze(-1) & (following.sqrt() <= goal), _CONVERGED, codes)
            if not bool((codes == LinearStatus.NOT_CONVERGED.code).any()):
                break
            direction = residual + (following / square).unsqueeze(-1) * direction
            square = following
        return _verified(system, solution, right, codes, tolerance)


@dataclass(frozen=True)
class GMRES(_IterativeSolver):
    """Restarted GMRES (Saad, Schultz, 1986), for any non-singular matrix.

    Parameters
    ----------
    tolerance
        Of the relative residual ‖A u - b‖ / ‖b‖; the root of the machine precision by default.
    max_iterations
        max(10 d, 100) by default.
    restart
        Largest dimension of the Krylov space; a system needs up to this many vectors of memory.

    Raises
    ------
    ValueError
        If the tolerance is not positive, or the iterations or the restart are no count.

    Examples
    --------
    >>> rotation = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> system = LinearSystem(lambda u: u @ rotation.T, lambda p: p @ rotation)
    >>> GMRES().solve(system, torch.tensor([1.0, 2.0])).solution
    tensor([ 2., -1.])
    """

    restart: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("restart", self.restart)

    def solve(self, system: LinearSystem, right: Float[Tensor, "*batch d"]) -> LinearSolution:
        """Return the solution; a product per iteration, and one per cycle for the residual."""
        tolerance, iterations = self._limits(right)
        solution, residual, codes = torch.zeros_like(right), right, _start(right)
        taken = 0
        while taken < iterations and bool((codes == LinearStatus.NOT_CONVERGED.code).any()):
            length = min(self.restart, right.shape[-1], iterations - taken)
            update, exhausted = self._cycle(system, residual, length, tolerance * _norm(right))
            running = codes == LinearStatus.NOT_CONVERGED.code
            solution = torch.where(running.unsqueeze(-1), solution + update, solution)
            residual = right - system.product(solution)
            taken += length
            met = _norm(residual) <= tolerance * _norm(right)
            codes = torch.where(running & exhausted & ~met, LinearStatus.SINGULAR.code, codes)
            codes = torch.where(running & met, _CONVERGED, codes)
            codes = torch.where(running & ~torch.isfinite(residual).all(-1), LinearStatus.NON_FINITE.code, codes)
        return _finished(system, solution, codes, _relative(residual, right))

    @staticmethod
    def _cycle(
        system: LinearSystem, residual: Float[Tensor, "*batch d"], length: int, goal: Float[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch d"], Bool[Tensor, "*batch"]]:
        """Minimise the residual over a Krylov space; say as well where the space cannot grow any more."""
        start, rounding = _norm(residual), 100 * torch.finfo(residual.dtype).eps
        basis = [residual / torch.where(start > 0, start, 1.0).unsqueeze(-1)]
        columns = residual.new_zeros((*residual.shape[:-1], length + 1, length))
        exhausted = torch.zeros_like(start, dtype=torch.bool)
        for j in range(length):
            image = system.product(basis[j])
            before = _norm(image)
            columns[..., : j + 1, j], image = _orthogonalised(image, basis)
            height = _norm(image)
            broken = ~torch.isfinite(columns[..., : j + 1]).all(-1).all(-1) | ~torch.isfinite(height)
            exhausted = exhausted | broken | (height <= rounding * before) | (j + 1 == residual.shape[-1])
            columns[..., j + 1, j] = torch.where(exhausted, 0.0, height)
            # Those that hold non-finite numbers must not keep the others from their solution.
            small = torch.where(broken[..., None, None], 0.0, columns[..., : j + 2, : j + 1])
            weights, left = _least_squares(small, torch.where(broken, 0.0, start))
            if bool(((left <= goal / 2) | exhausted).all()):
                break
            basis.append(torch.where(exhausted, 0.0, 1 / height).unsqueeze(-1) * image)
        update = sum(weights[..., i : i + 1] * basis[i] for i in range(j + 1))
        assert isinstance(update, Tensor)
        return torch.where(broken.unsqueeze(-1), math.nan, update), exhausted


@dataclass(frozen=True)
class NormalEquations(_IterativeSolver):
    """Conjugate gradient on AᵀA u = Aᵀb (CGLS), for matrices that are not symmetric; its memory is four vectors.

    It takes two products per iteration, and as many iterations as the square of the condition number asks for.

    Parameters
    ----------
    tolerance
        Of the relative residual ‖A u - b‖ / ‖b‖; the root of the machine precision by default.
    max_iterations
        max(10 d, 100) by default.

    Raises
    ------
    ValueError
        If the tolerance is not positive, or the iterations are no count.

    Examples
    --------
    >>> shift = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    >>> system = LinearSystem(lambda u: u @ shift.T, lambda p: p @ shift)
    >>> NormalEquations().solve(system, torch.tensor([2.0, 3.0])).solution
    tensor([3., 1.])
    """

    def solve(self, system: LinearSystem, right: Float[Tensor, "*batch d"]) -> LinearSolution:
        """Return the solution; two products per iteration."""
        tolerance, iterations = self._limits(right)
        rounding = 100 * torch.finfo(right.dtype).eps
        solution, residual, codes = torch.zeros_like(right), right, _start(right)
        slope = system.transposed_product(residual)
        direction, square, goal = slope, _dot(slope, slope), tolerance * _norm(right)
        largest = torch.zeros_like(square)
        for _ in range(iterations):
            image = system.product(direction)
            largest = torch.fmax(largest, _norm(image) / _norm(direction))
            running = codes == LinearStatus.NOT_CONVERGED.code
            # A residual that is orthogonal to the range of A cannot be reduced.
            stuck = square.sqrt() <= rounding * largest.nan_to_num() * _norm(residual)
            codes = torch.where(running & stuck, LinearStatus.SINGULAR.code, codes)
            step = (square / _dot(image, image)).unsqueeze(-1)
            finite = torch.isfinite(square) & torch.isfinite(image).all(-1)
            codes = torch.where(running & ~finite, LinearStatus.NON_FINITE.code, codes)
            running = (codes == LinearStatus.NOT_CONVERGED.code).unsqueeze(-1)
            solution = torch.where(running, solution + step * direction, solution)
            residual = torch.where(running, residual - step * image, residual)
            codes = torch.where(running.squeeze(-1) & (_norm(residual) <= goal), _CONVERGED, codes)
            if not bool((codes == LinearStatus.NOT_CONVERGED.code).any()):
                break
            slope = system.transposed_product(residual)
            following = _dot(slope, slope)
            direction = slope + (following / square).unsqueeze(-1) * direction
            square = following
        return _verified(system, solution, right, codes, tolerance)


def _orthogonalised(image: Tensor, basis: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the components of a vector along an orthonormal basis, shape (*batch, len(basis)), and what is left."""
    components = image.new_zeros((*image.shape[:-1], len(basis)))
    # Twice, because once leaves the basis orthogonal to half of the digits only.
    for _ in range(2):
        for index, vector in enumerate(basis):
            overlap = _dot(vector, image)
            components[..., index] += overlap
            image = image - overlap.unsqueeze(-1) * vector
    return components, image


def _least_squares(matrix: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise ‖matrix w - (first, 0, …, 0)‖; return w and the minimum."""
    right = torch.zeros_like(matrix[..., 0])
    right[..., 0] = first
    weights = (torch.linalg.pinv(matrix) @ right.unsqueeze(-1)).squeeze(-1)
    return weights, _norm(right - (matrix @ weights.unsqueeze(-1)).squeeze(-1))


def _start(right: Tensor) -> Tensor:
    """Return the codes before the first iteration: a right-hand side of zero needs none."""
    codes = torch.where((right == 0).all(-1), _CONVERGED, LinearStatus.NOT_CONVERGED.code)
    return torch.where(torch.isfinite(right).all(-1), codes, LinearStatus.NON_FINITE.code)


def _verified(system: LinearSystem, solution: Tensor, right: Tensor, codes: Tensor, tolerance: float) -> LinearSolution:
    """Evaluate the residual anew: the recursion for it drifts, and is wrong if the matrix is not symmetric."""
    residual = _relative(system.product(solution) - right, right)
    wrong = (codes == _CONVERGED) & (residual > 10 * tolerance)
    return _finished(system, solution, torch.where(wrong, LinearStatus.NOT_CONVERGED.code, codes), residual)


def _finished(system: LinearSystem, solution: Tensor, codes: Tensor, residual: Tensor) -> LinearSolution:
    usable = torch.isin(codes, torch.tensor([status.code for status in LinearStatus if status.has_solution]).to(codes))
    return LinearSolution(torch.where(usable.unsqueeze(-1), solution, 0.0), codes, residual, system.products)


def _relative(residual: Tensor, right: Tensor) -> Tensor:
    size = _norm(right)
    return torch.where(size > 0, _norm(residual) / size, 0.0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def _norm(a: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a, dim=-1)


DENSE_UP_TO = 128
"""The dimension up to which ``"auto"`` writes the matrix out."""

_ALIASES: dict[str, LinearSolver] = {
    "dense": Dense(),
    "cg": ConjugateGradient(),
    "gmres": GMRES(),
    "normal": NormalEquations(),
}


def resolve_solver(solver: str | LinearSolver, dimension: int) -> LinearSolver:
    """Return the solver behind a string alias; an object passes through."""
    if isinstance(solver, str) and solver == "auto":
        return _ALIASES["dense" if dimension <= DENSE_UP_TO else "gmres"]
    if isinstance(solver, str) and solver in _ALIASES:
        return _ALIASES[solver]
    if isinstance(solver, str) or not isinstance(solver, LinearSolver):
        accepted = ", ".join(map(repr, ("auto", *_ALIASES)))
        raise ValueError(f"solver must be one of {accepted} or a LinearSolver object, got {solver!r}")
    return solver
