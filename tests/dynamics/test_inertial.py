"""Inertial flows: damped oscillators, Bessel functions, the singular start, and the algorithms they are limits of."""

import cmath
import math

import pytest
import torch
from scipy.optimize import brentq
from scipy.special import gamma, hyp1f1, jv

from odestop import Euler, continuous_stopping_time, discrete_stopping_time, fit_order
from odestop.criteria import ObjectiveGap, TimeDependent
from odestop.discrete import HeavyBall, Nesterov, NesterovStronglyConvex, SymplecticEuler
from odestop.dynamics import (
    ExponentialSchedule,
    HeavyBallFlow,
    HighResolutionConvexNesterovFlow,
    HighResolutionNesterovFlow,
    InertialFlow,
    InertialHessianDampedFlow,
    NesterovFlow,
    PolynomialSchedule,
    StronglyConvexNesterovFlow,
)
from odestop.objectives import DiagonalQuadratic, Objective, Rosenbrock
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
START = torch.tensor([0.6, 0.5], dtype=DOUBLE)
OBJECTIVES = {
    "quadratic": lambda: DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE),
    "rosenbrock": lambda: Rosenbrock(2, 1.0, 5.0),
}
FLOWS = {
    "heavy ball": lambda f: HeavyBallFlow(f, 0.7),
    "Nesterov": lambda f: NesterovFlow(f, 3.5),
    "strongly convex": lambda f: StronglyConvexNesterovFlow(f, 0.6),
    "high resolution": lambda f: HighResolutionNesterovFlow(f, 0.1, 0.6),
    "high resolution, convex": lambda f: HighResolutionConvexNesterovFlow(f, 0.1),
    "Hessian-damped": lambda f: InertialHessianDampedFlow(f, 3.5, PolynomialSchedule(0.4, 0.5), 1.2),
}


class ExplicitInertialAlgorithm:
    """Explicit Euler on the first-order system of ISHD, started at rest at the time 1."""

    def __init__(self, flow, h):
        self.flow, self.h, self.f = flow, h, flow.objective

    def coefficients(self, k):
        t = torch.tensor(1 + k * self.h, dtype=DOUBLE, requires_grad=True)
        with torch.enable_grad():
            beta = self.flow.beta(t)
            (slope,) = torch.autograd.grad(beta, t)
        return self.flow.alpha / t, beta, slope, self.flow.gamma

    def initial_state(self, x0):
        return torch.cat([x0, self.coefficients(0)[1] * self.f.gradient(x0)])

    def position(self, state):
        return state.chunk(2)[0]

    def __call__(self, k, state):
        friction, beta, slope, scale = self.coefficients(k)
        x, psi = state.chunk(2)
        g = self.f.gradient(x)
        velocity = psi - beta * g
        return torch.cat([x + self.h * velocity, psi - self.h * (friction * velocity + (scale - slope) * g)])


def bessel_oscillator(t, eigenvalue, friction, x0):
    """x'' + r/t x' + λ x = 0 from rest; for r = 3 it is 2 x0 J1(τ)/τ."""
    tau, order = math.sqrt(eigenvalue) * t, (friction - 1) / 2
    return x0 * gamma(order + 1) * (2 / tau) ** order * jv(order, tau)


def damped_oscillator(t, eigenvalue, friction, x0):
    """x'' + c x' + λ x = 0 from rest, over- and underdamped by complex numbers, and critically damped."""
    rate = cmath.sqrt(friction**2 / 4 - eigenvalue)
    growth = cmath.sinh(rate * t) / rate if abs(rate) > 1e-9 else t
    return (x0 * math.exp(-friction * t / 2) * (cmath.cosh(rate * t) + friction / 2 * growth)).real


def kummer_oscillator(t, eigenvalue, alpha, beta, gamma, x0):
    """x'' + (α/t + β λ) x' + γ λ x = 0 from rest, with x = exp(κ t) u and u a confluent hypergeometric function."""
    damping = beta * eigenvalue
    root = math.sqrt(damping**2 - 4 * gamma * eigenvalue)
    exponent = (root - damping) / 2
    return x0 * math.exp(exponent * t) * hyp1f1(alpha * exponent / root, alpha, -root * t)


