"""The objective (10) with the stopping time of f(x_k) ≤ ε, against the discrete stopping time."""

from __future__ import annotations

import pytest
import torch

import odestop
from odestop.l2o import RNNprop, TrainingLoss
from tests.l2o.networks import descending, logistic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

HORIZON, THRESHOLD = 30, 1.5


@pytest.mark.parametrize("sensitivity", ["definition3", "interpolated"])
def test_one_segment_has_the_gradient_of_the_discrete_stopping_time(sensitivity: str) -> None:
    f = logistic()
    x0 = 2 * torch.randn(12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = descending(RNNprop).optimizer(f)
    weights = list(step.network.parameters())
    solution = odestop.discrete_stopping_time(step, x0, f, THRESHOLD, sensitivity=sensitivity, max_steps=HORIZON)
    reached = solution.reached
    assert 3 <= int(reached.sum()) < 12
    assert bool((solution.steps.detach() == 0).any())
    expected = torch.autograd.grad(solution.steps[reached].sum() / 12, weights)
    gradients = []
    for weight in (1.0, 0.0):
        unroll = TrainingLoss(HORIZON, HORIZON, weight, THRESHOLD, sensitivity, "value").start(step, x0)
        gradients.append(torch.autograd.grad(unroll.advance(), weights))
        assert unroll.stopped.tolist() == reached.tolist()
        torch.testing.assert_close(unroll.steps[reached], solution.steps.detach()[reached])
        assert unroll.steps[~reached].tolist() == [HORIZON] * int((~reached).sum())
    for with_n, without, reference in zip(*gradients, expected, strict=True):
        torch.testing.assert_close(with_n - without, reference, rtol=1e-9, atol=1e-9 * float(reference.abs().max()))


def test_segments_find_the_same_steps() -> None:
    f = logistic()
    x0 = 2 * torch.randn(12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = descending(RNNprop).optimizer(f)
    counts = []
    for segment in (1, 7, HORIZON):
        unroll = TrainingLoss(HORIZON, segment, threshold=THRESHOLD, criterion="value").start(step, x0)
        while not unroll.finished:
            unroll.advance()
        counts.append(unroll.steps.tolist())
    assert counts[0] == counts[1] == counts[2]
    assert len(set(counts[0])) > 3


def test_another_criterion_is_refused() -> None:
    with pytest.raises(ValueError, match="criterion must be one of 'decrease', 'value', got 'gap'"):
        TrainingLoss(criterion="gap")
