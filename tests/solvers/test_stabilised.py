"""Stabilised methods: order conditions, stability on the real axis and beside it, batches, segments, generation."""

import math

import numpy as np
import pytest
import torch

from odestop.solvers import METHODS, RKC2, ROCK4, DormandPrince5
from odestop.solvers.stability_polynomials import StabilityPolynomial, longest, stage_counts
from odestop.solvers.stability_zeros import ZEROS
from tests.solvers.test_tableaus import density, rooted_trees, stage_weights

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

METHOD = {"rock4": ROCK4(), "rkc2": RKC2()}
CASES = [("rock4", s) for s in (5, 6, 7, 17, 49, 102)] + [("rkc2", s) for s in (2, 3, 10, 60)]
every_case = pytest.mark.parametrize(("name", "stages"), CASES)
every_method = pytest.mark.parametrize("name", list(METHOD))


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def tableau_of(method, stages):
    """a_ij with the end slope as one more stage, error weights and nodes: what a step does to unit slopes."""
    times, states = [], []

    def field(t, x):
        times.append(t.item())
        states.append(x.numpy().copy())
        return torch.eye(stages + 2, dtype=torch.float64)[len(states) - 1]

    start = torch.zeros(stages + 2, dtype=torch.float64)
    first = field(torch.tensor(0.0), start)
    step = method.step(field, double(0.0)[0], start, double(1.0)[0], first, stages)
    matrix = np.array(states)[: stages + 1, : stages + 1]
    return matrix, step.error.numpy()[: stages + 1], np.array(times)[: stages + 1]


def defects(matrix, weights, order):
    return max(abs(weights @ stage_weights(matrix, tree) - 1 / density(tree)) for tree in rooted_trees(order))


def growth(method, stages, z):
    """R(z) for many z at once."""
    time, h = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    return method.advance(lambda t, x: z * x, time, torch.ones_like(z), h, stages=stages)[0]


def coupled(t, x):
    """Two coupled, driven equations, whose order conditions all matter."""
    p, q = x.unbind(-1)
    return torch.stack((-p * q + torch.cos(3.0 * t), p.square() - 0.5 * q * torch.sin(t)), -1)


def test_aliases_name_the_methods():
    assert METHODS["rock4"] == ROCK4()
    assert METHODS["rkc2"] == RKC2()
    assert METHODS["rock4"].fixed_step_size is None


@every_case
def test_weights_satisfy_the_conditions_of_exactly_their_order(name, stages):
    method = METHOD[name]
    matrix, _, _ = tableau_of(method, stages)
    assert max(defects(matrix, matrix[-1], order) for order in range(1, method.order + 1)) < 2e-14
    assert defects(matrix, matrix[-1], method.order + 1) > 1e-4


@every_case
def test_rows_sum_to_their_nodes(name, stages):
    matrix, _, nodes = tableau_of(METHOD[name], stages)
    assert matrix.sum(1) == pytest.approx(nodes, abs=1e-13)
    assert np.allclose(np.triu(matrix), 0.0)
    assert nodes.max() < 1.05


@every_case
def test_error_estimate_vanishes_to_exactly_its_order(name, stages):
    method = METHOD[name]
    matrix, error, _ = tableau_of(method, stages)
    sizes = [
        max(abs(error @ stage_weights(matrix, tree)) for tree in rooted_trees(order))
        for order in range(1, method.error_order + 2)
    ]
    assert max(sizes[:-1]) < 2e-14
    assert sizes[-1] > 1e-3


@pytest.mark.parametrize(("name", "stages"), [("rock4", 5), ("rock4", 24), ("rkc2", 7)])
def test_global_error_falls_with_the_order_on_a_driven_nonlinear_problem(name, stages):
    method = METHOD[name]

    def end(method, steps, stages):
        t, x, h = double(0.0)[0], double(1.0, 0.5), double(1.0 / steps)[0]
        for _ in range(steps):
            x, _ = method.advance(coupled, t, x, h, stages=stages)
            t = t + h
        return x

    exact = end(METHODS["dopri8"], 40, None)
    coarse, fine = (float((end(method, steps, stages) - exact).norm()) for steps in (20, 40))
    assert math.log2(coarse / fine) == pytest.approx(method.order, abs=0.3)


