"""Minibatches: their average over the data is the objective."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from odestop.objectives import (
    FiniteSum,
    HuberRegression,
    LeastSquares,
    LogisticRegression,
    SmoothSupportVectorMachine,
    SoftmaxRegression,
    multilayer_perceptron,
)

DOUBLE = torch.float64
FEATURES = torch.randn(12, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(12, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
SUMS: dict[str, Callable[[], FiniteSum]] = {
    "huber": lambda: HuberRegression(FEATURES, TARGETS, 0.5, regularization=0.2),
    "least squares": lambda: LeastSquares(FEATURES, TARGETS),
    "logistic": lambda: LogisticRegression(FEATURES, TARGETS > 0, regularization=0.2),
    "perceptron": lambda: multilayer_perceptron(FEATURES, (TARGETS > 0).long(), hidden=2, regularization=0.2),
    "softmax": lambda: SoftmaxRegression(FEATURES, torch.arange(12) % 3, regularization=0.2),
    "support vectors": lambda: SmoothSupportVectorMachine(FEATURES, TARGETS > 0, regularization=0.2),
}


@pytest.fixture(params=SUMS)
def objective(request) -> FiniteSum:
    return SUMS[request.param]()


@pytest.fixture
def x(objective) -> Tensor:
    return torch.randn(2, objective.dimension, dtype=DOUBLE)


@pytest.mark.parametrize("size", [1, 4, 12])
def test_minibatches_average_to_the_objective(objective, x, size):
    batches = [objective.minibatch(rows) for rows in torch.randperm(12).split(size)]
    torch.testing.assert_close(sum(batch(x) for batch in batches) / len(batches), objective(x))
    gradients = [batch.gradient(x) for batch in batches]
    torch.testing.assert_close(sum(gradients) / len(batches), objective.gradient(x))
    products = [batch.hessian_vector_product(x, x) for batch in batches]
    torch.testing.assert_close(sum(products) / len(batches), objective.hessian_vector_product(x, x))


def test_a_row_that_is_drawn_twice_counts_twice(objective, x):
    batch = objective.minibatch(torch.tensor([3, 5, 3]))
    third, fifth = (objective.minibatch(torch.tensor([i])) for i in (3, 5))
    torch.testing.assert_close(batch.gradient(x), (2 * third.gradient(x) + fifth.gradient(x)) / 3)


def test_a_minibatch_of_a_minibatch_has_the_same_scale(objective, x):
    nested = objective.minibatch(torch.tensor([7, 2, 9, 4])).minibatch(torch.tensor([1, 3]))
    torch.testing.assert_close(nested(x), objective.minibatch(torch.tensor([2, 4]))(x))


def test_a_minibatch_is_of_the_same_class_and_knows_no_constants(objective):
    batch = objective.minibatch(torch.tensor([1, 2]))
    assert type(batch) is type(objective)
    assert batch.dimension == objective.dimension
    assert {batch.minimum, batch.minimizer, batch.smoothness, batch.strong_convexity} == {None}


def test_the_whole_is_left_as_it_was(objective, x):
    before = objective(x), objective.smoothness, {name: buffer.clone() for name, buffer in objective.named_buffers()}
    with torch.no_grad():
        gradient = objective.gradient(x)
        assert not torch.equal(objective.minibatch(torch.tensor([0, 1])).gradient(x), gradient)
        assert objective.gradient(x) is gradient
    assert torch.equal(objective(x), before[0])
    assert objective.smoothness == before[1]
    assert all(torch.equal(buffer, before[2][name]) for name, buffer in objective.named_buffers())
    copy.deepcopy(objective.minibatch(torch.tensor([0, 1])))


def test_each_trajectory_may_have_its_own_rows(objective, x):
    rows = torch.tensor([[0, 1, 2], [9, 3, 9]])
    gradients = torch.func.vmap(lambda x, rows: objective.minibatch(rows).gradient(x))(x, rows)
    expected = [objective.minibatch(rows[i]).gradient(x[i]) for i in range(2)]
    torch.testing.assert_close(gradients, torch.stack(expected))


def test_derivatives_in_the_data_pass_through_a_minibatch():
    targets = nn.Parameter(TARGETS.clone())
    objective = LeastSquares(FEATURES, targets)
    batch = objective.minibatch(torch.tensor([2, 5]))
    assert (list(objective.parameters()), list(batch.parameters())) == ([targets], [])
    batch(torch.zeros(3, dtype=DOUBLE)).backward()
    expected = torch.zeros(12, dtype=DOUBLE).index_copy(0, torch.tensor([2, 5]), TARGETS[[2, 5]] / 2)
    torch.testing.assert_close(targets.grad, expected)


@pytest.mark.parametrize(
    "indices", [torch.tensor([0.0, 1.0]), torch.tensor([True]), torch.tensor(3), torch.zeros(0, dtype=torch.int64)]
)
def test_indices_that_are_none_are_refused(indices):
    with pytest.raises(ValueError, match=r"indices must be integers of shape \(m,\) with m >= 1, got"):
        LeastSquares(FEATURES, TARGETS).minibatch(indices)


def test_rows_that_do_not_exist_are_refused():
    with pytest.raises(IndexError, match="out of bounds"):
        LeastSquares(FEATURES, TARGETS).minibatch(torch.tensor([12]))
