"""Steps of a dynamics: orders, energy, what the dynamics is given, and step sizes that are no step sizes."""

import math

import pytest
import torch
from torch import Tensor, nn

from odestop.comparison import fit_order
from odestop.discrete import Euler, Heun, RungeKutta4, SymplecticEuler, TimeStepMap, discrete_stopping_time


def test_an_euler_step_adds_the_velocity_times_the_step_size() -> None:
    euler = Euler(lambda t, x: -t * x, step_size=0.25)
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert torch.equal(euler(3, x, t0=0.5), x - 0.25 * (0.5 + 3 * 0.25) * x)


@pytest.mark.parametrize(("kind", "order"), [(Euler, 1), (Heun, 2), (RungeKutta4, 4)])
def test_the_error_on_a_nonlinear_time_dependent_flow_has_the_order_of_the_map(
    kind: type[TimeStepMap], order: int
) -> None:
    """dx/dt = -2 t x² from x(1/2) = x0 has the solution 1/x = 1/x0 + t² - 1/4."""
    x0, t0 = torch.tensor([[0.5], [1.5]], dtype=torch.float64), 0.5
    exact = 1 / (1 / x0 + 1.5**2 - t0**2)
    counts, errors = [16, 24, 36], []
    for count in counts:
        step, x = kind(lambda t, x: -2 * t * x**2, step_size=1 / count), x0
        for k in range(count):
            x = step(k, x, t0)
        errors.append(float((x - exact).abs().max()))
    assert fit_order([1 / count for count in counts], errors).order == pytest.approx(order, abs=0.1)


def test_symplectic_euler_keeps_the_modified_energy_of_an_oscillator() -> None:
    """Velocities first: x² + v² - h x v is constant, so that the energy stays where it was, up to O(h)."""
    h = 0.2
    step = SymplecticEuler(lambda t, s: torch.cat([s[..., 1:], -s[..., :1]], dim=-1), h)
    state = torch.tensor([1.0, 0.5], dtype=torch.float64)
    states = [state]
    for k in range(100):
        states.append(step(k, states[-1]))
    x, v = torch.stack(states).unbind(-1)
    modified = x**2 + v**2 - h * x * v
    torch.testing.assert_close(modified, modified[0].expand_as(modified), rtol=1e-12, atol=0)
    energy = x**2 + v**2
    assert energy.max() < 1.3 * energy[0]
    assert energy.min() > 0.7 * energy[0]


def test_symplectic_euler_moves_the_velocities_first_and_both_from_the_same_time() -> None:
    def dynamics(t: Tensor, state: Tensor) -> Tensor:
        x, v = state.chunk(2, dim=-1)
        return torch.cat([t * v, -x - 1.5 * v + t], dim=-1)

    state = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    x, v = state.chunk(2)
    t = 1.0 + 3 * 0.25
    new_v = v + 0.25 * (-x - 1.5 * v + t)
    expected = torch.cat([x + 0.25 * t * new_v, new_v])
    torch.testing.assert_close(SymplecticEuler(dynamics, 0.25)(3, state, t0=1.0), expected)


def test_a_state_without_halves_is_refused() -> None:
    with pytest.raises(ValueError, match=r"state must have shape \(\*batch, 2d\).*got \(3,\)"):
        SymplecticEuler(lambda t, x: -x, 0.1)(0, torch.ones(3))


def test_the_velocity_is_that_of_the_dynamics_at_the_time_of_the_step() -> None:
    step, x = Heun(lambda t, x: -t * x, step_size=0.25), torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert torch.equal(step.velocity(3, x), -0.75 * x)
    assert torch.equal(step.velocity(3.5, x, t0=1.0), -1.875 * x)


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


@pytest.mark.parametrize("kind", [Euler, Heun, RungeKutta4, SymplecticEuler])
def test_a_batch_with_its_own_step_sizes_equals_its_trajectories(kind: type[TimeStepMap]) -> None:
    def dynamics(t: Tensor, x: Tensor) -> Tensor:
        return -torch.sin(x.flip(-1)) / (1 + t)

    step_size = torch.tensor([0.1, 0.2], dtype=torch.float64)
    t0 = torch.tensor([0.0, 1.0], dtype=torch.float64)
    x = torch.tensor([[1.0, 2.0], [0.3, -4.0]], dtype=torch.float64)
    together = kind(dynamics, step_size)(3, x, t0=t0)
    for i in range(2):
        torch.testing.assert_close(together[i], kind(dynamics, step_size[i])(3, x[i], t0=t0[i]))
    assert kind(dynamics, step_size)(3, x.float(), t0=t0).dtype == torch.float32


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
        Euler(lambda t, x: -x, torch.tensor(1))


def test_a_velocity_of_another_shape_is_refused_instead_of_broadcast() -> None:
    with pytest.raises(ValueError, match=r"dynamics must return shape \(3,\), got \(1,\)"):
        Euler(lambda t, x: -x[:1], 0.1)(0, torch.ones(3))


@pytest.mark.parametrize(("step_map", "evaluations"), [(Euler, 1), (Heun, 2), (RungeKutta4, 4), (SymplecticEuler, 2)])
def test_the_stats_count_evaluations_of_the_dynamics(step_map, evaluations):
    def oscillator(t, s):
        oscillator.calls += 1
        return torch.cat([s[..., 1:], -s[..., :1]], dim=-1)

    oscillator.calls = 0
    solution = discrete_stopping_time(step_map(oscillator, 0.1), torch.tensor([1.0, 0.0]), lambda s: s[..., 0], 0.2)
    assert step_map.evaluations_per_step == evaluations
    assert solution.stats.nfe == oscillator.calls == evaluations * solution.steps.item()
