"""Adaptive flows: closed forms, singular starts, vanishing gradients, and the algorithms they are limits of."""

import math

import pytest
import torch

from odestop import continuous_stopping_time
from odestop.criteria import ObjectiveGap
from odestop.discrete import Adagrad, Adam, RMSprop
from odestop.dynamics import AdagradFlow, AdamFlow, RMSpropFlow
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
    "Adagrad": lambda f: AdagradFlow(f, 0.5),
    "RMSprop": lambda f: RMSpropFlow(f, 0.7, 0.5),
    "Adam": lambda f: AdamFlow(f, 0.3, 0.8, eps=1e-3),
}


class StartedAt:
    """A step map whose memory of squares starts at a given value."""

    def __init__(self, step, square):
        self.step, self.square, self.position = step, square, step.position

    def initial_state(self, x0):
        return torch.cat([x0, torch.full_like(x0, self.square)])

    def __call__(self, k, state):
        return self.step(k, state)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", FLOWS)
def test_flow_agrees_with_torchdiffeq_and_with_finite_differences(name, objective):
    flow = FLOWS[name](OBJECTIVES[objective]())
    criterion = ObjectiveGap(flow.objective)
    question = (flow, START, criterion, 0.6 * float(criterion(START)))
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_flow_is_the_limit_of_its_algorithm(objective):
    f, time = OBJECTIVES[objective](), 0.3
    checks.is_the_limit_of(
        AdagradFlow(f, 0.5, eps=1e-3),
        lambda h: StartedAt(Adagrad(f, h**0.5, eps=1e-3 / h**0.5), 0.5 / h),
        START,
        time=time,
    )
    for beta in (lambda ratio: math.exp(-ratio), lambda ratio: 1 - ratio):
        rmsprop = RMSpropFlow(f, 0.7, 0.5)
        checks.is_the_limit_of(rmsprop, lambda h: StartedAt(RMSprop(f, h, beta(h / 0.7)), 0.5), START, time=time)  # noqa: B023
        adam = FLOWS["Adam"](f)
        checks.is_the_limit_of(
            adam,
            lambda h: Adam(f, h, beta(h / 0.3), beta(h / 0.8), eps=1e-3),  # noqa: B023
            START,
            time=time,
        )


class Slope(Objective):
    """f(x) = aᵀ x, whose gradient never changes."""

    def __init__(self, a):
        super().__init__()
        self.a = a

    def value(self, x):
        return (self.a * x).sum(-1)


def test_along_a_constant_slope_the_flows_have_closed_forms():
    f = Slope(torch.tensor([2.0], dtype=DOUBLE))
    x0 = torch.ones(1, dtype=DOUBLE)

    def time(flow):
        return checks.stopping_time(flow, x0, lambda x: x[..., 0], 0.2).time.item()

    # x0 - x = √(δ + 4 t) - √δ
    assert time(AdagradFlow(f, 0.5, eps=0.0)) == pytest.approx(((0.8 + 0.5**0.5) ** 2 - 0.5) / 4, rel=1e-9)
    # v stays at 4, and the flow is -g/|g|
    assert time(RMSpropFlow(f, 0.7, 4.0, eps=0.0)) == pytest.approx(0.8, rel=1e-9)
    # both averages are what they average, once their bias is corrected
    assert time(AdamFlow(f, 0.3, 0.8, eps=1e-3)) == pytest.approx(0.8 * (2 + 1e-3) / 2, rel=1e-9)


def test_rmsprop_without_averaging_is_the_sign_flow():
    # As τ → 0, v follows ∇f² and x' = -∇f / (|∇f| + ε).
    flow = RMSpropFlow(OBJECTIVES["quadratic"](), 1e-3, 0.1)
    state = continuous_stopping_time(flow, START, lambda x: x[..., 0], 0.4).state
    assert state[0].item() == pytest.approx(0.4)
    assert state[1].item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("t", [0.0, -1.0])
