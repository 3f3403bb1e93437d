"""Batches of problems against the same problems one by one, autograd, and what their distributions promise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import odestop
from odestop.discrete import GradientDescent
from odestop.l2o.problems import (
    DISTRIBUTIONS,
    LassoProblems,
    LogisticProblems,
    ProblemDistribution,
    QuadraticProblems,
    SubgradientLasso,
)
from odestop.objectives import Lasso, LeastSquares, LogisticRegression, Objective, Quadratic

DOUBLE = torch.float64
SMALL: dict[str, ProblemDistribution] = {
    "logistic": LogisticProblems(dimension=7, samples=5, density=0.4, flipped=0.2),
    "lasso": LassoProblems(dimension=7, samples=5, density=0.4),
    "quadratic": QuadraticProblems(dimension=7),
}
every_distribution = pytest.mark.parametrize("distribution", SMALL.values(), ids=SMALL)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_by_one(objective: Objective) -> list[Objective]:
    """The same problems, built by the constructors for a single one."""
    if isinstance(objective, Lasso):
        pairs = zip(objective.smooth.features, objective.smooth.targets, strict=True)
        return [SubgradientLasso(features, targets, objective.regularization) for features, targets in pairs]
    if isinstance(objective, LogisticRegression):
        return [LogisticRegression(*pair) for pair in zip(objective.features, objective.labels, strict=True)]
    assert isinstance(objective, Quadratic)
    return [Quadratic(*pair) for pair in zip(objective.matrix, objective.minimizer, strict=True)]


@every_distribution
def test_a_batch_is_its_problems_one_by_one(distribution: ProblemDistribution) -> None:
    objective, x0 = distribution.sample(3, seeded(), dtype=DOUBLE)
    x, v = (torch.randn(4, *x0.shape, dtype=DOUBLE, generator=seeded(seed)) for seed in (1, 2))
    for index, single in enumerate(one_by_one(objective)):
        torch.testing.assert_close(objective(x)[:, index], single(x[:, index]))
        torch.testing.assert_close(objective.gradient(x)[:, index], single.gradient(x[:, index]))
        expected = single.hessian_vector_product(x[:, index], v[:, index])
        torch.testing.assert_close(objective.hessian_vector_product(x, v)[:, index], expected)
        assert float(objective.smoothness[index]) == pytest.approx(single.smoothness, rel=1e-12)
        torch.testing.assert_close(objective(x[0])[index], objective(x)[0, index])


@every_distribution
def test_gradients_are_those_of_autograd(distribution: ProblemDistribution) -> None:
    objective, x0 = distribution.sample(3, seeded(), dtype=DOUBLE)
    x = torch.randn(x0.shape, dtype=DOUBLE, generator=seeded(1)).requires_grad_()
    (expected,) = torch.autograd.grad(objective.value(x).sum(), x)
    torch.testing.assert_close(objective.gradient(x), expected)
    value, gradient = objective.value_and_gradient(x)
    torch.testing.assert_close(value, objective.value(x))
    torch.testing.assert_close(gradient, expected)
    (product,) = torch.autograd.grad(gradient, x, torch.ones_like(x))
    torch.testing.assert_close(objective.hessian_vector_product(x, torch.ones_like(x)), product)


@every_distribution
@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([2, 0]), 1])
def test_some_of_the_problems(distribution: ProblemDistribution, index: slice | Tensor | int) -> None:
    objective, x0 = distribution.sample(3, seeded(), dtype=DOUBLE)
    x = torch.randn(x0.shape, dtype=DOUBLE, generator=seeded(1))
    chosen = objective.problems(index)
    torch.testing.assert_close(chosen(x[index]), objective(x)[index])
    torch.testing.assert_close(chosen.gradient(x[index]), objective.gradient(x)[index])
    torch.testing.assert_close(chosen.smoothness, objective.smoothness[index])
    if isinstance(index, int):
        with pytest.raises(ValueError, match="problems must be those of an objective with data for several"):
            chosen.problems(0)


@every_distribution
def test_a_seed_gives_the_same_problems_in_every_dtype(distribution: ProblemDistribution) -> None:
    x = torch.randn(3, distribution.dimension, generator=seeded(1))
    single, _ = distribution.sample(3, seeded())
    again, _ = distribution.sample(3, seeded())
    double, x0 = distribution.sample(3, seeded(), dtype=DOUBLE)
    other, _ = distribution.sample(3, seeded(5))
    assert single(x).dtype == torch.float32
    assert x0.dtype == DOUBLE
    assert torch.equal(single(x), again(x))
    torch.testing.assert_close(single(x).double(), double(x.double()), rtol=1e-5, atol=1e-6)
    assert not torch.isclose(single(x), other(x)).any()


@every_distribution
def test_the_smoothness_bounds_every_problem(distribution: ProblemDistribution) -> None:
    objective, x0 = distribution.sample(3, seeded(), dtype=DOUBLE)
    assert objective.smoothness.shape == (3,)
    for x in torch.randn(5, *x0.shape, dtype=DOUBLE, generator=seeded(1)):
        directions = torch.eye(distribution.dimension, dtype=DOUBLE).unsqueeze(1).expand(-1, 3, -1)
        hessians = objective.hessian_vector_product(x.expand_as(directions), directions).movedim(0, -1)
        assert bool((torch.linalg.eigvalsh(hessians)[:, -1] <= objective.smoothness * (1 + 1e-10)).all())


def test_labels_are_those_of_a_sparse_truth_but_for_the_flipped_ones() -> None:
    distribution = LogisticProblems(dimension=5, samples=200, density=0.2, flipped=0.03)
    objective, x0 = distribution.sample(20, seeded(), dtype=DOUBLE)
    unflipped, _ = replace(distribution, flipped=0.0).sample(20, seeded(), dtype=DOUBLE)
    # With one entry of x* that is not 0, the labels are the signs of one feature, or their opposites.
    agreeing = (unflipped.features.sign() * unflipped.labels.unsqueeze(-1)).mean(1).abs()
    assert (agreeing == 1).sum(-1).tolist() == [1] * 20
    assert len(set(agreeing.argmax(-1).tolist())) > 1
    assert torch.equal(objective.features, unflipped.features)
    assert (objective.labels != unflipped.labels).sum(-1).tolist() == [6] * 20
    assert objective.minimum is None
    assert torch.equal(x0, torch.zeros(20, 5, dtype=DOUBLE))


def test_problems_with_fewer_samples_than_dimensions_are_separable() -> None:
    objective, _ = LogisticProblems(dimension=12, samples=12, flipped=0.5).sample(2, seeded(), dtype=DOUBLE)
    separator = torch.linalg.solve(objective.features, objective.labels)
    assert objective.minimum == 0.0
    assert bool((objective(50 * separator) < 1e-20).all())


def test_lasso_targets_have_a_sparse_solution() -> None:
    objective, _ = LassoProblems(dimension=10, samples=10, density=0.25, regularization=0.0).sample(
        2, seeded(), dtype=DOUBLE
    )
    truth = torch.linalg.solve(objective.smooth.features, objective.smooth.targets)
    assert (truth.abs() > 1e-9).sum(-1).tolist() == [3, 3]
    torch.testing.assert_close(objective(truth), torch.zeros(2, dtype=DOUBLE), atol=1e-20, rtol=0)


def test_quadratics_have_condition_numbers_over_the_whole_range() -> None:
    distribution = QuadraticProblems(dimension=5, smallest_condition=10, largest_condition=1000)
    objective, _ = distribution.sample(400, seeded(), dtype=DOUBLE)
    spectra = torch.linalg.eigvalsh(objective.matrix)
    condition = (spectra[:, -1] / spectra[:, 0]).log10()
    torch.testing.assert_close(spectra[:, -1], torch.ones(400, dtype=DOUBLE))
    torch.testing.assert_close(spectra, objective.eigenvalues)
    assert 1 <= float(condition.min()) < 1.05
    assert 2.95 < float(condition.max()) <= 3
    assert float(condition.mean()) == pytest.approx(2.0, abs=0.1)
    torch.testing.assert_close(objective(objective.minimizer), torch.zeros(400, dtype=DOUBLE))


def test_step_maps_and_criteria_take_a_batch_as_any_objective() -> None:
    objective, x0 = SMALL["logistic"].sample(3, seeded(), dtype=DOUBLE)
    step = GradientDescent(objective, 1 / objective.smoothness)
    criterion = odestop.criteria.StepDecrease(objective)
    together = odestop.discrete_stopping_time(step, x0, criterion, 1e-3)
    for index, single in enumerate(one_by_one(objective)):
        alone = odestop.discrete_stopping_time(
            GradientDescent(single, 1 / single.smoothness), x0[index], odestop.criteria.StepDecrease(single), 1e-3
        )
        assert together.steps[index] == alone.steps
    assert together.steps.unique().numel() > 1


def test_minibatches_take_the_same_rows_of_every_problem() -> None:
    objective, _ = SMALL["logistic"].sample(3, seeded(), dtype=DOUBLE)
    x = torch.randn(3, 7, dtype=DOUBLE, generator=seeded(1))
    halves = [objective.minibatch(torch.tensor([row])).gradient(x) for row in range(5)]
    torch.testing.assert_close(torch.stack(halves).mean(0), objective.gradient(x))


def test_distributions_refuse_what_they_cannot_draw() -> None:
    for build, message in (
        (lambda: LogisticProblems(dimension=0), "dimension must be an integer of at least 1, got 0"),
        (lambda: LogisticProblems(density=0.0), "density must be above 0 and at most 1, got 0.0"),
        (lambda: LogisticProblems(flipped=1.0), "flipped must be at least 0 and below 1, got 1.0"),
        (lambda: LassoProblems(density=1.5), "density must be above 0 and at most 1, got 1.5"),
        (lambda: LassoProblems(regularization=-1.0), "regularization must be a non-negative finite number"),
        (lambda: QuadraticProblems(smallest_condition=20, largest_condition=10), "got 20 and 10"),
        (lambda: SMALL["lasso"].sample(0, seeded()), "batch must be an integer of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            build()


def test_data_of_the_wrong_shape_is_refused() -> None:
    features = torch.ones(2, 3, 4)
    for build, message in (
        (lambda: LogisticRegression(features, torch.ones(3)), r"labels must have shape \(problems, n\) = \(2, 3\)"),
        (lambda: LeastSquares(features, torch.ones(3)), r"targets must have shape \(problems, n\) = \(2, 3\)"),
        (lambda: LeastSquares(features.unsqueeze(0), torch.ones(1, 2, 3)), r"of shape \(n, d\) or \(problems, n, d\)"),
        (lambda: Quadratic(torch.eye(3).expand(2, 3, 3), torch.zeros(3)), r"shape \(2, 3\) of the eigenvalues"),
    ):
        with pytest.raises(ValueError, match=message):
            build()


def test_every_distribution_has_its_name() -> None:
    assert {name: type(distribution) for name, distribution in SMALL.items()} == DISTRIBUTIONS
