"""The Rosenbrock function: smooth, not convex, with a curved valley."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_count, check_positive
from odestop.objectives.base import Objective, register_value


class Rosenbrock(Objective):
    """f(x) = Σ_{i<d} b (x_{i+1} - x_i²)² + (a - x_i)².

    The minimum 0 is known to be attained at (a, a²) if d = 2 and at (1, …, 1) if a = 1, for numbers a.

    Parameters
    ----------
    dimension
        d >= 2.
    a, b
        Position of the minimum and steepness of the valley's walls; numbers, or tensors of shape ().

    Raises
    ------
    ValueError
        If ``dimension`` is less than 2, or ``b`` is a number and not positive.

    Examples
    --------
    >>> rosenbrock = Rosenbrock(2)
    >>> x = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    >>> rosenbrock(x)
    tensor([0., 4.])
    >>> rosenbrock.gradient(x)
    tensor([[ 0.,  0.],
            [-4.,  0.]])
    """

    a: float | Tensor
    b: float | Tensor

    def __init__(self, dimension: int, a: float | Tensor = 1.0, b: float | Tensor = 100.0) -> None:
        if check_count("dimension", dimension) < 2:
            raise ValueError(f"dimension must be an integer of at least 2, got {dimension}")
        if not isinstance(b, Tensor):
            check_positive("b", b)
        minimizer = _minimizer(dimension, a)
        super().__init__(dimension=dimension, minimum=None if minimizer is None else 0.0, minimizer=minimizer)
        register_value(self, "a", a)
        register_value(self, "b", b)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        head, rise = self._head_and_rise(x)
        return (self.b * rise * rise + (self.a - head) ** 2).sum(-1)

    def _gradient(self, x: Tensor) -> Tensor:
        head, rise = self._head_and_rise(x)
        along_tail = 2 * self.b * rise
        along_head = 2 * (head - self.a - head * along_tail)
        return _joined(along_head, along_tail)

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        head, rise = self._head_and_rise(x)
        v_head, v_tail = v[..., :-1], v[..., 1:]
        v_rise = v_tail - 2 * head * v_head
        along_tail = 2 * self.b * v_rise
        along_head = 2 * (v_head - head * along_tail - 2 * self.b * rise * v_head)
        return _joined(along_head, along_tail)

    def _head_and_rise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_i and x_{i+1} - x_i² for i < d."""
        head = x[..., :-1]
        return head, x[..., 1:] - head * head


def _minimizer(dimension: int, a: float | Tensor) -> Tensor | None:
    """Return the minimizer where there is a formula for it and a cannot change."""
    if isinstance(a, Tensor):
        return None
    if dimension == 2:
        return torch.tensor([a, a * a])
    return torch.ones(dimension) if a == 1 else None


def _joined(along_head: Tensor, along_tail: Tensor) -> Tensor:
    """Sum of what falls to the first d - 1 coordinates and what falls to the last d - 1."""
    both = along_head[..., 1:] + along_tail[..., :-1]
    return torch.cat([along_head[..., :1], both, along_tail[..., -1:]], dim=-1)