def first_passage(oscillator, level, *arguments):
    return brentq(lambda t: oscillator(t, *arguments) - level, 1e-6, 3.0, xtol=1e-14)


def slope_in(index, oscillator, level, *arguments, width=1e-4):
    def at(shift):
        moved = list(arguments)
        moved[index] += shift
        return first_passage(oscillator, level, *moved)

    return (at(width) - at(-width)) / (2 * width)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", FLOWS)
def test_flow_agrees_with_torchdiffeq_and_with_finite_differences(name, objective):
    flow = FLOWS[name](OBJECTIVES[objective]())
    criterion = ObjectiveGap(flow.objective)
    question = (flow, START, criterion, 0.8 * float(criterion(START)))
    # Later than the singular start, which takes many steps at the checks' tolerances and has closed forms below.
    checks.agree_with_torchdiffeq(*question, t0=0.5)
    checks.gradient_agrees_with_differences(*question, t0=0.5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_flow_is_the_limit_of_its_algorithm(objective):
    f = OBJECTIVES[objective]()
    checks.is_the_limit_of(HeavyBallFlow(f, 0.7), lambda h: HeavyBall(f, h**2, 1 - 0.7 * h), START)
    checks.is_the_limit_of(NesterovFlow(f), lambda h: Nesterov(f, h**2), START)
    checks.is_the_limit_of(StronglyConvexNesterovFlow(f, 0.6), lambda h: NesterovStronglyConvex(f, h**2, 0.6), START)
    flow = FLOWS["Hessian-damped"](f)
    checks.is_the_limit_of(flow, lambda h: ExplicitInertialAlgorithm(flow, h), START, t0=1.0)


def test_heavy_ball_is_a_symplectic_euler_step_with_the_buffer_as_the_velocity():
    f, h = OBJECTIVES["rosenbrock"](), 0.1
    step, symplectic = HeavyBall(f, h**2, 1 - 0.7 * h), SymplecticEuler(HeavyBallFlow(f, 0.7), h)
    with torch.no_grad():
        discrete, continuous = step.initial_state(START), symplectic.initial_state(START)
        for k in range(20):
            discrete, continuous = step(k, discrete), symplectic(k, continuous)
    scale = torch.tensor([1.0, 1.0, -h, -h], dtype=DOUBLE)
    torch.testing.assert_close(scale * discrete, continuous, rtol=1e-13, atol=1e-14)


def distance_to_nesterov(f, flow, h, time=1.0, strong_convexity=0.6):
    """From x(time) to the point where Nesterov's method takes its gradient by then."""
    clock = TimeDependent(lambda t, x: time - t + 0.0 * x.sum(-1))
    step = NesterovStronglyConvex(f, h**2, strong_convexity)
    momentum = (1 - h * strong_convexity**0.5) / (1 + h * strong_convexity**0.5)
    with torch.no_grad():
        state = step.initial_state(START)
        for k in range(round(time / h)):
            state = step(k, state)
        x, displacement = state.chunk(2)
        return float((x + momentum * displacement - checks.stopping_time(flow, START, clock, 0.0).position).norm())


class StartedMidStep(HighResolutionNesterovFlow):
    def initial_state(self, x0):
        return torch.cat([x0, -1.5 * self.learning_rate**0.5 * self.objective.gradient(x0)], dim=-1)


def test_high_resolution_follows_nesterov_to_the_next_order():
    f, sizes = OBJECTIVES["quadratic"](), [1 / 32, 1 / 64, 1 / 128]
    low = [distance_to_nesterov(f, StronglyConvexNesterovFlow(f, 0.6), h) for h in sizes]
    high = [distance_to_nesterov(f, HighResolutionNesterovFlow(f, h**2, 0.6), h) for h in sizes]
    higher = [distance_to_nesterov(f, StartedMidStep(f, h**2, 0.6), h) for h in sizes]
    assert fit_order(sizes, low).order == pytest.approx(1, abs=0.1)
    assert fit_order(sizes, high).order == pytest.approx(1, abs=0.2)
    assert fit_order(sizes, higher).order == pytest.approx(2, abs=0.1)
    assert all(a < b / 2 for a, b in zip(high, low, strict=True))


def distance_to_convex_nesterov(f, flow, h, time=2.0):
    """From x(time) to the point where Nesterov's method for convex f takes its gradient by then."""
    clock, step, count = TimeDependent(lambda t, x: time - t + 0.0 * x.sum(-1)), Nesterov(f, h**2), round(time / h)
    with torch.no_grad():
        state = step.initial_state(START)
        for k in range(count):
            state = step(k, state)
        x, displacement = state.chunk(2)
        exact = checks.stopping_time(flow, START, clock, 0.0).position
    return float((x + (count - 1) / (count + 2) * displacement - exact).norm())


def test_convex_high_resolution_follows_nesterov_to_the_next_order():
    f, sizes = OBJECTIVES["quadratic"](), [1 / 32, 1 / 64, 1 / 128]
    low = [distance_to_convex_nesterov(f, NesterovFlow(f), h) for h in sizes]
    high = [distance_to_convex_nesterov(f, HighResolutionConvexNesterovFlow(f, h**2), h) for h in sizes]
    assert fit_order(sizes, low).order == pytest.approx(1, abs=0.1)
    assert fit_order(sizes, high).order == pytest.approx(2, abs=0.2)


def test_convex_high_resolution_tends_to_the_flow_without_a_step_size_and_starts_at_its_t0():
    f, state = OBJECTIVES["rosenbrock"](), torch.cat([START, torch.ones(2, dtype=DOUBLE)])
    t = torch.tensor(0.7, dtype=DOUBLE)
    low, high = NesterovFlow(f), HighResolutionConvexNesterovFlow(f, 1e-20)
    torch.testing.assert_close(high(t, state), low(t, state), rtol=1e-8, atol=0.0)
    early, late = HighResolutionConvexNesterovFlow(f, 0.1), HighResolutionConvexNesterovFlow(f, 0.1, t0=2.0)
    torch.testing.assert_close(late(t + 2.0, state), early(t, state))


def test_high_resolution_tends_to_the_flow_without_a_step_size():
    f, state = OBJECTIVES["rosenbrock"](), torch.cat([START, torch.ones(2, dtype=DOUBLE)])
    t = torch.tensor(0.0, dtype=DOUBLE)
    low, high = StronglyConvexNesterovFlow(f, 0.6), HighResolutionNesterovFlow(f, 1e-20, 0.6)
    torch.testing.assert_close(high(t, state), low(t, state), rtol=1e-8, atol=0.0)


@pytest.mark.parametrize(
    ("friction", "regime"), [(0.5, "underdamped"), (2 * math.sqrt(2), "critically damped"), (4.0, "overdamped")]
)
def test_heavy_ball_on_a_quadratic_is_the_damped_oscillator(friction, regime):
    flow = HeavyBallFlow(DiagonalQuadratic([2.0], dtype=DOUBLE), friction)
    x0 = torch.ones(1, dtype=DOUBLE, requires_grad=True)
    time = checks.stopping_time(flow, x0, lambda x: x[..., 0], 0.3).time
    found = torch.autograd.grad(time, [flow.friction, x0])
    question = (damped_oscillator, 0.3, 2.0, friction, 1.0)
    assert time.item() == pytest.approx(first_passage(*question), rel=1e-9), regime
    assert [g.item() for g in found] == pytest.approx([slope_in(1, *question), slope_in(2, *question)], rel=1e-6)


@pytest.mark.parametrize("friction", [3.0, 1.0, 5.0])
def test_nesterov_on_a_quadratic_is_a_bessel_function(friction):
    flow = NesterovFlow(DiagonalQuadratic([2.0], dtype=DOUBLE), friction)
    x0 = torch.ones(1, dtype=DOUBLE, requires_grad=True)
    time = checks.stopping_time(flow, x0, lambda x: x[..., 0], 0.3).time
    found = torch.autograd.grad(time, [flow.friction, x0])
    question = (bessel_oscillator, 0.3, 2.0, friction, 1.0)
    assert time.item() == pytest.approx(first_passage(*question), rel=1e-9)
    assert [g.item() for g in found] == pytest.approx([slope_in(1, *question), slope_in(2, *question)], rel=1e-6)


def test_hessian_damped_flow_on_a_quadratic_is_a_confluent_hypergeometric_function():
    flow = InertialHessianDampedFlow(DiagonalQuadratic([2.0], dtype=DOUBLE), 3.0, 2.5, 1.5)
    x0 = torch.ones(1, dtype=DOUBLE, requires_grad=True)
    time = continuous_stopping_time(flow, x0, lambda x: x[..., 0], 0.6, rtol=1e-8, atol=1e-10).time
    found = torch.autograd.grad(time, [flow.alpha, flow.beta, flow.gamma, x0])
    question = (kummer_oscillator, 0.6, 2.0, 3.0, 2.5, 1.5, 1.0)
    assert time.item() == pytest.approx(first_passage(*question), rel=1e-7)
    assert [g.item() for g in found] == pytest.approx([slope_in(k, *question) for k in (1, 2, 3, 4)], rel=1e-5)


@pytest.mark.parametrize("build", [NesterovFlow, InertialHessianDampedFlow])
def test_singular_start_is_regular_with_all_its_derivatives(build):
    flow = build(OBJECTIVES["rosenbrock"](), 3.5)
    x = START.clone().requires_grad_()
    t = torch.tensor(0.0, dtype=DOUBLE, requires_grad=True)
    slope = flow(t, flow.initial_state(x))
    expected = torch.cat([torch.zeros_like(x), -flow.objective.gradient(x) / 4.5])
    torch.testing.assert_close(slope, expected)
    parameter = next(iter(flow.parameters()))
    found = torch.autograd.grad(slope.sum(), [t, x, parameter], allow_unused=True, materialize_grads=True)
    (in_x,) = torch.autograd.grad(expected.sum(), x)
    assert found[0].item() == 0
    torch.testing.assert_close(found[1], in_x)
    torch.testing.assert_close(found[2], flow.objective.gradient(x).sum() / 4.5**2)
    # The start is where the flow at later times comes from, along v = t x''(0).
    t = torch.tensor(1e-10, dtype=DOUBLE)
    nearby = flow(t, torch.cat([x, t * expected[2:]]))
    torch.testing.assert_close(nearby[2:], expected[2:], rtol=1e-8, atol=0.0)


def test_time_is_free_to_move_with_the_singularity():
    t0 = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    quadratic = OBJECTIVES["quadratic"]()
    moved = checks.stopping_time(NesterovFlow(quadratic, t0=t0), START, quadratic, 0.3, t0=t0).time
    original = checks.stopping_time(NesterovFlow(quadratic), START, quadratic, 0.3).time
    assert moved.item() == pytest.approx(original.item() + 0.7, rel=1e-10)
    (slope,) = torch.autograd.grad(moved, t0)
    assert slope.item() == pytest.approx(1.0, abs=1e-10)


def test_a_later_start_meets_the_friction_there():
    t0 = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    quadratic = OBJECTIVES["quadratic"]()
    flow = NesterovFlow(quadratic)
    times = [checks.stopping_time(flow, START, quadratic, 0.3, t0=t0 + shift).time for shift in (0.0, 1e-4, -1e-4)]
    (slope,) = torch.autograd.grad(times[0], t0)
    assert slope.item() == pytest.approx((times[1] - times[2]).item() / 2e-4, rel=1e-6)
    at_singularity = torch.tensor(0.0, dtype=DOUBLE, requires_grad=True)
    time = checks.stopping_time(flow, START, quadratic, 0.3, t0=at_singularity).time
    (slope,) = torch.autograd.grad(time, at_singularity)
    assert abs(slope.item()) < 1e-4


def test_hessian_damped_flow_without_it_is_nesterovs():
    f = OBJECTIVES["rosenbrock"]()
    state = torch.cat([START, torch.ones(2, dtype=DOUBLE)]).expand(3, 4)
    t = torch.tensor([[0.0], [0.5], [2.0]], dtype=DOUBLE)
    torch.testing.assert_close(InertialHessianDampedFlow(f, 3.0, 0.0, 1.0)(t, state), NesterovFlow(f)(t, state))


def test_learned_schedules_receive_gradients_and_numbers_are_parameters():
    f = OBJECTIVES["quadratic"]()
    flow = InertialHessianDampedFlow(f, 3.0, ExponentialSchedule(0.3, 0.5), PolynomialSchedule(1.0, 0.2))
    assert {name for name, _ in flow.named_parameters()} == {
        *("alpha", "beta.scale", "beta.rate", "gamma.scale", "gamma.exponent")
    }
    time = continuous_stopping_time(flow, START, f, 0.1, t0=1.0).time
    assert all(float(slope) != 0 for slope in torch.autograd.grad(time, list(flow.parameters())))
    assert {name for name, _ in InertialHessianDampedFlow(f).named_parameters()} == {"alpha", "beta", "gamma"}


def test_a_plain_function_of_time_is_a_schedule():
    f = OBJECTIVES["quadratic"]()
    flow = InertialHessianDampedFlow(f, gamma=lambda t: 1 + 1 / t)
    slope = flow(torch.tensor(2.0, dtype=DOUBLE), flow.initial_state(START))
    torch.testing.assert_close(slope[2:], -1.5 * f.gradient(START))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("name", FLOWS)
def test_batches_equal_singles_in_the_dtype_of_the_state(name, dtype):
    f = DiagonalQuadratic([1.0, 4.0], dtype=dtype)
    flow = FLOWS[name](f)
    x0 = torch.tensor([[0.6, 0.5], [1.0, -0.4], [-0.3, 0.8]], dtype=dtype)
    states = flow.initial_state(x0) + torch.tensor([0.0, 0.0, 0.3, -0.2], dtype=dtype)
    times = torch.tensor([0.0, 0.5, 2.0], dtype=dtype)
    batch = flow(times[:, None], states)
    assert batch.dtype == flow.initial_state(x0).dtype == dtype
    assert torch.equal(flow.position(flow.initial_state(x0)), x0)
    for row, time in enumerate(times):
        single = flow(time, states[row])
        assert single.dtype == dtype
        torch.testing.assert_close(single, batch[row])
        torch.testing.assert_close(flow.initial_state(x0[row]), flow.initial_state(x0)[row])


def test_batch_of_trajectories_with_their_own_hyperparameters_and_starts():
    quadratic, friction = OBJECTIVES["quadratic"](), torch.tensor([3.0, 4.0], dtype=DOUBLE, requires_grad=True)
    t0 = torch.tensor([0.0, 0.5], dtype=DOUBLE)
    x0 = torch.stack([START, 2 * START])
    times = continuous_stopping_time(NesterovFlow(quadratic, friction, t0=t0), x0, quadratic, 0.2, t0=t0).time
    (slopes,) = torch.autograd.grad(times.sum(), friction)
    for row in range(2):
        single = NesterovFlow(quadratic, friction[row].item())
        time = continuous_stopping_time(single, x0[row], quadratic, 0.2).time
        assert times[row].item() == pytest.approx(time.item() + t0[row].item(), rel=1e-6)
        assert slopes[row].item() == pytest.approx(torch.autograd.grad(time, single.friction)[0].item(), rel=1e-4)


@pytest.mark.parametrize("name", FLOWS)
def test_second_derivatives_are_right(name):
    flow = FLOWS[name](OBJECTIVES["rosenbrock"]())
    names = [name for name, _ in flow.named_parameters()]

    def slope(t, x, v, *values):
        return torch.func.functional_call(flow, dict(zip(names, values, strict=True)), (t, torch.cat([x, v], -1)))

    t = torch.tensor(0.8, dtype=DOUBLE, requires_grad=True)
    x, v = START.clone().requires_grad_(), torch.tensor([0.3, -0.2], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(slope, (t, x, v, *flow.parameters()))
    assert torch.autograd.gradgradcheck(slope, (t, x, v, *flow.parameters()))


@pytest.mark.parametrize("name", FLOWS)
def test_a_solve_in_single_precision_and_without_gradients_agrees(name):
    single = DiagonalQuadratic([1.0, 4.0])
    double = continuous_stopping_time(FLOWS[name](OBJECTIVES["quadratic"]()), START, OBJECTIVES["quadratic"](), 0.3)
    with torch.no_grad():
        time = continuous_stopping_time(FLOWS[name](single), START.float(), single, 0.3, rtol=1e-4).time
    assert time.dtype == torch.float32
    assert time.item() == pytest.approx(double.time.item(), rel=1e-3)


def test_euler_steps_of_a_flow_that_starts_moving_are_differentiated_through_the_start():
    rate = torch.tensor(0.04, dtype=DOUBLE, requires_grad=True)
    quadratic = OBJECTIVES["quadratic"]()
    flow = HighResolutionNesterovFlow(quadratic, rate)
    continuous = continuous_stopping_time(flow, START, quadratic, 0.1).time
    discrete = discrete_stopping_time(Euler(flow, 4e-3), START, quadratic, 0.1, sensitivity="interpolated").time
    (exact,), (found,) = (torch.autograd.grad(time, rate) for time in (continuous, discrete))
    assert found.item() == pytest.approx(exact.item(), rel=0.05)


def quadratic_without_constant():
    return Objective.from_function(lambda x: (x * x).sum(-1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: HeavyBallFlow(f, -0.1), r"friction must be at least 0, got -0\.1"),
        (lambda f: HeavyBallFlow(f, math.nan), "friction must be finite real floating-point numbers, got nan"),
        (lambda f: HeavyBallFlow("f", 1.0), "objective must be an odestop.objectives.Objective, got str"),
        (lambda f: NesterovFlow(f, torch.tensor([1.0, -3.0])), r"friction must be at least 0, got -3"),
        (lambda f: StronglyConvexNesterovFlow(f, 0.0), r"strong_convexity must be positive, got 0\.0"),
        (lambda f: StronglyConvexNesterovFlow(f), "strong_convexity must be given for _FunctionObjective"),
        (lambda f: HighResolutionNesterovFlow(f, 0.0, 1.0), r"learning_rate must be positive, got 0\.0"),
        (lambda f: HighResolutionNesterovFlow(f, 0.1), "strong_convexity must be given for _FunctionObjective"),
        (lambda f: InertialHessianDampedFlow(f, beta=-1.0), r"beta must be at least 0, got -1\.0"),
        (lambda f: InertialHessianDampedFlow(f, gamma="one"), "gamma must be a callable t -> value, got str"),
    ],
)
def test_unusable_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build(quadratic_without_constant())


def test_hyperparameter_of_another_batch_is_refused():
    flow = HeavyBallFlow(OBJECTIVES["quadratic"](), torch.ones(3, dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"friction must have shape \(\) or the batch shape \(2,\), got \(3,\)"):
        flow(torch.tensor(0.0, dtype=DOUBLE), torch.ones(2, 4, dtype=DOUBLE))


def test_a_flow_without_an_acceleration_says_so():
    with pytest.raises(NotImplementedError, match="InertialFlow must implement acceleration"):
        InertialFlow(quadratic_without_constant())(torch.tensor(0.0), torch.ones(4))
