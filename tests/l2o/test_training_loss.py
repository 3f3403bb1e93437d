"""The objective (10) against Definitions 2 and 3, written out, and against finite differences."""

import pytest
import torch

import odestop
from odestop.criteria import StepDecrease
from odestop.l2o import LearnedOptimizer, TrainingLoss
from odestop.objectives import Objective
from tests.l2o.networks import NETWORK_CLASSES, descending, logistic

THRESHOLD = 0.05


@pytest.fixture(scope="module")
def x0():
    """Starts of which some stop late, some early, some at once and some never within 30 steps."""
    return 2 * torch.randn(12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def total(loss, step, x0):
    """The objective's parts, summed with their graphs, and the finished run."""
    unroll = loss.start(step, x0)
    parts = 0.0
    while not unroll.finished:
        parts = parts + unroll.advance()
    return parts, unroll


def gradient_of_stopping_part(step, x0, **settings):
    """The derivative of the mean of N over the batch, as the difference of λ = 1 and λ = 0."""
    weights = list(step.network.parameters())
    with_n, without = (
        torch.autograd.grad(total(TrainingLoss(stopping_weight=weight, **settings), step, x0)[0], weights)
        for weight in (1.0, 0.0)
    )
    return [one - other for one, other in zip(with_n, without, strict=True)]


@pytest.mark.parametrize("network_class", NETWORK_CLASSES)
def test_values_and_counts_are_those_of_a_plain_loop(network_class, x0):
    f, horizon = logistic(), 30
    step = descending(network_class).optimizer(f)
    settings = TrainingLoss(horizon, segment=7, stopping_weight=0.5, threshold=THRESHOLD)
    parts, unroll = total(settings, step, x0)
    values = torch.stack([f(x) for x in step.iterates(x0, horizon)]).T.tolist()
    counts = [next((k for k in range(1, horizon + 1) if path[k - 1] - path[k] <= THRESHOLD), None) for path in values]
    assert None in counts
    assert len({count for count in counts if count is not None}) >= 4
    for b, (path, count) in enumerate(zip(values, counts, strict=True)):
        assert unroll.stopped[b] == (count is not None)
        assert unroll.steps[b] == (count or horizon)
        assert unroll.mean_value[b].item() == pytest.approx(sum(path[1:]) / horizon, rel=1e-12)
        assert unroll.value[b].item() == pytest.approx(path[-1], rel=1e-12)
    never = counts.count(None)
    assert parts.item() == pytest.approx(unroll.loss.mean().item() - 0.5 * horizon * never / 12, rel=1e-12)


@pytest.mark.parametrize("detach_gradient", [False, True])
@pytest.mark.parametrize("sensitivity", ["definition3", "interpolated"])
@pytest.mark.parametrize("network_class", NETWORK_CLASSES)
def test_one_segment_has_the_gradient_of_the_discrete_stopping_time(network_class, sensitivity, detach_gradient, x0):
    f = logistic()
    step = descending(network_class).optimizer(f, detach_gradient=detach_gradient)
    solution = odestop.discrete_stopping_time(
        step, x0, StepDecrease(f), THRESHOLD, sensitivity=sensitivity, max_steps=30
    )
    assert 3 <= int(solution.reached.sum()) < 12
    weights = list(step.network.parameters())
    expected = torch.autograd.grad(solution.steps[solution.reached].sum() / 12, weights)
    answers = gradient_of_stopping_part(step, x0, horizon=30, segment=30, threshold=THRESHOLD, sensitivity=sensitivity)
    for answer, reference in zip(answers, expected, strict=True):
        assert reference.abs().max() > 0
        assert (answer - reference).abs().max() <= 1e-10 * reference.abs().max()
    _, unroll = total(TrainingLoss(30, 30, 1.0, THRESHOLD, sensitivity), step, x0)
    torch.testing.assert_close(
        unroll.steps[solution.reached], solution.steps.detach()[solution.reached], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("network_class", NETWORK_CLASSES)
def test_segments_start_from_constants(network_class, x0):
    """Definition 3 for every problem, with the state at the start of its own segment taken as a constant."""
    f, segment = logistic(), 4
    step = descending(network_class).optimizer(f)
    weights = list(step.network.parameters())
    _, unroll = total(TrainingLoss(30, segment, 1.0, THRESHOLD), step, x0)
    crossed = [(b, int(n)) for b, n in enumerate(unroll.steps) if unroll.stopped[b] and n > 1]
    # A stop on the first step of a segment has f(x_{N-1}) and J(x_{N-1}) from the segment before.
    assert {n % segment == 1 for _, n in crossed} == {True, False}
    expected = [torch.zeros_like(weight) for weight in weights]
    for b, n in crossed:
        first = (n - 1) // segment * segment
        x, memory, values = x0[b], step.initial_memory(x0[b]), [f(x0[b])]
        for k in range(n):
            if k == first:
                x, memory, values = x.detach(), tuple(part.detach() for part in memory), [v.detach() for v in values]
            x, memory = step.advance(k, x, memory)
            values.append(f(x))
        decrease, before = values[n - 1] - values[n], (values[n - 2] - values[n - 1]).detach()
        for sum_, gradient in zip(expected, torch.autograd.grad(decrease, weights), strict=True):
            sum_ -= gradient / (decrease.detach() - before) / 12
    answers = gradient_of_stopping_part(step, x0, horizon=30, segment=segment, threshold=THRESHOLD)
    for answer, reference in zip(answers, expected, strict=True):
        assert (answer - reference).abs().max() <= 1e-10 * reference.abs().max()


@pytest.mark.parametrize("network_class", NETWORK_CLASSES)
def test_the_sum_of_values_agrees_with_finite_differences(network_class, x0):
    step = descending(network_class).optimizer(logistic())
    loss = TrainingLoss(6, 6, stopping_weight=0.0)
    weights = list(step.network.parameters())
    gradients = torch.autograd.grad(total(loss, step, x0)[0], weights)
    directions = [torch.randn_like(weight) for weight in weights]
    slope = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
    ends = []
    with torch.no_grad():
        for sign in (1e-6, -1e-6):
            for weight, direction in zip(weights, directions, strict=True):
                weight += sign * direction
            ends.append(total(loss, step, x0)[0].item())
            for weight, direction in zip(weights, directions, strict=True):
                weight -= sign * direction
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope.item(), rel=1e-6)


def test_a_problem_that_fails_neither_stops_nor_contributes_to_n():
    class Breaks(LearnedOptimizer):
        """Gradient descent at rate 1/2, which breaks the second problem at step 2."""

        memory_rows = ()

        def __init__(self):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(0.5))

        def update(self, k, gradient, memory):
            broken = torch.tensor([[0.0], [torch.nan if k == 1 else 0.0]])
            return -self.rate * gradient + broken, memory

    f = Objective.from_function(lambda x: x.square().sum(-1) / 2)
    unroll = TrainingLoss(6, 6, threshold=1.0).start(Breaks().optimizer(f), torch.tensor([[8.0], [8.0]]))
    unroll.advance()
    # x = 8, 4, 2, 1, 0.5: f falls by 24, 6, 1.5, 0.375.
    assert unroll.steps.tolist() == [4.0, 6.0]
    assert unroll.stopped.tolist() == [True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "horizon must be"),
        ({"segment": 0}, "segment must be"),
        ({"stopping_weight": -1.0}, "stopping_weight must be"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"sensitivity": "hermite"}, "sensitivity must be 'definition3' or 'interpolated' for a learned optimizer"),
        ({"sensitivity": "exact"}, "sensitivity must be one of"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingLoss(**settings)
