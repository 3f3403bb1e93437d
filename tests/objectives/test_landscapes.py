"""Beale's, Himmelblau's and Rastrigin's functions against plain loops and what is known of their minima."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from odestop.objectives import Beale, Himmelblau, Rastrigin

DOUBLE = torch.float64


def beale(x, y):
    return sum((c - x + x * y**k) ** 2 for k, c in [(1, 1.5), (2, 2.25), (3, 2.625)])


def himmelblau(x, y):
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def rastrigin(*x):
    return 10 * len(x) + sum(xi**2 - 10 * math.cos(2 * math.pi * xi) for xi in x)


@pytest.mark.parametrize(
    ("objective", "formula"),
    [(Beale(), beale), (Himmelblau(), himmelblau), (Rastrigin(1), rastrigin), (Rastrigin(6), rastrigin)],
)
def test_values_equal_the_formula(objective, formula):
    for x in np.random.default_rng(0).normal(size=(20, objective.dimension)):
        assert float(objective(torch.tensor(x))) == pytest.approx(formula(*x), rel=1e-12)


def test_himmelblau_has_four_minima_and_a_maximum():
    """Positions as in the literature, to six decimals."""
    minima = [[3.0, 2.0], [-2.805118, 3.131313], [-3.779310, -3.283186], [3.584428, -1.848127]]
    assert bool((Himmelblau()(torch.tensor(minima, dtype=DOUBLE)) < 1e-9).all())
    top = torch.tensor([-0.270845, -0.923039], dtype=DOUBLE)
    assert float(Himmelblau().gradient(top).norm()) < 1e-4
    assert bool((torch.linalg.eigvalsh(torch.func.jacrev(Himmelblau().gradient)(top)) < 0).all())


def test_rastrigin_has_a_local_minimum_close_to_every_integer_point_of_its_box():
    objective = Rastrigin(1).double()
    for k in range(-5, 6):
        near = torch.linspace(k - 0.2, k + 0.2, 401, dtype=DOUBLE)[:, None]
        lowest = int(objective(near).argmin())
        assert 0 < lowest < 400
        assert float(objective(near)[lowest]) == pytest.approx(k * k, rel=0.01, abs=1e-12)


def test_rastrigin_keeps_its_digits_near_the_minimum():
    assert float(Rastrigin(2)(torch.full((2,), 1e-6))) == pytest.approx(2e-12 * (1 + 20 * math.pi**2), rel=1e-5)


def test_the_smoothness_of_rastrigin_is_attained_at_the_minimum():
    objective = Rastrigin(3, amplitude=2).double()
    product = objective.hessian_vector_product(objective.minimizer, torch.ones(3, dtype=DOUBLE))
    assert product.tolist() == pytest.approx([objective.smoothness] * 3)


def test_gradients_reach_the_amplitude():
    amplitude = nn.Parameter(torch.tensor(10.0, dtype=DOUBLE))
    objective = Rastrigin(2, amplitude)
    objective(torch.tensor([0.5, 0.0], dtype=DOUBLE)).backward()
    assert float(amplitude.grad) == pytest.approx(2.0)
    assert objective.smoothness is None
    assert objective(torch.ones(2)).dtype == objective.gradient(torch.ones(2)).dtype == torch.float32


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="dimension must be an integer of at least 1, got 0"):
        Rastrigin(0)
    with pytest.raises(ValueError, match=r"amplitude must be a positive finite number, got -1\.0"):
        Rastrigin(2, -1.0)
    with pytest.raises(ValueError, match="amplitude must be positive and finite"):
        Rastrigin(2, torch.tensor(0.0))
