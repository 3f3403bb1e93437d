"""Spectral radius by nonlinear power iteration, on fields with a known spectrum."""

import math

import pytest
import torch

from odestop.solvers import SpectralRadius


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def estimate(field, x, updates=0):
    t = torch.zeros(x.shape[:-1], dtype=x.dtype)
    slope = field(t, x)
    radius = SpectralRadius(field, t, x, slope)
    for _ in range(updates):
        radius.update(t, x, slope)
    return radius


def random_orthogonal(d):
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64)).Q


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_symmetric_matrix_has_its_largest_eigenvalue(dtype):
    eigenvalues = torch.linspace(1.0, 100.0, 20, dtype=torch.float64)
    q = random_orthogonal(20)
    matrix = (q @ torch.diag(eigenvalues) @ q.T).to(dtype)
    x = torch.randn(20, dtype=torch.float64).to(dtype)
    first = estimate(lambda t, x: -x @ matrix, x)
    assert first.value.item() == pytest.approx(100.0, rel=0.1)
    assert first.value.dtype == dtype
    refined = estimate(lambda t, x: -x @ matrix, x, updates=40)
    assert refined.value.item() == pytest.approx(100.0, rel=1e-3)


def test_non_symmetric_matrix_has_the_modulus_of_its_largest_eigenvalue():
    vectors = torch.eye(6, dtype=torch.float64) + 0.3 * torch.randn(6, 6, dtype=torch.float64)
    eigenvalues = double(-1.0, -2.0, -3.0, -5.0, -8.0, -40.0)
    matrix = vectors @ torch.diag(eigenvalues) @ torch.linalg.inv(vectors)
    radius = estimate(lambda t, x: x @ matrix.T, torch.randn(6, dtype=torch.float64), updates=10)
    assert radius.value.item() == pytest.approx(40.0, rel=1e-4)


def test_rotation_has_the_modulus_of_its_complex_pair():
    radius = estimate(lambda t, x: 7.0 * torch.stack((x[..., 1], -x[..., 0]), -1), double(1.0, 2.0))
    assert radius.value.item() == pytest.approx(7.0, rel=1e-6)


def test_nonlinear_field_has_the_radius_of_its_jacobian_at_the_state():
    radius = estimate(lambda t, x: -(x**3), double(1.0, -2.0, 3.0), updates=20)
    assert radius.value.item() == pytest.approx(27.0, rel=1e-5)


def test_each_trajectory_of_a_batch_has_its_own_radius():
    rates = double(1.0, 10.0, 100.0, 1000.0).reshape(2, 2, 1) * double(1.0, 0.1, 0.01)
    x = torch.randn(2, 2, 3, dtype=torch.float64)
    radius = estimate(lambda t, x: -rates * x, x, updates=3)
    assert radius.value.shape == (2, 2)
    torch.testing.assert_close(radius.value, rates[..., 0], rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("x", [double(1.0, 2.0), double(0.0, 0.0)], ids=["away", "at the origin"])
def test_zero_field_has_radius_zero(x):
    assert estimate(lambda t, x: torch.zeros_like(x), x, updates=2).value.item() == 0.0


def test_stationary_start_still_finds_the_radius():
    assert estimate(lambda t, x: -3.0 * x, double(0.0, 0.0)).value.item() == pytest.approx(3.0, rel=1e-6)


def test_the_first_estimate_stops_iterating_once_it_has_settled():
    calls = []

    def field(t, x):
        calls.append(t)
        return -3.0 * x

    estimate(field, double(1.0, 2.0))
    assert len(calls) <= 4


def test_radius_follows_a_moving_state():
    t, x = torch.zeros((), dtype=torch.float64), double(1.0, 2.0)
    radius = SpectralRadius(lambda t, x: -(x**3), t, x, -(x**3))
    for _ in range(10):
        x = 0.9 * x
        radius.update(t, x, -(x**3))
    assert radius.value.item() == pytest.approx(3 * (2.0 * 0.9**10) ** 2, rel=1e-4)


def test_non_finite_perturbation_leaves_the_other_trajectories_and_the_last_estimate_alone():
    broken = False

    def field(t, x):
        slope = -5.0 * x
        return torch.cat((slope[:1], torch.full_like(slope[1:], math.inf))) if broken else slope

    t, x = torch.zeros(2, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    radius = SpectralRadius(field, t, x, field(t, x))
    broken = True
    radius.update(t, 2.0 * x, -10.0 * x)
    torch.testing.assert_close(radius.value, double(5.0, 5.0), rtol=1e-6, atol=0.0)
    broken = False
    radius.update(t, x, -5.0 * x)
    torch.testing.assert_close(radius.value, double(5.0, 5.0), rtol=1e-6, atol=0.0)


def test_field_that_is_never_finite_beside_the_state_has_radius_zero():
    x = double(1.0, 2.0)
    radius = estimate(lambda t, y: torch.where(y == x, -y, math.nan), x)
    assert radius.value.item() == 0.0
