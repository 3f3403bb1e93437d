"""Distributions of problems that optimizers are trained and tested on, drawn in batches.

A batch is one `Objective` of many problems of one size, with data of a leading dimension: x has shape (batch, d), and
f(x) shape (batch,), each problem at its own point (see `odestop.objectives.Objective.problems`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from odestop._validation import check_count, check_positive
from odestop.objectives import Lasso, LogisticRegression, Objective, Quadratic
from odestop.objectives.base import register_value


class Batch(NamedTuple):
    """Problems of a distribution.

    Attributes
    ----------
    objective
        f of all problems, with the smoothness L of each, shape (batch,).
    x0
        Where to start, shape (batch, d).
    """

    objective: Objective
    x0: Tensor


@dataclass(frozen=True)
class ProblemDistribution(ABC):
    """A distribution of problems of one dimension; a dataclass whose fields have defaults.

    Parameters
    ----------
    dimension
        d.
    """

    dimension: int

    @abstractmethod
    def sample(self, batch: int, generator: torch.Generator, *, dtype: torch.dtype | None = None) -> Batch:
        """Draw independent problems.

        Random numbers are drawn in float32 on the generator's device, whatever the dtype: the problems of a seed are
        the same in every dtype, up to rounding, and differ between a CPU and a GPU.

        Parameters
        ----------
        batch
            Number of problems.
        generator
            Source of random numbers; the problems are on its device.
        dtype
            Of the problems; PyTorch's default if not given.

        Raises
        ------
        ValueError
            If ``batch`` is not a positive integer.
        """


@dataclass(frozen=True)
class LogisticProblems(ProblemDistribution):
    """Synthetic logistic regression, as in section 5 of arXiv 2505.22509: f(x) = 1/n Σ_i log(1 + exp(-y_i w_iᵀ x)).

    The features W are standard normal, the labels those of a sparse x*, y = sign(W x*), a few of them flipped.  The
    paper gives d = 512 and n = 256, and leaves the rest open.  Here x* has ⌈density · d⌉ standard normal entries in
    random places, and ⌊flipped · n⌋ random labels are flipped, the same number in every problem.  The start is x = 0,
    as in the benchmark of Liu et al. (2023, "Towards constituting mathematical structures for learning to optimize").

    For n ≤ d, as in the paper, *any* labels can be separated: the rows w_i are linearly independent.  The infimum of f
    is then 0 and not attained, f falls forever, and ``objective.minimum`` is 0.

    Parameters
    ----------
    dimension
        d.
    samples
        n.
    density
        Share of the entries of x* that are not 0, above 0 and at most 1.
    flipped
        Share of flipped labels, at least 0 and below 1.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> distribution = LogisticProblems(dimension=20, samples=10)
    >>> objective, x0 = distribution.sample(64, torch.Generator().manual_seed(0))
    >>> objective(x0).shape, objective.gradient(x0).shape, objective.smoothness.shape
    (torch.Size([64]), torch.Size([64, 20]), torch.Size([64]))
    """

    dimension: int = 512
    samples: int = 256
    density: float | int = 0.1
    flipped: float | int = 0.05

    def __post_init__(self) -> None:
        check_count("dimension", self.dimension)
        check_count("samples", self.samples)
        _check_share("density", self.density, forbidden=0.0)
        _check_share("flipped", self.flipped, forbidden=1.0)

    def sample(self, batch: int, generator: torch.Generator, *, dtype: torch.dtype | None = None) -> Batch:
        """Draw independent problems; see `ProblemDistribution.sample`."""
        features = _normal((check_count("batch", batch), self.samples, self.dimension), generator)
        truth = _sparse_normal(batch, self.dimension, self.density, generator)
        labels = torch.where((features @ truth.unsqueeze(-1)).squeeze(-1) < 0, -1.0, 1.0)
        flips = _random_places(batch, self.samples, int(self.flipped * self.samples), generator)
        objective = LogisticRegression(_to(features, dtype), labels.scatter(-1, flips, -labels.gather(-1, flips)))
        if self.samples <= self.dimension:
            objective.minimum = 0.0
        return Batch(objective, torch.zeros_like(objective.features[:, 0]))


@dataclass(frozen=True)
class LassoProblems(ProblemDistribution):
    """f(x) = 1/(2n) ‖A x - b‖² + λ ‖x‖₁ with standard normal A, b = A x*, and x* as in `LogisticProblems`.

    As in the benchmark of Liu et al. (2023), whose columns of norm 1 without the factor 1/n come to the same scaling.
    Learned optimizers get the `SubgradientLasso`, since they ask for gradients.

    Parameters
    ----------
    dimension
        d.
    samples
        n.
    density
        Share of the entries of x* that are not 0, above 0 and at most 1.
    regularization
        λ >= 0.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> distribution = LassoProblems(dimension=20, samples=10)
    >>> objective, x0 = distribution.sample(64, torch.Generator().manual_seed(0))
    >>> objective.gradient(x0).shape
    torch.Size([64, 20])
    """

    dimension: int = 512
    samples: int = 256
    density: float | int = 0.1
    regularization: float | int = 0.1

    def __post_init__(self) -> None:
        check_count("dimension", self.dimension)
        check_count("samples", self.samples)
        _check_share("density", self.density, forbidden=0.0)
        check_positive("regularization", self.regularization, allow_zero=True)

    def sample(self, batch: int, generator: torch.Generator, *, dtype: torch.dtype | None = None) -> Batch:
        """Draw independent problems; see `ProblemDistribution.sample`."""
        features = _to(_normal((check_count("batch", batch), self.samples, self.dimension), generator), dtype)
        truth = _to(_sparse_normal(batch, self.dimension, self.density, generator), dtype)
        objective = SubgradientLasso(features, (features @ truth.unsqueeze(-1)).squeeze(-1), self.regularization)
        return Batch(objective, torch.zeros_like(truth))


class SubgradientLasso(Lasso):
    """The lasso with a subgradient for optimizers that know gradients only: ∇g(x) + λ sign(x), with sign(0) = 0.

    It is what automatic differentiation of f gives, and what the learned optimizers without a proximal operator are
    given in the literature (Liu et al., 2023).  A method with steps of fixed size in its direction does not converge to
    the zeros of the minimizer, it oscillates about them.

    ``smoothness`` is that of the smooth part g, for steps of size 1/L.

    Parameters
    ----------
    features, targets, regularization
        A, b and λ, as in `odestop.objectives.Lasso`.

    Examples
    --------
    >>> lasso = SubgradientLasso(torch.eye(2), torch.tensor([3.0, 0.5]), regularization=0.5)
    >>> lasso.gradient(torch.tensor([1.0, 0.0]))
    tensor([-0.5000, -0.2500])
    """

    def __init__(self, features: Tensor, targets: Tensor, regularization: float | int | Tensor) -> None:
        super().__init__(features, targets, regularization)
        del self.smoothness
        register_value(self, "smoothness", self.smooth.smoothness)

    def _gradient(self, x: Tensor) -> Tensor:
        return self.smooth.gradient(x) + self._penalty_slope(x)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(x) and a subgradient, from one product A x."""
        value, gradient = self.smooth.value_and_gradient(x)
        return value + self.penalty(x), gradient + self._penalty_slope(x)

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        return self.smooth.hessian_vector_product(x, v)

    def _penalty_slope(self, x: Tensor) -> Tensor:
        weight = torch.as_tensor(self.regularization, dtype=x.dtype, device=x.device)
        return (weight if weight.ndim == 0 else weight.unsqueeze(-1)) * torch.sign(x)


