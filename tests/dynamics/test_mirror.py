"""Mirror flows: closed forms, mirror descent as their Euler steps, and points that stay in the domain."""

import pytest
import torch
from torch import Tensor

from odestop import Euler, continuous_stopping_time
from odestop.criteria import SquaredGradientNorm
from odestop.discrete import GradientDescent
from odestop.dynamics import (
    GradientFlow,
    HyperbolicEntropy,
    MirrorFlow,
    OrthantEntropy,
    PNorm,
    Potential,
    SimplexEntropy,
)
from odestop.objectives import DiagonalQuadratic, Objective, Rosenbrock
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
QUADRATIC = DiagonalQuadratic([1.0, 3.0], minimizer=torch.tensor([0.8, 0.2], dtype=DOUBLE), dtype=DOUBLE)
ROSENBROCK = Rosenbrock(2, a=1.2, b=2.0)


def vector(*entries: float) -> Tensor:
    return torch.tensor(entries, dtype=DOUBLE)


def exponentiated_gradient(objective, h):
    def step(k, x):
        weighted = x * torch.exp(-h * objective.gradient(x))
        return weighted / weighted.sum(-1, keepdim=True)

    return step


# A potential, a start that its dual variable gives back to the last bit, and mirror descent on x by hand.
ALGORITHMS = {
    "simplex": (SimplexEntropy(), vector(0.5, 0.5), exponentiated_gradient),
    "orthant": (
        OrthantEntropy(),
        vector(1.0, 1.0),
        lambda objective, h: lambda k, x: x * torch.exp(-h * objective.gradient(x)),
    ),
    "hyperbolic": (
        HyperbolicEntropy(0.5),
        vector(0.0, 0.0),
        lambda objective, h: lambda k, x: 0.5 * torch.sinh(torch.asinh(x / 0.5) - h * objective.gradient(x)),
    ),
    "p-norm": (
        PNorm(1.5),
        vector(1.0, 1.0),
        lambda objective, h: lambda k, x: _odd_power(_odd_power(x, 0.5) - h * objective.gradient(x), 2.0),
    ),
}
every_potential = pytest.mark.parametrize(("potential", "start", "algorithm"), ALGORITHMS.values(), ids=ALGORITHMS)


def _odd_power(x: Tensor, exponent: float) -> Tensor:
    return torch.sign(x) * x.abs() ** exponent


@every_potential
@pytest.mark.parametrize("objective", [QUADRATIC, ROSENBROCK], ids=["quadratic", "rosenbrock"])
def test_mirror_flows_pass(potential, start, algorithm, objective):
    flow = MirrorFlow(objective, potential)
    x0 = vector(0.45, 0.55)
    threshold = 0.7 * float(objective(x0))
    # In the dual variable J depends on the potential's parameters, which torchdiffeq cannot differentiate.
    checks.agree_with_torchdiffeq(flow.requires_grad_(False), x0, objective, threshold)
    flow.requires_grad_(True)
    checks.gradient_agrees_with_differences(flow, x0, objective, threshold)
    checks.is_the_limit_of(flow, lambda h: algorithm(objective, h), start, time=0.1)


@every_potential
def test_euler_steps_are_mirror_descent(potential, start, algorithm):
    flow = MirrorFlow(ROSENBROCK, potential)
    step, by_hand = Euler(flow, 0.05), algorithm(ROSENBROCK, 0.05)
    x = vector(0.3, 0.7)
    state = step.initial_state(x)
    for k in range(5):
        state, x = step(k, state), by_hand(k, x)
        torch.testing.assert_close(step.position(state), x, rtol=1e-12, atol=1e-14)