def test_adam_starts_with_the_normalised_gradient_and_its_derivative(t):
    flow = AdamFlow(OBJECTIVES["rosenbrock"](), 0.3, 0.8, eps=0.5)
    x = START.clone().requires_grad_()
    slope = flow(torch.tensor(t, dtype=DOUBLE), flow.initial_state(x))
    g = flow.objective.gradient(x)
    expected = torch.cat([-g / (g.abs() + 0.5), g / 0.3, g * g / 0.8])
    torch.testing.assert_close(slope, expected)
    for k in range(6):
        (found,), (in_x,) = (torch.autograd.grad(row[k], x, retain_graph=True) for row in (slope, expected))
        torch.testing.assert_close(found, in_x)


def test_adam_leaves_its_start_smoothly():
    flow = AdamFlow(OBJECTIVES["rosenbrock"](), 0.3, 0.8)
    start = flow.initial_state(START)
    slope = flow(torch.tensor(0.0, dtype=DOUBLE), start)
    h = torch.tensor(1e-9, dtype=DOUBLE)
    torch.testing.assert_close(flow(h, start + h * slope), slope, rtol=1e-7, atol=0.0)


def test_clock_of_adam_starts_with_the_trajectory():
    t0 = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    quadratic = OBJECTIVES["quadratic"]()
    moved = continuous_stopping_time(AdamFlow(quadratic, 0.3, 0.8, t0=t0), START, quadratic, 0.3, t0=t0).time
    original = continuous_stopping_time(AdamFlow(quadratic, 0.3, 0.8), START, quadratic, 0.3).time
    assert moved.item() == pytest.approx(original.item() + 0.7, rel=1e-6)
    (slope,) = torch.autograd.grad(moved, t0)
    assert slope.item() == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("name", FLOWS)
def test_a_coordinate_without_a_gradient_stays_and_spoils_nothing(name):
    f = DiagonalQuadratic([1.0, 0.0, 4.0], dtype=DOUBLE)
    x0 = torch.tensor([0.6, 3.0, 0.0], dtype=DOUBLE, requires_grad=True)
    flow = FLOWS[name](f)
    solution = continuous_stopping_time(flow, x0, f, 0.1)
    assert solution.position[1:].tolist() == [3.0, 0.0]
    gradients = torch.autograd.grad(solution.time, [x0, *flow.parameters()])
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    alone = continuous_stopping_time(
        FLOWS[name](DiagonalQuadratic([1.0], dtype=DOUBLE)), x0[:1], lambda x: x[..., 0] ** 2, 0.2
    )
    assert solution.time.item() == pytest.approx(alone.time.item(), rel=1e-5)
    assert gradients[0][0].item() == pytest.approx(torch.autograd.grad(alone.time, x0)[0][0].item(), rel=1e-4)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("t", [0.0, 0.5])
def test_root_of_nothing_has_finite_derivatives(name, t):
    flow = FLOWS[name](OBJECTIVES["quadratic"]())
    state = torch.zeros(2 * (1 + flow.memories), dtype=DOUBLE, requires_grad=True)
    slope = flow(torch.tensor(t, dtype=DOUBLE), state)
    (gradient,) = torch.autograd.grad(slope.sum(), state, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), state)
    for tensor in (slope, gradient, second):
        assert bool(torch.isfinite(tensor).all())


