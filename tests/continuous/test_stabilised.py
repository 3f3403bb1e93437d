"""Stopping times of stiff flows by the stabilised methods, and their gradients."""

import math
import weakref

import numpy as np
import pytest
import torch

import odestop
from odestop.continuous.gradients.discrete_adjoint import RebuiltStep
from odestop.continuous.stopping_time import pose
from odestop.solvers import ROCK4, PrinceDormand8

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = {"dtype": torch.float64}
GRADIENTS = (
    "continuous_adjoint",
    "forward_sensitivity",
    "unrolled",
    odestop.gradients.FiniteDifference(relative_step=1e-5),
)


def size(x):
    return x.square().sum(-1)


class StiffFlow(torch.nn.Module):
    """A driven, nonlinear flow with rates from 1 to ``stiffness``."""

    def __init__(self, stiffness=1000.0, d=4):
        super().__init__()
        self.rates = torch.nn.Parameter(torch.logspace(0.0, math.log10(stiffness), d, **DOUBLE))
        self.drive = torch.nn.Parameter(torch.tensor(0.3, **DOUBLE))

    def forward(self, t, x):
        return -self.rates * (x + x**3) * (1.0 + self.drive * torch.cos(t))


def solved(flow, x0, threshold=1e-2, rtol=1e-6, **options):
    return odestop.continuous_stopping_time(flow, x0, size, threshold, rtol=rtol, atol=1e-3 * rtol, **options)


def gradient(solution, flow, *others):
    parts = torch.autograd.grad(solution.time.sum(), [*flow.parameters(), *others])
    return torch.cat([part.reshape(-1) for part in parts])


@pytest.mark.parametrize(("method", "rtol", "accuracy"), [("rock4", 1e-7, 1e-7), ("rkc2", 1e-5, 2e-3)])
def test_a_linear_decay_has_its_closed_form(method, rtol, accuracy):
    rates = torch.tensor([2.0, 1000.0], **DOUBLE, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -rates * x, torch.ones(2, **DOUBLE), lambda x: x[..., 0], 0.1, method=method, rtol=rtol
    )
    assert solution.time.item() == pytest.approx(math.log(10.0) / 2.0, rel=accuracy)
    solution.time.backward()
    assert rates.grad[0].item() == pytest.approx(-math.log(10.0) / 4.0, rel=10.0 * accuracy)
    assert abs(rates.grad[1].item()) < 1e-9


def test_a_stiff_flow_takes_a_fraction_of_the_evaluations():
    flow, x0 = StiffFlow(), torch.ones(4, **DOUBLE)
    exact = solved(flow, x0, rtol=1e-9, method=PrinceDormand8(stability_fraction=0.6))
    stabilised = solved(flow, x0, rtol=1e-5, method="rock4")
    assert stabilised.time.item() == pytest.approx(exact.time.item(), rel=1e-6)
    assert stabilised.stats.nfe < 0.4 * solved(flow, x0, rtol=1e-5, method="dopri5").stats.nfe
    assert size(stabilised.state).item() == pytest.approx(1e-2, rel=1e-13)
    assert stabilised.stats.rejected_steps.item() < 0.2 * stabilised.stats.accepted_steps.item()
    expected = gradient(exact, flow)
    assert float((gradient(stabilised, flow) - expected).norm() / expected.norm()) < 1e-4


def test_a_growing_spectral_radius_is_followed():
    rates = torch.tensor([1.0, 100.0], **DOUBLE)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -rates * (1.0 + 5.0 * t) * x, torch.ones(2, **DOUBLE), size, 1e-4, method="rock4"
    )
    # ∫ (1 + 5 t) dt = ln 100
    assert solution.time.item() == pytest.approx((math.sqrt(1.0 + 10.0 * math.log(100.0)) - 1.0) / 5.0, rel=1e-6)


def test_each_trajectory_of_a_batch_is_what_it_is_alone():
    flow = StiffFlow(300.0)
    x0 = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.2, 0.1, 3.0, 0.5], [5.0, 2.0, 0.1, 0.0]], **DOUBLE)
    t0 = torch.tensor([0.0, 0.5, -1.0], **DOUBLE)
    together = solved(flow, x0, method="rock4", t0=t0)
    whole = gradient(together, flow)
    alone = [solved(flow, x0[row], method="rock4", t0=t0[row]) for row in range(3)]
    # All but for the spectral radius, which is refined on the batch's clock and has a say in the step sizes.
    torch.testing.assert_close(together.time, torch.stack([each.time for each in alone]), rtol=1e-10, atol=0.0)
    torch.testing.assert_close(whole, sum(gradient(each, flow) for each in alone), rtol=1e-7, atol=1e-12)
    assert together.stats.nfe < sum(each.stats.nfe for each in alone)


