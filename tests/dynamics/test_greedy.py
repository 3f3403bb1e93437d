"""Greedy-optimal flows: their operators are the best of the trust region, and the library checks."""

import math

import pytest
import torch

from odestop import Euler, continuous_stopping_time
from odestop.criteria import ObjectiveGap
from odestop.dynamics import GradientFlow, GreedyDiagonalFlow, GreedyLyapunovFlow, GreedySchattenFlow
from odestop.objectives import DiagonalQuadratic, Objective, Quadratic
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
ZERO = torch.tensor(0.0, dtype=DOUBLE)


class Cosh(Objective):
    """f = Σ cosh(x_i) + ¼ (Σ x_i)²."""

    def value(self, x):
        return x.cosh().sum(-1) + 0.25 * x.sum(-1) ** 2

    def _gradient(self, x):
        return x.sinh() + 0.5 * x.sum(-1, keepdim=True)


def quadratic(dimension=2):
    return Quadratic.with_condition_number(dimension, 3.0, 0, dtype=DOUBLE)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


FLOWS = {
    "Frobenius": lambda f, *theta: GreedySchattenFlow(f, *theta),
    "third-order": lambda f, *theta: GreedySchattenFlow(f, *theta, order=3),
    "Lyapunov": GreedyLyapunovFlow,
    "diagonal Frobenius": lambda f, *theta: GreedyDiagonalFlow(f, *theta, power=0.0),
    "RMSprop": GreedyDiagonalFlow,
}
SPEEDS = {"Frobenius": 1.0, "third-order": 1.0, "Lyapunov": 1.5, "diagonal Frobenius": 1.5, "RMSprop": 1.5}


def frobenius(M):
    return M / M.norm()


def third_order(M):
    eigenvalues, vectors = torch.linalg.eigh(M)
    return vectors @ torch.diag(eigenvalues**3) @ vectors.T / eigenvalues.clamp(min=0).pow(4).sum() ** 0.75


OPERATORS = {
    "Frobenius": frobenius,
    "third-order": third_order,
    "Lyapunov": lambda M: torch.eye(len(M), dtype=DOUBLE) / M.trace().sqrt(),
    "diagonal Frobenius": lambda M: torch.diag(M.diagonal() / M.diagonal().norm()),
    "RMSprop": lambda M: torch.diag(M.diagonal() ** -0.5 / M.diagonal().sqrt().sum().sqrt()),
}
# Size of Q in the unit of the trust region, at most 1 inside it.
SIZES = {
    "Frobenius": lambda Q, M: Q.norm(),
    "third-order": lambda Q, M: torch.linalg.eigvalsh(Q).abs().pow(4 / 3).sum() ** 0.75,
    "Lyapunov": lambda Q, M: (Q @ M @ Q).trace().sqrt(),
    "diagonal Frobenius": lambda Q, M: Q.diagonal().norm(),
    "RMSprop": lambda Q, M: (M.diagonal() ** 1.5 * Q.diagonal() ** 2).sum().sqrt(),
}


class ExplicitAlgorithm:
    """The moment of the gradient first, as optimizers do, then the step, with the operator written out."""

    def __init__(self, name, objective, budget, time_constant, h):
        self.operator, self.f = OPERATORS[name], objective
        self.rate, self.forget = budget * h, h / time_constant

    def initial_state(self, x0):
        gradient = self.f.gradient(x0)
        return torch.cat([x0, torch.outer(gradient, gradient).flatten()])

    def position(self, state):
        return state[:2]

    def __call__(self, k, state):
        x, M = state[:2], state[2:].reshape(2, 2)
        gradient = self.f.gradient(x)
        M = (1 - self.forget) * M + self.forget * torch.outer(gradient, gradient)
        return torch.cat([x - self.rate * self.operator(M) @ gradient, M.flatten()])