@pytest.mark.parametrize("name", FLOWS)
def test_second_derivatives_are_right(name):
    flow = FLOWS[name](OBJECTIVES["rosenbrock"]())
    names = [name for name, _ in flow.named_parameters()]

    def slope(t, state, *values):
        return torch.func.functional_call(flow, dict(zip(names, values, strict=True)), (t, state))

    t = torch.tensor(0.8, dtype=DOUBLE, requires_grad=True)
    state = torch.cat([START, torch.linspace(0.2, 0.9, 2 * flow.memories, dtype=DOUBLE)]).requires_grad_()
    assert torch.autograd.gradcheck(slope, (t, state, *flow.parameters()))
    assert torch.autograd.gradgradcheck(slope, (t, state, *flow.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("name", FLOWS)
def test_batches_equal_singles_in_the_dtype_of_the_state(name, dtype):
    f = DiagonalQuadratic([1.0, 4.0], dtype=dtype)
    flow = FLOWS[name](f)
    x0 = torch.tensor([[0.6, 0.5], [1.0, -0.4], [-0.3, 0.8]], dtype=dtype)
    start = flow.initial_state(x0)
    assert start.dtype == dtype
    assert torch.equal(flow.position(start), x0)
    times = torch.tensor([0.0, 0.5, 2.0], dtype=dtype)
    batch = flow(times[:, None], start + 0.3)
    assert batch.dtype == dtype
    for row, time in enumerate(times):
        single = flow(time, start[row] + 0.3)
        assert single.dtype == dtype
        torch.testing.assert_close(single, batch[row])
        torch.testing.assert_close(flow.initial_state(x0[row]), start[row])


@pytest.mark.parametrize("name", FLOWS)
def test_a_solve_in_single_precision_and_without_gradients_agrees(name):
    single = DiagonalQuadratic([1.0, 4.0])
    double = continuous_stopping_time(FLOWS[name](OBJECTIVES["quadratic"]()), START, OBJECTIVES["quadratic"](), 0.3)
    with torch.no_grad():
        time = continuous_stopping_time(FLOWS[name](single), START.float(), single, 0.3, rtol=1e-4).time
    assert time.dtype == torch.float32
    assert time.item() == pytest.approx(double.time.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda f, a, b: AdagradFlow(f, b), ["initial_square"]),
        (lambda f, a, b: RMSpropFlow(f, a, b), ["tau", "initial_square"]),
        (lambda f, a, b: AdamFlow(f, a, b), ["tau1", "tau2"]),
    ],
)
def test_every_trajectory_may_have_its_own_hyperparameters(build, names):
    f = OBJECTIVES["quadratic"]()
    pairs = torch.tensor([[0.3, 0.8], [0.5, 0.6]], dtype=DOUBLE)
    first, second = (column.clone().requires_grad_() for column in pairs.unbind(-1))
    flow = build(f, first, second)
    times = continuous_stopping_time(flow, torch.stack([START, 2 * START]), f, 0.4).time
    slopes = torch.autograd.grad(times.sum(), [getattr(flow, name) for name in names])
    for row in range(2):
        single = build(f, *pairs[row].tolist())
        time = continuous_stopping_time(single, (1 + row) * START, f, 0.4).time
        assert times[row].item() == pytest.approx(time.item(), rel=1e-6)
        expected = torch.autograd.grad(time, [getattr(single, name) for name in names])
        assert [s[row].item() for s in slopes] == pytest.approx([e.item() for e in expected], rel=1e-4, abs=1e-8)


def test_numbers_are_parameters_but_for_eps():
    f = OBJECTIVES["quadratic"]()
    names = [{name for name, _ in build(f).named_parameters()} for build in FLOWS.values()]
    assert names == [{"initial_square"}, {"tau", "initial_square"}, {"tau1", "tau2"}]
    eps = torch.tensor(0.1, dtype=DOUBLE, requires_grad=True)
    for build in (AdagradFlow, RMSpropFlow, AdamFlow):
        time = continuous_stopping_time(build(f, eps=eps), START, f, 0.4).time
        assert torch.autograd.grad(time, eps)[0].item() > 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: AdagradFlow("f"), "objective must be an odestop.objectives.Objective, got str"),
        (lambda f: AdagradFlow(f, 0.0), r"initial_square must be positive, got 0\.0"),
        (lambda f: AdagradFlow(f, eps=-1.0), r"eps must be at least 0, got -1\.0"),
        (lambda f: RMSpropFlow(f, -1.0), r"tau must be positive, got -1\.0"),
        (lambda f: RMSpropFlow(f, initial_square=-1.0), r"initial_square must be positive, got -1\.0"),
        (lambda f: AdamFlow(f, 0.0), r"tau1 must be positive, got 0\.0"),
        (lambda f: AdamFlow(f, tau2=math.inf), "tau2 must be finite real floating-point numbers, got inf"),
        (lambda f: AdamFlow(f, eps=math.nan), "eps must be finite real floating-point numbers, got nan"),
    ],
)
def test_unusable_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build(OBJECTIVES["quadratic"]())
