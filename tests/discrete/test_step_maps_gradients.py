"""Algorithm 1 through every shipped step map equals autograd through its unrolled loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from odestop.criteria import SquaredGradientNorm
from odestop.discrete import (
    FISTA,
    Adagrad,
    Adam,
    AdamW,
    Euler,
    GradientDescent,
    HeavyBall,
    Heun,
    Lion,
    Nesterov,
    NesterovMomentum,
    NesterovStronglyConvex,
    ProximalGradient,
    RMSprop,
    RungeKutta4,
    SymplecticEuler,
    discrete_adjoint,
    discrete_stopping_time,
)
from odestop.dynamics import ExponentialSchedule, RescaledGradientFlow
from odestop.objectives import Lasso, LogisticRegression

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
GENERATOR = torch.Generator().manual_seed(3)
FEATURES = torch.randn(8, 3, generator=GENERATOR, dtype=DOUBLE)
OBJECTIVE = LogisticRegression(FEATURES, torch.arange(8) % 2, regularization=0.1)


def leaf(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE, requires_grad=True)


class DampedMotion(nn.Module):
    """Heavy ball with friction in continuous time, released at rest."""

    def __init__(self) -> None:
        super().__init__()
        self.friction = nn.Parameter(torch.tensor(1.5, dtype=DOUBLE))

    def initial_state(self, x0: Tensor) -> Tensor:
        return torch.cat([x0, torch.zeros_like(x0)], dim=-1)

    def position(self, state: Tensor) -> Tensor:
        return state.chunk(2, dim=-1)[0]

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        x, v = state.chunk(2, dim=-1)
        return torch.cat([v, -OBJECTIVE.gradient(x) - self.friction / (1 + t) * v], dim=-1)


def flow() -> nn.Module:
    return RescaledGradientFlow(OBJECTIVE, ExponentialSchedule(1.5, 0.1))


def lasso() -> Lasso:
    return Lasso(FEATURES, FEATURES.sum(-1), leaf(0.05))


MAPS: dict[str, Callable[[], nn.Module]] = {
    "euler": lambda: Euler(flow(), leaf(0.2)),
    "heun": lambda: Heun(flow(), leaf(0.2)),
    "runge-kutta": lambda: RungeKutta4(flow(), leaf(0.2)),
    "symplectic euler": lambda: SymplecticEuler(DampedMotion(), leaf(0.2)),
    "gradient descent": lambda: GradientDescent(OBJECTIVE, 0.3, weight_decay=0.05),
    "heavy ball": lambda: HeavyBall(OBJECTIVE, 0.3, momentum=0.4, weight_decay=0.05),
    "nesterov momentum": lambda: NesterovMomentum(OBJECTIVE, 0.3, momentum=0.4, weight_decay=0.05),
    "nesterov": lambda: Nesterov(OBJECTIVE, 0.3),
    "nesterov strongly convex": lambda: NesterovStronglyConvex(OBJECTIVE, 0.3),
    "adagrad": lambda: Adagrad(OBJECTIVE, 0.1, weight_decay=0.05, eps=leaf(1e-3)),
    "rmsprop": lambda: RMSprop(OBJECTIVE, 0.02, 0.9, weight_decay=0.05, eps=leaf(1e-3)),
    "rmsprop with momentum": lambda: RMSprop(OBJECTIVE, 0.02, 0.9, momentum=0.4, eps=leaf(1e-3)),
    "adam": lambda: Adam(OBJECTIVE, 0.05, 0.8, 0.95, weight_decay=0.05, eps=leaf(1e-3)),
    "adamw": lambda: AdamW(OBJECTIVE, 0.05, 0.8, 0.95, weight_decay=0.05, eps=leaf(1e-3)),
    "adam with schedules": lambda: Adam(
        OBJECTIVE, ExponentialSchedule(0.06, 0.02), ExponentialSchedule(0.8, 0.01), 0.95, eps=leaf(1e-3)
    ),
    "lion": lambda: Lion(OBJECTIVE, 0.02, weight_decay=0.05),
    "proximal gradient": lambda: ProximalGradient(lasso(), 0.3),
    "fista": lambda: FISTA(lasso(), 0.3),
}
every_map = pytest.mark.parametrize("build", MAPS.values(), ids=MAPS.keys())


def hyperparameters(step: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a map that requires a gradient, by name."""
    named = {**dict(step.named_parameters()), **dict(step.named_buffers())}
    found = {name: tensor for name, tensor in named.items() if tensor.requires_grad}
    if not isinstance(getattr(step, "step_size", found), dict):
        found["step_size"] = step.step_size
    return found