@pytest.mark.parametrize(("objective", "start"), [(quadratic(), [1.0, -2.0]), (Cosh(minimum=2.0), [1.2, -0.9])])
@pytest.mark.parametrize("name", FLOWS)
def test_library_checks(name, objective, start):
    flow, x0 = FLOWS[name](objective, SPEEDS[name], 0.7), torch.tensor(start, dtype=DOUBLE)
    gap = ObjectiveGap(objective)
    question = (flow, x0, gap, 0.7 * float(gap(x0)))
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)
    checks.is_the_limit_of(
        flow, lambda h: ExplicitAlgorithm(name, objective, SPEEDS[name], 0.7, h), x0, time=0.5, steps=(16, 32, 64)
    )


def operator_of(flow, M):
    """The matrix of `precondition`, with the moment that the flow would have."""
    moments = {GreedySchattenFlow: M.flatten(), GreedyLyapunovFlow: M.trace()[None], GreedyDiagonalFlow: M.diagonal()}
    moment, identity = moments[type(flow)], torch.eye(len(M), dtype=M.dtype)
    return flow.precondition(moment.expand(len(M), -1), identity).mT.detach()


@pytest.mark.parametrize("name", FLOWS)
def test_no_other_operator_of_the_trust_region_descends_faster(name):
    gradients = random(20, 3)
    M = gradients.T @ gradients / 20
    Q = operator_of(FLOWS[name](quadratic(3)), M)
    torch.testing.assert_close(Q, OPERATORS[name](M), rtol=1e-6, atol=1e-6)
    size, best = SIZES[name], float((Q * M).sum())
    assert float(size(Q, M)) == pytest.approx(1.0, rel=1e-6)
    assert float(torch.linalg.eigvalsh(Q)[0]) > 0
    diagonal = "RMSprop" in name or "diagonal" in name
    for seed in range(200):
        factor = random(3, 3, seed=seed)
        other = factor @ factor.T * (torch.eye(3, dtype=DOUBLE) if diagonal else 1.0)
        # Far from Q, and near it.
        for rival in (other, Q + 0.1 * other, Q + 1e-3 * other):
            assert float((rival / size(rival, M) * M).sum()) <= best * (1 + 1e-6)


@pytest.mark.parametrize("name", FLOWS)
def test_ascent_over_the_trust_region_ends_at_the_operator(name):
    gradients = random(20, 3)
    M, size = gradients.T @ gradients / 20, SIZES[name]
    factor = torch.eye(3, dtype=DOUBLE, requires_grad=True)
    diagonal = torch.eye(3, dtype=DOUBLE) if "RMSprop" in name or "diagonal" in name else 1.0

    def loss():
        rival = factor @ factor.T * diagonal
        return -((rival * M).sum() / size(rival, M)).log()

    optimizer = torch.optim.LBFGS([factor], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    rival = (factor @ factor.T * diagonal).detach()
    torch.testing.assert_close(rival / size(rival, M), operator_of(FLOWS[name](quadratic(3)), M), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in FLOWS if name != "third-order"])
def test_operator_satisfies_the_stationarity_condition(name):
    gradients = random(20, 3)
    M, size = gradients.T @ gradients / 20, SIZES[name]
    Q = operator_of(FLOWS[name](quadratic(3)), M).requires_grad_()
    (normal,) = torch.autograd.grad(0.5 * size(Q, M) ** 2, Q)
    diagonal = torch.eye(3, dtype=DOUBLE) if "RMSprop" in name or "diagonal" in name else 1.0
    normal, M = (normal + normal.T) / 2 * diagonal, M * diagonal
    multiplier = float((M * normal).sum() / (normal * normal).sum())
    assert multiplier > 0
    torch.testing.assert_close(M, multiplier * normal, rtol=1e-6, atol=1e-6)


def test_order_zero_is_the_gradient_flow_and_a_high_order_follows_the_top_eigenvector():
    M, g = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=DOUBLE), random(2)
    spectral, trace = (GreedySchattenFlow(quadratic(), order=n).precondition(M.flatten(), g) for n in (0, 200))
    torch.testing.assert_close(spectral, g)
    top = torch.linalg.eigh(M)[1][:, -1]
    torch.testing.assert_close(trace, top * (top @ g), rtol=0.02, atol=0.0)
    state = torch.cat([random(2), M.flatten()])
    flow = GreedySchattenFlow(quadratic(), budget=2.0, order=0)
    torch.testing.assert_close(
        flow.position(flow(ZERO, state)).detach(), 2 * GradientFlow(flow.objective)(ZERO, flow.position(state))
    )


