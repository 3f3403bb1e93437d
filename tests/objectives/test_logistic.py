"""Logistic regression against NumPy, at extreme margins, and on the bundled data."""

import math
import sys

import numpy as np
import pytest
import torch

from odestop.objectives import LogisticRegression, breast_cancer

DOUBLE = torch.float64


def test_value_and_gradient_equal_the_textbook_sum():
    rng = np.random.default_rng(0)
    features, labels, x = rng.normal(size=(9, 4)), rng.choice([-1.0, 1.0], size=9), rng.normal(size=4)
    objective = LogisticRegression(torch.tensor(features), torch.tensor(labels), regularization=0.3)
    value, gradient = 0.15 * x @ x, 0.3 * x
    for row, label in zip(features, labels, strict=True):
        value += math.log(1 + math.exp(-label * row @ x)) / 9
        gradient = gradient - label * row / (1 + math.exp(label * row @ x)) / 9
    point = torch.tensor(x)
    assert float(objective(point)) == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(objective.gradient(point).numpy(), gradient, rtol=1e-13)


def test_both_conventions_for_labels_mean_the_same():
    features = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    zero_one = torch.tensor([0, 1, 1, 0, 1, 0])
    x = torch.tensor([0.3, -0.7])
    expected = LogisticRegression(features, 2 * zero_one - 1)(x)
    for labels in (zero_one, zero_one.bool(), zero_one.double()):
        assert torch.equal(LogisticRegression(features, labels)(x), expected)


@pytest.mark.parametrize("margin", [-1e4, 1e4])
def test_extreme_margins_stay_finite_and_right(margin):
    objective = LogisticRegression(torch.ones(1, 1, dtype=DOUBLE), torch.tensor([1]))
    x = torch.tensor([margin], dtype=DOUBLE)
    assert float(objective(x)) == max(-margin, 0.0)
    assert float(objective.gradient(x)) == (-1.0 if margin < 0 else 0.0)
    assert float(objective.hessian_vector_product(x, x)) == 0.0


def test_constants_are_the_known_formulas():
    features = torch.randn(8, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    objective = LogisticRegression(features, torch.ones(8), regularization=0.5)
    largest = torch.linalg.eigvalsh(features.mT @ features)[-1]
    assert objective.smoothness == pytest.approx(float(largest) / 32 + 0.5)
    assert (objective.strong_convexity, objective.dimension, objective.minimum) == (0.5, 3, None)


def test_breast_cancer_is_standardised_with_an_intercept():
    objective = breast_cancer(dtype=DOUBLE)
    features = objective.features
    assert features.shape == (569, 31)
    torch.testing.assert_close(features[:, :-1].mean(0), torch.zeros(30, dtype=DOUBLE))
    torch.testing.assert_close(features[:, :-1].square().mean(0), torch.ones(30, dtype=DOUBLE))
    assert bool((features[:, -1] == 1).all())
    assert int((objective.labels == 1).sum()) == 357
    assert breast_cancer().features.dtype == torch.float32
    assert breast_cancer(regularization=0.25).strong_convexity == 0.25


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'odestop\[experiments\]'"):
        breast_cancer()


@pytest.mark.parametrize(
    ("features", "labels", "regularization", "message"),
    [
        (torch.ones(3), torch.ones(3), 0.0, r"features must be .* of shape \(n, d\) .* got .*\(3,\)"),
        (torch.ones(3, 2, dtype=torch.int64), torch.ones(3), 0.0, "features must be .* got torch.int64"),
        (torch.full((3, 2), torch.inf), torch.ones(3), 0.0, "features must be finite"),
        (torch.ones(3, 2), torch.ones(2), 0.0, r"labels must have shape \(n,\) = \(3,\), got \(2,\)"),
        (
            torch.ones(3, 2),
            torch.tensor([0, 1, 2]),
            0.0,
            r"labels must all be in .* got the values \[0, 1, 2\]",
        ),
        (torch.ones(3, 2), torch.tensor([-1, 0, 1]), 0.0, r"labels must all be in \{0, 1\} or"),
        (torch.ones(3, 2), torch.ones(3), -1.0, "regularization must be a non-negative finite number"),
    ],
)
def test_unusable_data_is_refused(features, labels, regularization, message):
    with pytest.raises(ValueError, match=message):
        LogisticRegression(features, labels, regularization)
