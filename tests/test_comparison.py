"""The metrics of Theorem 2 and the fitted order, against numbers known in advance."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from odestop.comparison import compare_gradients, cosine_similarity, fit_order, loss_identity, relative_error
from odestop.continuous.solution import ContinuousSolution, ContinuousStats
from odestop.discrete import DiscreteSolution, Euler, discrete_stopping_time
from odestop.status import StoppingStatus


def test_metrics_take_a_sequence_of_tensors_for_one_long_vector() -> None:
    a = [torch.tensor([[1.0, 2.0]]), torch.tensor(3.0)]
    b = [torch.tensor([[1.0, 0.0]]), torch.tensor(2.0)]
    assert relative_error(a, b) == pytest.approx(1.0)
    assert cosine_similarity(a, b) == pytest.approx(7 / math.sqrt(14 * 5))


def test_metrics_of_vanishing_vectors() -> None:
    zero, one = torch.zeros(2), torch.ones(2)
    assert relative_error(one, zero) == math.inf
    assert math.isnan(relative_error(zero, zero))
    assert math.isnan(cosine_similarity(zero, one))
    tiny = torch.full((2,), 1e-30)  # its square is zero in single precision
    assert cosine_similarity(tiny, tiny) == pytest.approx(1.0)


def test_metrics_refuse_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"same shapes, got \[\(2,\)\] and \[\(3,\)\]"):
        relative_error(torch.ones(2), torch.ones(3))


def closed_form(rate: Tensor, x0: Tensor, threshold: float) -> ContinuousSolution:
    """T = ln(x0 / ε) / θ of dx/dt = -θ x, with its gradient by autograd."""
    time = torch.log(x0[..., 0] / threshold) / rate
    reached = StoppingStatus.REACHED.code
    count = torch.ones(time.shape, dtype=torch.int64)
    return ContinuousSolution(
        time=time,
        state=x0.detach(),
        position=x0.detach(),
        criterion_rate=time.detach(),
        stats=ContinuousStats(nfe=50, criterion_evaluations=1, accepted_steps=count, rejected_steps=count),
        status_codes=torch.full(time.shape, reached),
    )


def discrete(rate: Tensor, x0: Tensor, threshold: float, h: float, **options: int) -> DiscreteSolution:
    return discrete_stopping_time(Euler(lambda t, x: -rate * x, h), x0, lambda x: x[..., 0], threshold, **options)


@pytest.fixture
def flow() -> SimpleNamespace:
    leaves = {"rate": 0.8, "single": [2.0], "batch": [[2.0], [1.0], [50.0]]}
    return SimpleNamespace(
        **{name: torch.tensor(v, dtype=torch.float64, requires_grad=True) for name, v in leaves.items()}
    )


def test_a_comparison_holds_both_gradients_and_both_costs(flow: SimpleNamespace) -> None:
    h = 0.01
    continuous, stepped = closed_form(flow.rate, flow.single, 0.1), discrete(flow.rate, flow.single, 0.1, h)
    comparison = compare_gradients(continuous, stepped, h, [flow.rate, flow.single])
    by_rate, by_start = torch.autograd.grad(stepped.steps, (flow.rate, flow.single))
    time = math.log(20.0) / 0.8
    difference = torch.stack([h * by_rate + time / 0.8, h * by_start[0] - 1 / 1.6])
    norm = math.hypot(time / 0.8, 1 / 1.6)
    assert comparison.time_gradient_norm == pytest.approx(norm)
    assert comparison.relative_error == pytest.approx(torch.linalg.vector_norm(difference).item() / norm)
    assert 0 < comparison.relative_error < 0.02
    assert comparison.cosine == pytest.approx(1.0, abs=1e-4)
    assert comparison.scaled_steps_gradient_norm == pytest.approx(norm, rel=0.02)
    assert comparison.discrete_nfe == comparison.steps == stepped.stats.nfe
    assert comparison.nfe_ratio == stepped.stats.nfe / 50
    assert comparison.time.item() == pytest.approx(time)


def test_a_batch_is_compared_by_the_sum_of_those_that_stopped_in_both(flow: SimpleNamespace) -> None:
    h = 0.02
    count = int(discrete(flow.rate, flow.batch[0], 0.1, h).steps)
    stepped = discrete(flow.rate, flow.batch, 0.1, h, max_steps=count)  # too few for the third
    assert stepped.reached.tolist() == [True, True, False]
    comparison = compare_gradients(closed_form(flow.rate, flow.batch, 0.1), stepped, h, flow.rate)
    expected_time = expected_steps = 0.0
    for i in range(2):
        expected_time += torch.autograd.grad(closed_form(flow.rate, flow.batch[i], 0.1).time, flow.rate)[0]
        alone = discrete(flow.rate, flow.batch[i], 0.1, h)
        expected_steps += h * torch.autograd.grad(alone.steps, flow.rate)[0]
    torch.testing.assert_close(comparison.time_gradient[0], expected_time)
    torch.testing.assert_close(comparison.scaled_steps_gradient[0], expected_steps)


def test_solutions_stay_differentiable_after_a_comparison(flow: SimpleNamespace) -> None:
    continuous, stepped = closed_form(flow.rate, flow.single, 0.1), discrete(flow.rate, flow.single, 0.1, 0.1)
    first = compare_gradients(continuous, stepped, torch.tensor(0.1), flow.rate)
    assert compare_gradients(continuous, stepped, 0.1, flow.rate).relative_error == pytest.approx(first.relative_error)
    continuous.time.backward()
    assert flow.rate.grad is not None


def test_a_comparison_names_what_it_cannot_use(flow: SimpleNamespace) -> None:
    continuous, stepped = closed_form(flow.rate, flow.single, 0.1), discrete(flow.rate, flow.single, 0.1, 0.1)
    with pytest.raises(ValueError, match="parameters must hold at least one"):
        compare_gradients(continuous, stepped, 0.1, [])
    with pytest.raises(ValueError, match="step_size must be a positive finite number"):
        compare_gradients(continuous, stepped, -0.1, flow.rate)
    with pytest.raises(ValueError, match=r"batch shape \(3,\) of continuous, got \(\)"):
        compare_gradients(closed_form(flow.rate, flow.batch, 0.1), stepped, 0.1, flow.rate)
    failed = discrete(flow.rate, flow.single, 0.1, 0.1, max_steps=1)
    with pytest.raises(ValueError, match="stopped in both"):
        compare_gradients(continuous, failed, 0.1, flow.rate)


def test_an_exact_power_law_is_recovered_with_no_doubt() -> None:
    h = np.array([0.1, 0.03, 0.01, 0.001])
    fit = fit_order(h, 3 * h**1.5)
    assert (fit.order, fit.low, fit.high) == pytest.approx((1.5, 1.5, 1.5))
    assert math.exp(fit.intercept) == pytest.approx(3.0)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_confidence_interval_is_that_of_linear_regression(confidence: float) -> None:
    h = [0.2, 0.1, 0.04, 0.02, 0.01]
    errors = [0.5, 0.19, 0.09, 0.037, 0.022]
    regression = scipy.stats.linregress(np.log(h), np.log(errors))
    half_width = scipy.stats.t.ppf(0.5 + confidence / 2, len(h) - 2) * regression.stderr
    fit = fit_order(h, errors, confidence)
    assert fit.order == pytest.approx(regression.slope)
    assert fit.intercept == pytest.approx(regression.intercept)
    assert fit.low == pytest.approx(regression.slope - half_width)
    assert fit.high == pytest.approx(regression.slope + half_width)


@pytest.mark.parametrize(
    ("step_sizes", "errors", "confidence", "message"),
    [
        ([0.1, 0.2], [1.0, 2.0], 0.95, "at least 3"),
        ([0.1, 0.2, 0.3], [1.0, 2.0], 0.95, "same number of points"),
        ([0.1, 0.2, 0.3], [1.0, 0.0, 2.0], 0.95, "errors must be positive and finite"),
        ([0.1, -0.2, 0.3], [1.0, 1.0, 2.0], 0.95, "step_sizes must be positive and finite"),
        ([0.1, 0.2, math.nan], [1.0, 1.0, 2.0], 0.95, "step_sizes must be positive and finite"),
        ([0.1, 0.1, 0.1], [1.0, 1.5, 2.0], 0.95, "two distinct values"),
        ([0.1, 0.2, 0.3], [1.0, 2.0, 3.0], 1.0, "confidence must be between 0 and 1"),
    ],
)
def test_points_that_do_not_make_a_fit_are_refused(
    step_sizes: list[float], errors: list[float], confidence: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_order(step_sizes, errors, confidence)


class Rotation(torch.nn.Module):
    """A contracting flow with a matrix, for Euler."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=torch.float64))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return -(1 + torch.exp(-t)) * (x @ self.matrix.T + 0.1 * x**3)


