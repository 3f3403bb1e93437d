"""Backward reconstruction: right where flows are short and mild, wrong or refused where they dissipate."""

import math

import pytest
import torch

import odestop
from odestop.continuous.gradients import Backsolve, ContinuousAdjoint, DiscreteAdjoint
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import CoordinatewisePreconditioner, PreconditionedFlow
from odestop.objectives import Quadratic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = {"dtype": torch.float64}


def relative_errors(threshold, *methods):
    """Errors of ∇T in the parameters against the discrete adjoint, on a 20-d quadratic of condition number 100."""
    objective = Quadratic.with_condition_number(20, 100.0, seed=0, **DOUBLE)
    flow = PreconditionedFlow(objective, CoordinatewisePreconditioner(20, scale=0.3, **DOUBLE))

    def gradient(by):
        solution = odestop.continuous_stopping_time(
            flow, torch.ones(20, **DOUBLE), SquaredGradientNorm(objective), threshold, gradient=by
        )
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(solution.time, list(flow.parameters()))])

    expected = gradient(DiscreteAdjoint())
    return [float((gradient(by) - expected).norm() / expected.norm()) for by in methods]


def test_a_short_mild_problem_is_right():
    (error,) = relative_errors(0.1, Backsolve(rtol=1e-7))
    assert error < 1e-5  # measured 4e-7 at T ρ = 4


def test_the_error_grows_with_the_length_of_the_flow():
    along, back = relative_errors(0.01, ContinuousAdjoint(), Backsolve())
    assert along < 1e-6  # measured 1e-7 at T ρ = 12
    assert back > 1e-5  # measured 7e-5


def test_a_dissipative_flow_cannot_be_reconstructed():
    along, back = relative_errors(2e-3, ContinuousAdjoint(), Backsolve())
    assert along < 1e-6  # measured 1e-7 at T ρ = 22
    assert back > 1.0  # measured 2e7, without a sign of it
    with pytest.raises(RuntimeError, match="max_steps = 60"):
        relative_errors(1e-4, Backsolve(max_steps=60))


def test_batches_levels_and_every_input_agree_with_the_discrete_adjoint():
    theta = torch.tensor([1.0, 1.5, 2.0], requires_grad=True, **DOUBLE)
    levels = torch.tensor([0.5, 0.2, -1.0], requires_grad=True, **DOUBLE)
    x0 = torch.tensor([[1.0], [2.0], [0.1]], requires_grad=True, **DOUBLE)
    t0 = torch.tensor(0.3, requires_grad=True, **DOUBLE)

    def gradient(by):
        solution = odestop.continuous_stopping_time(
            lambda t, x: -theta[:, None] * (1 + 0.1 * torch.sin(t)) * (x + 0.1 * x**3),
            x0,
            lambda x: x[..., 0],
            levels,
            t0=t0,
            t_max=3.0,
            levels=True,
            gradient=by,
        )
        loss = solution.time.where(solution.reached, 0.0).sum() + solution.state[:, :2].sum()
        return torch.autograd.grad(loss, (theta, levels, x0, t0))

    torch.testing.assert_close(gradient(Backsolve(rtol=1e-9)), gradient(DiscreteAdjoint()), rtol=1e-6, atol=1e-7)


def test_a_reconstruction_that_blows_up_is_an_error():
    # Backward, x' = -1e3 x³ escapes to infinity in finite time, a little before the true start or after it.
    rate = torch.tensor(1e3, requires_grad=True, **DOUBLE)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -rate * x**3,
        torch.tensor([1e4], **DOUBLE),
        lambda x: x[..., 0],
        0.1,
        t0=1.0,
        rtol=1e-5,
        gradient=Backsolve(),
    )
    with pytest.raises(RuntimeError, match="resolution of time"):
        solution.time.backward()


def test_alias_and_closed_form():
    theta = torch.tensor(2.0, requires_grad=True, **DOUBLE)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, torch.ones(1, **DOUBLE), lambda x: x[..., 0], 0.1, gradient="backsolve"
    )
    solution.time.backward()
    assert theta.grad.item() == pytest.approx(-math.log(10.0) / 4, rel=1e-5)
    assert solution.stats.vjps > 0


@pytest.mark.parametrize("knobs", [{"rtol": 0.0}, {"atol": -1.0}, {"max_steps": 0}])
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(ValueError, match=next(iter(knobs))):
        Backsolve(**knobs)