def unrolled(step: nn.Module, x0: Tensor, count: int) -> list[Tensor]:
    state = step.initial_state(x0) if hasattr(step, "initial_state") else x0
    states = [state]
    for k in range(count):
        states.append(step(k, states[-1]))
    return states


def position(step: nn.Module, state: Tensor) -> Tensor:
    return step.position(state) if hasattr(step, "position") else state


def assert_equal_to_rounding(found: Tensor, expected: Tensor, scale: Tensor | float = 0.0) -> None:
    size = torch.maximum(torch.linalg.vector_norm(expected), torch.as_tensor(scale, dtype=DOUBLE))
    assert torch.linalg.vector_norm(found - expected) <= 1e-12 * size


COUNT = 9


@every_map
def test_algorithm_1_is_unrolled_autograd(build: Callable[[], nn.Module]) -> None:
    step = build()
    x0 = torch.tensor([0.9, -0.7, 0.4], dtype=DOUBLE, requires_grad=True)
    states = unrolled(step, x0, COUNT)
    cotangent = torch.linspace(-1.0, 1.5, states[-1].shape[-1], dtype=DOUBLE)
    named = hyperparameters(step)
    expected = torch.autograd.grad(states[-1], [x0, *named.values()], cotangent)
    trajectory = [state.detach() for state in states[:-1]]
    start, sums = discrete_adjoint(step, trajectory, cotangent, list(named.values()))
    found = [position(step, start), *sums]
    for name, one, other in zip(["x0", *named], found, expected, strict=True):
        assert_equal_to_rounding(one, other)
        assert bool(other.any()) or (isinstance(step, Lion) and name == "beta1"), name


@every_map
@pytest.mark.parametrize("sensitivity", ["definition3", "interpolated"])
def test_the_stopping_time_has_the_gradient_of_the_unrolled_loop(
    build: Callable[[], nn.Module], sensitivity: str
) -> None:
    step = build()
    proximal = isinstance(step, (ProximalGradient, FISTA))
    criterion = step.objective if proximal else SquaredGradientNorm(OBJECTIVE)
    x0 = torch.tensor([0.9, -0.7, 0.4], dtype=DOUBLE, requires_grad=True)
    values = [criterion(position(step, state)) for state in unrolled(step, x0, COUNT)]
    plain = [value.item() for value in values]
    count = max(k for k in range(1, COUNT + 1) if plain[k] < min(plain[:k]))
    assert count > 3
    before, after = values[count - 1 : count + 1]
    threshold = 0.3 * min(plain[:count]) + 0.7 * plain[count]
    if sensitivity == "definition3":
        expected_steps = -after / (after - before).detach()
    else:
        expected_steps = count - 1 + (before - threshold) / (before - after)
    solution = discrete_stopping_time(step, x0, criterion, threshold, sensitivity=sensitivity)
    assert solution.steps.ceil() == count
    named = hyperparameters(step)
    inputs = [x0, *named.values()]
    expected = torch.autograd.grad(expected_steps, inputs, materialize_grads=True)
    for one, other in zip(torch.autograd.grad(solution.steps, inputs), expected, strict=True):
        assert_equal_to_rounding(one, other)


@every_map
def test_a_batch_equals_its_trajectories(build: Callable[[], nn.Module]) -> None:
    step = build()
    x0 = torch.tensor([[0.9, -0.7, 0.4], [-0.5, 0.1, 2.0]], dtype=DOUBLE)
    together = torch.stack(unrolled(step, x0, COUNT))
    for i in range(2):
        torch.testing.assert_close(together[:, i], torch.stack(unrolled(step, x0[i], COUNT)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("build", [GradientDescent, Adam, Nesterov])
def test_learning_rates_of_a_batch_have_a_gradient_each(build: Callable) -> None:
    rates = torch.tensor([0.1, 0.2], dtype=DOUBLE, requires_grad=True)
    x0 = torch.tensor([[0.9, -0.7, 0.4], [-0.5, 0.1, 2.0]], dtype=DOUBLE)

    def steps(rates: Tensor, x0: Tensor) -> Tensor:
        criterion = SquaredGradientNorm(OBJECTIVE)
        return discrete_stopping_time(build(OBJECTIVE, rates), x0, criterion, 0.02, sensitivity="interpolated").steps

    (together,) = torch.autograd.grad(steps(rates, x0).sum(), rates)
    for i in range(2):
        alone = rates[i].detach().requires_grad_()
        torch.testing.assert_close(together[i], torch.autograd.grad(steps(alone, x0[i]), alone)[0])