@pytest.mark.parametrize("method", ["rock4", "rkc2"])
def test_the_discrete_adjoint_is_the_derivative_of_the_unrolled_steps(method):
    flow, x0 = StiffFlow(), torch.tensor([[1.0, 0.5, 1.0, 2.0], [0.3, 0.2, 0.1, 0.4]], **DOUBLE).requires_grad_()
    threshold = torch.tensor([0.1, 0.01], **DOUBLE, requires_grad=True)
    t0 = torch.zeros(2, **DOUBLE, requires_grad=True)
    found = {}
    for name in ("discrete_adjoint", "unrolled"):
        solution = solved(flow, x0, threshold, 1e-4, method=method, t0=t0, levels=True, gradient=name)
        loss = (solution.time * torch.tensor([1.0, 3.0], **DOUBLE)).sum() + solution.state[..., 1].sum()
        parts = torch.autograd.grad(loss, [*flow.parameters(), x0, threshold, t0])
        found[name] = torch.cat([part.reshape(-1) for part in parts])
    torch.testing.assert_close(found["discrete_adjoint"], found["unrolled"], rtol=1e-10, atol=1e-10)


def test_the_other_gradients_agree():
    flow, x0 = StiffFlow(100.0, d=2), torch.tensor([1.0, 0.5], **DOUBLE)
    expected = gradient(solved(flow, x0, rtol=1e-7, method="rock4"), flow)
    for method in GRADIENTS:
        found = gradient(solved(flow, x0, rtol=1e-7, method="rock4", gradient=method), flow)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_continuous_adjoint_takes_stabilised_steps_too():
    flow, x0 = StiffFlow(), torch.ones(4, **DOUBLE)
    solution = solved(flow, x0, rtol=1e-6, method="rock4")
    expected = gradient(solution, flow)
    backward = solved(flow, x0, rtol=1e-6, method="rock4", gradient=odestop.gradients.ContinuousAdjoint(rtol=1e-4))
    found = gradient(backward, flow)
    assert float((found - expected).norm() / expected.norm()) < 1e-3
    assert backward.stats.vjps < 0.2 * solution.stats.vjps


def test_checkpoints_do_not_change_the_gradient():
    flow, x0 = StiffFlow(300.0), torch.ones(4, **DOUBLE)
    every = gradient(solved(flow, x0, rtol=1e-4, method="rock4"), flow)
    sparse = solved(flow, x0, rtol=1e-4, method="rock4", gradient=odestop.gradients.DiscreteAdjoint(checkpoints=7))
    torch.testing.assert_close(gradient(sparse, flow), every, rtol=1e-12, atol=0.0)


def peak_bytes(run):
    """Largest amount of memory that a graph held at one time."""
    held, peak = [0], [0]

    class Packed:
        def __init__(self, tensor):
            self.tensor = tensor

    def release(bytes_):
        held[0] -= bytes_

    def pack(tensor):
        packed, bytes_ = Packed(tensor), tensor.numel() * tensor.element_size()
        weakref.finalize(packed, release, bytes_)
        held[0] += bytes_
        peak[0] = max(peak[0], held[0])
        return packed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed.tensor):
        run()
    return peak[0]


def test_memory_of_the_adjoint_of_a_step_grows_like_the_root_of_its_stages():
    flow, x = StiffFlow(d=50), torch.ones(50, **DOUBLE)
    problem = pose(flow, x, size, 0.1, 0.0)
    t, h = torch.zeros((), **DOUBLE), torch.tensor(0.01, **DOUBLE)

    def pulled(stages):
        rebuilt = RebuiltStep(problem, ROCK4(), t, x, h, np.array([stages]))
        return rebuilt.pull_back(torch.ones_like(x), problem.dynamics.parameters)

    def at_once(stages):
        leaf = x.clone().requires_grad_()
        end, _ = ROCK4().advance(problem.field_with_graph, t, leaf, h, stages=stages)
        return torch.autograd.grad(end, (leaf, *problem.dynamics.parameters), torch.ones_like(x))

    for part, whole in zip(pulled(233), at_once(233), strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-11, atol=1e-13)
    assert peak_bytes(lambda: pulled(233)) < 0.12 * peak_bytes(lambda: at_once(233))
    assert peak_bytes(lambda: pulled(233)) < 2.0 * peak_bytes(lambda: pulled(20))


def test_a_field_that_depends_on_no_state_has_a_gradient():
    speed = torch.tensor(2.0, **DOUBLE, requires_grad=True)
    for field in (lambda t, x: -speed * torch.ones_like(x), lambda t, x: -2.0 * torch.ones_like(x)):
        x0 = torch.ones(1, **DOUBLE, requires_grad=True)
        solution = odestop.continuous_stopping_time(field, x0, lambda x: x[..., 0], 0.1, method="rock4")
        solution.time.backward()
        assert x0.grad.item() == pytest.approx(0.5)
    assert speed.grad.item() == pytest.approx(-0.9 / 4.0)


def test_single_precision_stays_single():
    solution = odestop.continuous_stopping_time(
        lambda t, x: -torch.tensor([1.0, 300.0]) * x, torch.ones(2), lambda x: x[..., 0], 0.1, method="rock4", rtol=1e-4
    )
    assert solution.time.dtype == torch.float32
    assert solution.time.item() == pytest.approx(math.log(10.0), rel=1e-4)
