"""Keeping every m-th state changes the memory and nothing else."""

import pytest
import torch

import odestop
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import CoordinatewisePreconditioner, PreconditionedFlow
from odestop.objectives import Quadratic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")
DOUBLE = {"dtype": torch.float64}


@pytest.mark.parametrize("batch", [(), (3,)])
def test_checkpoints_leave_the_gradient_as_it_is_to_rounding(batch):
    objective = Quadratic.with_condition_number(6, 30.0, seed=0, **DOUBLE)
    flow = PreconditionedFlow(objective, CoordinatewisePreconditioner(6, scale=0.3, **DOUBLE))
    x0 = torch.ones(*batch, 6, **DOUBLE) * torch.linspace(0.5, 2.0, max(1, sum(batch)), **DOUBLE).unsqueeze(-1)
    x0 = x0.reshape(*batch, 6).requires_grad_()

    def solve(gradient):
        solution = odestop.continuous_stopping_time(flow, x0, SquaredGradientNorm(objective), 1e-3, gradient=gradient)
        gradients = torch.autograd.grad(solution.time.sum(), [x0, *flow.parameters()])
        return solution, torch.cat([g.reshape(-1) for g in gradients])

    plain, expected = solve("discrete_adjoint")
    for checkpoints in (2, 7, 1000):
        solution, measured = solve(odestop.gradients.DiscreteAdjoint(checkpoints=checkpoints))
        assert torch.equal(solution.time, plain.time)
        torch.testing.assert_close(measured, expected, rtol=1e-10, atol=1e-12 * float(expected.abs().max()))
        assert solution.stats.nfe == plain.stats.nfe


def test_peak_memory_follows_its_formula():
    def solve(checkpoints):
        return odestop.continuous_stopping_time(
            lambda t, x: -torch.linspace(1.0, 100.0, 50, **DOUBLE) * x,
            torch.ones(50, **DOUBLE),
            lambda x: x.square().sum(-1),
            1e-3,
            gradient=odestop.gradients.DiscreteAdjoint(checkpoints=checkpoints),
        ).stats

    every = solve(1)
    steps = int(every.accepted_steps)
    assert every.peak_bytes == steps * 50 * 8
    assert solve(10).peak_bytes == (-(-steps // 10) + 10) * 50 * 8


def test_checkpoints_must_be_a_count():
    with pytest.raises(ValueError, match="checkpoints must be an integer of at least 1"):
        odestop.gradients.DiscreteAdjoint(checkpoints=0)