def test_in_one_dimension_the_frobenius_ball_gives_the_gradient_flow():
    flow = GreedySchattenFlow(DiagonalQuadratic([2.0], dtype=DOUBLE), budget=0.5)
    x0 = torch.ones(1, dtype=DOUBLE)
    assert continuous_stopping_time(flow, x0, flow.objective, math.exp(-3)).time.item() == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize("name", FLOWS)
def test_the_budget_rescales_time(name):
    objective, x0 = quadratic(), torch.tensor([1.0, -2.0], dtype=DOUBLE)
    times = [
        continuous_stopping_time(FLOWS[name](objective, budget, memory), x0, objective, 0.5, rtol=1e-9).time.item()
        for budget, memory in [(1.0, 0.8), (2.0, 0.4)]
    ]
    assert times[1] == pytest.approx(times[0] / 2, rel=1e-7)


@pytest.mark.parametrize("name", FLOWS)
def test_first_and_second_derivatives_are_exact(name):
    flow = FLOWS[name](Cosh(), 1.5, 0.7)
    names = [name for name, _ in flow.named_parameters()]

    def slope(x, *values):
        return torch.func.functional_call(flow, dict(zip(names, values, strict=True)), (ZERO, state + x))

    state = flow.initial_state(random(2)).detach() + flow.initial_state(random(2, seed=1)).detach()
    inputs = (torch.zeros_like(state).requires_grad_(), *flow.parameters())
    assert torch.autograd.gradcheck(slope, inputs)
    assert torch.autograd.gradgradcheck(slope, inputs)


@pytest.mark.parametrize("name", FLOWS)
def test_a_batch_equals_singles_and_float32_stays_float32(name):
    flow, x0 = FLOWS[name](Cosh()), random(2, 3, 4)
    with torch.no_grad():
        state = flow.initial_state(x0)
        assert torch.equal(flow.position(state), x0)
        batch = flow(torch.zeros(2, 3, 1, dtype=DOUBLE), state)
        torch.testing.assert_close(flow(ZERO, state[1, 2]), batch[1, 2])
        torch.testing.assert_close(flow.initial_state(x0[0, 1]), state[0, 1])
        assert flow(torch.tensor(0.0), state.float()).dtype == torch.float32
        per_row = FLOWS[name](Cosh(), torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0]))(ZERO, state[:, 0])
        torch.testing.assert_close(per_row[1], FLOWS[name](Cosh(), 2.0, 3.0)(ZERO, state[1, 0]))


@pytest.mark.parametrize("name", FLOWS)
def test_a_minimiser_is_at_rest(name):
    flow = FLOWS[name](DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE))
    x0 = torch.zeros(2, dtype=DOUBLE, requires_grad=True)
    velocity = flow(ZERO, flow.initial_state(x0))
    assert bool((velocity == 0).all())
    assert bool(torch.isfinite(torch.autograd.grad(velocity.sum(), x0)[0]).all())


def test_euler_keeps_the_memory():
    flow = GreedyDiagonalFlow(quadratic())
    step = Euler(flow, 0.1)
    assert step(0, step.initial_state(torch.ones(2, dtype=DOUBLE))).shape == (4,)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GreedyLyapunovFlow(lambda x: x), "objective must be an odestop.objectives.Objective, got function"),
        (lambda: GreedyLyapunovFlow(Cosh(), 0.0), "budget must be .*positive, got .*0"),
        (lambda: GreedyLyapunovFlow(Cosh(), 1.0, -1.0), "time_constant must be .*positive, got .*-1"),
        (lambda: GreedySchattenFlow(Cosh(), order=-1), "order must be an integer of at least 0, got -1"),
        (lambda: GreedyDiagonalFlow(Cosh(), power=-1.0), "power must be .*at least 0, got .*-1"),
        (lambda: GreedyDiagonalFlow(Cosh(), eps=0.0), "eps must be a positive finite number, got 0.0"),
    ],
)
def test_unusable_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
