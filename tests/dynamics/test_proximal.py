"""Proximal flow: the lasso in closed form, projections, and the relaxed proximal gradient method as its Euler steps."""

import pytest
import torch
from torch import Tensor

from odestop import Euler
from odestop.discrete import ProximalGradient
from odestop.dynamics import GradientFlow, ProximalFlow
from odestop.objectives import CompositeObjective, DiagonalQuadratic, Lasso, Objective, Rosenbrock
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64


class NonNegative(CompositeObjective):
    """A smooth objective over the points without negative coordinates."""

    def penalty(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0])

    def proximal(self, v: Tensor, step: float | Tensor) -> Tensor:
        return v.clamp_min(0.0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# Far from the axes, so that no coordinate passes the kinks at 0 before T.
FAR = torch.tensor([2.0, -2.0, 2.0], dtype=DOUBLE)
LASSO = Lasso(random(8, 3), random(8, seed=1), 0.1)
BOX = NonNegative(Rosenbrock(2, a=1.2, b=2.0))


def squared_mapping(objective: CompositeObjective):
    return lambda x: (objective.gradient_mapping(x, 0.5) ** 2).sum(-1)


@pytest.mark.parametrize(
    ("objective", "x0"),
    [(LASSO, FAR), (BOX, torch.tensor([0.6, 0.5], dtype=DOUBLE))],
    ids=["lasso", "box"],
)
def test_proximal_flow_passes(objective, x0):
    flow, criterion = ProximalFlow(objective, 0.5), squared_mapping(objective)
    question = (flow, x0, criterion, 0.4 * float(criterion(x0)))
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)

    def relaxed_proximal_gradient(h):
        step = ProximalGradient(objective, 0.5)
        return lambda k, x: x + h * (step(k, x) - x)

    checks.is_the_limit_of(flow, relaxed_proximal_gradient, x0, time=0.2)


def test_the_euler_step_of_size_1_is_a_proximal_gradient_step():
    x = random(4, 3)
    euler, proximal = Euler(ProximalFlow(LASSO, 0.3), 1.0), ProximalGradient(LASSO, 0.3)
    torch.testing.assert_close(euler(0, x), proximal(0, x))


def test_closed_form_of_the_lasso_in_one_dimension():
    """While x stays away from 0 it decays to b - λ at the rate s."""
    regularization = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    lasso = Lasso(torch.ones(1, 1, dtype=DOUBLE), torch.tensor([2.0], dtype=DOUBLE), regularization)
    flow = ProximalFlow(lasso, 0.4)
    x0 = torch.tensor([5.0], dtype=DOUBLE, requires_grad=True)
    time = checks.stopping_time(flow, x0, lambda x: x[..., 0], 2.0).time
    limit = 2.0 - regularization
    expected = torch.log((x0[0] - limit) / (2.0 - limit)) / flow.step
    torch.testing.assert_close(time, expected, rtol=1e-9, atol=0.0)
    inputs = (x0, flow.step, regularization)
    for found, wanted in zip(*(torch.autograd.grad(t, inputs) for t in (time, expected)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=0.0)


def test_it_comes_to_rest_at_the_minimizer_of_the_lasso():
    with torch.no_grad():
        x = random(3, seed=2)
        step = ProximalGradient(LASSO, 0.5)
        for k in range(500):
            x = step(k, x)
    assert 0 < int((x == 0).sum()) < 3
    assert ProximalFlow(LASSO, 0.2)(torch.tensor(0.0), x).abs().max() < 1e-12


def test_the_projected_flow_stays_in_the_set_and_reaches_the_minimum_over_it():
    """The minimum of the objective is at (1, -2), that over the set at (1, 0)."""
    objective = NonNegative(DiagonalQuadratic([1.0, 1.0], minimizer=torch.tensor([1.0, -2.0]), dtype=DOUBLE))
    flow, target = ProximalFlow(objective, 0.5), torch.tensor([1.0, 0.0], dtype=DOUBLE)
    x0 = torch.tensor([0.2, 0.3], dtype=DOUBLE)
    with torch.no_grad():
        solution = checks.stopping_time(flow, x0, lambda x: (x - target).norm(dim=-1), 1e-2)
        states = solution.trajectory(torch.linspace(0, float(solution.time), 20, dtype=DOUBLE))
    assert torch.isfinite(solution.time)
    assert bool((states >= -1e-12).all())


def test_without_a_penalty_it_is_the_gradient_flow_with_its_time_divided_by_the_step():
    class Plain(NonNegative):
        def proximal(self, v: Tensor, step: float | Tensor) -> Tensor:
            return v

    rosenbrock = Rosenbrock(2, b=2.0)
    question = (torch.tensor([0.6, 0.5], dtype=DOUBLE), rosenbrock, 0.05)
    with torch.no_grad():
        time = checks.stopping_time(ProximalFlow(Plain(rosenbrock), 0.25), *question).time
        plain = checks.stopping_time(GradientFlow(rosenbrock), *question).time
    torch.testing.assert_close(time, 4 * plain, rtol=1e-9, atol=0.0)


def test_a_batch_with_its_own_steps_equals_its_rows():
    step, x0 = torch.tensor([0.3, 0.6], dtype=DOUBLE), torch.stack([FAR, 1.2 * FAR])
    flow, criterion = ProximalFlow(LASSO, step), squared_mapping(LASSO)
    thresholds = 0.4 * criterion(x0)
    batch = checks.stopping_time(flow, x0, criterion, thresholds).time
    (gradient,) = torch.autograd.grad(batch.sum(), flow.step)
    for row in range(2):
        alone = ProximalFlow(LASSO, step[row])
        single = checks.stopping_time(alone, x0[row], criterion, thresholds[row]).time
        torch.testing.assert_close(single, batch[row], rtol=1e-7, atol=0.0)
        torch.testing.assert_close(torch.autograd.grad(single, alone.step)[0], gradient[row])


def test_float32_stays_float32():
    flow = ProximalFlow(Lasso(torch.eye(3), torch.ones(3), 0.1), 0.5)
    assert (
        flow(torch.zeros(2, 1), torch.ones(2, 3)).dtype == flow(torch.tensor(0.0), torch.ones(3)).dtype == torch.float32
    )


def test_second_derivatives_are_right_away_from_the_kinks():
    flow = ProximalFlow(BOX, 0.1)

    def slope(x, step):
        return torch.func.functional_call(flow, {"step": step}, (torch.tensor(0.0), x))

    inputs = (torch.tensor([[0.6, 0.5], [0.9, 0.4]], dtype=DOUBLE, requires_grad=True), flow.step)
    assert torch.autograd.gradcheck(slope, inputs)
    assert torch.autograd.gradgradcheck(slope, inputs)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"step must be positive, got 0.0"):
        ProximalFlow(LASSO, 0.0)
    with pytest.raises(ValueError, match=r"must be an odestop.objectives.CompositeObjective such as Lasso, got"):
        ProximalFlow(Objective.from_function(lambda x: x.sum(-1)), 0.5)
