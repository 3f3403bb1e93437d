"""Classical functions that optimizers are tried on: Beale's, Himmelblau's and Rastrigin's."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_count
from odestop.objectives.base import Objective, check_positive_value, register_value


class Beale(Objective):
    """f(x, y) = (1.5 - x + x y)² + (2.25 - x + x y²)² + (2.625 - x + x y³)².

    The minimum 0 is at (3, ½), at the end of a long flat valley (Beale, "On an iterative method for finding a
    local minimum of a function of more than one variable", 1958).

    Examples
    --------
    >>> beale = Beale()
    >>> beale(torch.tensor([[3.0, 0.5], [1.0, 1.0]]))
    tensor([ 0.0000, 14.2031])
    >>> beale.gradient(torch.tensor([1.0, 1.0]))
    tensor([ 0.0000, 27.7500])
    """

    def __init__(self) -> None:
        super().__init__(dimension=2, minimum=0.0, minimizer=torch.tensor([3.0, 0.5]))

    def value(self, x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        residuals = self._residuals(x)[0]
        return (residuals * residuals).sum(-1)

    def _gradient(self, x: Tensor) -> Tensor:
        residuals, by_x, by_y, _, _ = self._residuals(x)
        return 2 * torch.stack([(residuals * by_x).sum(-1), (residuals * by_y).sum(-1)], dim=-1)

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        residuals, by_x, by_y, by_xy, by_yy = self._residuals(x)
        v_x, v_y = v[..., :1], v[..., 1:]
        change = by_x * v_x + by_y * v_y
        along_x = change * by_x + residuals * by_xy * v_y
        along_y = change * by_y + residuals * (by_xy * v_x + by_yy * v_y)
        return 2 * torch.stack([along_x.sum(-1), along_y.sum(-1)], dim=-1)

    def _residuals(self, point: Tensor) -> tuple[Tensor, ...]:
        """Return c_k - x (1 - y^k) for k = 1, 2, 3, and the derivatives by x, y, xy and yy."""
        x, y = point[..., :1], point[..., 1]
        one = torch.ones_like(y)
        constants = torch.stack([1.5 * one, 2.25 * one, 2.625 * one], dim=-1)
        powers = torch.stack([y, y * y, y * y * y], dim=-1)
        slopes = torch.stack([one, 2 * y, 3 * y * y], dim=-1)
        curvatures = torch.stack([0 * y, 2 * one, 6 * y], dim=-1)
        return constants - x * (1 - powers), powers - 1, x * slopes, slopes, x * curvatures


class Himmelblau(Objective):
    """f(x, y) = (x² + y - 11)² + (x + y² - 7)².

    Four minima of value 0, of which the ``minimizer`` (3, 2) is one, around a local maximum near (-0.27, -0.92)
    (Himmelblau, Applied Nonlinear Programming, 1972).

    Examples
    --------
    >>> himmelblau = Himmelblau()
    >>> himmelblau(torch.tensor([[3.0, 2.0], [0.0, 0.0]]))
    tensor([  0., 170.])
    >>> himmelblau.gradient(torch.zeros(2))
    tensor([-14., -22.])
    """

    def __init__(self) -> None:
        super().__init__(dimension=2, minimum=0.0, minimizer=torch.tensor([3.0, 2.0]))

    def value(self, x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        first, second = self._residuals(x)
        return first * first + second * second

    def _gradient(self, x: Tensor) -> Tensor:
        first, second = self._residuals(x)
        residuals, swapped = torch.stack([first, second], dim=-1), torch.stack([second, first], dim=-1)
        return 2 * torch.add(swapped, x * residuals, alpha=2)

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        first, second = self._residuals(x)
        (x_0, x_1), (v_0, v_1) = x.unbind(-1), v.unbind(-1)
        change_first, change_second = 2 * x_0 * v_0 + v_1, v_0 + 2 * x_1 * v_1
        along_0 = 4 * (v_0 * first + x_0 * change_first) + 2 * change_second
        along_1 = 2 * change_first + 4 * (v_1 * second + x_1 * change_second)
        return torch.stack([along_0, along_1], dim=-1)

    def _residuals(self, point: Tensor) -> tuple[Tensor, Tensor]:
        x, y = point.unbind(-1)
        return torch.addcmul(y - 11, x, x), torch.addcmul(x - 7, y, y)


class Rastrigin(Objective):
    """f(x) = Σ_i x_i² + a (1 - cos(2π x_i)).

    The minimum 0 is at the origin; for a = 10 there is a local one close to every other point of integers in
    the customary box |x_i| ≤ 5.12 (Rastrigin 1974; for any d by Mühlenbein, Schomisch and Born 1991).

    Parameters
    ----------
    dimension
        d >= 1.
    amplitude
        a > 0, height of the ripples; a number, or a tensor of shape () that may require a gradient.

    Raises
    ------
    ValueError
        If ``dimension`` is less than 1 or ``amplitude`` is not positive.

    Examples
    --------
    >>> rastrigin = Rastrigin(3)
    >>> x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5]])
    >>> rastrigin(x)
    tensor([ 0.0000, 21.2500])
    >>> round(rastrigin.smoothness, 4)
    396.7842
    """

    amplitude: float | Tensor

    def __init__(self, dimension: int, amplitude: float | int | Tensor = 10.0) -> None:
        check_count("dimension", dimension)
        amplitude = check_positive_value("amplitude", amplitude)
        super().__init__(
            dimension=dimension,
            minimum=0.0,
            minimizer=torch.zeros(dimension),
            # The curvature at the origin, the largest.  A tensor may change.
            smoothness=None if isinstance(amplitude, Tensor) else 2 + 4 * math.pi**2 * amplitude,
        )
        register_value(self, "amplitude", amplitude)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        # 1 - cos(2πx), without cancellation near the minimum.
        ripples = 2 * torch.sin(math.pi * x) ** 2
        return (x * x + self.amplitude * ripples).sum(-1)

    def _gradient(self, x: Tensor) -> Tensor:
        return 2 * x + 2 * math.pi * self.amplitude * torch.sin(2 * math.pi * x)

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        return (2 + 4 * math.pi**2 * self.amplitude * torch.cos(2 * math.pi * x)) * v
