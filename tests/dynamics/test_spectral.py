"""Spectral flow: against the decomposition, in closed form, and its derivatives at repeated singular values."""

import pytest
import torch
from torch import Tensor

from odestop.dynamics import NormalizedFlow, SpectralFlow
from odestop.objectives import DiagonalQuadratic, Objective
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def half_squared_distance(rows: int, columns: int, target: Tensor | None = None) -> Objective:
    """½ ‖X - X*‖²."""
    return DiagonalQuadratic([1.0] * (rows * columns), minimizer=target, dtype=DOUBLE)


def by_decomposition(gradient: Tensor, smoothing: float) -> Tensor:
    u, singular_values, vh = torch.linalg.svd(gradient, full_matrices=False)
    return (u * (singular_values / torch.sqrt(singular_values**2 + smoothing**2)).unsqueeze(-2)) @ vh


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (4, 4), (1, 3), (3, 1)])
@pytest.mark.parametrize("smoothing", [1.0, 1e-3])
def test_singular_values_of_the_gradient_become_those_of_the_formula(shape, smoothing):
    flow = SpectralFlow(half_squared_distance(*shape), shape, smoothing)
    x = random(2, 3, *shape)
    slope = flow(torch.tensor(0.0), x.flatten(-2)).detach()
    torch.testing.assert_close(slope, -by_decomposition(x, smoothing).flatten(-2), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(flow(torch.tensor(0.0), x[1, 2].flatten()).detach(), slope[1, 2])


def quartic(x: Tensor) -> Tensor:
    return (x**4).sum(-1) / 4 + (x * x).sum(-1) / 2 + (x[..., 1:] * x[..., :-1]).sum(-1) / 4


@pytest.mark.parametrize(
    "objective", [half_squared_distance(2, 3, random(6, seed=1)), Objective.from_function(quartic, dimension=6)]
)
def test_spectral_flow_passes(objective):
    flow, x0 = SpectralFlow(objective, (2, 3), smoothing=0.5), random(6)
    question = (flow, x0, objective, 0.7 * float(objective(x0)))
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)

    def muon_without_momentum(h):
        return lambda k, x: x - h * by_decomposition(objective.gradient(x).reshape(2, 3), 0.5).flatten()

    checks.is_the_limit_of(flow, muon_without_momentum, x0, time=0.2)


def test_singular_values_fall_linearly_where_the_smoothing_is_small():
    target, distance = random(3, 2, seed=1), random(3, 2)
    objective = half_squared_distance(3, 2, target.flatten())
    flow = SpectralFlow(objective, (3, 2), smoothing=1e-5)
    u, singular_values, vh = torch.linalg.svd(distance, full_matrices=False)
    fall = 0.5 * float(singular_values[-1])
    threshold = 0.5 * float(((singular_values - fall) ** 2).sum())
    with torch.no_grad():
        solution = checks.stopping_time(flow, (target + distance).flatten(), objective, threshold)
    assert solution.time.item() == pytest.approx(fall, rel=1e-8)
    expected = target + (u * (singular_values - fall)) @ vh
    torch.testing.assert_close(solution.position, expected.flatten(), rtol=1e-7, atol=1e-8)


def test_closed_form_at_repeated_singular_values():
    """All of size σ: T is the fall of √(σ² + s²) - s arcsinh(s/σ)."""
    rotation = torch.linalg.qr(random(3, 3))[0]
    size = torch.tensor(1.2, dtype=DOUBLE, requires_grad=True)
    objective = half_squared_distance(3, 3)
    flow = SpectralFlow(objective, (3, 3), smoothing=0.3)
    time = checks.stopping_time(flow, (size * rotation).flatten(), objective, 1.5 * 0.4**2).time
    s = flow.smoothing

    def antiderivative(sigma):
        return torch.sqrt(sigma**2 + s**2) - s * torch.asinh(s / sigma)

    expected = antiderivative(size) - antiderivative(torch.tensor(0.4, dtype=DOUBLE))
    torch.testing.assert_close(time, expected, rtol=1e-9, atol=0.0)
    for found, wanted in zip(*(torch.autograd.grad(t, (size, s)) for t in (time, expected)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=0.0)


@pytest.mark.parametrize("x", [random(2, 6), torch.eye(2, 3, dtype=DOUBLE).flatten(), torch.zeros(6, dtype=DOUBLE)])
def test_first_and_second_derivatives_are_right_at_repeated_and_at_zero_singular_values(x):
    flow = SpectralFlow(half_squared_distance(2, 3), (2, 3), smoothing=0.5)

    def slope(x, smoothing):
        return torch.func.functional_call(flow, {"smoothing": smoothing}, (torch.tensor(0.0), x))

    inputs = (x.clone().requires_grad_(), flow.smoothing)
    assert torch.autograd.gradcheck(slope, inputs)
    assert torch.autograd.gradgradcheck(slope, inputs)


def test_a_single_row_is_normalised():
    objective, x = half_squared_distance(1, 3), random(3)
    slopes = [
        flow(torch.tensor(0.0), x).detach()
        for flow in (SpectralFlow(objective, (1, 3), 1e-6), NormalizedFlow(objective))
    ]
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=0.0)


def test_a_batch_with_its_own_smoothing_equals_its_rows():
    smoothing, x0 = torch.tensor([0.3, 1.0], dtype=DOUBLE), random(2, 6)
    objective = half_squared_distance(2, 3)
    flow = SpectralFlow(objective, (2, 3), smoothing)
    batch = checks.stopping_time(flow, x0, objective, 0.5).time
    (gradient,) = torch.autograd.grad(batch.sum(), flow.smoothing)
    for row in range(2):
        alone = SpectralFlow(objective, (2, 3), smoothing[row])
        single = checks.stopping_time(alone, x0[row], objective, 0.5).time
        torch.testing.assert_close(single, batch[row], rtol=1e-8, atol=0.0)
        torch.testing.assert_close(torch.autograd.grad(single, alone.smoothing)[0], gradient[row])


def test_float32_stays_float32_and_is_accurate():
    flow = SpectralFlow(DiagonalQuadratic([1.0] * 6), (2, 3), smoothing=1e-2)
    x = random(4, 6)
    slope = flow(torch.zeros(4, 1), x.float()).detach()
    assert slope.dtype == flow(torch.tensor(0.0), x[0].float()).dtype == torch.float32
    expected = -by_decomposition(x.reshape(4, 2, 3), 1e-2).flatten(-2)
    torch.testing.assert_close(slope.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (2, 2)}, r"shape must be \(rows, columns\) with rows · columns = 6, got \(2, 2\)"),
        ({"shape": (0, 6)}, r"shape\[0\] must be an integer of at least 1, got 0"),
        ({"shape": (2, 3), "smoothing": 0.0}, "smoothing must be positive, got 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpectralFlow(half_squared_distance(2, 3), **arguments)
