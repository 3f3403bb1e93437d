"""Euler steps, what a dynamics is given, and step sizes that are no step sizes."""

import math

import pytest
import torch
from torch import Tensor, nn

from odestop.discrete import Euler, TimeStepMap, discrete_stopping_time


def test_an_euler_step_adds_the_velocity_times_the_step_size() -> None:
    euler = Euler(lambda t, x: -t * x, step_size=0.25)
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert torch.equal(euler(3, x, t0=0.5), x - 0.25 * (0.5 + 3 * 0.25) * x)


@pytest.mark.parametrize(("batch", "time_shape"), [((), ()), ((4,), (4, 1)), ((2, 3), (2, 3, 1))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dynamics_sees_time_in_the_dtype_and_batch_shape_of_the_state(
    batch: tuple[int, ...], time_shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    seen = []

    def dynamics(t: Tensor, x: Tensor) -> Tensor:
        seen.append(t)
        return -x

    step = Euler(dynamics, step_size=0.1)(2, torch.ones(*batch, 5, dtype=dtype), t0=1.0)
    assert step.dtype == dtype
    assert seen[0].shape == time_shape
    assert seen[0].dtype == dtype
    torch.testing.assert_close(seen[0], torch.full(time_shape, 1.2, dtype=dtype))


def test_each_trajectory_may_have_its_own_step_size() -> None:
    step_size = torch.tensor([0.1, 0.2], dtype=torch.float64)
    x = torch.ones(2, 3, dtype=torch.float64)
    step = Euler(lambda t, x: -t * x, step_size)(1, x, t0=1.0)
    torch.testing.assert_close(step[:, 0], 1 - step_size * (1 + step_size))


def test_modules_and_parameters_become_part_of_the_map() -> None:
    step_size = nn.Parameter(torch.tensor(0.1))
    euler = Euler(nn.Bilinear(1, 2, 2), step_size)
    assert {name for name, _ in euler.named_parameters()} == {
        "step_size",
        "dynamics.weight",
        "dynamics.bias",
    }
    assert not list(Euler(lambda t, x: -x, 0.1).parameters())


class DampedOscillator(nn.Module):
    """A dynamics with hidden state: position and velocity side by side."""

    def initial_state(self, x0: Tensor) -> Tensor:
        return torch.cat([x0, torch.zeros_like(x0)], dim=-1)

    def position(self, state: Tensor) -> Tensor:
        return state.chunk(2, dim=-1)[0]

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        x, v = state.chunk(2, dim=-1)
        return torch.cat([v, -x - 1.5 * v], dim=-1)


def test_euler_takes_hidden_state_over_from_its_dynamics() -> None:
    x0 = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    solution = discrete_stopping_time(Euler(DampedOscillator(), 0.05), x0, lambda x: (x**2).sum(-1), threshold=0.1)
    assert solution.reached.all()
    assert solution.state.shape == (2, 4)
    assert torch.equal(solution.position, solution.state[:, :2])
    (gradient,) = torch.autograd.grad(solution.steps.sum(), x0)
    assert (torch.linalg.vector_norm(gradient, dim=-1) > 0).all()


@pytest.mark.parametrize("step_size", [0.0, -0.1, math.nan, math.inf])
def test_a_step_size_that_is_not_positive_and_finite_is_refused(step_size: float) -> None:
    for value in (step_size, torch.tensor(step_size), torch.tensor([0.1, step_size])):
        with pytest.raises(ValueError, match=r"step_size must be .*positive.*finite"):
            Euler(lambda t, x: -x, value)


def test_an_integer_step_size_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"step_size must have a real floating-point dtype.*int64"):
        TimeStepMap(torch.tensor(1))


def test_a_velocity_of_another_shape_is_refused_instead_of_broadcast() -> None:
    with pytest.raises(ValueError, match=r"dynamics must return shape \(3,\), got \(1,\)"):
        Euler(lambda t, x: -x[:1], 0.1)(0, torch.ones(3))
