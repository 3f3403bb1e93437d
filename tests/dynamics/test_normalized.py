"""Normalised and sign flow: closed forms on quadratics, with the smoothing and in the limit without."""

import pytest
import torch
from torch import Tensor

from odestop import Euler
from odestop.discrete import Lion
from odestop.dynamics import NormalizedFlow, SignFlow
from odestop.objectives import DiagonalQuadratic, Quadratic, Rosenbrock
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
QUADRATIC = DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE)
ROSENBROCK = Rosenbrock(2, b=2.0)


def vector(*entries: float) -> Tensor:
    return torch.tensor(entries, dtype=DOUBLE)


def direction(kind, smoothing, gradient):
    if kind is SignFlow:
        return torch.tanh(gradient / smoothing)
    return gradient / (gradient.norm() + smoothing)


@pytest.mark.parametrize(("kind", "smoothing"), [(NormalizedFlow, 0.2), (SignFlow, 0.5)])
@pytest.mark.parametrize("objective", [QUADRATIC, ROSENBROCK], ids=["quadratic", "rosenbrock"])
def test_flows_pass(kind, smoothing, objective):
    flow, x0 = kind(objective, smoothing), vector(0.6, 0.5)
    question = (flow, x0, objective, 0.4 * float(objective(x0)))
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)
    checks.is_the_limit_of(
        flow, lambda h: lambda k, x: x - h * direction(kind, smoothing, objective.gradient(x)), x0, time=0.2
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_normalized_flow_on_a_round_quadratic(smoothing):
    """‖x‖ falls at the rate λr/(λr + s): T = r₀ - r + s/λ log(r₀/r)."""
    flow = NormalizedFlow(DiagonalQuadratic([2.0, 2.0], dtype=DOUBLE), smoothing)
    x0 = vector(0.6, 0.8).requires_grad_()
    time = checks.stopping_time(flow, x0, lambda x: x.norm(dim=-1), 0.1).time
    r0 = x0.norm()
    expected = r0 - 0.1 + flow.smoothing / 2.0 * torch.log(r0 / 0.1)
    torch.testing.assert_close(time, expected, rtol=1e-9, atol=0.0)
    # Without smoothing x moves on a line: a solver then takes steps too long for the derivative in the smoothing.
    inputs = (x0, flow.smoothing) if smoothing else (x0,)
    for found, wanted in zip(*(torch.autograd.grad(t, inputs) for t in (time, expected)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


def test_normalized_flow_without_smoothing_has_unit_speed():
    quadratic = Quadratic.with_condition_number(4, 10.0, 0, dtype=DOUBLE)
    slope = NormalizedFlow(quadratic)(torch.tensor(0.0), torch.ones(3, 4, dtype=DOUBLE))
    torch.testing.assert_close(slope.norm(dim=-1).detach(), torch.ones(3, dtype=DOUBLE))


def test_sign_flow_on_a_separable_quadratic():
    """sinh(λᵢ xᵢ/s) decays at the rate λᵢ/s; T is where the sum of squares is ε."""
    eigenvalues, smoothing = vector(1.0, 2.0), torch.tensor(0.4, dtype=DOUBLE, requires_grad=True)
    flow = SignFlow(DiagonalQuadratic(eigenvalues), smoothing)
    x0 = vector(0.9, -0.7).requires_grad_()
    time = checks.stopping_time(flow, x0, lambda x: (x * x).sum(-1), 0.3).time
    at_rest = time.detach().requires_grad_()
    rates = eigenvalues / smoothing
    x = torch.asinh(torch.sinh(rates * x0) * torch.exp(-rates * at_rest)) / rates
    total = (x * x).sum()
    assert total.item() == pytest.approx(0.3, rel=1e-9)
    slope, *partials = torch.autograd.grad(total, [at_rest, x0, smoothing])
    for found, partial in zip(torch.autograd.grad(time, [x0, smoothing]), partials, strict=True):
        torch.testing.assert_close(found, -partial / slope, rtol=1e-7, atol=1e-9)


def test_sign_flow_lets_each_coordinate_fall_linearly_where_the_smoothing_is_small():
    """|xᵢ| = |xᵢ(0)| - t, up to s/λᵢ exp(-2 λᵢ |xᵢ|/s), for gradients that stay above the smoothing."""
    eigenvalues, x0 = vector(1.0, 4.0), vector(1.0, -0.8).requires_grad_()
    flow = SignFlow(DiagonalQuadratic(eigenvalues), smoothing=0.02)
    solution = checks.stopping_time(flow, x0, DiagonalQuadratic(eigenvalues), 0.5)
    # ½ (1 - T)² + 2 (0.8 - T)² = ½, the smaller root.
    expected = (4.2 - (4.2**2 - 4 * 2.5 * 1.28) ** 0.5) / 5
    assert solution.time.item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(solution.position.abs(), (x0.abs() - expected).detach(), rtol=1e-9, atol=0.0)
    (gradient,) = torch.autograd.grad(solution.time, x0)
    falls = eigenvalues * (x0.detach().abs() - expected)
    torch.testing.assert_close(gradient, falls * x0.detach().sign() / falls.sum(), rtol=1e-8, atol=0.0)


def test_euler_steps_of_the_sign_flow_are_those_of_sign_descent():
    """Lion without averaging, where the gradients are above the smoothing."""
    step, lion = Euler(SignFlow(ROSENBROCK, 1e-3), 0.01), Lion(ROSENBROCK, 0.01, beta1=0.0, beta2=0.0)
    x = vector(0.6, -0.5)
    state = lion.initial_state(x)
    for k in range(20):
        x, state = step(k, x), lion(k, state)
    torch.testing.assert_close(x, lion.position(state), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("kind", [NormalizedFlow, SignFlow])
def test_a_batch_with_its_own_smoothing_equals_its_rows(kind):
    smoothing, x0 = vector(0.3, 1.0), torch.tensor([[0.6, 0.5], [-0.4, 0.8]], dtype=DOUBLE)
    flow = kind(ROSENBROCK, smoothing)
    batch = checks.stopping_time(flow, x0, ROSENBROCK, 0.15).time
    (gradient,) = torch.autograd.grad(batch.sum(), flow.smoothing)
    for row in range(2):
        alone = kind(ROSENBROCK, smoothing[row])
        single = checks.stopping_time(alone, x0[row], ROSENBROCK, 0.15).time
        torch.testing.assert_close(single, batch[row], rtol=1e-8, atol=0.0)
        torch.testing.assert_close(torch.autograd.grad(single, alone.smoothing)[0], gradient[row])


@pytest.mark.parametrize("kind", [NormalizedFlow, SignFlow])
def test_float32_stays_float32_and_second_derivatives_exist(kind):
    x = torch.tensor([[0.6, 0.5], [-0.4, 0.8]])
    assert kind(DiagonalQuadratic([1.0, 4.0]), 0.5)(torch.zeros(2, 1), x).dtype == torch.float32
    assert kind(DiagonalQuadratic([1.0, 4.0]), 0.5)(torch.tensor(0.0), x[0]).dtype == torch.float32
    flow = kind(ROSENBROCK, 0.5)

    def slope(x, smoothing):
        return torch.func.functional_call(flow, {"smoothing": smoothing}, (torch.tensor(0.0), x))

    inputs = (x.double().requires_grad_(), flow.smoothing)
    assert torch.autograd.gradcheck(slope, inputs)
    assert torch.autograd.gradgradcheck(slope, inputs)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NormalizedFlow(QUADRATIC, -0.1), "smoothing must be at least 0, got -0.1"),
        (lambda: SignFlow(QUADRATIC, 0), "smoothing must be positive, got 0.0"),
        (lambda: SignFlow(QUADRATIC, float("inf")), "smoothing must be finite real floating-point numbers, got inf"),
        (lambda: SignFlow(QUADRATIC, True), r"smoothing must be a number or a tensor of shape \(\) .*, got bool"),
    ],
)
def test_impossible_smoothings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
