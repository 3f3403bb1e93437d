"""Batched linear solves: against torch.linalg, and each way to fail."""

import math

import pytest
import torch
from torch import Tensor

from odestop.neighbours import GMRES, ConjugateGradient, Dense, LinearStatus, LinearSystem, NormalEquations

SOLVERS = [Dense(), ConjugateGradient(), GMRES(), NormalEquations()]
GENERAL = [Dense(), GMRES(), GMRES(restart=4, max_iterations=2000), NormalEquations()]


def system_of(matrix: Tensor) -> LinearSystem:
    """The products of a matrix of shape (*batch, d, d)."""
    return LinearSystem(
        lambda u: (matrix @ u.unsqueeze(-1)).squeeze(-1), lambda p: (matrix.mT @ p.unsqueeze(-1)).squeeze(-1)
    )


def positive_definite(*shape: int) -> Tensor:
    factor = torch.randn(*shape, shape[-1], dtype=torch.float64)
    return factor @ factor.mT / shape[-1] + 0.5 * torch.eye(shape[-1], dtype=torch.float64)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 2, 1)])
def test_symmetric_systems(solver: ConjugateGradient, shape: tuple[int, ...]) -> None:
    matrix, right = positive_definite(*shape), torch.randn(*shape, dtype=torch.float64)
    solved = solver.solve(system_of(matrix), right)
    torch.testing.assert_close(solved.solution, torch.linalg.solve(matrix, right), rtol=1e-6, atol=1e-7)
    assert (solved.codes == LinearStatus.CONVERGED.code).all()
    assert solved.codes.shape == right.shape[:-1]
    assert solved.products > 0


@pytest.mark.parametrize("solver", GENERAL)
def test_systems_without_symmetry(solver: GMRES) -> None:
    matrix = torch.eye(6, dtype=torch.float64) * 2 + 0.5 * torch.randn(4, 6, 6, dtype=torch.float64)
    matrix[1] = torch.diag(torch.tensor([1.0, -1.0, 2.0, -3.0, 1.5, 0.5])).double()
    right = torch.randn(4, 6, dtype=torch.float64)
    right[2] = 0.0
    solved = solver.solve(system_of(matrix), right)
    torch.testing.assert_close(solved.solution, torch.linalg.solve(matrix, right), rtol=1e-5, atol=1e-6)
    assert (solved.status == LinearStatus.CONVERGED).all()
    assert (solved.relative_residual < 2e-8).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_unknown_takes_a_step(solver: ConjugateGradient) -> None:
    solved = solver.solve(system_of(torch.tensor([[4.0]])), torch.tensor([2.0]))
    assert solved.solution.tolist() == [0.5]
    assert solved.status is LinearStatus.CONVERGED


def test_each_system_has_its_own_status() -> None:
    matrix = torch.diag_embed(torch.tensor([[1.0, 2.0], [1.0, -2.0], [1.0, 0.0]], dtype=torch.float64))
    right = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    solved = ConjugateGradient().solve(system_of(matrix), right)
    assert list(solved.status) == [LinearStatus.CONVERGED, LinearStatus.BREAKDOWN, LinearStatus.SINGULAR]
    assert solved.solution.tolist() == [[1.0, 0.5], [0.0, 0.0], [0.0, 0.0]]
    assert "1 of 3 linear systems: the matrix is singular" in solved.message


@pytest.mark.parametrize("solver", [Dense(), GMRES(), NormalEquations()])
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_a_singular_system_without_solution(solver: GMRES, angle: float) -> None:
    turn = torch.tensor(angle, dtype=torch.float64)
    rotation = torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])
    matrix = rotation @ torch.diag(torch.tensor([3.0, 0.0], dtype=torch.float64)) @ rotation.T
    solved = solver.solve(system_of(matrix), torch.tensor([1.0, 1.0], dtype=torch.float64))
    assert solved.status is LinearStatus.SINGULAR
    assert solved.solution.tolist() == [0.0, 0.0]
    # What is left of the right-hand side is its part along the null space.
    expected = abs(math.cos(angle) - math.sin(angle)) / math.sqrt(2)
    assert solved.relative_residual.item() == pytest.approx(expected)


def test_a_singular_system_with_solutions() -> None:
    """The dense solve sees the matrix; the others see a residual that meets the tolerance."""
    matrix, right = torch.diag(torch.tensor([3.0, 0.0])), torch.tensor([6.0, 0.0])
    statuses = [solver.solve(system_of(matrix), right).status for solver in SOLVERS]
    assert statuses == [LinearStatus.SINGULAR] + 3 * [LinearStatus.CONVERGED]


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_zero_matrix_is_singular(solver: GMRES) -> None:
    assert solver.solve(system_of(torch.zeros(2, 2)), torch.ones(2)).status is LinearStatus.SINGULAR


@pytest.mark.parametrize("solver", [ConjugateGradient, GMRES, NormalEquations])
def test_too_few_iterations_keep_the_last_iterate(solver: type[GMRES]) -> None:
    matrix = torch.diag(torch.logspace(0, 3, 30, dtype=torch.float64))
    solved = solver(max_iterations=3).solve(system_of(matrix), torch.ones(30, dtype=torch.float64))
    assert solved.status is LinearStatus.NOT_CONVERGED
    assert 1e-3 < solved.relative_residual < 3.0
    assert solved.solution.norm() > 0
    assert "relative residual" in solved.message


def test_conjugate_gradient_does_not_believe_its_own_residual() -> None:
    """On a matrix that is not symmetric the recursion can meet the tolerance; the residual does not."""
    matrix = torch.tensor([[2.0, 1.5], [0.0, 2.0]], dtype=torch.float64)
    solved = ConjugateGradient(max_iterations=50).solve(system_of(matrix), torch.ones(2, dtype=torch.float64))
    exact = torch.linalg.solve(matrix, torch.ones(2, dtype=torch.float64))
    close = torch.allclose(solved.solution, exact, rtol=1e-6)
    assert (solved.status is LinearStatus.CONVERGED) == close


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("place", ["matrix", "right"])
def test_non_finite_numbers(solver: GMRES, place: str) -> None:
    matrix, right = 2 * torch.eye(2).repeat(2, 1, 1), torch.ones(2, 2)
    (matrix if place == "matrix" else right)[0].view(-1)[0] = torch.nan
    solved = solver.solve(system_of(matrix), right)
    assert list(solved.status) == [LinearStatus.NON_FINITE, LinearStatus.CONVERGED]
    torch.testing.assert_close(solved.solution, torch.tensor([[0.0, 0.0], [0.5, 0.5]]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConjugateGradient(tolerance=-1.0), "tolerance must be a positive finite number, got -1.0"),
        (lambda: GMRES(max_iterations=0), "max_iterations must be an integer of at least 1, got 0"),
        (lambda: GMRES(restart=0), "restart must be an integer of at least 1, got 0"),
    ],
)
def test_knobs_are_checked(make: type[GMRES], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