@pytest.mark.parametrize("stages", [5, 6, 9, 24, 49, 123, 244])
def test_rock4_is_damped_on_its_whole_real_interval(stages):
    limit = ROCK4().coefficients(stages).stability_limit
    z = -torch.linspace(0.0, limit, 100 * stages + 1, dtype=torch.float64)
    size = growth(ROCK4(), stages, z).abs()
    assert bool((size[1:] < 1.0).all())
    assert float(size[z < -0.5 * limit].max()) < 0.801
    assert float(growth(ROCK4(), stages, double(-1.05 * limit)).abs()) > 1.0


@pytest.mark.parametrize(("stages", "width"), [(5, 0.5), (9, 0.5), (24, 1.7), (49, 1.7), (244, 1.7)])
def test_rock4_is_stable_beside_the_real_axis(stages, width):
    limit = ROCK4().stability_fraction * ROCK4().coefficients(stages).stability_limit
    real = -torch.linspace(0.0, limit, 4001, dtype=torch.float64)
    for imaginary in (0.3 * width, width):
        z = torch.complex(real, torch.full_like(real, imaginary))[real <= -0.5 * imaginary**2]
        assert float(growth(ROCK4(), stages, z).abs().max()) < 1.0


@pytest.mark.parametrize("stages", [2, 3, 10, 100, 250])
def test_rkc2_does_not_grow_on_its_real_interval(stages):
    limit = RKC2().coefficients(stages).stability_limit
    z = -torch.linspace(0.0, limit, 50 * stages + 1, dtype=torch.float64)
    assert float(growth(RKC2(), stages, z).abs().max()) < 1.0 + 1e-12


def test_the_interval_grows_with_the_square_of_the_stages():
    counts, limits = ROCK4().counts_and_limits()
    assert counts.tolist() == stage_counts()
    assert (limits[counts >= 35] > 0.34 * counts[counts >= 35] ** 2).all()
    assert (limits >= 0.23 * counts**2).all()
    counts, limits = RKC2().counts_and_limits()
    assert limits[-1] / counts[-1] ** 2 == pytest.approx(0.653, abs=1e-3)


