"""Matrix factorisation against NumPy, and its minima and saddles."""

import numpy as np
import pytest
import torch

from odestop.objectives import MatrixFactorization

DOUBLE = torch.float64
MATRIX = torch.randn(5, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))


def test_value_and_gradient_equal_numpy():
    rng = np.random.default_rng(0)
    U, V = rng.normal(size=(5, 2)), rng.normal(size=(4, 2))
    objective = MatrixFactorization(MATRIX, rank=2)
    x = torch.tensor(np.concatenate([U.ravel(), V.ravel()]))
    residual = U @ V.T - MATRIX.numpy()
    assert float(objective(x)) == pytest.approx(0.5 * np.linalg.norm(residual, "fro") ** 2, rel=1e-14)
    along_U, along_V = objective.factors_from(objective.gradient(x))
    np.testing.assert_allclose(along_U, residual @ V, rtol=1e-12)
    np.testing.assert_allclose(along_V, residual.T @ U, rtol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_minimum_is_that_of_the_truncated_singular_value_decomposition(rank):
    objective = MatrixFactorization(MATRIX, rank)
    past_rank = np.linalg.svd(MATRIX, compute_uv=False)[rank:]
    assert objective.minimum == pytest.approx(0.5 * float((past_rank**2).sum()), rel=1e-12, abs=1e-20)
    assert float(objective(objective.minimizer)) == pytest.approx(objective.minimum, rel=1e-12, abs=1e-25)
    assert float(objective.gradient(objective.minimizer).norm()) < 1e-12
    eigenvalues = torch.linalg.eigvalsh(torch.func.jacrev(objective.gradient)(objective.minimizer))
    assert float(eigenvalues[0]) > -1e-12
    # Along U -> U G, V -> V G⁻ᵀ it is flat.
    assert int((eigenvalues < 1e-10).sum()) == rank**2


def test_critical_points_that_are_no_minima_are_strict_saddles():
    objective = MatrixFactorization(MATRIX, rank=1)
    left, values, right = torch.linalg.svd(MATRIX, full_matrices=False)
    origin = torch.zeros(9, dtype=DOUBLE)
    second = values[1].sqrt() * torch.cat([left[:, 1], right[1]])
    for saddle, least in [(origin, -values[0]), (second, values[1] - values[0])]:
        assert float(objective.gradient(saddle).norm()) < 1e-14
        eigenvalues = torch.linalg.eigvalsh(torch.func.jacrev(objective.gradient)(saddle))
        torch.testing.assert_close(eigenvalues[0], least)


def test_another_basis_of_the_factors_changes_nothing():
    objective = MatrixFactorization(MATRIX, rank=2)
    x, basis = torch.randn(18, dtype=DOUBLE), torch.tensor([[2.0, 1.0], [0.0, 0.5]], dtype=DOUBLE)
    U, V = objective.factors_from(x)
    other = torch.cat([(U @ basis).flatten(), (V @ torch.linalg.inv(basis).mT).flatten()])
    torch.testing.assert_close(objective(other), objective(x))


def test_factors_of_a_batch_keep_its_dimensions():
    U, V = MatrixFactorization(MATRIX, rank=3).factors_from(torch.zeros(2, 7, 27, dtype=DOUBLE))
    assert (U.shape, V.shape) == ((2, 7, 5, 3), (2, 7, 4, 3))


def test_gradients_reach_the_matrix_whose_minimum_is_then_unknown():
    matrix = MATRIX.clone().requires_grad_()
    objective = MatrixFactorization(matrix, rank=1)
    assert (objective.minimum, objective.minimizer) == (None, None)
    (slope,) = torch.autograd.grad(objective(torch.zeros(9, dtype=DOUBLE)), matrix)
    torch.testing.assert_close(slope, MATRIX)


@pytest.mark.parametrize(
    ("matrix", "rank", "message"),
    [
        (torch.ones(3), 1, r"matrix must be real floating-point numbers of shape \(m, n\)"),
        (torch.full((2, 2), torch.nan), 1, "matrix must be finite"),
        (torch.ones(3, 2), 0, "rank must be an integer of at least 1, got 0"),
        (torch.ones(3, 2), 3, r"rank must be at most min\(m, n\) = 2, got 3"),
    ],
)
def test_impossible_arguments_are_refused(matrix, rank, message):
    with pytest.raises(ValueError, match=message):
        MatrixFactorization(matrix, rank)
