"""Criteria that see the previous iterate: against plain loops, and at the start, where there is none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

import odestop
from odestop.criteria import HistoryCriterion, RelativeChange, StepDecrease
from odestop.discrete import Euler, RungeKutta4, discrete_stopping_time
from odestop.objectives import DiagonalQuadratic

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("annotations_unchecked")
SENSITIVITIES = ("definition3", "interpolated", "hermite")
DOUBLE = torch.float64


def leaf(value: object) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE, requires_grad=True)


def descent(h: Tensor) -> Euler:
    return Euler(lambda t, x: -(1 + 0.1 * t) * torch.tensor([1.0, 3.0], dtype=DOUBLE) * x, h)


def values_along(step: Callable, start: Tensor, criterion: Callable, threshold: Tensor) -> tuple[list[Tensor], Tensor]:
    """J(x_1, x_0), …, J(x_N, x_{N-1}) and x_N with the graph of the loop."""
    values, state = [], start
    while not values or values[-1] > threshold:
        following = step(len(values), state)
        values.append(criterion(following, state))
        state = following
    return values, state


@pytest.mark.parametrize("sensitivity", ["definition3", "interpolated"])
@pytest.mark.parametrize("kind", ["decrease", "change", "function"])
def test_it_equals_the_unrolled_loop_in_everything(kind: str, sensitivity: str, gradients: Callable) -> None:
    h, x0, threshold, weights = leaf(0.1), leaf([1.5, -1.0]), leaf(0.02), leaf([1.0, 2.0])
    by_kind = {
        "decrease": StepDecrease(DiagonalQuadratic(weights)),
        "change": RelativeChange(),
        "function": HistoryCriterion.from_function(lambda x, y: (weights * (x - y) ** 2).sum(-1) + 0.01 * x[..., 0]),
    }
    criterion, inputs = by_kind[kind], [h, x0, threshold, weights]
    values, state = values_along(descent(h), x0, criterion, threshold)
    before, after = values[-2:]
    if sensitivity == "definition3":
        expected = len(values) + (threshold - after) / (after - before).detach()
        expected = expected - (expected - len(values)).detach()
    else:
        expected = len(values) - 1 + (before - threshold) / (before - after)
    solution = discrete_stopping_time(descent(h), x0, criterion, threshold, sensitivity=sensitivity)
    assert len(values) > 3
    torch.testing.assert_close(solution.steps, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(solution.state, state, rtol=1e-14, atol=0)
    assert solution.position is solution.state
    for one, other in zip(gradients(solution.steps, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        gradients(discrete_stopping_time(descent(h), x0, criterion, threshold).state, inputs),
        gradients(values_along(descent(h), x0, criterion, threshold)[1], inputs),
        rtol=1e-12,
        atol=1e-14,
    )


def test_hermite_interpolation_reaches_both_iterates(gradients: Callable) -> None:
    h, x0, threshold = leaf(0.1), leaf([1.5, -1.0]), leaf(0.02)
    objective = DiagonalQuadratic([1.0, 2.0], dtype=DOUBLE)

    def steps() -> Tensor:
        return discrete_stopping_time(descent(h), x0, StepDecrease(objective), threshold, sensitivity="hermite").steps

    for tensor, gradient in zip((h, x0, threshold), gradients(steps(), [h, x0, threshold]), strict=True):
        direction, ends = torch.linspace(1, 2, tensor.numel(), dtype=DOUBLE).reshape(tensor.shape), []
        for size in (1e-6, -1e-6):
            with torch.no_grad():
                tensor += size * direction
            ends.append(steps().item())
            with torch.no_grad():
                tensor -= size * direction
        assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


def test_the_decrease_of_an_accurate_run_is_that_of_the_flow() -> None:
    # f = e^{-2t}/2, and f(t - h) - f(t) = ε where t = ln((e^{2h} - 1) / 2ε) / 2.
    h, threshold = 0.1, 1e-3
    step_map = RungeKutta4(lambda t, x: -x, h)
    criterion = StepDecrease(DiagonalQuadratic([1.0], dtype=DOUBLE))
    solution = discrete_stopping_time(step_map, leaf([1.0]), criterion, threshold, sensitivity="hermite")
    assert solution.time.item() == pytest.approx(math.log(math.expm1(2 * h) / (2 * threshold)) / 2, abs=1e-5)


class HeavyBall(nn.Module):
    """An update rule with memory."""

    def __init__(self) -> None:
        super().__init__()
        self.momentum = nn.Parameter(torch.tensor(0.6, dtype=DOUBLE))

    def initial_state(self, x0: Tensor) -> Tensor:
        return torch.cat([x0, torch.zeros_like(x0)], dim=-1)

    def position(self, state: Tensor) -> Tensor:
        return state.chunk(2, dim=-1)[0]

    def forward(self, k: int, state: Tensor) -> Tensor:
        x, velocity = state.chunk(2, dim=-1)
        velocity = self.momentum * velocity - 0.1 * x
        return torch.cat([x + velocity, velocity], dim=-1)


def test_a_rule_with_memory_shows_the_criterion_its_positions(gradients: Callable) -> None:
    rule, x0 = HeavyBall(), leaf([[1.0, 2.0], [0.3, -3.0]])
    solution = discrete_stopping_time(rule, x0, RelativeChange(), 0.05, sensitivity="interpolated")
    assert solution.state.shape == (2, 4)
    assert solution.position.shape == (2, 2)
    expected = []
    for i in range(2):
        values, state = values_along(
            rule,
            rule.initial_state(x0[i]),
            lambda s, r: RelativeChange()(rule.position(s), rule.position(r)),
            torch.tensor(0.05),
        )
        expected.append(len(values) - 1 + (values[-2] - 0.05) / (values[-2] - values[-1]))
        torch.testing.assert_close(solution.state[i], state)
    inputs = [rule.momentum, x0]
    for one, other in zip(gradients(solution.steps, inputs), gradients(torch.stack(expected), inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_a_first_step_that_will_do_takes_one_step_and_has_no_gradient(sensitivity: str, gradients: Callable) -> None:
    h, x0, threshold = leaf(0.1), leaf([[1e-3, 1e-3], [1.5, -1.0]]), leaf(0.02)
    criterion = StepDecrease(DiagonalQuadratic([1.0, 2.0], dtype=DOUBLE))
    both = discrete_stopping_time(descent(h), x0, criterion, threshold, sensitivity=sensitivity)
    alone = discrete_stopping_time(descent(h), x0[1], criterion, threshold, sensitivity=sensitivity)
    assert [status.name for status in both.status] == ["ALREADY_SATISFIED", "REACHED"]
    assert both.steps[0] == 1
    assert both.time[0] == h
    torch.testing.assert_close(both.state[0], descent(h)(0, x0[0]))
    for one, other in zip(
        gradients(both.steps, [h, x0, threshold]), gradients(alone.steps, [h, x0, threshold]), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_step_that_raises_the_objective_stops_the_run() -> None:
    rise = discrete_stopping_time(
        lambda k, x: -1.5 * x, leaf([1.0]), StepDecrease(DiagonalQuadratic([1.0], dtype=DOUBLE)), 1e-3
    )
    assert rise.steps == 1
    assert rise.state.item() == -1.5


def test_runs_that_fail_say_why_and_give_the_last_finite_state(gradients: Callable) -> None:
    factor = leaf([[2.0], [1e200], [0.5]])
    criterion = HistoryCriterion.from_function(lambda x, y: (x - y).abs().sum(-1))
    solution = discrete_stopping_time(
        lambda k, x: factor * x * x.abs(), leaf([[1.1], [1e10], [1.0]]), criterion, 0.2, max_steps=4
    )
    assert [status.name for status in solution.status] == ["MAX_STEPS", "NON_FINITE", "REACHED"]
    assert solution.steps.tolist() == [math.inf, math.inf, 3.0]
    assert solution.state[1].item() == pytest.approx(1e220)
    (gradient,) = gradients(solution.steps, [factor])
    assert torch.isfinite(gradient).all()
    assert not gradient[:2].any()
    first = discrete_stopping_time(lambda k, x: x / 0.0, leaf([1.0]), criterion, 0.2)
    assert (first.status.name, first.state.item()) == ("NON_FINITE", 1.0)


def test_a_function_may_call_autograd_inside_both_rule_and_criterion() -> None:
    def objective(x: Tensor) -> Tensor:
        return (0.5 * x**2).sum(-1)

    def gradient_of(x: Tensor) -> Tensor:
        return torch.autograd.grad(objective(x).sum(), x, create_graph=True)[0]

    criterion = HistoryCriterion.from_function(lambda x, y: ((gradient_of(x) - gradient_of(y)) ** 2).sum(-1))
    x0 = leaf([1.0])
    solution = discrete_stopping_time(lambda k, x: x - 0.5 * gradient_of(x), x0, criterion, 0.01)
    assert solution.steps == 4
    (gradient,) = torch.autograd.grad(solution.steps, x0)
    # J = x_k² with x_k = 2^{-k} x0: the derivative is 2 J / (J(x_3) - J(x_4)) = 2/3.
    assert gradient.item() == pytest.approx(2 / 3)


def test_one_point_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match=r"RelativeChange is a criterion on history.*one point only"):
        RelativeChange()(torch.ones(2))
    with pytest.raises(ValueError, match="a flow has no previous point"):
        odestop.continuous_stopping_time(lambda t, x: -x, torch.ones(2), RelativeChange(), 0.1)
