"""How a run may end, with every sensitivity: a status, a step count and a gradient that is defined."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from odestop.discrete import Euler, discrete_stopping_time

if TYPE_CHECKING:
    from collections.abc import Callable

DOUBLE = torch.float64
SENSITIVITIES = pytest.mark.parametrize("sensitivity", ["definition3", "interpolated", "hermite"])


def growth(rate: Tensor) -> Euler:
    """x' = rate x², which blows up for positive x."""
    return Euler(lambda t, x: rate * x**2, 0.5)


def leaf(value: object) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE, requires_grad=True)


@SENSITIVITIES
def test_every_end_of_a_run_has_a_status_and_a_finite_gradient(sensitivity: str, gradients: Callable) -> None:
    # x' = -x² decays from 0.9, blows up from -1 and from -1e200, and creeps from 1e-9.
    x0, rate = leaf([[0.9], [0.2], [-1.0], [-1e200], [1e-9]]), leaf(-1.0)
    threshold = leaf([0.3, 0.3, -3.0, -math.inf, 1e-10]).detach().nan_to_num().requires_grad_()
    solution = discrete_stopping_time(
        growth(rate), x0, lambda x: x[..., 0].abs() + 0 * x[..., 0], threshold, max_steps=50, sensitivity=sensitivity
    )
    names = [status.name for status in solution.status]
    assert names == ["REACHED", "ALREADY_SATISFIED", "NON_FINITE", "NON_FINITE", "MAX_STEPS"]
    assert torch.isinf(solution.steps).tolist() == [False, False, True, True, True]
    by_start, by_threshold, by_rate = gradients(solution.steps, [x0, threshold, rate])
    assert by_start[0] > 0
    assert by_threshold[0] < 0
    assert not by_start[1:].any()
    assert not by_threshold[1:].any()
    alone_start, alone_rate = leaf([0.9]), leaf(-1.0)
    alone = discrete_stopping_time(growth(alone_rate), alone_start, lambda x: x[..., 0], 0.3, sensitivity=sensitivity)
    torch.testing.assert_close([by_start[0], by_rate], gradients(alone.steps, [alone_start, alone_rate]))


@SENSITIVITIES
@pytest.mark.parametrize("threshold", [1.5, 1.0])
def test_one_step_has_the_gradient_by_hand(sensitivity: str, threshold: float) -> None:
    x0 = leaf([2.0])
    solution = discrete_stopping_time(
        Euler(lambda t, x: -torch.ones_like(x), 1.0), x0, lambda x: x[..., 0], threshold, sensitivity=sensitivity
    )
    assert solution.status.name == "REACHED"
    # x = x0 - t, so that both fractional steps are exact: x0 - ε.
    expected = 1.0 if sensitivity == "definition3" else 2.0 - threshold
    assert solution.steps.item() == pytest.approx(expected, abs=1e-15)
    assert torch.autograd.grad(solution.steps, x0)[0].item() == pytest.approx(1.0)


@SENSITIVITIES
def test_a_criterion_that_has_risen_at_the_last_step_but_one_still_has_a_gradient(
    sensitivity: str, gradients: Callable
) -> None:
    # J along x = 3, 2, 1, 0 is 2, 1.2, 1.9, 0.5: up, then down through the threshold.
    x0 = leaf([3.0])
    clock = Euler(lambda t, x: -torch.ones_like(x), 1.0)

    def criterion(x: Tensor) -> Tensor:
        x = x[..., 0]
        return 0.5 + x * (3.65 + x * (-2.85 + x * 0.6))

    solution = discrete_stopping_time(clock, x0, criterion, 1.0, sensitivity=sensitivity)
    values = [criterion(leaf([x])).item() for x in (3.0, 2.0, 1.0, 0.0)]
    assert values[2] > values[1] > 1.0 > values[3]
    assert solution.status.name == "REACHED"
    assert 2 < solution.steps.item() <= 3
    assert gradients(solution.steps, [x0])[0].item() > 0


@SENSITIVITIES
def test_a_criterion_that_turns_within_the_last_step_has_a_gradient(sensitivity: str, gradients: Callable) -> None:
    # J = (x - 0.2)² + 0.1 falls below ε = 0.5 and has risen again, still below, at the step's end.
    x0 = leaf([1.0])
    clock = Euler(lambda t, x: -torch.ones_like(x), 1.2)
    solution = discrete_stopping_time(clock, x0, lambda x: (x[..., 0] - 0.2) ** 2 + 0.1, 0.5, sensitivity=sensitivity)
    assert solution.status.name == "REACHED"
    assert solution.steps.item() <= 1
    (gradient,) = gradients(solution.steps, [x0])
    if sensitivity == "hermite":  # J is quadratic and x linear: the exact crossing, x = 0.2 + √0.4
        assert solution.time.item() == pytest.approx(0.8 - math.sqrt(0.4), abs=1e-14)
        assert gradient.item() == pytest.approx(1 / 1.2)
    else:
        assert math.isfinite(gradient.item())


@SENSITIVITIES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_start_is_that_of_the_answer(sensitivity: str, dtype: torch.dtype) -> None:
    x0 = torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=dtype, requires_grad=True)
    step_size = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    solution = discrete_stopping_time(
        Euler(lambda t, x: -(1 + t) * x, step_size), x0, lambda x: (x**2).sum(-1), 0.1, sensitivity=sensitivity
    )
    assert solution.steps.dtype == solution.time.dtype == dtype
    by_start, by_step_size = torch.autograd.grad(solution.steps.sum(), (x0, step_size))
    assert by_start.dtype == dtype
    assert by_step_size.dtype == torch.float64
    assert by_step_size < 0
