"""Learned step maps obey the protocol, and their derivatives are exact."""

import pytest
import torch

import odestop
from odestop.comparison import loss_identity
from odestop.criteria import StepDecrease
from odestop.discrete import StepMap
from odestop.l2o import L2ODM, RNNprop
from odestop.objectives import DiagonalQuadratic
from tests.l2o.networks import NETWORK_CLASSES, descending, logistic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.mark.parametrize("network_class", NETWORK_CLASSES)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_the_flat_state_takes_the_steps_of_the_structured_one(network_class, batch):
    step = network_class(hidden=3).optimizer(DiagonalQuadratic([1.0, 4.0]))
    assert isinstance(step, StepMap)
    x0 = torch.randn(*batch, 2)
    state = step.initial_state(x0)
    rows = 12 + (2 if network_class is RNNprop else 0)
    assert state.shape == (*batch, 2 * (1 + rows))
    for k, x in enumerate(step.iterates(x0, 4)):
        torch.testing.assert_close(step.position(state), x, rtol=0, atol=0)
        state = step(k, state)


@pytest.mark.parametrize("detach_gradient", [False, True])
@pytest.mark.parametrize("network_class", NETWORK_CLASSES)
def test_the_gradient_of_n_is_that_of_unrolled_autograd(network_class, detach_gradient):
    """Algorithm 1 against eq. (8) with everything differentiated through all steps."""
    f, network = logistic(), descending(network_class)
    step = network.optimizer(f, detach_gradient=detach_gradient)
    x0 = 2 * torch.randn(6, dtype=torch.float64)
    x0.requires_grad_()
    solution = odestop.discrete_stopping_time(step, x0, StepDecrease(f), 2e-2, max_steps=200)
    steps = int(solution.steps)
    assert 5 <= steps <= 60
    wanted = [*network.parameters(), x0]
    answers = torch.autograd.grad(solution.steps, wanted)
    values = [f(x) for x in step.iterates(x0, steps)]
    decrease = values[-2] - values[-1]
    slope = (decrease - (values[-3] - values[-2])).detach()
    expected = torch.autograd.grad(-decrease / slope, wanted)
    for answer, reference in zip(answers, expected, strict=True):
        scale = reference.abs().max()
        assert scale > 0
        assert (answer - reference).abs().max() <= 1e-10 * scale


@pytest.mark.parametrize("network_class", NETWORK_CLASSES)
def test_the_loss_identity_holds(network_class):
    """Equation (12): the derivatives of the losses are those of stopping times, weighted by the decreases."""
    f, network = logistic(), descending(network_class)
    x0 = 2 * torch.ones(6, dtype=torch.float64)
    identity = loss_identity(network.optimizer(f), x0, f, 10, list(network.parameters()))
    for losses, times in zip(identity.by_losses, identity.by_stopping_times, strict=True):
        assert (losses - times).abs().max() <= 1e-10 * losses.abs().max()


def test_detaching_leaves_the_iterates_and_drops_the_hessian():
    f, network = logistic(), L2ODM(hidden=4, output_scale=1.0, dtype=torch.float64)
    x0 = torch.ones(6, dtype=torch.float64)
    paths = [list(network.optimizer(f, detach_gradient=detach).iterates(x0, 5)) for detach in (False, True)]
    torch.testing.assert_close(paths[0][-1], paths[1][-1], rtol=0, atol=0)
    exact, detached = (torch.autograd.grad(f(path[-1]), network.readout)[0] for path in paths)
    assert (exact - detached).abs().max() > 1e-4 * exact.abs().max()


def test_weights_are_shared_by_all_objectives():
    network = L2ODM(hidden=3)
    first, second = (network.optimizer(DiagonalQuadratic([1.0] * d)) for d in (2, 5))
    with torch.no_grad():
        network.readout.zero_()
    for step, d in ((first, 2), (second, 5)):
        *_, x = step.iterates(torch.ones(d), 2)
        assert torch.equal(x, torch.ones(d))


def test_another_dtype_is_refused():
    step = RNNprop(hidden=3).optimizer(DiagonalQuadratic([1.0, 4.0]))
    with pytest.raises(ValueError, match=r"x0 must have the dtype of the network, torch\.float32, got torch\.float64"):
        step.initial_state(torch.ones(2, dtype=torch.float64))
