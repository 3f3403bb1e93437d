"""method="auto" takes the method that turns out cheaper, and says which."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import odestop
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import GradientFlow
from odestop.objectives import DiagonalQuadratic
from odestop.solvers import RKC2, Automatic, DormandPrince5

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def solve(
    condition_number: float, method: str | Automatic, batch: int = 1, rtol: float = 1e-5
) -> odestop.continuous.ContinuousSolution:
    eigenvalues = torch.logspace(-math.log10(condition_number), 0, 6, dtype=torch.float64)
    objective = DiagonalQuadratic(eigenvalues)
    threshold = 0.1 / condition_number**2
    x0 = torch.ones(batch, 6, dtype=torch.float64) * torch.linspace(1.0, 2.0, batch).double().unsqueeze(-1)
    return odestop.continuous_stopping_time(
        GradientFlow(objective),
        x0,
        SquaredGradientNorm(objective),
        threshold,
        method=method,
        rtol=rtol,
        atol=rtol * threshold**0.5,
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_a_stiff_flow_gets_the_stabilised_method_for_a_few_percent_more(batch: int) -> None:
    automatic, stabilised = solve(1e4, "auto", batch), solve(1e4, "rock4", batch)
    assert automatic.stats.method == stabilised.stats.method == "ROCK4"
    assert torch.equal(automatic.time, stabilised.time)
    assert stabilised.stats.nfe < automatic.stats.nfe <= 1.1 * stabilised.stats.nfe
    # The other one's steps are at most 3.5/ρ long, of six evaluations each, and ρ is 1.
    assert automatic.stats.nfe < 0.5 * 6 / 3.5 * float(automatic.time.max())


@pytest.mark.parametrize("condition_number", [3.0, 100.0])
def test_a_mild_flow_keeps_the_ordinary_method_at_no_price(condition_number: float) -> None:
    automatic, ordinary = solve(condition_number, "auto"), solve(condition_number, "tsit5")
    assert automatic.stats.method == ordinary.stats.method == "Tsitouras5"
    assert automatic.stats.nfe == ordinary.stats.nfe
    assert automatic.stats.nfe < 1.1 * solve(condition_number, "rock4").stats.nfe
    assert torch.equal(automatic.time, ordinary.time)


def test_the_gradient_of_a_stiff_flow_is_that_of_its_closed_form() -> None:
    rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    factors = torch.tensor([1.0, 2e4], dtype=torch.float64)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -rate * factors * x, torch.ones(2, dtype=torch.float64), lambda x: x[..., 0], 0.1, method="auto"
    )
    assert solution.stats.method == "ROCK4"
    (gradient,) = torch.autograd.grad(solution.time, rate)
    torch.testing.assert_close(gradient, torch.tensor(-math.log(10) / 4).double(), rtol=1e-5, atol=0.0)


def test_thresholds_that_are_not_positive_are_predicted_by_straight_lines() -> None:
    rates = torch.tensor([1.0, 2e4], dtype=torch.float64)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -rates * x, torch.ones(2, dtype=torch.float64), lambda x: x[..., 0] - 0.5, -0.4, method="auto"
    )
    assert solution.stats.method == "ROCK4"
    torch.testing.assert_close(solution.time, torch.tensor(math.log(10)).double(), rtol=1e-6, atol=0.0)


def test_the_methods_are_knobs() -> None:
    choice = Automatic(mild=DormandPrince5(), stiff=RKC2(), advantage=1e9)
    assert solve(100.0, choice).stats.method == "DormandPrince5"
    assert solve(1e3, Automatic(stiff=RKC2(), advantage=0.5), rtol=1e-2).stats.method == "RKC2"


def test_the_prediction_weighs_stages_against_steps() -> None:
    one, radius = np.ones(1), np.array([1e3])
    choice = Automatic()
    assert choice.prefers_stiff(one, 100 * one, one, radius)
    assert not choice.prefers_stiff(one, 100 * one, 1e-3 * one, np.ones(1))
    # Little is left, and the stiff method would start again.
    assert not choice.prefers_stiff(one, 0.01 * one, one, radius)
    assert not choice.prefers_stiff(one, np.array([np.nan]), one, radius)
