"""The smooth support vector machine against NumPy and scikit-learn."""

import numpy as np
import pytest
import torch

from odestop.objectives import SmoothSupportVectorMachine

DOUBLE = torch.float64


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 3)), rng.choice([-1, 1], size=20)


def test_value_and_gradient_equal_the_textbook_sum(data):
    w, b = np.array([0.3, -0.7, 0.2]), 0.4
    value, gradient = 0.05 * w @ w, np.append(0.1 * w, 0.0)
    for row, label in zip(*data, strict=True):
        slack = max(0.0, 1 - label * (w @ row - b))
        value += 0.5 * slack**2
        gradient = gradient - slack * label * np.append(row, -1.0)
    objective = SmoothSupportVectorMachine(torch.tensor(data[0]), torch.tensor(data[1]), regularization=0.1)
    x = torch.tensor([*w, b], dtype=DOUBLE)
    assert float(objective(x)) == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(objective.gradient(x), gradient, rtol=1e-13)


def test_the_minimizer_is_that_of_scikit_learn(data):
    """Which minimises f / λ for C = 1 / (2 λ); without intercept, along w alone."""
    svm = pytest.importorskip("sklearn.svm")
    fit = svm.LinearSVC(C=1 / (2 * 0.5), dual=False, fit_intercept=False, tol=1e-12).fit(*data)
    objective = SmoothSupportVectorMachine(torch.tensor(data[0]), torch.tensor(data[1]), regularization=0.5)
    gradient = objective.gradient(torch.tensor([*fit.coef_[0], 0.0], dtype=DOUBLE))
    assert float(gradient[:-1].norm()) < 1e-7 < float(gradient[-1].abs())


def test_the_smoothness_is_attained_but_for_the_penalty_of_b(data):
    objective = SmoothSupportVectorMachine(torch.tensor(data[0]), torch.tensor(data[1]), regularization=0.1)
    hessian = torch.func.jacrev(objective.gradient)(torch.zeros(4, dtype=DOUBLE))
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    assert largest <= objective.smoothness <= largest + 0.1


def test_rows_beyond_the_margin_count_nothing():
    objective = SmoothSupportVectorMachine(torch.tensor([[2.0], [-3.0]]), torch.tensor([1, 0]))
    x = torch.tensor([1.0, 0.0])
    assert float(objective(x)) == 0.0
    assert objective.gradient(x).tolist() == objective.hessian_vector_product(x, x).tolist() == [0.0, 0.0]
    assert (objective.strong_convexity, objective.dimension, objective.minimum) == (0.0, 2, None)


@pytest.mark.parametrize(
    ("features", "labels", "regularization", "message"),
    [
        (torch.ones(3), torch.ones(3), 0.0, r"features must be .* of shape \(n, d\)"),
        (torch.ones(3, 2), torch.ones(2), 0.0, r"labels must have shape \(n,\) = \(3,\), got \(2,\)"),
        (torch.ones(3, 2), torch.tensor([0, 1, 2]), 0.0, "labels must all be in"),
        (torch.ones(3, 2), torch.ones(3), -0.5, "regularization must be a non-negative finite number, got -0.5"),
    ],
)
def test_unusable_data_is_refused(features, labels, regularization, message):
    with pytest.raises(ValueError, match=message):
        SmoothSupportVectorMachine(features, labels, regularization)
