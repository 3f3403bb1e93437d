"""A small stopping-time question in which everything that can be differentiated matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from odestop.discrete import DiscreteSolution, Euler, discrete_stopping_time


class Field(nn.Module):
    """A nonlinear, time-dependent, dissipative vector field with a matrix and a scalar parameter."""

    def __init__(self) -> None:
        super().__init__()
        skew = torch.tensor([[0.0, 0.3, -0.2], [-0.3, 0.0, 0.1], [0.2, -0.1, 0.0]])
        self.matrix = nn.Parameter(torch.diag(torch.tensor([1.0, 1.5, 2.0])) + skew)
        self.rate = nn.Parameter(torch.tensor(0.7))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return -(1 + 0.5 * torch.exp(-self.rate * t)) * (x @ self.matrix.T + 0.1 * x**3)


class WeightedSquares(nn.Module):
    """A criterion with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.0, 0.5, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weights * x**2).sum(-1)


@dataclass
class Question:
    """All ingredients as differentiable tensors."""

    field: nn.Module
    criterion: nn.Module
    step_size: Tensor
    x0: Tensor
    threshold: Tensor
    t0: Tensor

    @property
    def inputs(self) -> list[Tensor]:
        own = [self.step_size, self.x0, self.threshold, self.t0]
        return [*self.field.parameters(), *self.criterion.parameters(), *own]

    def solve(self, sensitivity: str = "definition3", **options: object) -> DiscreteSolution:
        return discrete_stopping_time(
            Euler(self.field, self.step_size),
            self.x0,
            self.criterion,
            self.threshold,
            t0=self.t0,
            sensitivity=sensitivity,
            **options,
        )

    def trajectory(self, trajectory: int) -> Question:
        """The same question for one trajectory of the batch alone."""
        return replace(self, x0=self.x0[trajectory], threshold=self.threshold[trajectory], t0=self.t0[trajectory])

    def unrolled(self) -> tuple[int, Tensor, Tensor, Tensor]:
        """N, x_N, J(x_{N-1}) and J(x_N) of one trajectory with the graph of the whole loop."""
        x, value, count = self.x0, self.criterion(self.x0), 0
        previous = value
        while value > self.threshold:
            previous = value
            x = x + self.step_size * self.field(self.t0 + count * self.step_size, x)
            value, count = self.criterion(x), count + 1
        return count, x, previous, value


@pytest.fixture
def question() -> Question:
    """One trajectory."""
    return make_question(torch.tensor([1.0, -0.5, 0.8]), 0.02, 0.1)


@pytest.fixture
def batch_question() -> Question:
    """Four trajectories with different N, thresholds and start times."""
    x0 = torch.tensor([[1.0, -0.5, 0.8], [0.3, 0.1, -0.2], [0.9, 0.9, 0.9], [2.0, 0.0, -1.0]])
    return make_question(x0, [0.02, 0.05, 0.01, 0.1], [0.1, 0.0, -0.3, 0.5])


def make_question(x0: Tensor, threshold: float | list[float], t0: float | list[float]) -> Question:
    def leaf(value: object) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64).requires_grad_()

    return Question(
        Field().double(), WeightedSquares().double(), leaf(0.1), leaf(x0.double()), leaf(threshold), leaf(t0)
    )


@pytest.fixture
def gradients() -> Callable[[Tensor, list[Tensor]], list[Tensor]]:
    """Gradient of the sum of a tensor, with zeros for inputs that do not enter."""

    def compute(value: Tensor, inputs: list[Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(value.sum(), inputs, allow_unused=True, materialize_grads=True))

    return compute
