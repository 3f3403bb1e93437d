"""Step maps with a pull_back of their own give the gradients of autograd, and leave to autograd what they cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from odestop.discrete import Euler, discrete_stopping_time
from odestop.discrete.step_maps import GradientDescent
from odestop.dynamics import GradientFlow
from odestop.objectives import DiagonalQuadratic, LogisticRegression, Objective, Quadratic, Rosenbrock


def logistic() -> Objective:
    features = torch.randn(7, 3, dtype=torch.float64)
    return LogisticRegression(features, torch.tensor([0, 1, 0, 1, 1, 0, 1]), regularization=0.1)


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "quadratic": lambda: Quadratic.with_condition_number(3, 10.0, seed=0, dtype=torch.float64),
    "logistic": logistic,
    "rosenbrock": lambda: Rosenbrock(3, b=2.0),
    "function": lambda: Objective.from_function(lambda x: (x.cosh() + 0.1 * x**4).sum(-1)),
}
MAPS: dict[str, Callable[[Objective, Tensor], nn.Module]] = {
    "Euler": lambda objective, h: Euler(GradientFlow(objective), h),
    "GradientDescent": GradientDescent,
}


def squared_norm(x: Tensor) -> Tensor:
    return (x**2).sum(-1)


def gradients(step: Callable, inputs: list[Tensor], x0: Tensor) -> list[Tensor]:
    solution = discrete_stopping_time(step, x0, squared_norm, squared_norm(x0.detach()) * 0.9, max_steps=500)
    assert solution.reached.all()
    return list(torch.autograd.grad(solution.steps.sum(), inputs, materialize_grads=True, allow_unused=True))


@pytest.mark.parametrize("own_rates", [False, True])
@pytest.mark.parametrize("map_name", MAPS)
@pytest.mark.parametrize("objective_name", OBJECTIVES)
def test_the_analytic_product_is_that_of_autograd(objective_name: str, map_name: str, own_rates: bool) -> None:
    objective = OBJECTIVES[objective_name]()
    rate = torch.tensor([0.02, 0.03] if own_rates else 0.02, dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([[1.0, -0.5, 0.8], [1.5, 1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    step = MAPS[map_name](objective, rate)
    # Behind a function the method is out of sight.
    expected = gradients(lambda k, x: step(k, x), [rate, x0], x0)
    for one, other in zip(gradients(step, [rate, x0], x0), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)
    constant = MAPS[map_name](objective, rate.detach())
    for parameter in constant.parameters():
        parameter.requires_grad_(False)
    torch.testing.assert_close(gradients(constant, [x0], x0)[0], expected[1], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("map_name", MAPS)
def test_it_is_used_where_it_is_all(map_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = DiagonalQuadratic(torch.tensor([1.0, 4.0], dtype=torch.float64))
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    products: list[Tensor] = []
    original = objective.hessian_vector_product
    monkeypatch.setattr(
        objective, "hessian_vector_product", lambda x, v: (products.append(x), original(x, v))[1], raising=False
    )
    x0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    solution = discrete_stopping_time(MAPS[map_name](objective, rate), x0, squared_norm, 0.5)
    solution.steps.backward()
    assert len(products) == int(solution.steps)


@pytest.mark.parametrize("map_name", MAPS)
def test_parameters_of_the_objective_are_left_to_autograd(map_name: str) -> None:
    eigenvalues = nn.Parameter(torch.tensor([1.0, 4.0], dtype=torch.float64))
    rate = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    inputs = [eigenvalues, rate, x0]
    step = MAPS[map_name](DiagonalQuadratic(eigenvalues), rate)
    expected = gradients(lambda k, x: x - rate * eigenvalues * x, inputs, x0)
    for one, other in zip(gradients(step, inputs, x0), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_schedules_weight_decay_and_a_start_time_are_left_to_autograd() -> None:
    objective = DiagonalQuadratic(torch.tensor([1.0, 4.0], dtype=torch.float64))
    rate = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    inputs = [rate, x0]
    for step in (
        GradientDescent(objective, lambda k: rate / (1 + k)),
        GradientDescent(objective, rate, weight_decay=torch.tensor(0.1, dtype=torch.float64)),
    ):
        expected = gradients(lambda k, x, step=step: step(k, x), inputs, x0)
        for one, other in zip(gradients(step, inputs, x0), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-13, atol=0)
    t0 = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    time = discrete_stopping_time(Euler(GradientFlow(objective), rate), x0, squared_norm, 1.0, t0=t0).time
    assert time is not None
    assert torch.autograd.grad(time, t0)[0] == 1.0


def test_single_precision_stays_single_precision() -> None:
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(2, requires_grad=True)
    step = GradientDescent(DiagonalQuadratic([1.0, 4.0]), rate)
    by_rate, by_start = gradients(step, [rate, x0], x0)
    assert by_rate.dtype == torch.float64
    assert by_start.dtype == torch.float32
