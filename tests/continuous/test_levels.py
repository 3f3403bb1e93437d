"""Many thresholds in one pass equal as many solves, forward and backward."""

import math

import pytest
import torch

import odestop
from odestop import StoppingStatus
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import CoordinatewisePreconditioner, PreconditionedFlow
from odestop.objectives import Quadratic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = {"dtype": torch.float64}


def flat(gradients):
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


@pytest.mark.parametrize("batch", [(), (2, 2)])
def test_eight_levels_equal_eight_solves(batch):
    objective = Quadratic.with_condition_number(6, 30.0, seed=0, **DOUBLE)
    flow = PreconditionedFlow(objective, CoordinatewisePreconditioner(6, scale=0.3, **DOUBLE))
    criterion = SquaredGradientNorm(objective)
    generator = torch.Generator().manual_seed(0)
    x0 = (1 + 0.3 * torch.randn(*batch, 6, generator=generator, **DOUBLE)).requires_grad_()
    thresholds = torch.logspace(-1, -4, 8, **DOUBLE)[torch.randperm(8, generator=generator)].requires_grad_()
    inputs = [x0, thresholds, *flow.parameters()]
    weights = torch.rand(*batch, 8, generator=generator, **DOUBLE)

    together = odestop.continuous_stopping_time(flow, x0, criterion, thresholds, levels=True)
    assert together.time.shape == (*batch, 8)
    assert together.state.shape == (*batch, 8, 6)
    alone = [odestop.continuous_stopping_time(flow, x0, criterion, thresholds[i]) for i in range(8)]
    torch.testing.assert_close(together.time, torch.stack([s.time for s in alone], -1), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(together.state, torch.stack([s.state for s in alone], -2), rtol=1e-12, atol=1e-14)
    assert together.stats.nfe < 0.5 * sum(s.stats.nfe for s in alone)

    def loss(solutions_time, solutions_state):
        return (weights * solutions_time).sum() + (weights.unsqueeze(-1) * solutions_state).sum()

    measured = flat(torch.autograd.grad(loss(together.time, together.state), inputs))
    separate = loss(torch.stack([s.time for s in alone], -1), torch.stack([s.state for s in alone], -2))
    expected = flat(torch.autograd.grad(separate, inputs))
    torch.testing.assert_close(measured, expected, rtol=1e-9, atol=1e-11 * float(expected.abs().max()))
    assert together.stats.vjps < 0.5 * sum(s.stats.vjps for s in alone)


def test_unreached_and_satisfied_levels_do_not_spoil_the_others():
    theta = torch.tensor(2.0, requires_grad=True, **DOUBLE)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x,
        torch.ones(1, **DOUBLE),
        lambda x: x[..., 0],
        torch.tensor([0.5, -1.0, 2.0, 0.1], **DOUBLE),
        levels=True,
        t_max=5.0,
    )
    assert list(solution.status) == [
        StoppingStatus.REACHED,
        StoppingStatus.HORIZON,
        StoppingStatus.ALREADY_SATISFIED,
        StoppingStatus.REACHED,
    ]
    assert solution.time.tolist() == pytest.approx([math.log(2) / 2, math.inf, 0.0, math.log(10) / 2], rel=1e-6)
    (gradient,) = torch.autograd.grad(solution.time.sum(), theta)
    assert gradient.item() == pytest.approx(-(math.log(2) + math.log(10)) / 4, rel=1e-6)


def test_levels_per_trajectory():
    thresholds = torch.tensor([[0.5, 0.1], [0.2, 0.4]], **DOUBLE)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -x, torch.ones(2, 1, **DOUBLE), lambda x: x[..., 0], thresholds, levels=True, rtol=1e-10
    )
    torch.testing.assert_close(solution.time, -thresholds.log(), rtol=1e-9, atol=0.0)


def test_first_passages_of_a_criterion_that_is_not_monotone():
    # J = exp(-t/10) (1 + sin t): every level is first met on the way into one of the troughs.
    def criterion(state):
        return state[..., 0] * (1 + torch.sin(state[..., 1]))

    thresholds = torch.tensor([0.9, 0.5, 0.1, 1e-4], **DOUBLE)
    solution = odestop.continuous_stopping_time(
        lambda t, x: torch.stack([-x[..., 0] / 10, torch.ones_like(x[..., 1])], dim=-1),
        torch.tensor([1.0, 0.0], **DOUBLE),
        criterion,
        thresholds,
        levels=True,
        rtol=1e-9,
        atol=1e-12,
    )
    times = torch.linspace(0, 20, 2_000_001, **DOUBLE)
    values = torch.exp(-times / 10) * (1 + torch.sin(times))
    first = [times[int((values <= epsilon).nonzero()[0])].item() for epsilon in thresholds]
    assert solution.time.tolist() == pytest.approx(first, abs=2e-5)


def test_levels_need_a_tensor_with_a_level_dimension():
    for threshold in (0.1, torch.tensor(0.1), torch.ones(0)):
        with pytest.raises(ValueError, match="threshold must be a tensor of shape"):
            odestop.continuous_stopping_time(
                lambda t, x: -x, torch.ones(2), lambda x: x.sum(-1), threshold, levels=True
            )
