"""Spectra, eigenbases and storage of the quadratics."""

import pytest
import torch
from torch import Tensor, nn

from odestop.objectives import DiagonalQuadratic, HouseholderQuadratic, Quadratic, log_spaced_spectrum

DOUBLE = torch.float64
SPECTRUM = [0.0, 0.5, 2.0, 7.0, 3.0, 3.0]
FROM_SPECTRUM = {
    "dense": lambda **options: Quadratic.with_spectrum(SPECTRUM, 4, **options),
    "diagonal": lambda **options: DiagonalQuadratic(SPECTRUM, **options),
    "householder": lambda **options: HouseholderQuadratic.with_spectrum(SPECTRUM, 4, **options),
}


@pytest.fixture(params=FROM_SPECTRUM)
def build(request):
    return FROM_SPECTRUM[request.param]


def dense_matrix(quadratic) -> Tensor:
    return quadratic.multiply(torch.eye(quadratic.dimension, dtype=quadratic.eigenvalues.dtype))


def test_matrix_is_symmetric_with_the_eigenvalues_asked_for(build):
    matrix = dense_matrix(build(dtype=DOUBLE))
    torch.testing.assert_close(matrix, matrix.mT)
    torch.testing.assert_close(torch.linalg.eigvalsh(matrix), torch.tensor(SPECTRUM, dtype=DOUBLE).sort()[0])


def test_eigenbasis_is_orthogonal_and_diagonalises_the_matrix(build):
    quadratic = build(dtype=DOUBLE)
    eigenvectors = quadratic.from_eigenbasis(torch.eye(6, dtype=DOUBLE))
    torch.testing.assert_close(eigenvectors @ eigenvectors.mT, torch.eye(6, dtype=DOUBLE))
    torch.testing.assert_close(quadratic.multiply(eigenvectors), quadratic.eigenvalues[:, None] * eigenvectors)
    x = torch.arange(24.0, dtype=DOUBLE).reshape(2, 2, 6)
    torch.testing.assert_close(quadratic.from_eigenbasis(quadratic.to_eigenbasis(x)), x)


def test_constants_come_from_the_spectrum(build):
    quadratic = build()
    assert (quadratic.dimension, quadratic.minimum) == (6, 0.0)
    assert (quadratic.smoothness, quadratic.strong_convexity) == (7.0, 0.0)
    assert torch.equal(quadratic.minimizer, torch.zeros(6))