@dataclass(frozen=True)
class QuadraticProblems(ProblemDistribution):
    """f(x) = ½ (x - x*)ᵀ Q (x - x*), each problem with its own condition number.

    The condition number is drawn log-uniformly from a range, the eigenvalues are spaced logarithmically up to L = 1,
    the eigenvectors are uniformly random, x* is standard normal, and the start is x = 0.

    Parameters
    ----------
    dimension
        d.
    smallest_condition, largest_condition
        Ends of the range, at least 1, in this order.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> distribution = QuadraticProblems(dimension=20, smallest_condition=10, largest_condition=1000)
    >>> objective, x0 = distribution.sample(3, torch.Generator().manual_seed(0))
    >>> condition = objective.smoothness / objective.strong_convexity
    >>> bool(((condition > 10) & (condition < 1000)).all())
    True
    """

    dimension: int = 128
    smallest_condition: float | int = 10.0
    largest_condition: float | int = 1000.0

    def __post_init__(self) -> None:
        check_count("dimension", self.dimension)
        for name in ("smallest_condition", "largest_condition"):
            check_positive(name, getattr(self, name))
        if not 1 <= self.smallest_condition <= self.largest_condition:
            raise ValueError(
                "smallest_condition must be at least 1 and at most largest_condition, "
                f"got {self.smallest_condition} and {self.largest_condition}"
            )

    def sample(self, batch: int, generator: torch.Generator, *, dtype: torch.dtype | None = None) -> Batch:
        """Draw independent problems; see `ProblemDistribution.sample`."""
        ratio = self.largest_condition / self.smallest_condition
        uniform = _uniform((check_count("batch", batch), 1), generator)
        condition = _to(self.smallest_condition * ratio**uniform, dtype)
        exponents = torch.linspace(-1.0, 0.0, self.dimension, dtype=condition.dtype, device=condition.device)
        eigenvalues = condition**exponents
        orthogonal, triangular = torch.linalg.qr(
            _to(_normal((batch, self.dimension, self.dimension), generator), dtype)
        )
        basis = orthogonal * triangular.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
        product = (basis * eigenvalues.unsqueeze(-2)) @ basis.mT
        minimizer = _to(_normal((batch, self.dimension), generator), dtype)
        objective = Quadratic((product + product.mT) / 2, minimizer, eigendecomposition=(eigenvalues, basis))
        return Batch(objective, torch.zeros_like(minimizer))


DISTRIBUTIONS: dict[str, type[ProblemDistribution]] = {
    "logistic": LogisticProblems,
    "lasso": LassoProblems,
    "quadratic": QuadraticProblems,
}
"""The distributions by name."""


def _check_share(name: str, value: float | int, *, forbidden: float) -> None:
    """Accept numbers from 0 to 1 without one of the ends."""
    share = check_positive(name, value, allow_zero=True)
    if share > 1 or share == forbidden:
        accepted = "above 0 and at most 1" if forbidden == 0 else "at least 0 and below 1"
        raise ValueError(f"{name} must be {accepted}, got {value}")


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)


def _to(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype or torch.get_default_dtype())


def _random_places(batch: int, length: int, count: int, generator: torch.Generator) -> Tensor:
    """Indices of ``count`` different random places in each of the rows, shape (batch, count)."""
    return _uniform((batch, length), generator).argsort(-1)[:, :count]


def _sparse_normal(batch: int, length: int, density: float, generator: torch.Generator) -> Tensor:
    """Rows of standard normal numbers, kept in random places and 0 elsewhere."""
    places = _random_places(batch, length, math.ceil(density * length), generator)
    numbers = _normal((batch, length), generator)
    return torch.zeros_like(numbers).scatter(-1, places, numbers.gather(-1, places))
