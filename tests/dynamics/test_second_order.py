"""Newton's flow and its relatives: closed forms, the library checks, and the methods they are limits of."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize
from torch import nn

from odestop import StoppingStatus, continuous_stopping_time, fit_order
from odestop.criteria import ObjectiveGap, SquaredGradientNorm
from odestop.dynamics import (
    CubicRegularizedFlow,
    GaussNewtonFlow,
    GaussNewtonMetric,
    LazyNewtonFlow,
    NaturalGradientFlow,
    NewtonFlow,
    RegularizedNewtonFlow,
)
from odestop.objectives import DiagonalQuadratic, LogisticRegression, Objective, Quadratic, Rosenbrock
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
ZERO = torch.tensor(0.0, dtype=DOUBLE)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


class Cosh(Objective):
    """f = Σ cosh(x_i) + ¼ (Σ x_i)²."""

    def __init__(self):
        super().__init__(minimum=2.0)

    def value(self, x):
        return x.cosh().sum(-1) + 0.25 * x.sum(-1) ** 2

    def _gradient(self, x):
        return x.sinh() + 0.5 * x.sum(-1, keepdim=True)

    def _hessian_vector_product(self, x, v):
        return x.cosh() * v + 0.5 * v.sum(-1, keepdim=True)


OBJECTIVES = {
    "quadratic": (lambda: Quadratic.with_condition_number(2, 4.0, 0, dtype=DOUBLE), [1.0, -2.0]),
    "cosh": (Cosh, [1.5, -0.3]),
}


def derivatives(name, x):
    """∇f and ∇²f written out."""
    if name == "quadratic":
        matrix = OBJECTIVES["quadratic"][0]().matrix
        return matrix @ x, matrix
    if name == "rosenbrock":
        u, v = x
        slope = 20 * (v - u * u)
        gradient = torch.stack([2 * u - 2 - u * slope, slope / 2])
        return gradient, torch.stack([2 - slope + 40 * u * u, -20 * u, -20 * u, torch.tensor(10.0)]).reshape(2, 2)
    return x.sinh() + 0.5 * x.sum(), torch.diag(x.cosh()) + 0.5


def cubic_step(gradient, matrix, cubic):
    """The minimiser of the cubic model by a scalar root in the eigenbasis."""
    eigenvalues, vectors = np.linalg.eigh(matrix.numpy())
    parts = vectors.T @ gradient.numpy()
    lowest = max(0.0, -2 * eigenvalues[0] / cubic)

    def excess(r):
        return np.linalg.norm(parts / (eigenvalues + cubic * r / 2)) - r

    r = brentq(excess, lowest + 1e-9, lowest + 1e3, xtol=1e-14, rtol=1e-14)
    return torch.from_numpy(-vectors @ (parts / (eigenvalues + cubic * r / 2)))


def metric(x):
    return torch.diag_embed(1 + x * x) + 0.5


IDENTITY = torch.eye(2, dtype=DOUBLE)
FLOWS = {
    "newton": (NewtonFlow, lambda g, H, x: -torch.linalg.solve(H, g)),
    "levenberg": (
        lambda f: RegularizedNewtonFlow(f, damping=0.7),
        lambda g, H, x: -torch.linalg.solve(H + 0.7 * IDENTITY, g),
    ),
    "gradient-regularised": (
        lambda f: RegularizedNewtonFlow(f, damping=0.7, exponent=0.5),
        lambda g, H, x: -torch.linalg.solve(H + 0.7 * g.norm() ** 0.5 * IDENTITY, g),
    ),
    "natural": (
        lambda f: NaturalGradientFlow(f, metric, damping=0.3),
        lambda g, H, x: -torch.linalg.solve(metric(x) + 0.3 * IDENTITY, g),
    ),
    "cubic": (lambda f: CubicRegularizedFlow(f, cubic=2.0), lambda g, H, x: cubic_step(g, H, 2.0)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("flow_name", FLOWS)
def test_library_checks(flow_name, name):
    build, step = FLOWS[flow_name]
    make_objective, start = OBJECTIVES[name]
    x0 = torch.tensor(start, dtype=DOUBLE)
    flow = build(make_objective())
    gap = ObjectiveGap(flow.objective)
    question = (flow, x0, gap, 0.6 * float(gap(x0)))
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)
    checks.is_the_limit_of(
        flow, lambda h: lambda k, x: x + h * step(*derivatives(name, x), x), x0, time=0.5, steps=(16, 32, 64)
    )


def test_newton_makes_the_gradient_fall_like_an_exponential():
    x0 = random(3, 3).requires_grad_()
    objective = LogisticRegression(random(20, 3, seed=1), torch.arange(20) % 2, regularization=0.1)
    criterion = SquaredGradientNorm(objective)
    initial = criterion(x0)
    threshold = 1e-3 * float(initial.detach().min())
    times = continuous_stopping_time(NewtonFlow(objective), x0, criterion, threshold, rtol=1e-9, atol=1e-12).time
    expected = 0.5 * (initial.log() - math.log(threshold))
    torch.testing.assert_close(times, expected, rtol=1e-8, atol=0.0)
    found, exact = (torch.autograd.grad(value.sum(), x0)[0] for value in (times, expected))
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-8)


def test_newton_on_a_quadratic_takes_half_the_logarithm_of_the_gap_whatever_the_condition_number():
    quadratic = Quadratic.with_condition_number(30, 1e4, 0, dtype=DOUBLE)
    time = continuous_stopping_time(
        NewtonFlow(quadratic), random(30), quadratic, math.exp(-4) * float(quadratic(random(30)))
    ).time
    assert time.item() == pytest.approx(2.0, rel=1e-6)


def test_damping_goes_from_the_newton_flow_to_the_gradient_flow():
    quadratic, x = DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE), random(2)
    with torch.no_grad():
        torch.testing.assert_close(RegularizedNewtonFlow(quadratic, 0.0)(ZERO, x), NewtonFlow(quadratic)(ZERO, x))
        slow = 1e9 * RegularizedNewtonFlow(quadratic, 1e9)(ZERO, x)
    torch.testing.assert_close(slow, -quadratic.gradient(x), rtol=1e-8, atol=0.0)


def test_damping_has_its_closed_form_on_a_quadratic():
    damping = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    flow = RegularizedNewtonFlow(DiagonalQuadratic([2.0], dtype=DOUBLE), damping)
    x0 = torch.ones(1, dtype=DOUBLE)
    time = continuous_stopping_time(flow, x0, flow.objective, math.exp(-2), rtol=1e-9).time
    time.backward()
    # x decays at the rate 2 / (2 + λ), hence T = 1 + λ/2.
    assert time.item() == pytest.approx(1.25, rel=1e-8)
    assert float(damping.grad) == pytest.approx(0.5, rel=1e-7)


def residuals(x):
    return torch.stack([1 - x[..., 0], 2 * (x[..., 1] - x[..., 0] ** 2), x[..., 0] * x[..., 1] - 1], dim=-1)


def exponentials(x):
    return x[..., :1] * torch.exp(-x[..., 1:] * torch.tensor([0.0, 0.5, 1.0], dtype=x.dtype)) - 1


def levenberg_marquardt(function, damping, h):
    def step(k, x):
        r, jacobian = function(x), torch.autograd.functional.jacobian(function, x)
        return x - h * torch.linalg.solve(jacobian.T @ jacobian + damping * IDENTITY, jacobian.T @ r)

    return step


@pytest.mark.parametrize(("function", "start"), [(residuals, [0.2, 0.9]), (exponentials, [0.4, 0.6])])
def test_library_checks_of_gauss_newton(function, start):
    flow, x0 = GaussNewtonFlow(function, damping=0.1), torch.tensor(start, dtype=DOUBLE)
    question = (flow, x0, flow.objective, 0.6 * float(flow.objective(x0)))
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)
    checks.is_the_limit_of(flow, lambda h: levenberg_marquardt(function, 0.1, h), x0, time=0.5, steps=(16, 32, 64))


def test_gauss_newton_makes_square_residuals_fall_like_an_exponential():
    def function(x):
        return torch.stack([1 - x[..., 0], 10 * (x[..., 1] - x[..., 0] ** 2)], dim=-1)

    flow, x0 = GaussNewtonFlow(function), torch.tensor([-1.2, 1.0], dtype=DOUBLE)
    solution = continuous_stopping_time(
        flow, x0, flow.objective, math.exp(-2) * float(flow.objective(x0)), rtol=1e-9, atol=1e-11
    )
    assert solution.time.item() == pytest.approx(1.0, rel=1e-8)
    torch.testing.assert_close(function(solution.position), math.exp(-1) * function(x0), rtol=1e-7, atol=1e-8)


def test_gauss_newton_of_a_linear_model_is_newton():
    A, b, x = random(5, 3), random(5, seed=1), random(4, 3, seed=2)
    flow = GaussNewtonFlow(lambda x: x @ A.T - b)
    with torch.no_grad():
        torch.testing.assert_close(flow(ZERO, x), NewtonFlow(flow.objective)(ZERO, x))


def test_fisher_information_of_logistic_regression_is_its_hessian():
    features, labels, x = random(20, 3), torch.arange(20) % 2, random(4, 3, seed=2)
    objective = LogisticRegression(features, labels)
    fisher = GaussNewtonMetric(
        lambda x: x @ features.T,
        lambda z: nn.functional.binary_cross_entropy_with_logits(
            z, labels.to(DOUBLE).expand_as(z), reduction="none"
        ).mean(-1),
    )
    with torch.no_grad():
        torch.testing.assert_close(
            NaturalGradientFlow(objective, fisher)(ZERO, x), NewtonFlow(objective)(ZERO, x), rtol=1e-9, atol=1e-9
        )


def test_fisher_information_of_softmax_outputs_is_the_mean_outer_product_of_scores():
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)).to(DOUBLE)
    x = random(5, 2)
    fisher = GaussNewtonMetric(net, lambda z: torch.logsumexp(z, -1) - z[..., 0])(x)
    for row, matrix in zip(x, fisher, strict=True):
        probabilities = net(row).softmax(-1)
        scores = torch.autograd.functional.jacobian(lambda y: net(y).log_softmax(-1), row)
        torch.testing.assert_close(matrix, torch.einsum("c,ci,cj->ij", probabilities, scores, scores))
    assert {"metric.outputs.0.weight", "objective.residuals.0.weight"} <= set(GaussNewtonFlow(net).state_dict())


@pytest.mark.parametrize("convex", [True, False])
def test_cubic_step_minimises_the_cubic_model(convex):
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]] if convex else [[-2.0, 0.5], [0.5, 1.0]], dtype=DOUBLE)
    gradient, cubic = torch.tensor([0.3, -1.0], dtype=DOUBLE), 1.5
    objective = Objective.from_function(lambda x: (x * gradient).sum(-1) + 0.5 * (x * (x @ matrix)).sum(-1))

    def model(s):
        return objective(torch.from_numpy(s)).item() + cubic / 6 * np.linalg.norm(s) ** 3

    step = CubicRegularizedFlow(objective, cubic)(ZERO, torch.zeros(2, dtype=DOUBLE)).detach().numpy()
    best = min(minimize(model, start, tol=1e-12).fun for start in random(10, 2).numpy() * 3)
    assert model(step) == pytest.approx(best, rel=1e-9)
    # The first-order condition, and the second-order one of the global minimiser.
    r = np.linalg.norm(step)
    shifted = matrix.numpy() + cubic * r / 2 * np.eye(2)
    np.testing.assert_allclose(shifted @ step, -gradient.numpy(), rtol=1e-12)
    assert np.linalg.eigvalsh(shifted)[0] > 0


def test_cubic_flow_leaves_a_region_of_negative_curvature_that_newton_climbs():
    well = Objective.from_function(lambda x: (0.25 * x**4 - 0.5 * x**2).sum(-1), minimum=-0.25)
    x0 = torch.tensor([0.2], dtype=DOUBLE)
    assert CubicRegularizedFlow(well, 1.0)(ZERO, x0).item() > 0 > NewtonFlow(well)(ZERO, x0).item()
    solution = continuous_stopping_time(CubicRegularizedFlow(well, 1.0), x0, ObjectiveGap(well), 1e-3)
    assert solution.status is StoppingStatus.REACHED


@pytest.mark.parametrize(
    "build",
    [
        NewtonFlow,
        lambda f: RegularizedNewtonFlow(f, torch.tensor(0.3, dtype=DOUBLE), 0.5),
        lambda f: CubicRegularizedFlow(f, 2.0),
        lambda f: LazyNewtonFlow(f, 0.5),
    ],
)
def test_first_and_second_derivatives_are_exact(build):
    flow = build(Cosh())
    names = list(dict(flow.named_parameters()))
    state = torch.cat([random(2, 2), random(2, 2, seed=1)], -1) if isinstance(flow, LazyNewtonFlow) else random(2, 2)

    def slope(state, *values):
        return torch.func.functional_call(flow, dict(zip(names, values, strict=True)), (ZERO, state))

    inputs = (state.requires_grad_(), *flow.parameters())
    assert torch.autograd.gradcheck(slope, inputs)
    assert torch.autograd.gradgradcheck(slope, inputs)


def test_cubic_derivatives_are_exact_where_the_hessian_is_indefinite():
    flow = CubicRegularizedFlow(Rosenbrock(2, b=5.0), 3.0)
    x = torch.tensor([0.3, 2.0], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: flow(ZERO, x), x)
    assert torch.autograd.gradgradcheck(lambda x: flow(ZERO, x), x)


def lagged_newton(name, time_constant, h):
    """Relaxed Newton with the Hessian at a running average of the points."""

    def step(k, state):
        x, y = state[:2], state[2:]
        velocity = -torch.linalg.solve(derivatives(name, y)[1], derivatives(name, x)[0])
        return torch.cat([x + h * velocity, y + h / time_constant * (x - y)])

    step.initial_state = lambda x0: torch.cat([x0, x0])
    step.position = lambda state: state[:2]
    return step


@pytest.mark.parametrize(
    ("name", "objective", "start"), [("rosenbrock", Rosenbrock(2, b=5.0), [0.8, 0.5]), ("cosh", Cosh(), [1.5, -0.3])]
)
def test_library_checks_of_lazy_newton(name, objective, start):
    flow, x0 = LazyNewtonFlow(objective, 0.4), torch.tensor(start, dtype=DOUBLE)
    gap = ObjectiveGap(objective)
    question = (flow, x0, gap, 0.6 * float(gap(x0)))
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)
    checks.is_the_limit_of(flow, lambda h: lagged_newton(name, 0.4, h), x0, time=0.5, steps=(16, 32, 64))


def test_lazy_newton_is_near_periodic_hessians_of_the_same_mean_age():
    x0, time = torch.tensor(OBJECTIVES["cosh"][1], dtype=DOUBLE), 0.8
    periods, apart, from_newton = [0.2, 0.1, 0.05], [], []

    def at_the_end(flow):
        state = getattr(flow, "initial_state", lambda x: x)(x0)
        for _ in range(200):
            middle = state + time / 400 * flow(ZERO, state)
            state = state + time / 200 * flow(ZERO, middle)
        return state[:2]

    newton = at_the_end(NewtonFlow(Cosh()))
    for period in periods:
        x, steps = x0, 10
        for _ in range(round(time / period)):
            inverse = torch.linalg.inv(derivatives("cosh", x)[1])
            for _ in range(steps):
                middle = x - period / steps / 2 * inverse @ derivatives("cosh", x)[0]
                x = x - period / steps * inverse @ derivatives("cosh", middle)[0]
        with torch.no_grad():
            apart.append(float((at_the_end(LazyNewtonFlow(Cosh(), period / 2)) - x).norm()))
        from_newton.append(float((newton - x).norm()))
    assert fit_order(periods, apart).order == pytest.approx(2.0, abs=0.25)
    assert fit_order(periods, from_newton).order == pytest.approx(1.0, abs=0.25)


ALL = {
    "newton": NewtonFlow,
    "regularized": lambda f: RegularizedNewtonFlow(f, 0.5, 0.5),
    "natural": lambda f: NaturalGradientFlow(f, metric, 0.5),
    "cubic": lambda f: CubicRegularizedFlow(f, 2.0),
    "lazy": lambda f: LazyNewtonFlow(f, 0.5),
    "gauss-newton": lambda f: GaussNewtonFlow(residuals, 0.5),
}


@pytest.mark.parametrize("name", ALL)
def test_a_batch_equals_singles_and_float32_stays_float32(name):
    flow = ALL[name](Cosh())
    state = getattr(flow, "initial_state", lambda x: x)(random(2, 3, 2))
    with torch.no_grad():
        batch = flow(torch.zeros(2, 3, 1, dtype=DOUBLE), state)
        for i, j in [(0, 0), (1, 2)]:
            torch.testing.assert_close(flow(ZERO, state[i, j]), batch[i, j])
        assert flow(torch.tensor(0.0), state.float()).dtype == torch.float32
    assert flow(torch.tensor(0.0), state.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("build", "values"),
    [
        (RegularizedNewtonFlow, [0.1, 1.0]),
        (CubicRegularizedFlow, [0.5, 2.0]),
        (LazyNewtonFlow, [0.5, 2.0]),
        (lambda f, value: NaturalGradientFlow(f, metric, value), [0.5, 2.0]),
    ],
)
def test_every_trajectory_may_have_its_own_hyperparameter(build, values):
    objective, x = Cosh(), random(2, 2)
    state = torch.cat([x, x.flip(0)], -1) if build is LazyNewtonFlow else x
    together = build(objective, torch.tensor(values))(ZERO, state)
    assert together.dtype == DOUBLE
    for row, value in enumerate(values):
        torch.testing.assert_close(together[row], build(objective, torch.tensor(value))(ZERO, state[row]))


def test_a_singular_hessian_is_a_status():
    valley = Objective.from_function(lambda x: x[..., 0] ** 2, minimum=0.0)
    solution = continuous_stopping_time(NewtonFlow(valley), torch.ones(2, dtype=DOUBLE), valley, 0.1)
    assert solution.status is StoppingStatus.NON_FINITE
    assert math.isinf(solution.time.item())


@pytest.mark.parametrize("build", [ALL["newton"], ALL["regularized"], ALL["cubic"]])
def test_a_minimiser_is_at_rest(build):
    flow = build(DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE))
    x = torch.zeros(2, dtype=DOUBLE, requires_grad=True)
    velocity = flow(ZERO, x)
    assert velocity.tolist() == [0.0, 0.0]
    assert bool(torch.isfinite(torch.autograd.grad(velocity.sum(), x)[0]).all())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NewtonFlow(lambda x: x), "objective must be an odestop.objectives.Objective, got function"),
        (lambda: RegularizedNewtonFlow(Cosh(), -1.0), "damping must be .*at least 0, got .*-1"),
        (lambda: RegularizedNewtonFlow(Cosh(), 1.0, -0.5), "exponent must be .*at least 0, got .*-0.5"),
        (lambda: CubicRegularizedFlow(Cosh(), 0.0), "cubic must be .*positive, got .*0"),
        (lambda: LazyNewtonFlow(Cosh(), 0.0), "time_constant must be .*positive, got .*0"),
        (lambda: GaussNewtonFlow(3), r"residuals must be a callable \(x\) -> r\(x\), got int"),
        (lambda: GaussNewtonMetric(lambda x: x, 3), r"loss must be a callable \(z\) -> ℓ\(z\), got int"),
        (lambda: NaturalGradientFlow(Cosh(), 3), r"metric must be a callable \(x\) -> G\(x\), got int"),
        (
            lambda: NaturalGradientFlow(Cosh(), lambda x: x)(ZERO, random(2)),
            r"metric must return shape \(2, 2\), got \(2,\) \(one matrix per point\)",
        ),
    ],
)
def test_unusable_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
