"""The quadratic whose dense matrix is never stored."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from experiments.hartley_quadratic import HartleyQuadratic
from odestop.objectives import Quadratic


def matrix_of(quadratic: HartleyQuadratic, dimension: int) -> Tensor:
    return quadratic.multiply(torch.eye(dimension, dtype=torch.float64))


@pytest.mark.parametrize("dimension", [8, 9])
def test_the_matrix_is_symmetric_with_the_prescribed_eigenvalues(dimension: int) -> None:
    quadratic = HartleyQuadratic.with_condition_number(dimension, 100.0, seed=1, dtype=torch.float64)
    matrix = matrix_of(quadratic, dimension)
    torch.testing.assert_close(matrix, matrix.mT)
    torch.testing.assert_close(torch.linalg.eigvalsh(matrix), quadratic.eigenvalues.sort().values)


def test_off_diagonal_entries_are_as_large_as_for_random_eigenvectors() -> None:
    ours = matrix_of(HartleyQuadratic.with_condition_number(400, 100.0, seed=0, dtype=torch.float64), 400)
    random = Quadratic.with_condition_number(400, 100.0, seed=0, dtype=torch.float64).matrix
    for matrix in (ours, random):
        matrix.fill_diagonal_(0.0)
    assert ours.std().item() == pytest.approx(random.std().item(), rel=0.02)


def test_derivatives_of_every_order_agree_with_finite_differences() -> None:
    quadratic = HartleyQuadratic.with_condition_number(6, 100.0, seed=0, dtype=torch.float64)
    x = torch.linspace(-1, 1, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quadratic.gradient, x)
    assert torch.autograd.gradgradcheck(quadratic, x)
