"""Steps shorten toward a level, so that λ, which starts there with stiff components, is as accurate as the state."""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

import odestop
from odestop.continuous.approach import Approach
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import CoordinatewisePreconditioner, PreconditionedFlow
from odestop.objectives import Quadratic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

D, THRESHOLD = 10, 1e-5


def solved(rtol: float, method: str, gradient: str | odestop.gradients.ContinuousAdjoint) -> tuple[Tensor, Tensor]:
    """T of a stiff flow with a learned preconditioner, and its gradient."""
    objective = Quadratic.with_condition_number(D, 100.0, seed=0, dtype=torch.float64)
    flow = PreconditionedFlow(objective, CoordinatewisePreconditioner(D, seed=1, dtype=torch.float64))
    time = odestop.continuous_stopping_time(
        flow,
        torch.ones(D, dtype=torch.float64),
        SquaredGradientNorm(objective),
        THRESHOLD,
        method=method,
        gradient=gradient,
        rtol=rtol,
        atol=1e-2 * rtol * THRESHOLD**0.5,
    ).time
    return time.detach(), torch.cat([part.flatten() for part in torch.autograd.grad(time, flow.parameters())])


@functools.cache
def exact() -> tuple[Tensor, Tensor]:
    # The adjoint equation has steps of its own, under error control of its own.
    return solved(1e-10, "dopri5", odestop.gradients.ContinuousAdjoint(rtol=1e-9))


@pytest.mark.parametrize(
    ("method", "rtol", "accuracy"),
    [("tsit5", 1e-7, 5e-8), ("dopri5", 1e-7, 2e-7), ("dopri8", 1e-7, 1e-9), ("rock4", 1e-4, 2e-5)],
)
def test_the_gradient_is_accurate_in_stiff_flows(method: str, rtol: float, accuracy: float) -> None:
    (time, gradient), (exact_time, exact_gradient) = solved(rtol, method, "discrete_adjoint"), exact()
    assert abs(time / exact_time - 1) < accuracy
    assert (gradient - exact_gradient).norm() < accuracy * exact_gradient.norm()


def test_a_long_step_that_falls_to_a_level_by_surprise_is_taken_again() -> None:
    stiffness = 1e3

    def flow(t: Tensor, x: Tensor) -> Tensor:
        # J hardly moves until it falls at t = 2, much faster than before and slowly beside the stiff part.
        fall = 1e-3 + 20.0 * torch.sigmoid(20.0 * (t - 2.0))
        return torch.cat([-fall * x[..., :1], stiffness * (x[..., :1] - x[..., 1:])], dim=-1)

    solution = odestop.continuous_stopping_time(
        flow,
        torch.ones(2, dtype=torch.float64),
        lambda x: x[..., 0],
        0.5,
        method="rock4",
        rtol=1e-3,
    )
    assert solution.trajectory is not None
    times = solution.trajectory.times
    assert solution.stats.rejected_steps > 0
    assert times[-1] - times[-2] <= 2.1 / stiffness
    assert times.diff().max() > 20 / stiffness


def test_predictions() -> None:
    thresholds, time = np.array([[0.1, 0.01]] * 4), np.full(4, 3.0)
    approach, everywhere = Approach(thresholds), np.ones((4, 2), dtype=bool)
    radius = np.array([100.0, 100.0, 0.0, 100.0])
    assert np.isinf(approach.longest_step(time, radius, everywhere)).all()
    rows = np.array([True, True, True, False])
    before, now = np.array([10.0, 1.0, 2.0, 10.0]), np.array([1.0, 2.0, -2.0, 1.0])
    approach.expect(rows, time - 1.0, np.ones(4), before, now)
    left = approach.time_left(time)
    np.testing.assert_allclose(left[0], [1.0, 2.0])  # a tenth in each unit of time
    assert np.isinf(left[[1, 3]]).all()  # it rises; nothing is known
    assert np.isinf(left[2]).all()  # passed already, by a straight line
    np.testing.assert_allclose(approach.longest_step(time, radius, everywhere)[0], 0.25)
    only_the_lower = everywhere & np.array([False, True])
    np.testing.assert_allclose(approach.longest_step(time, radius, only_the_lower)[0], 0.5)
    np.testing.assert_allclose(approach.longest_step(time + 0.999, radius, everywhere)[0], 0.02)
    assert approach.is_too_fast(np.full(4, 0.03), radius).tolist() == [True, True, False, True]