@every_potential
def test_the_position_moves_by_the_inverse_hessian_of_the_potential(potential, start, algorithm):
    """dx/dt = -(∇²ψ)⁻¹ ∇f, from the formulas of the docstrings."""
    x = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=DOUBLE)
    g = QUADRATIC.gradient(x)
    expected = {
        "SimplexEntropy": lambda: -x * (g - (x * g).sum(-1, keepdim=True)),
        "OrthantEntropy": lambda: -x * g,
        "HyperbolicEntropy": lambda: -torch.sqrt(x * x + 0.25) * g,
        "PNorm": lambda: -(x.abs() ** 0.5) * g / 0.5,
    }[type(potential).__name__]()
    flow = MirrorFlow(QUADRATIC, potential)
    state = flow.initial_state(x)
    _, moved = torch.autograd.functional.jvp(flow.position, state.detach(), flow(torch.tensor(0.0), state).detach())
    torch.testing.assert_close(moved, expected, rtol=1e-12, atol=1e-14)


def test_replicator_equation_of_a_linear_objective():
    """log(x₁/x₂) grows at the rate c₂ - c₁: T is where x₂ is ε."""
    costs = vector(0.5, 2.0)
    linear = Objective.from_function(lambda x: (x * costs).sum(-1))
    flow = MirrorFlow(linear, SimplexEntropy())
    x0 = vector(0.3, 0.7).requires_grad_()
    threshold = torch.tensor(0.05, dtype=DOUBLE, requires_grad=True)
    time = checks.stopping_time(flow, x0, lambda x: x[..., 1], threshold).time
    expected = torch.log((1 - threshold) / threshold * x0[1] / x0[0]) / 1.5
    torch.testing.assert_close(time, expected, rtol=1e-9, atol=0.0)
    for found, wanted in zip(*(torch.autograd.grad(t, (x0, threshold)) for t in (time, expected)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


ONE_DIMENSION = {
    # Integrals of dx/(λ x ...) from ε to x0, with λ = 2.
    "orthant": (OrthantEntropy(), lambda potential, x: 1 / (2 * x)),
    "hyperbolic": (HyperbolicEntropy(0.5), lambda potential, x: torch.asinh(potential.beta / x) / (2 * potential.beta)),
    "p-norm": (PNorm(1.5), lambda potential, x: x ** (potential.p - 2) * (potential.p - 1) / (2 - potential.p) / 2),
}


@pytest.mark.parametrize(("potential", "antiderivative"), ONE_DIMENSION.values(), ids=ONE_DIMENSION)
def test_closed_forms_of_a_quadratic_in_one_dimension(potential, antiderivative):
    flow = MirrorFlow(DiagonalQuadratic([2.0], dtype=DOUBLE), potential)
    x0 = vector(1.5).requires_grad_()
    inputs = [x0, *flow.parameters()]
    time = checks.stopping_time(flow, x0, lambda x: x[..., 0], 0.2).time
    expected = antiderivative(potential, vector(0.2)[0]) - antiderivative(potential, x0[0])
    torch.testing.assert_close(time, expected, rtol=1e-9, atol=0.0)
    for found, wanted in zip(*(torch.autograd.grad(t, inputs) for t in (time, expected)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


def test_p_norm_of_2_is_gradient_flow():
    question = (vector(0.6, 0.5), ROSENBROCK, 0.05)
    with torch.no_grad():
        times = [
            checks.stopping_time(flow, *question).time
            for flow in (MirrorFlow(ROSENBROCK, PNorm(2)), GradientFlow(ROSENBROCK))
        ]
    torch.testing.assert_close(*times, rtol=1e-9, atol=0.0)


def test_every_point_is_on_the_simplex_however_rough_the_solve():
    """The minimum of the objective over the simplex is in a corner, and the tolerances are loose."""
    objective = DiagonalQuadratic([1.0, 1.0, 1.0], minimizer=vector(3.0, -1.0, -1.0), dtype=DOUBLE)
    flow = MirrorFlow(objective, SimplexEntropy())
    with torch.no_grad():
        step = Euler(flow, 5.0)
        state = step.initial_state(torch.full((3,), 1 / 3, dtype=DOUBLE))
        for k in range(30):
            state = step(k, state)
            x = step.position(state)
            assert bool((x >= 0).all())
            assert x.sum().item() == pytest.approx(1.0, rel=1e-14)
    torch.testing.assert_close(x, vector(1.0, 0.0, 0.0), rtol=0, atol=1e-12)


def test_simplex_flow_comes_to_rest_at_an_interior_minimum():
    """There the gradient is a constant vector, not zero."""
    objective = DiagonalQuadratic([1.0, 1.0], dtype=DOUBLE)
    flow = MirrorFlow(objective, SimplexEntropy())
    state = flow.initial_state(vector(0.5, 0.5))
    assert flow(torch.tensor(0.0), state).abs().max() < 1e-15


def test_a_batch_with_its_own_hyperparameters_equals_its_rows():
    beta = vector(0.3, 1.0)
    x0 = torch.tensor([[0.6, 0.5], [-0.4, 0.8]], dtype=DOUBLE)
    criterion = SquaredGradientNorm(ROSENBROCK)
    batch_flow = MirrorFlow(ROSENBROCK, HyperbolicEntropy(beta))
    batch = checks.stopping_time(batch_flow, x0, criterion, 0.5).time
    (gradient,) = torch.autograd.grad(batch.sum(), batch_flow.potential.beta)
    for row in range(2):
        flow = MirrorFlow(ROSENBROCK, HyperbolicEntropy(beta[row]))
        single = checks.stopping_time(flow, x0[row], criterion, 0.5).time
        torch.testing.assert_close(single, batch[row], rtol=1e-8, atol=0.0)
        torch.testing.assert_close(torch.autograd.grad(single, flow.potential.beta)[0], gradient[row])


@every_potential
def test_float32_stays_float32_and_second_derivatives_exist(potential, start, algorithm):
    objective = DiagonalQuadratic([1.0, 3.0])
    flow = MirrorFlow(objective, potential)
    x = torch.tensor([[0.3, 0.7], [0.6, 0.4]])
    state = flow.initial_state(x)
    assert state.dtype == flow.position(state).dtype == flow(torch.zeros(2, 1), state).dtype == torch.float32

    def position_after_a_step(x):
        state = flow.initial_state(x)
        return flow.position(state + 0.1 * MirrorFlow(QUADRATIC, potential)(torch.tensor(0.0), state))

    point = x.double().requires_grad_()
    assert torch.autograd.gradcheck(position_after_a_step, point)
    assert torch.autograd.gradgradcheck(position_after_a_step, point)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HyperbolicEntropy(0.0), "beta must be positive, got 0.0"),
        (lambda: PNorm(1.0), "p must be greater than 1, got 1.0"),
        (lambda: PNorm(float("nan")), "p must be finite real"),
        (lambda: MirrorFlow(QUADRATIC, SimplexEntropy()).initial_state(vector(1.0, 0.0)), "x0 must be positive .* 0.0"),
        (lambda: Potential().to_dual(vector(1.0)), r"Potential must implement to_dual\(x\)"),
        (lambda: Potential().to_primal(vector(1.0)), r"Potential must implement to_primal\(y\)"),
    ],
)
def test_what_is_impossible_is_refused(build, message):
    with pytest.raises((ValueError, NotImplementedError), match=message):
        build()


def test_hyperbolic_entropy_with_a_large_beta_is_gradient_descent():
    flow = MirrorFlow(QUADRATIC, HyperbolicEntropy(1e4))
    step, plain = Euler(flow, 1e-5), GradientDescent(QUADRATIC, 0.1)
    x = vector(0.5, 0.9)
    torch.testing.assert_close(step.position(step(0, step.initial_state(x))), plain(0, x), rtol=1e-7, atol=0.0)


def test_a_p_norm_flow_from_zero_has_finite_gradients_in_p():
    p = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    objective = DiagonalQuadratic(torch.ones(2, dtype=torch.float64), minimizer=torch.tensor([1.0, 2.0]).double())
    x0 = torch.tensor([0.0, 0.5], dtype=torch.float64)

    def time(p):
        flow = MirrorFlow(objective, PNorm(p))
        return continuous_stopping_time(flow, x0, objective, 0.1, rtol=1e-9, atol=1e-11).time

    (slope,) = torch.autograd.grad(time(p), p)
    with torch.no_grad():
        difference = (time(p + 1e-4) - time(p - 1e-4)) / 2e-4
    assert float(slope) == pytest.approx(float(difference), rel=1e-4)
