"""The fractional step on the Hermite interpolant: against the graph of the whole loop, and where it has no gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from odestop.discrete import Euler, Heun, RungeKutta4, TimeStepMap, discrete_stopping_time
from odestop.discrete.falling_root import falling_root
from odestop.status import TangencyWarning

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Question

PLACE = 0.5 + math.sqrt(3) / 6


def polynomial(conditions: list[tuple[float, int, Tensor]]) -> Callable[[Tensor], Tensor]:
    """The polynomial with given values (order 0) and derivatives (order 1), by its coefficients."""
    degree = len(conditions)
    rows = [[math.perm(j, order) * s ** max(j - order, 0) for j in range(degree)] for s, order, _ in conditions]
    matrix = torch.tensor(rows, dtype=torch.float64)
    coefficients = torch.linalg.solve(matrix, torch.stack([value for *_, value in conditions]))
    return lambda s: torch.stack([s**j for j in range(degree)]) @ coefficients


def unrolled(question: Question, step_map: TimeStepMap) -> Tensor:
    """The fractional step with the graph of the whole loop, from its definition."""
    x, count, t0, h = question.x0, 0, question.t0, question.step_size
    while question.criterion(x) > question.threshold:
        previous, x, count = x, step_map(count, x, t0=t0), count + 1

    def slope(s: Tensor | float, x: Tensor) -> Tensor:
        return h * question.field(t0 + (count - 1 + s) * h, x)

    ends = [(0.0, 0, previous), (1.0, 0, x), (0.0, 1, slope(0, previous)), (1.0, 1, slope(1, x))]
    between = slope(PLACE, polynomial(ends)(torch.tensor(PLACE, dtype=torch.float64)))
    curve = polynomial([*ends, (PLACE, 1, between)])
    gap = lambda s: question.criterion(curve(s)) - question.threshold  # noqa: E731
    place = brentq(lambda s: gap(torch.tensor(s, dtype=torch.float64)).item(), 0, 1, xtol=1e-15, rtol=1e-15)
    s = torch.tensor(place, dtype=torch.float64, requires_grad=True)
    (rate,) = torch.autograd.grad(gap(s), s)
    # A step of Newton's method, which moves nothing, has the derivative of the root.
    return count - 1 + place - gap(s.detach()) / rate


@pytest.mark.parametrize("kind", [Euler, Heun, RungeKutta4])
def test_it_equals_the_unrolled_loop_in_everything(kind: type, question: Question, gradients: Callable) -> None:
    step_map = kind(question.field, question.step_size)
    solution = discrete_stopping_time(
        step_map, question.x0, question.criterion, question.threshold, t0=question.t0, sensitivity="hermite"
    )
    expected = unrolled(question, step_map)
    torch.testing.assert_close(solution.steps, expected, rtol=1e-13, atol=0)
    wanted = gradients(expected, question.inputs)
    for one, other in zip(gradients(solution.steps, question.inputs), wanted, strict=True):
        assert torch.linalg.vector_norm(one - other) <= 1e-12 * torch.linalg.vector_norm(other)


@pytest.mark.parametrize(("kind", "order"), [(Euler, 1), (Heun, 2), (RungeKutta4, 4)])
def test_its_derivative_has_the_order_of_the_map(kind: type, order: int) -> None:
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([1.0, 0.5], dtype=torch.float64)
    # x = x0 e^{-θt}, J = 1.25 e^{-2θt} and T = ln(12.5) / 2θ.
    exact = -math.log(12.5) / 2

    def largest_error(step_size: float) -> float:
        # The error depends on where in its step the crossing lies.
        errors = []
        for h in step_size * np.linspace(0.9, 1, 5):
            step_map = kind(lambda t, x: -theta * x, float(h))
            solution = discrete_stopping_time(step_map, x0, lambda x: (x**2).sum(-1), 0.1, sensitivity="hermite")
            (gradient,) = torch.autograd.grad(solution.time, theta)
            errors.append(abs(gradient.item() - exact))
        return max(errors)

    assert math.log2(largest_error(0.1) / largest_error(0.05)) == pytest.approx(order, abs=0.3)


def test_a_criterion_may_call_autograd_inside(question: Question, gradients: Callable) -> None:
    def by_autograd(x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad((0.5 * x**2).sum(), x, create_graph=True)
        return (gradient**2).sum(-1)

    def solve(criterion: Callable) -> Tensor:
        euler = Euler(question.field, question.step_size)
        return discrete_stopping_time(euler, question.x0, criterion, 0.1, sensitivity="hermite").steps

    inputs = [*question.field.parameters(), question.x0, question.step_size]
    inside, plain = solve(by_autograd), solve(lambda x: (x**2).sum(-1))
    torch.testing.assert_close(inside, plain)
    torch.testing.assert_close(gradients(inside, inputs), gradients(plain, inputs))


def test_a_tensor_shared_by_map_and_criterion_counts_once_in_each(gradients: Callable) -> None:
    shared = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    one, other = (shared.detach().clone().requires_grad_() for _ in range(2))
    x0 = torch.ones(2, dtype=torch.float64)

    def steps(a: Tensor, b: Tensor) -> Tensor:
        euler = Euler(lambda t, x: -a * x, 0.1)
        return discrete_stopping_time(euler, x0, lambda x: b * (x**2).sum(-1), 0.01, sensitivity="hermite").steps

    (total,) = gradients(steps(shared, shared), [shared])
    torch.testing.assert_close(total, sum(gradients(steps(one, other), [one, other])))


def test_a_step_map_without_a_velocity_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sensitivity must be 'definition3' or 'interpolated' .*got Hermite\(\)"):
        discrete_stopping_time(lambda k, x: 0.5 * x, torch.ones(1), lambda x: x[..., 0], 0.1, sensitivity="hermite")


def test_the_first_of_several_crossings_within_a_step_counts(gradients: Callable) -> None:
    x0 = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    clock = Euler(lambda t, x: torch.ones_like(x), 1.0)
    solution = discrete_stopping_time(
        clock, x0, lambda x: torch.cos(3 * math.pi * x[..., 0]), 0.0, sensitivity="hermite"
    )
    assert solution.steps.item() == pytest.approx(1 / 6, abs=1e-15)
    assert gradients(solution.steps, [x0])[0].item() == pytest.approx(-1)


def test_a_flat_crossing_has_a_status_a_warning_and_no_gradient() -> None:
    x0 = torch.tensor([[0.8], [1.3]], dtype=torch.float64, requires_grad=True)
    bend = torch.tensor([3, 1])
    clock = Euler(lambda t, x: -torch.ones_like(x), 0.5)
    with pytest.warns(TangencyWarning, match=r"1 of 2 trajectories .* no usable gradient"):
        solution = discrete_stopping_time(clock, x0, lambda x: x[..., 0] ** bend, 0.0, sensitivity="hermite")
    assert [status.name for status in solution.status] == ["TANGENTIAL", "REACHED"]
    torch.testing.assert_close(solution.steps, x0[:, 0].detach() / 0.5, rtol=1e-4, atol=0)
    (gradient,) = torch.autograd.grad(solution.steps.sum(), x0)
    torch.testing.assert_close(gradient, torch.tensor([[0.0], [2.0]], dtype=torch.float64))


def test_a_velocity_that_overflows_at_the_end_does_not_poison_the_batch(gradients: Callable) -> None:
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([[0.5], [1.5]], dtype=torch.float64, requires_grad=True)
    euler = Euler(lambda t, x: -rate / x, 0.25)  # the first trajectory lands on the pole
    with pytest.warns(TangencyWarning):
        solution = discrete_stopping_time(euler, x0, lambda x: x[..., 0], 0.2, max_steps=20, sensitivity="hermite")
    assert [status.name for status in solution.status] == ["TANGENTIAL", "REACHED"]
    assert 0 < solution.steps[0] <= 1
    by_rate, by_start = gradients(solution.steps, [rate, x0])
    assert by_start[0] == 0
    assert by_start[1] > 0
    assert by_rate < 0


def test_roots_are_found_to_rounding_whatever_the_function() -> None:
    powers = torch.tensor([0.2, 1.0, 3.0, 9.0], dtype=torch.float64)
    levels = torch.tensor([0.3, 1e-12, 0.999999, 0.5], dtype=torch.float64)
    calls = 0

    def function(s: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return levels - s**powers

    roots = falling_root(function, levels, levels - 1)
    torch.testing.assert_close(roots, levels ** (1 / powers), rtol=4e-16, atol=5e-16)
    assert calls < 60
    falling = falling_root(lambda s: torch.full_like(s, math.nan), levels, levels - 1)
    assert ((falling > 0) & (falling <= 1)).all()
