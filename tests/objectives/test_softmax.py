"""Softmax regression against NumPy, scikit-learn and logistic regression."""

import math

import numpy as np
import pytest
import torch

from odestop.objectives import LogisticRegression, SoftmaxRegression

DOUBLE = torch.float64


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(9, 4)), rng.integers(0, 3, size=9)


def test_value_and_gradient_equal_the_textbook_sum(data):
    features, labels = data
    weights = np.random.default_rng(1).normal(size=(3, 4))
    value, gradient = 0.15 * (weights**2).sum(), 0.3 * weights
    for row, label in zip(features, labels, strict=True):
        exponentials = np.exp(weights @ row)
        value -= math.log(exponentials[label] / exponentials.sum()) / 9
        gradient = gradient + np.outer(exponentials / exponentials.sum() - np.eye(3)[label], row) / 9
    objective = SoftmaxRegression(torch.tensor(features), torch.tensor(labels), 0.3)
    point = torch.tensor(weights).flatten()
    assert float(objective(point)) == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(objective.weights_from(objective.gradient(point)), gradient, rtol=1e-12)


def test_the_minimizer_is_that_of_scikit_learn(data):
    """Which minimises f / λ for C = 1 / (n λ)."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = data
    fit = linear_model.LogisticRegression(C=1 / (9 * 0.1), fit_intercept=False, tol=1e-10, solver="newton-cg")
    weights = torch.tensor(fit.fit(features, labels).coef_)
    objective = SoftmaxRegression(torch.tensor(features), torch.tensor(labels), 0.1)
    assert float(objective.gradient(weights.flatten()).norm()) < 1e-8 < float(weights.norm())


def test_two_classes_are_logistic_regression(data):
    features, labels = torch.tensor(data[0]), torch.tensor(data[1]) % 2
    w = torch.randn(4, dtype=DOUBLE)
    softmax = SoftmaxRegression(features, labels)
    torch.testing.assert_close(softmax(torch.cat([0 * w, w])), LogisticRegression(features, labels)(w))
    # The same curvature, spread over two weights per feature.
    assert softmax.smoothness == pytest.approx(2 * LogisticRegression(features, labels).smoothness)


def test_the_smoothness_is_attained():
    objective = SoftmaxRegression(torch.tensor([[3.0, 4.0]], dtype=DOUBLE), torch.tensor([0]), 0.5, classes=2)
    hessian = torch.func.jacrev(objective.gradient)(torch.zeros(4, dtype=DOUBLE))
    assert objective.smoothness == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1])) == 13.0


@pytest.mark.parametrize("scale", [-1e4, 1e4])
def test_extreme_logits_stay_finite_and_right(scale):
    objective = SoftmaxRegression(torch.ones(1, 1, dtype=DOUBLE), torch.tensor([1]))
    x = torch.tensor([0.0, scale], dtype=DOUBLE)
    assert float(objective(x)) == max(-scale, 0.0)
    assert objective.gradient(x).tolist() == ([1.0, -1.0] if scale < 0 else [0.0, 0.0])


def test_classes_without_an_example_may_be_asked_for():
    features, labels = torch.ones(2, 3), torch.tensor([0, 2], dtype=torch.uint8)
    assert SoftmaxRegression(features, labels).dimension == 9
    assert SoftmaxRegression(features, labels, classes=5).weights_from(torch.zeros(2, 15)).shape == (2, 5, 3)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (torch.tensor([0, 1]), None, r"labels must have shape \(n,\) = \(3,\), got \(2,\)"),
        (torch.ones(3), None, "labels must be integers from 0 to classes - 1, got torch.float32"),
        (torch.tensor([0, -1, 1]), None, "labels must be integers .* got -1 to 1"),
        (torch.tensor([0, 2, 1]), 2, "labels must be integers .* got 0 to 2 for classes=2"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        SoftmaxRegression(torch.ones(3, 2), labels, classes=classes)


def test_negative_regularisation_is_refused():
    with pytest.raises(ValueError, match="regularization must be a non-negative finite number, got -1"):
        SoftmaxRegression(torch.ones(1, 2), torch.tensor([0]), -1)
