"""Definition 3 and the exact derivative of the fractional step against the graph of the whole loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from odestop.discrete import Definition3, Euler, Hermite, Interpolated, discrete_stopping_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Question


pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def assert_equal_to(relative: float, actual: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert torch.linalg.vector_norm(other) > 0
        assert torch.linalg.vector_norm(one - other) <= relative * torch.linalg.vector_norm(other)


def test_definition_3_equals_the_unrolled_loop_in_everything(question: Question, gradients: Callable) -> None:
    count, _, before, after = question.unrolled()
    # Differentiates to (dε - dJ(x_N)) / (J(x_N) - J(x_{N-1})), which is Definition 3.
    surrogate = (question.threshold - after) / (after - before).detach()
    solution = question.solve("definition3")
    assert solution.steps == count > 5
    assert_equal_to(1e-12, gradients(solution.steps, question.inputs), gradients(surrogate, question.inputs))


def test_the_fractional_step_equals_the_unrolled_loop_in_everything(question: Question, gradients: Callable) -> None:
    count, _, before, after = question.unrolled()
    fractional = count - 1 + (before - question.threshold) / (before - after)
    solution = question.solve("interpolated")
    assert count - 1 < solution.steps <= count
    torch.testing.assert_close(solution.steps, fractional, rtol=1e-14, atol=0)
    assert_equal_to(1e-12, gradients(solution.steps, question.inputs), gradients(fractional, question.inputs))


def test_the_state_is_differentiable_with_the_step_count_held_fixed(question: Question, gradients: Callable) -> None:
    _, final, _, _ = question.unrolled()
    cotangent = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    expected = gradients(final * cotangent, question.inputs)
    actual = gradients(question.solve().state * cotangent, question.inputs)
    reached_by_state = [tensor is not question.threshold for tensor in question.inputs]
    reached_by_state[2] = False  # the weights of the criterion
    keep = [i for i, kept in enumerate(reached_by_state) if kept]
    assert_equal_to(1e-12, [actual[i] for i in keep], [expected[i] for i in keep])
    assert not actual[2].any()


def test_the_time_adds_the_direct_dependence_on_step_size_and_start(question: Question, gradients: Callable) -> None:
    solution = question.solve("interpolated")
    assert torch.equal(solution.time, question.t0 + question.step_size * solution.steps)
    h = question.step_size.detach()
    direct = {id(question.step_size): solution.steps.detach(), id(question.t0): torch.ones(())}
    through_steps = gradients(question.solve("interpolated").steps, question.inputs)
    expected = [h * g + direct.get(id(p), 0.0) for g, p in zip(through_steps, question.inputs, strict=True)]
    assert_equal_to(1e-14, gradients(solution.time, question.inputs), expected)


@pytest.mark.parametrize("sensitivity", ["interpolated", "hermite"])
def test_the_fractional_step_agrees_with_finite_differences(
    question: Question, gradients: Callable, sensitivity: str
) -> None:
    analytic = gradients(question.solve(sensitivity).steps, question.inputs)
    count, size = question.solve().steps, 1e-6
    for tensor, gradient in zip(question.inputs, analytic, strict=True):
        direction = torch.cos(torch.arange(tensor.numel(), dtype=torch.float64)).reshape(tensor.shape)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                tensor += sign * size * direction
                values.append(question.solve(sensitivity).steps.item())
                assert question.solve().steps == count
                tensor -= sign * size * direction
        numeric = (values[0] - values[1]) / (2 * size)
        assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("sensitivity", ["interpolated", "hermite"])
def test_the_fractional_step_is_continuous_where_the_step_count_jumps(sensitivity: str) -> None:
    def steps(threshold: float) -> float:
        euler = Euler(lambda t, x: -x, 0.5)
        x0 = torch.ones(1, dtype=torch.float64)
        return discrete_stopping_time(euler, x0, lambda x: x[..., 0], threshold, sensitivity=sensitivity).steps.item()

    assert steps(0.25) == 2.0
    assert steps(0.25 + 1e-12) == pytest.approx(2.0, abs=1e-10)
    assert steps(0.25 - 1e-12) == pytest.approx(2.0, abs=1e-10)


@pytest.mark.parametrize(("step_size", "rate", "start"), [(0.1, 1.3, 2.0), (0.01, 0.4, 1.0)])
def test_the_scalar_flow_has_its_closed_form(step_size: float, rate: float, start: float) -> None:
    threshold, factor = 1e-3, 1 - step_size * rate
    x0, theta = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (start, rate))
    solution = discrete_stopping_time(Euler(lambda t, x: -theta * x, step_size), x0, lambda x: x[..., 0], threshold)
    count = int(np.ceil(np.log(threshold / start) / np.log(factor)))
    assert solution.steps == count
    decrease = start * factor ** (count - 1) * (1 - factor)
    by_rate, by_start = torch.autograd.grad(solution.steps, (theta, x0))
    assert by_rate.item() == pytest.approx(-step_size * count * start * factor ** (count - 1) / decrease, rel=1e-12)
    assert by_start.item() == pytest.approx(factor**count / decrease, rel=1e-12)


def test_the_scaled_gradient_converges_to_that_of_the_continuous_time_at_first_order() -> None:
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    # T = ln(1 / 0.1); its gradient in (θ, x0) is (-T, 1).
    time = np.log(10.0)
    step_sizes = np.geomspace(0.2, 0.005, 10)
    errors = []
    for h in step_sizes:
        solution = discrete_stopping_time(Euler(lambda t, x: -theta * x, h), x0, lambda x: x[..., 0], 0.1)
        by_theta, by_start = torch.autograd.grad(h * solution.steps, (theta, x0))
        errors.append(np.hypot(by_theta.item() + time, by_start.item() - 1))
    slope = np.polyfit(np.log(step_sizes), np.log(errors), 1)[0]
    assert abs(slope - 1) < 0.15


def test_an_object_and_its_alias_are_the_same_sensitivity(question: Question) -> None:
    assert question.solve(Definition3()).steps == question.solve("definition3").steps
    assert question.solve(Interpolated()).steps == question.solve("interpolated").steps
    assert question.solve(Hermite()).steps == question.solve("hermite").steps


@pytest.mark.parametrize("sensitivity", ["definition3", "interpolated"])
def test_small_values_in_single_precision_do_not_underflow(sensitivity: str) -> None:
    x0 = torch.tensor([4e-30], requires_grad=True)
    solution = discrete_stopping_time(lambda k, x: 0.5 * x, x0, lambda x: x[..., 0], 1.5e-30, sensitivity=sensitivity)
    (gradient,) = torch.autograd.grad(solution.steps, x0)
    assert 0 < gradient < math.inf
