"""The Rosenbrock function against SciPy, and what is known of its minimum."""

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from odestop.objectives import Rosenbrock


@pytest.mark.parametrize("dimension", [2, 3, 10])
def test_value_gradient_and_hessian_equal_scipy(dimension):
    rosenbrock = Rosenbrock(dimension)
    x, v = np.random.default_rng(0).normal(size=(2, dimension))
    point, direction = torch.tensor(x), torch.tensor(v)
    assert float(rosenbrock(point)) == pytest.approx(optimize.rosen(x), rel=1e-13)
    np.testing.assert_allclose(rosenbrock.gradient(point), optimize.rosen_der(x), rtol=1e-12)
    np.testing.assert_allclose(
        rosenbrock.hessian_vector_product(point, direction), optimize.rosen_hess_prod(x, v), rtol=1e-12
    )


@pytest.mark.parametrize(("dimension", "a"), [(2, 1.0), (2, 3.0), (7, 1.0)])
def test_known_minimizer_has_value_and_gradient_zero(dimension, a):
    rosenbrock = Rosenbrock(dimension, a=a)
    assert rosenbrock.minimum == 0.0
    assert float(rosenbrock(rosenbrock.minimizer)) == 0.0
    assert torch.equal(rosenbrock.gradient(rosenbrock.minimizer), torch.zeros(dimension))


def test_unknown_minimum_is_none():
    rosenbrock = Rosenbrock(3, a=2.0)
    assert rosenbrock.minimum is None
    assert rosenbrock.minimizer is None


def test_gradients_reach_the_constants():
    a, b = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(100.0))
    rosenbrock = Rosenbrock(2, a, b)
    rosenbrock(torch.tensor([0.0, 2.0])).backward()
    assert (float(a.grad), float(b.grad)) == (2.0, 4.0)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="dimension must be an integer of at least 2, got 1"):
        Rosenbrock(1)
    with pytest.raises(ValueError, match=r"b must be a positive finite number, got -1\.0"):
        Rosenbrock(2, b=-1.0)