def test_both_sides_of_equation_12_are_equal() -> None:
    flow, step_size = Rotation(), torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    parameters = [flow.matrix, step_size, x0]
    sides = loss_identity(Euler(flow, step_size), x0, lambda x: (x**2).sum(-1), 25, parameters, t0=0.3)
    for one, other in zip(sides.by_stopping_times, sides.by_losses, strict=True):
        assert torch.linalg.vector_norm(other) > 0
        assert torch.linalg.vector_norm(one - other) <= 1e-12 * torch.linalg.vector_norm(other)


def test_equation_12_holds_for_rules_with_memory_that_call_autograd() -> None:
    momentum = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    class HeavyBall:
        def initial_state(self, x0: Tensor) -> Tensor:
            return torch.cat([x0, x0], dim=-1)

        def position(self, state: Tensor) -> Tensor:
            return state.chunk(2, dim=-1)[0]

        def __call__(self, k: int, state: Tensor) -> Tensor:
            x, previous = state.chunk(2, dim=-1)
            (gradient,) = torch.autograd.grad((x**2).sum(), x, create_graph=True)
            return torch.cat([x - 0.1 * gradient + momentum * (x - previous), x], dim=-1)

    x0 = torch.tensor([1.0, -2.0], dtype=torch.float64)
    sides = loss_identity(HeavyBall(), x0, lambda x: (x**2).sum(-1), 10, momentum)
    torch.testing.assert_close(sides.by_stopping_times, sides.by_losses, rtol=1e-12, atol=0)


def test_equation_12_is_refused_where_its_two_sides_differ() -> None:
    rate = torch.tensor(0.5, requires_grad=True)
    with pytest.raises(ValueError, match=r"objective must fall below all its earlier values up to k = 3, .* at k = 2"):
        loss_identity(lambda k, x: x + rate * (2 * k - 1), torch.ones(1), lambda x: x[..., 0], 3, rate)
    with pytest.raises(ValueError, match=r"x0 must be one point of shape \(d,\), got \(2, 1\)"):
        loss_identity(lambda k, x: rate * x, torch.ones(2, 1), lambda x: x[..., 0], 3, rate)