@pytest.mark.parametrize("stages", [5, 24, 123])
def test_rock4_estimates_stiff_errors_as_what_they_are(stages):
    limit = ROCK4().coefficients(stages).stability_limit
    z = -torch.linspace(0.0, limit, 5001, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    error = ROCK4().step(lambda t, x: z * x, 0 * one, torch.ones_like(z), one, z, stages).error.abs()
    assert 0.7 < float(error.max()) < 1.15


def test_stages_are_the_fewest_that_are_stable():
    method = ROCK4(stability_fraction=0.8)
    counts, limits = method.counts_and_limits()
    reach = np.array([0.0, 0.5, 10.0, 400.0, 1e4, 1e9])
    stages = method.stages_for(reach, np.ones_like(reach))
    for wanted, taken in zip(reach, stages, strict=True):
        enough = counts[0.8 * limits >= wanted]
        assert taken == (enough[0] if enough.size else counts[-1])
    at_cap = np.array([0.8 * method.stability_limit])
    assert method.stages_for(at_cap * 3.0, np.array([1.0 / 3.0])) == counts[-1]
    assert DormandPrince5().stages_for(reach, reach).tolist() == [6] * 6


@every_method
def test_each_trajectory_of_a_batch_takes_its_own_stages(name):
    method, stages = METHOD[name], np.array([5, 24, 9, 6])
    t, h = double(0.0, 0.3, 1.0, 0.2).reshape(2, 2), double(0.1, 0.25, 0.0, 0.01).reshape(2, 2)
    x = torch.rand(2, 2, 2, dtype=torch.float64)
    together = method.step(coupled, t, x, h, coupled(t, x), stages)
    dense = method.dense_output(together)(torch.full_like(t, 0.4))
    for row, index in enumerate(np.ndindex(2, 2)):
        alone = method.step(coupled, t[index], x[index], h[index], coupled(t[index], x[index]), int(stages[row]))
        for part in ("end", "end_slope", "error", "slope_error"):
            torch.testing.assert_close(getattr(together, part)[index], getattr(alone, part), rtol=1e-13, atol=1e-16)
        torch.testing.assert_close(dense[index], method.dense_output(alone)(double(0.4)[0]))
    assert together.stages.tolist() == stages.tolist()
    torch.testing.assert_close(together.end[1, 0], together.start[1, 0], rtol=1e-14, atol=0.0)


@every_method
def test_a_step_costs_its_stages_and_the_two_slopes_at_its_end(name):
    calls = []

    def field(t, x):
        calls.append(t)
        return coupled(t, x)

    t, x, h = double(0.1)[0], double(1.0, 0.4), double(0.1)[0]
    step = METHOD[name].step(field, t, x, h, coupled(t, x), 9)
    assert len(calls) == 9 - 1 + 2
    assert METHOD[name].evaluations(step.stages) == 9
    torch.testing.assert_close(
        step.slope_error, coupled(t + h, step.end) - coupled(t + h, step.end - step.error), rtol=0.0, atol=0.0
    )


@every_method
def test_segments_compose_to_the_step_and_are_short(name):
    method, stages = METHOD[name], np.array([102, 9, 24])
    t, h, x = double(0.0, 0.3, 0.5), double(0.2, 0.1, 0.05), torch.rand(3, 2, dtype=torch.float64)
    calls, counts, carry = [], [], (x,)

    def field(t, x):
        calls.append(t)
        return coupled(t, x)

    for segment in method.segments(field, t, h, stages):
        carry = segment(carry)
        counts.append(len(calls) - sum(counts))
    torch.testing.assert_close(carry[0], method.advance(coupled, t, x, h, stages=stages)[0], rtol=0.0, atol=0.0)
    assert sum(counts) == 102
    assert max(counts) <= 14
    assert len(method.segments(field, t, h, 9)) == 1
    assert len(DormandPrince5().segments(field, t, h)) == 1


@every_method
def test_a_step_is_differentiable_in_everything(name):
    t, h, x = double(0.3, 0.1), double(0.2, 0.4), double([0.9, 0.2], [0.3, 0.5])
    inputs = tuple(value.requires_grad_() for value in (t, x, h))
    stages = np.array([5, 11])
    assert torch.autograd.gradcheck(
        lambda t, x, h: METHOD[name].advance(coupled, t, x, h, stages=stages)[0], inputs, rtol=1e-6
    )


@every_method
def test_a_step_stays_in_single_precision(name):
    t, x = torch.tensor([0.4, 0.1]), torch.tensor([[1.0, 0.3], [0.2, 0.1]])
    step = METHOD[name].step(coupled, t, x, torch.tensor([0.1, 0.2]), coupled(t, x), np.array([5, 17]))
    parts = (step.end, step.error, step.slope_error, METHOD[name].dense_output(step)(t))
    assert {part.dtype for part in parts} == {torch.float32}


@every_method
def test_dense_output_meets_the_step_at_both_ends_with_its_slopes(name):
    t, x, h = double(0.3)[0], double(1.0, 0.4), double(0.2)[0]
    step = METHOD[name].step(coupled, t, x, h, coupled(t, x), 9)
    dense = METHOD[name].dense_output(step)
    for at, state, slope in ((0.0, step.start, step.slopes[0]), (1.0, step.end, step.end_slope)):
        fraction = double(at)[0].requires_grad_()
        inside = dense(fraction)
        torch.testing.assert_close(inside, state, rtol=1e-14, atol=0.0)
        derivative = torch.stack([torch.autograd.grad(part, fraction, retain_graph=True)[0] for part in inside])
        torch.testing.assert_close(derivative, h * slope, rtol=1e-13, atol=0.0)
    middle, _ = METHODS["dopri8"].advance(coupled, t, x, 0.5 * h)
    assert float((dense(double(0.5)[0]) - middle).norm()) < {"rock4": 5e-4, "rkc2": 5e-3}[name]


@every_method
@pytest.mark.parametrize("stages", [None, 1, 4000])
def test_a_number_of_stages_must_be_one_that_there_is(name, stages):
    t, x = double(0.0)[0], double(1.0, 2.0)
    with pytest.raises(ValueError, match=r"stages must be among .*, got"):
        METHOD[name].advance(coupled, t, x, t, stages=stages)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.1, math.inf, math.nan])
def test_the_stability_fraction_of_a_stabilised_method_is_at_most_one(fraction):
    with pytest.raises(ValueError, match="stability_fraction must lie in"):
        ROCK4(stability_fraction=fraction)


@pytest.mark.parametrize("stages", [6, 20])
def test_the_table_holds_the_longest_intervals(stages):
    known = StabilityPolynomial(stages, ZEROS[stages])
    assert np.abs(known.defects).max() < 1e-7
    assert known.peaks().max() == pytest.approx(0.8, abs=1e-6)
    found = StabilityPolynomial(stages, longest(stages, tuple(1.02 * np.array(ZEROS[stages]))))
    assert found.interval == pytest.approx(known.interval, rel=1e-6)


def test_a_polynomial_that_cannot_be_found_is_an_error():
    with pytest.raises(RuntimeError, match="no stability polynomial of 20 stages"):
        longest(20, ZEROS[20], damping=-0.5)