def test_matrix_free_equals_dense_for_the_same_matrix():
    matrix_free = HouseholderQuadratic.with_condition_number(40, 100.0, 1, reflections=5, dtype=DOUBLE)
    dense = Quadratic(dense_matrix(matrix_free))
    x, v = torch.randn(2, 3, 40, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(matrix_free(x), dense(x))
    torch.testing.assert_close(matrix_free.gradient(x), dense.gradient(x))
    torch.testing.assert_close(matrix_free.hessian_vector_product(x, v), dense.hessian_vector_product(x, v))
    torch.testing.assert_close(dense.eigenvalues, matrix_free.eigenvalues)


def test_reflections_are_applied_in_the_order_of_the_formula():
    vectors = torch.randn(3, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    product = torch.eye(5, dtype=DOUBLE)
    for u in vectors:
        product = product @ (torch.eye(5, dtype=DOUBLE) - 2 * torch.outer(u, u) / (u @ u))
    quadratic = HouseholderQuadratic(torch.ones(5, dtype=DOUBLE), vectors)
    torch.testing.assert_close(quadratic.from_eigenbasis(torch.eye(5, dtype=DOUBLE)).mT, product)


def test_matrix_free_reaches_a_million_dimensions():
    quadratic = HouseholderQuadratic.with_condition_number(1_000_000, 100.0, 0, dtype=DOUBLE)
    x = quadratic.from_eigenbasis(quadratic.eigenvalues.reciprocal())
    with torch.no_grad():
        assert float(quadratic(x)) == pytest.approx(0.5 * float(quadratic.eigenvalues.reciprocal().sum()))
    assert sum(buffer.numel() for buffer in quadratic.buffers()) == 8_000_000


@pytest.mark.parametrize("family", [Quadratic, HouseholderQuadratic])
def test_seed_decides_the_matrix_in_every_dtype(family):
    first, again, other = (
        family.with_condition_number(20, 10.0, seed, dtype=dtype)
        for seed, dtype in [(1, DOUBLE), (1, torch.float32), (2, DOUBLE)]
    )
    torch.testing.assert_close(dense_matrix(first).float(), dense_matrix(again), rtol=1e-5, atol=1e-6)
    assert float((dense_matrix(first) - dense_matrix(other)).abs().max()) > 1e-2


def test_drawing_a_matrix_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    Quadratic.with_condition_number(4, 10.0, 0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("family", [Quadratic, HouseholderQuadratic])
def test_condition_number_and_smoothness_are_met(family):
    quadratic = family.with_condition_number(7, 100.0, 0, smoothness=5.0, dtype=DOUBLE)
    assert quadratic.smoothness == 5.0
    assert quadratic.strong_convexity == pytest.approx(0.05, rel=1e-14)
    ratios = quadratic.eigenvalues[1:] / quadratic.eigenvalues[:-1]
    torch.testing.assert_close(ratios, ratios[0].expand(6))


def test_a_given_matrix_is_used_as_it_is():
    matrix = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=DOUBLE)
    minimizer = torch.tensor([1.0, -1.0], dtype=DOUBLE)
    quadratic = Quadratic(matrix, minimizer)
    x = torch.tensor([2.0, 1.0], dtype=DOUBLE)
    assert float(quadratic(x)) == 0.5 * (3 + 4 + 8)
    torch.testing.assert_close(quadratic.gradient(x), matrix @ (x - minimizer))
    torch.testing.assert_close(quadratic.eigenvalues, torch.linalg.eigvalsh(matrix))


def test_plain_integers_are_numbers_too():
    assert DiagonalQuadratic(torch.tensor([1, 4]), dtype=DOUBLE).eigenvalues.dtype == DOUBLE


def test_gradients_reach_eigenvalues_given_as_a_parameter():
    eigenvalues = nn.Parameter(torch.tensor([1.0, 4.0]))
    quadratic = DiagonalQuadratic(eigenvalues)
    quadratic(torch.tensor([1.0, 2.0])).backward()
    assert list(quadratic.parameters()) == [eigenvalues]
    assert torch.equal(eigenvalues.grad, torch.tensor([0.5, 2.0]))


def test_module_conversion_carries_everything_along(build):
    quadratic = build(dtype=torch.float32).double()
    x = torch.ones(6, dtype=DOUBLE)
    assert quadratic.gradient(x).dtype == quadratic.to_eigenbasis(x).dtype == quadratic(x).dtype == DOUBLE


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(2, 3), r"matrix must be real floating-point numbers of shape \(d, d\) or .*, got .*\(2, 3\)"),
        (torch.ones(2, 2, dtype=torch.int64), r"matrix must be real floating-point .* got torch.int64"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), r"matrix must be symmetric, got max \|Q - Qᵀ\| = 2"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), r"matrix must be positive semidefinite, got .* -1"),
        (torch.full((2, 2), torch.nan), r"matrix must be finite"),
    ],
)
def test_unusable_matrix_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        Quadratic(matrix)


@pytest.mark.parametrize("eigenvalues", [[1.0, -2.0], [torch.inf], [torch.nan, 1.0]])
def test_unusable_eigenvalues_are_refused(eigenvalues):
    with pytest.raises(ValueError, match="eigenvalues must be finite and at least 0, got tensor"):
        HouseholderQuadratic.with_spectrum(eigenvalues, 0)


@pytest.mark.parametrize("shape", [(), (2, 2), (0,)])
def test_eigenvalues_that_are_no_vector_are_refused(shape):
    with pytest.raises(ValueError, match=r"eigenvalues must be .* of shape \(d,\)"):
        DiagonalQuadratic(torch.ones(shape))


def test_shapes_that_do_not_match_the_eigenvalues_are_refused():
    with pytest.raises(ValueError, match=r"minimizer must have shape \(2,\) of the eigenvalues, got \(3,\)"):
        DiagonalQuadratic([1.0, 2.0], torch.zeros(3))
    with pytest.raises(ValueError, match=r"reflectors must have shape \(r, d\) = \(r, 2\), got \(1, 3\)"):
        HouseholderQuadratic(torch.ones(2), torch.ones(1, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10.0), "dimension must be an integer of at least 1, got 0"),
        ((3, 0.5), r"condition_number must be at least 1, .* got 0.5"),
        ((1, 2.0), r"condition_number must be .* exactly 1 for dimension 1, got 2.0"),
        ((3, 10.0, -1.0), r"smoothness must be a positive finite number, got -1.0"),
        ((3, float("nan")), r"condition_number must be a positive finite number, got nan"),
    ],
)
def test_impossible_spectrum_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        log_spaced_spectrum(*arguments)


def test_number_of_reflections_is_checked():
    with pytest.raises(ValueError, match="reflections must be an integer of at least 1, got 0"):
        HouseholderQuadratic.with_spectrum([1.0, 2.0], 0, reflections=0)
