"""Huber regression against NumPy, SciPy's loss and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.special import huber
from torch import nn

from odestop.objectives import HuberRegression, LeastSquares

DOUBLE = torch.float64


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 3))
    return features, features @ [1.0, -2.0, 0.5] + rng.standard_t(1.5, size=30)


def test_value_and_gradient_equal_the_textbook_sum(data):
    features, targets = data
    x = np.array([0.3, -0.7, 0.2])
    residuals = features @ x - targets
    value = np.mean(huber(0.8, residuals)) + 0.15 * x @ x
    gradient = 0.3 * x
    for row, residual in zip(features, residuals, strict=True):
        gradient = gradient + row * (residual if abs(residual) <= 0.8 else 0.8 * np.sign(residual)) / 30
    objective = HuberRegression(torch.tensor(features), torch.tensor(targets), 0.8, regularization=0.3)
    point = torch.tensor(x)
    assert float(objective(point)) == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(objective.gradient(point), gradient, rtol=1e-13)


def test_the_minimizer_is_that_of_scikit_learn_at_its_scale(data):
    linear_model = pytest.importorskip("sklearn.linear_model")
    fit = linear_model.HuberRegressor(epsilon=1.5, alpha=0.6, fit_intercept=False, tol=1e-9, max_iter=1000).fit(*data)
    objective = HuberRegression(
        *map(torch.tensor, data), delta=1.5 * float(fit.scale_), regularization=0.6 * float(fit.scale_) / 30
    )
    residual = objective.features @ torch.tensor(fit.coef_) - objective.targets
    assert 0 < int((residual.abs() > objective.delta).sum()) < 30
    assert float(objective.gradient(torch.tensor(fit.coef_)).norm()) < 1e-6


def test_it_is_least_squares_where_delta_is_large(data):
    features, targets = map(torch.tensor, data)
    x = torch.ones(3, dtype=DOUBLE)
    huber_regression, least_squares = HuberRegression(features, targets, 1e6), LeastSquares(features, targets)
    torch.testing.assert_close(huber_regression(x), least_squares(x))
    assert huber_regression.smoothness == pytest.approx(least_squares.smoothness)


@pytest.mark.parametrize("kind", [nn.Parameter, lambda delta: delta.requires_grad_()])
def test_gradients_reach_delta(data, kind):
    delta = kind(torch.tensor(0.8, dtype=DOUBLE))
    objective = HuberRegression(*map(torch.tensor, data), delta)
    x = torch.zeros(3, dtype=DOUBLE)
    (slope,) = torch.autograd.grad(objective(x), delta)
    step = 1e-6
    above, below = (HuberRegression(*map(torch.tensor, data), 0.8 + sign * step)(x) for sign in (1, -1))
    assert float(slope) == pytest.approx(float(above - below) / (2 * step), rel=1e-6)


def test_delta_does_not_change_the_dtype():
    objective = HuberRegression(torch.ones(2, 1), torch.tensor([0.0, 9.0]), torch.tensor(1.0, dtype=DOUBLE))
    x = torch.zeros(1)
    results = (objective(x), objective.gradient(x), objective.hessian_vector_product(x, x))
    assert {result.dtype for result in results} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": 0.0}, r"delta must be a positive finite number, got 0\.0"),
        ({"delta": torch.tensor(-1.0)}, "delta must be positive and finite, got"),
        ({"regularization": -1.0}, "regularization must be a non-negative finite number"),
        ({"targets": torch.ones(2)}, r"targets must have shape \(n,\) = \(3,\)"),
        ({"features": torch.ones(3)}, "features must be real floating-point numbers"),
    ],
)
def test_unusable_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HuberRegression(**{"features": torch.ones(3, 2), "targets": torch.ones(3), **arguments})
