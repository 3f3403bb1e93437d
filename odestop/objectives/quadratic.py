"""Convex quadratics with a known spectrum: dense, diagonal, and matrix-free for large dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_count, check_positive
from odestop.objectives.base import Objective, register_value
from odestop.objectives.finite_sum import predictions, pulled_back


class QuadraticForm(Objective):
    """f(x) = ½ (x - x*)ᵀ Q (x - x*) with Q = V diag(eigenvalues) Vᵀ and V orthogonal.

    The base of the quadratics below, which differ in how they store Q.  ``smoothness`` and
    ``strong_convexity`` are the extreme eigenvalues at construction.

    Parameters
    ----------
    eigenvalues
        Eigenvalues of Q, at least 0, shape (d,).  `Quadratic` takes several problems at once, of shape (problems, d)
        (see `Objective.problems`).
    minimizer
        x*, in the shape of the eigenvalues; the origin by default.

    Attributes
    ----------
    eigenvalues
        Eigenvalues of Q in the order of the columns of V, shape (d,).

    Raises
    ------
    ValueError
        If the eigenvalues are not a vector of finite, non-negative numbers, or a shape does not match.
    """

    eigenvalues: Tensor
    minimizer: Tensor
    _takes_several_problems = False

    def __init__(self, eigenvalues: Tensor, minimizer: Tensor | None = None) -> None:
        several = self._takes_several_problems and eigenvalues.ndim == 2
        _check_eigenvalues(eigenvalues, several)
        if minimizer is None:
            minimizer = torch.zeros_like(eigenvalues, requires_grad=False)
        elif minimizer.shape != eigenvalues.shape:
            raise ValueError(
                f"minimizer must have shape {tuple(eigenvalues.shape)} of the eigenvalues, got {tuple(minimizer.shape)}"
            )
        low, high = torch.aminmax(eigenvalues.detach(), dim=-1)
        super().__init__(
            dimension=eigenvalues.shape[-1],
            minimum=0.0,
            minimizer=minimizer.to(eigenvalues),
            smoothness=high if several else float(high),
            strong_convexity=low if several else float(low),
        )
        self._several_problems = several
        register_value(self, "eigenvalues", eigenvalues)

    def to_eigenbasis(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return Vᵀ x: the coordinates of x along the eigenvectors."""
        raise NotImplementedError

    def from_eigenbasis(self, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return V y: the point with coordinates y along the eigenvectors."""
        raise NotImplementedError

    def multiply(self, v: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return Q v."""
        return self.from_eigenbasis(self.eigenvalues * self.to_eigenbasis(v))

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        displacement = x - self.minimizer
        return 0.5 * (displacement * self.multiply(displacement)).sum(-1)

    def _gradient(self, x: Tensor) -> Tensor:
        return self.multiply(x - self.minimizer)

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        return self.multiply(v)


class Quadratic(QuadraticForm):
    """f(x) = ½ (x - x*)ᵀ Q (x - x*) with a dense matrix Q.

    Parameters
    ----------
    matrix
        Q, symmetric and positive semidefinite, shape (d, d); or (problems, d, d) for several problems at once (see
        `Objective.problems`).
    minimizer
        x*, shape (d,) or (problems, d); the origin by default.
    eigendecomposition
        Eigenvalues, shape (d,) or (problems, d), and orthonormal eigenvectors as columns, in the shape of Q; computed
        if not given.

    Raises
    ------
    ValueError
        If ``matrix`` is not square, finite, symmetric and positive semidefinite up to rounding.

    Examples
    --------
    >>> quadratic = Quadratic(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> quadratic(torch.tensor([1.0, -1.0]))
    tensor(1.)
    >>> quadratic.gradient(torch.tensor([1.0, -1.0]))
    tensor([ 1., -1.])
    """

    matrix: Tensor
    eigenvectors: Tensor
    _takes_several_problems = True

    def __init__(
        self,
        matrix: Tensor,
        minimizer: Tensor | None = None,
        *,
        eigendecomposition: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        _check_symmetric(matrix)
        if eigendecomposition is None:
            eigenvalues, eigenvectors = torch.linalg.eigh(matrix.detach())
            eigenvalues = _without_rounding_below_zero(eigenvalues)
        else:
            eigenvalues, eigenvectors = eigendecomposition
        super().__init__(eigenvalues, minimizer)
        register_value(self, "matrix", matrix)
        register_value(self, "eigenvectors", eigenvectors)

    @classmethod
    def with_spectrum(
        cls,
        eigenvalues: Tensor | Sequence[float],
        seed: int,
        *,
        minimizer: Tensor | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Quadratic:
        """Draw Q with these eigenvalues and uniformly random eigenvectors.

        The same seed gives the same Q, up to rounding, in every dtype and on every device.

        Examples
        --------
        >>> quadratic = Quadratic.with_spectrum([1.0, 4.0, 9.0], seed=0, dtype=torch.float64)
        >>> torch.linalg.eigvalsh(quadratic.matrix)
        tensor([1.0000, 4.0000, 9.0000], dtype=torch.float64)
        """
        spectrum = _as_spectrum(eigenvalues, dtype, device)
        basis = _random_orthogonal_matrix(len(spectrum), seed).to(spectrum)
        product = (basis * spectrum.detach()) @ basis.mT
        return cls((product + product.mT) / 2, minimizer, eigendecomposition=(spectrum.detach(), basis))

    @classmethod
    def with_condition_number(
        cls,
        dimension: int,
        condition_number: float,
        seed: int,
        *,
        smoothness: float = 1.0,
        minimizer: Tensor | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Quadratic:
        """Draw Q with eigenvalues spaced logarithmically from smoothness / condition_number to smoothness.

        Examples
        --------
        >>> Quadratic.with_condition_number(3, 100.0, seed=0).eigenvalues
        tensor([0.0100, 0.1000, 1.0000])
        """
        eigenvalues = log_spaced_spectrum(dimension, condition_number, smoothness, dtype=dtype, device=device)
        return cls.with_spectrum(eigenvalues, seed, minimizer=minimizer)

    def to_eigenbasis(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return Vᵀ x: the coordinates of x along the eigenvectors."""
        return pulled_back(self.eigenvectors, x)

    def from_eigenbasis(self, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return V y: the point with coordinates y along the eigenvectors."""
        return predictions(self.eigenvectors, y)

    def multiply(self, v: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return Q v."""
        return pulled_back(self.matrix, v)


class DiagonalQuadratic(QuadraticForm):
    """f(x) = ½ Σ_i q_i (x_i - x*_i)².

    Parameters
    ----------
    eigenvalues
        q, the diagonal of Q, shape (d,); the paper's Fig. 1 has (1, 4).
    minimizer
        x*, shape (d,); the origin by default.
    dtype, device
        Where the eigenvalues go; their own by default.

    Raises
    ------
    ValueError
        If the eigenvalues are not a vector of finite, non-negative numbers, or a shape does not match.

    Examples
    --------
    >>> figure_1 = DiagonalQuadratic([1.0, 4.0])
    >>> figure_1(torch.tensor([2.0, 1.0]))
    tensor(4.)
    """

    def __init__(
        self,
        eigenvalues: Tensor | Sequence[float],
        minimizer: Tensor | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(_as_spectrum(eigenvalues, dtype, device), minimizer)

    def to_eigenbasis(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return x: the coordinate axes are the eigenvectors."""
        return x

    def from_eigenbasis(self, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return y: the coordinate axes are the eigenvectors."""
        return y


class HouseholderQuadratic(QuadraticForm):
    """f(x) = ½ (x - x*)ᵀ Q (x - x*), Q = H diag(eigenvalues) Hᵀ with H a product of Householder reflections.

    Memory and time are O(r d) for r reflections, so d = 10⁶ is possible.  Q is a diagonal matrix plus one of
    rank at most 2r: for d much larger than r it is close to diagonal, and a diagonal preconditioner has an
    easier task than on a `Quadratic` of the same spectrum.

    Parameters
    ----------
    eigenvalues
        Eigenvalues of Q, at least 0, shape (d,).
    reflectors
        Linearly independent vectors u_1, …, u_r as rows, shape (r, d);
        H = (I - 2 u_1 u_1ᵀ/‖u_1‖²) ⋯ (I - 2 u_r u_rᵀ/‖u_r‖²).
    minimizer
        x*, shape (d,); the origin by default.

    Raises
    ------
    ValueError
        If the eigenvalues are not a vector of finite, non-negative numbers, or a shape does not match.

    Examples
    --------
    >>> quadratic = HouseholderQuadratic.with_condition_number(100_000, 100.0, seed=0)
    >>> x = quadratic.from_eigenbasis(torch.ones(100_000))
    >>> torch.testing.assert_close(quadratic.to_eigenbasis(quadratic.gradient(x)), quadratic.eigenvalues)
    """

    reflectors: Tensor
    combined_reflectors: Tensor

    def __init__(self, eigenvalues: Tensor, reflectors: Tensor, minimizer: Tensor | None = None) -> None:
        super().__init__(eigenvalues, minimizer)
        if reflectors.ndim != 2 or reflectors.shape[1] != len(eigenvalues):
            raise ValueError(
                f"reflectors must have shape (r, d) = (r, {len(eigenvalues)}), got {tuple(reflectors.shape)}"
            )
        unit = reflectors / reflectors.norm(dim=-1, keepdim=True)
        # Compact form of the product: H = I - Uᵀ T U, T upper triangular, with T⁻¹ = I/2 + striu(U Uᵀ).
        inverse = torch.triu(unit @ unit.mT, diagonal=1)
        inverse.diagonal().fill_(0.5)
        register_value(self, "reflectors", unit)
        register_value(self, "combined_reflectors", torch.linalg.solve_triangular(inverse, unit, upper=True))

    @classmethod
    def with_spectrum(
        cls,
        eigenvalues: Tensor | Sequence[float],
        seed: int,
        *,
        reflections: int = 3,
        minimizer: Tensor | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> HouseholderQuadratic:
        """Draw Q with these eigenvalues and random reflections.

        The same seed gives the same Q, up to rounding, in every dtype and on every device.

        Examples
        --------
        >>> HouseholderQuadratic.with_spectrum([1.0, 2.0, 3.0, 4.0], seed=0, reflections=2).reflectors.shape
        torch.Size([2, 4])
        """
        spectrum = _as_spectrum(eigenvalues, dtype, device)
        reflectors = _standard_normal((check_count("reflections", reflections), len(spectrum)), seed)
        return cls(spectrum, reflectors.to(device=spectrum.device, dtype=spectrum.dtype), minimizer)

    @classmethod
    def with_condition_number(
        cls,
        dimension: int,
        condition_number: float,
        seed: int,
        *,
        smoothness: float = 1.0,
        reflections: int = 3,
        minimizer: Tensor | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> HouseholderQuadratic:
        """Draw Q with eigenvalues spaced logarithmically from smoothness / condition_number to smoothness.

        Examples
        --------
        >>> HouseholderQuadratic.with_condition_number(3, 100.0, seed=0).eigenvalues
        tensor([0.0100, 0.1000, 1.0000])
        """
        eigenvalues = log_spaced_spectrum(dimension, condition_number, smoothness, dtype=dtype, device=device)
        return cls.with_spectrum(eigenvalues, seed, reflections=reflections, minimizer=minimizer)

    def to_eigenbasis(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return Hᵀ x: the coordinates of x along the eigenvectors."""
        return x - (x @ self.reflectors.mT) @ self.combined_reflectors

    def from_eigenbasis(self, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return H y: the point with coordinates y along the eigenvectors."""
        return y - (y @ self.combined_reflectors.mT) @ self.reflectors


def log_spaced_spectrum(
    dimension: int,
    condition_number: float,
    smoothness: float = 1.0,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Float[Tensor, " d"]:
    """Return d eigenvalues spaced logarithmically from smoothness / condition_number to smoothness.

    Raises
    ------
    ValueError
        If an argument is out of range, or one eigenvalue is asked to have a condition number above 1.

    Examples
    --------
    >>> log_spaced_spectrum(3, 100.0, smoothness=10.0)
    tensor([ 0.1000,  1.0000, 10.0000])
    """
    check_count("dimension", dimension)
    check_positive("smoothness", smoothness)
    check_positive("condition_number", condition_number)
    if condition_number < 1 or (dimension == 1 and condition_number != 1):
        raise ValueError(
            f"condition_number must be at least 1, and exactly 1 for dimension 1, got {condition_number!r} "
            f"for dimension {dimension}"
        )
    exponents = torch.linspace(-1.0, 0.0, dimension, dtype=torch.float64, device=device)
    return (smoothness * condition_number**exponents).to(dtype or torch.get_default_dtype())


def _as_spectrum(
    eigenvalues: Tensor | Sequence[float], dtype: torch.dtype | None, device: torch.device | str | None
) -> Tensor:
    """Eigenvalues as a checked tensor; plain numbers get the default dtype, a tensor keeps its own."""
    if dtype is None and not isinstance(eigenvalues, Tensor):
        dtype = torch.get_default_dtype()
    spectrum = torch.as_tensor(eigenvalues, dtype=dtype, device=device)
    _check_eigenvalues(spectrum)
    return spectrum


def _check_eigenvalues(eigenvalues: Tensor, several: bool = False) -> None:
    if not eigenvalues.is_floating_point() or eigenvalues.ndim != 1 + several or eigenvalues.numel() == 0:
        shape = "(problems, d)" if several else "(d,)"
        raise ValueError(
            f"eigenvalues must be real floating-point numbers of shape {shape} with d >= 1, "
            f"got {eigenvalues.dtype} of shape {tuple(eigenvalues.shape)}"
        )
    if not bool(((eigenvalues >= 0) & torch.isfinite(eigenvalues)).all()):
        raise ValueError(f"eigenvalues must be finite and at least 0, got {eigenvalues.detach()}")


def _check_symmetric(matrix: Tensor) -> None:
    if not matrix.is_floating_point() or matrix.ndim not in (2, 3) or matrix.shape[-2] != matrix.shape[-1]:
        raise ValueError(
            "matrix must be real floating-point numbers of shape (d, d) or (problems, d, d), "
            f"got {matrix.dtype} of shape {tuple(matrix.shape)}"
        )
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("matrix must be finite, got non-finite entries")
    asymmetry = (matrix - matrix.mT).abs().max()
    if bool(asymmetry > _rounding(matrix)):
        raise ValueError(f"matrix must be symmetric, got max |Q - Qᵀ| = {float(asymmetry):.3g}")


def _without_rounding_below_zero(eigenvalues: Tensor) -> Tensor:
    """Raise eigenvalues that rounding pushed below 0 to 0; refuse those that are truly negative."""
    if bool(eigenvalues.min() < -_rounding(eigenvalues)):
        raise ValueError(
            f"matrix must be positive semidefinite, got smallest eigenvalue {float(eigenvalues.min()):.3g}"
        )
    return eigenvalues.clamp(min=0)


def _rounding(values: Tensor) -> Tensor:
    """Size of rounding errors in a matrix of these entries, or of these eigenvalues."""
    return 10 * values.shape[-1] * torch.finfo(values.dtype).eps * values.detach().abs().max()


def _random_orthogonal_matrix(dimension: int, seed: int) -> Tensor:
    """Draw an orthogonal matrix uniformly: the QR factor of a Gaussian matrix, signs set by R."""
    orthogonal, triangular = torch.linalg.qr(_standard_normal((dimension, dimension), seed))
    return orthogonal * triangular.diagonal().sign()


def _standard_normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw standard normal numbers in float64 on the CPU, whatever the problem's own dtype and device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
