"""Optimizers as step maps: torch.optim's iterates, published bounds, and hyperparameters of every form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from odestop.criteria import SquaredGradientNorm
from odestop.discrete import (
    Adagrad,
    Adam,
    AdamW,
    GradientDescent,
    HeavyBall,
    Lion,
    Nesterov,
    NesterovMomentum,
    NesterovStronglyConvex,
    ObjectiveStepMap,
    RMSprop,
    discrete_stopping_time,
)
from odestop.dynamics import ExponentialSchedule
from odestop.objectives import DiagonalQuadratic, LogisticRegression, Objective, Quadratic, Rosenbrock

DOUBLE = torch.float64


def logistic(dtype: torch.dtype = DOUBLE) -> LogisticRegression:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 4, generator=generator, dtype=DOUBLE).to(dtype)
    return LogisticRegression(features, torch.arange(12) % 2, regularization=0.05)


def iterates(step: ObjectiveStepMap, x0: Tensor, count: int) -> Tensor:
    """x_1, …, x_count, stacked."""
    with torch.no_grad():
        state, positions = step.initial_state(x0), []
        for k in range(count):
            state = step(k, state)
            positions.append(step.position(state))
    return torch.stack(positions)


def torch_iterates(optimizer: type, objective: Objective, x0: Tensor, count: int, **options: Any) -> Tensor:
    x, positions = nn.Parameter(x0.clone()), []
    optimizer = optimizer([x], **options)
    for _ in range(count):
        x.grad = objective.gradient(x.detach())
        optimizer.step()
        positions.append(x.detach().clone())
    return torch.stack(positions)


START = torch.tensor([-0.6, 0.8, 0.5, -0.3], dtype=DOUBLE)
SGD = torch.optim.SGD
PAIRS: dict[str, tuple[type, dict, type, dict]] = {
    "gradient descent": (GradientDescent, {"weight_decay": 0.1}, SGD, {"weight_decay": 0.1}),
    "heavy ball": (HeavyBall, {"momentum": 0.8}, SGD, {"momentum": 0.8}),
    "heavy ball with decay": (
        HeavyBall,
        {"momentum": 0.8, "weight_decay": 0.1},
        SGD,
        {"momentum": 0.8, "weight_decay": 0.1},
    ),
    "nesterov": (
        NesterovMomentum,
        {"momentum": 0.8, "weight_decay": 0.1},
        SGD,
        {"momentum": 0.8, "weight_decay": 0.1, "nesterov": True},
    ),
    "adagrad": (Adagrad, {}, torch.optim.Adagrad, {}),
    "adagrad with decay": (
        Adagrad,
        {"learning_rate": lambda k: 1e-2 / (1 + 0.1 * k), "weight_decay": 0.1, "eps": 1e-6},
        torch.optim.Adagrad,
        {"lr_decay": 0.1, "weight_decay": 0.1, "eps": 1e-6},
    ),
    "rmsprop": (RMSprop, {}, torch.optim.RMSprop, {}),
    "rmsprop with momentum": (
        RMSprop,
        # Slow enough to stay off the cycle around the minimizer, which amplifies rounding errors.
        {"learning_rate": 2e-3, "smoothing": 0.9, "momentum": 0.5, "weight_decay": 0.1, "eps": 1e-6},
        torch.optim.RMSprop,
        {"lr": 2e-3, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1, "eps": 1e-6},
    ),
    "adam": (Adam, {}, torch.optim.Adam, {}),
    "adam with decay": (
        Adam,
        {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1, "eps": 1e-6},
        torch.optim.Adam,
        {"betas": (0.8, 0.95), "weight_decay": 0.1, "eps": 1e-6},
    ),
    "adamw": (AdamW, {}, torch.optim.AdamW, {}),
    "adamw with decay": (
        AdamW,
        {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1},
        torch.optim.AdamW,
        {"betas": (0.8, 0.95), "weight_decay": 0.1},
    ),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
@pytest.mark.parametrize("objective", [Rosenbrock(4, b=5.0), logistic()], ids=["rosenbrock", "logistic"])
def test_iterates_are_those_of_torch(pair: tuple[type, dict, type, dict], objective: Objective) -> None:
    kind, options, optimizer, torch_options = pair
    ours = iterates(kind(objective, **{"learning_rate": 1e-2, **options}), START, 60)
    theirs = torch_iterates(optimizer, objective, START, 60, **{"lr": 1e-2, **torch_options})
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    assert (ours[-1] - START).norm() > 0.05


@pytest.mark.parametrize("weight_decay", [None, 0.3])
def test_lion_follows_its_published_algorithm(weight_decay: float | None) -> None:
    """Algorithm 2 of Chen et al. (2023), coordinate by coordinate."""
    objective, rate, beta1, beta2 = logistic(), 0.02, 0.85, 0.95
    ours = iterates(Lion(objective, rate, beta1, beta2, weight_decay=weight_decay), START, 60)
    x, m = START.tolist(), [0.0] * 4
    for k in range(60):
        gradient = objective.gradient(torch.tensor(x, dtype=DOUBLE)).tolist()
        for i, g in enumerate(gradient):
            c = beta1 * m[i] + (1 - beta1) * g
            x[i] -= rate * ((c > 0) - (c < 0) + (weight_decay or 0.0) * x[i])
            m[i] = beta2 * m[i] + (1 - beta2) * g
        torch.testing.assert_close(ours[k], torch.tensor(x, dtype=DOUBLE), rtol=1e-12, atol=1e-13)


def test_nesterov_keeps_its_bound_and_gradient_descent_does_not() -> None:
    """f(x_k) - f* ≤ 2 ‖x_0 - x*‖² / (s (k + 1)²) with s = 1/L, for every k; on a badly conditioned quadratic."""
    objective = Quadratic.with_condition_number(20, 1e4, seed=1, dtype=DOUBLE)
    x0 = torch.ones(20, dtype=DOUBLE)
    k = torch.arange(1, 201)
    bound = 2 * (x0**2).sum() / (k + 1) ** 2
    assert (objective(iterates(Nesterov(objective, 1.0), x0, 200)) <= bound).all()
    assert (objective(iterates(GradientDescent(objective, 1.0), x0, 200)) > bound).any()


def test_strongly_convex_nesterov_keeps_its_linear_rate() -> None:
    """f(x_k) - f* ≤ (1 - √(μ s))^k (f(x_0) - f* + μ/2 ‖x_0 - x*‖²) with s = 1/L."""
    objective = Quadratic.with_condition_number(20, 1e3, seed=1, dtype=DOUBLE)
    x0 = torch.ones(20, dtype=DOUBLE)
    k = torch.arange(1, 151)
    start = objective(x0) + 0.5e-3 * (x0**2).sum()
    values = objective(iterates(NesterovStronglyConvex(objective, 1.0), x0, 150))
    assert (values <= (1 - 1e-3**0.5) ** k * start).all()


def test_the_accelerations_are_the_published_recursions() -> None:
    objective, rate = logistic(), 0.7
    momenta: dict[ObjectiveStepMap, Callable[[int], float]] = {
        Nesterov(objective, rate): lambda k: (k - 1) / (k + 2),
        NesterovStronglyConvex(objective, rate): lambda k: (1 - 0.035**0.5) / (1 + 0.035**0.5),
    }
    for step, momentum in momenta.items():
        previous = x = START
        for k, ours in enumerate(iterates(step, START, 60)):
            y = x + momentum(k) * (x - previous)
            previous, x = x, y - rate * objective.gradient(y)
            torch.testing.assert_close(ours, x, rtol=1e-12, atol=1e-13)


KINDS: dict[str, Callable[..., ObjectiveStepMap]] = {
    "gradient descent": GradientDescent,
    "heavy ball": lambda f, rate: HeavyBall(f, rate, momentum=0.8),
    "nesterov momentum": lambda f, rate: NesterovMomentum(f, rate, momentum=0.8),
    "nesterov": Nesterov,
    "nesterov strongly convex": NesterovStronglyConvex,
    "adagrad": Adagrad,
    "rmsprop": lambda f, rate: RMSprop(f, rate, momentum=0.5, weight_decay=0.1),
    "adam": lambda f, rate: Adam(f, rate, weight_decay=0.1),
    "adamw": AdamW,
    "lion": Lion,
}
every_kind = pytest.mark.parametrize("build", KINDS.values(), ids=KINDS.keys())


@every_kind
def test_a_batch_sweeps_over_learning_rates(build: Callable[..., ObjectiveStepMap]) -> None:
    objective, rates = logistic(), torch.tensor([0.01, 0.1, 0.05], dtype=DOUBLE)
    x0 = torch.stack([START, -START, 2 * START])
    together = iterates(build(objective, rates), x0, 15)
    for i in range(3):
        alone = iterates(build(objective, rates[i].item()), x0[i], 15)
        torch.testing.assert_close(together[:, i], alone, rtol=1e-12, atol=1e-14)


@every_kind
@pytest.mark.parametrize(
    "rate", [0.05, torch.tensor([0.05, 0.05], dtype=DOUBLE), lambda k: 0.05, ExponentialSchedule(0.05, 0.0)]
)
def test_single_precision_stays_single_precision(build: Callable[..., ObjectiveStepMap], rate: Any) -> None:
    x0 = torch.stack([START, -START])
    single = iterates(build(logistic(torch.float32), rate), x0.float(), 8)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), iterates(build(logistic(), rate), x0, 8), rtol=1e-3, atol=1e-4)


def test_a_schedule_is_asked_for_the_value_of_each_step() -> None:
    seen = []

    def rate(k: Tensor) -> Tensor:
        seen.append(k)
        return 0.1 / (1 + k)

    step, x = GradientDescent(logistic(torch.float32), rate), START.float()
    for k in range(3):
        expected = x - 0.1 / (1 + k) * step.objective.gradient(x)
        x = step(k, x)
        torch.testing.assert_close(x, expected)
    assert [(k.item(), k.shape, k.dtype) for k in seen] == [(k, (), torch.float32) for k in range(3)]


def test_a_schedule_that_returns_numbers_keeps_them_as_written() -> None:
    step = GradientDescent(logistic(), lambda k: 0.1 if k < 2 else 0.3)
    assert step.value_at("learning_rate", 0, START).item() == 0.1
    assert step.value_at("learning_rate", 2, START).item() == 0.3


def test_a_schedule_may_have_a_value_for_each_trajectory() -> None:
    scales = torch.tensor([0.1, 0.2], dtype=DOUBLE)
    step = GradientDescent(logistic(), lambda k: scales / (1 + k))
    x = torch.stack([START, START])
    expected = x - (scales / 4)[:, None] * step.objective.gradient(x)
    torch.testing.assert_close(step(3, x), expected)


def test_the_steps_have_a_gradient_in_the_parameters_of_a_schedule() -> None:
    objective, schedule = logistic(), ExponentialSchedule(0.4, 0.02)
    step = HeavyBall(objective, schedule, momentum=0.5)
    assert {name for name, _ in step.named_parameters()} == {
        "momentum",
        "learning_rate.scale",
        "learning_rate.rate",
    }

    def fractional() -> Tensor:
        criterion = SquaredGradientNorm(objective)
        return discrete_stopping_time(step, START, criterion, 1e-3, sensitivity="interpolated").steps

    gradients = torch.autograd.grad(fractional(), list(step.parameters()))
    for parameter, gradient in zip(step.parameters(), gradients, strict=True):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-6
                ends.append(fractional())
                parameter -= sign * 1e-6
        torch.testing.assert_close(gradient, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=0)


def test_hyperparameters_keep_what_they_are_given() -> None:
    rate = torch.tensor(0.1, dtype=DOUBLE, requires_grad=True)
    momentum = nn.Parameter(torch.tensor(0.5))
    step = RMSprop(logistic(), rate, 0.9, momentum=momentum)
    assert step.learning_rate is rate
    assert step.momentum is momentum
    assert set(dict(step.named_parameters())) == {"momentum", "smoothing"}
    assert step.smoothing.item() == 0.9
    # A constant: an optimizer of the parameters leaves it alone, and so it does a term that is left out.
    assert not step.eps.requires_grad
    assert step.weight_decay is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: GradientDescent(f, 0.0), "learning_rate must be positive, got 0"),
        (lambda f: GradientDescent(f, torch.tensor([0.1, -1.0])), "learning_rate must be positive, got -1"),
        (lambda f: GradientDescent(f, torch.tensor(1)), "learning_rate must be finite real floating-point"),
        (lambda f: GradientDescent(f, float("inf")), "learning_rate must be finite"),
        (lambda f: GradientDescent(f, 0.1, weight_decay=-0.1), "weight_decay .* at least 0, got -0.1"),
        (lambda f: HeavyBall(f, 0.1, momentum=-0.5), "momentum must be at least 0, got -0.5"),
        (lambda f: Adam(f, 0.1, beta1=1.0), "beta1 .* at least 0 and less than 1, got 1"),
        (lambda f: Adam(f, 0.1, beta2=-0.1), "beta2 .* at least 0 and less than 1, got -0.1"),
        (lambda f: Adam(f, 0.1, eps=-1e-8), "eps must be at least 0, got -1e-08"),
        (lambda f: Adagrad(f, 0.1, eps=float("inf")), "eps must be finite"),
        (lambda f: NesterovStronglyConvex(f, 0.1), "strong_convexity must be given for Rosenbrock"),
        (lambda f: NesterovStronglyConvex(f, 0.1, 0.0), "strong_convexity .* positive, got 0"),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(build: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Rosenbrock(4))


@pytest.mark.parametrize("value", ["fast", True, [0.1]])
def test_what_is_no_hyperparameter_is_refused(value: object) -> None:
    with pytest.raises(Exception, match="learning_rate"):
        GradientDescent(Rosenbrock(4), value)  # type: ignore[arg-type]


def test_what_is_no_objective_is_refused() -> None:
    with pytest.raises(Exception, match="objective"):
        Adam(lambda x: x.sum(-1), 0.1)  # type: ignore[arg-type]


def test_a_hyperparameter_of_another_batch_shape_is_refused() -> None:
    for x0 in (START, torch.stack([START, START])):
        with pytest.raises(ValueError, match=r"learning_rate must have shape \(\) or the batch shape .*got \(3,\)"):
            GradientDescent(Rosenbrock(4), torch.full((3,), 0.1, dtype=DOUBLE))(0, x0)


ADAPTIVE: dict[str, Callable[[Objective, Tensor], ObjectiveStepMap]] = {
    "adagrad": lambda f, eps: Adagrad(f, 0.1, eps=eps),
    "rmsprop": lambda f, eps: RMSprop(f, 0.1, momentum=0.5, eps=eps),
    "adam": lambda f, eps: Adam(f, 0.1, eps=eps),
    "adamw": lambda f, eps: AdamW(f, 0.1, eps=eps),
}
every_adaptive = pytest.mark.parametrize("build", ADAPTIVE.values(), ids=ADAPTIVE.keys())


@every_adaptive
def test_a_coordinate_whose_gradient_is_zero_throughout_spoils_no_gradient(build: Callable) -> None:
    """The same gradients as without the coordinate."""
    answers = []
    for eigenvalues in ([1.0, 2.0, 0.0], [1.0, 2.0]):
        eps = torch.tensor(1e-8, dtype=DOUBLE, requires_grad=True)
        objective = DiagonalQuadratic(eigenvalues, dtype=DOUBLE)
        step, x0 = build(objective, eps), torch.tensor([1.0, -0.5, 0.7][: len(eigenvalues)], dtype=DOUBLE)
        x0.requires_grad_()
        solution = discrete_stopping_time(step, x0, objective, 0.2, sensitivity="interpolated")
        hyperparameters = [*step.parameters(), eps]
        answers.append(torch.autograd.grad(solution.steps, [x0, *hyperparameters]))
    (by_x0, *with_coordinate), (by_x0_without, *without) = answers
    torch.testing.assert_close(with_coordinate, without)
    torch.testing.assert_close(by_x0, torch.cat([by_x0_without, torch.zeros(1, dtype=DOUBLE)]))


@every_adaptive
def test_a_gradient_that_starts_at_zero_has_the_derivative_of_its_limit(build: Callable) -> None:
    step = build(DiagonalQuadratic([1.0, 2.0], dtype=DOUBLE), torch.tensor(0.1, dtype=DOUBLE))

    def end(x0: Tensor) -> Tensor:
        state = step.initial_state(x0)
        for k in range(5):
            state = step(k, state)
        return step.position(state)

    start, change = torch.tensor([1.0, 0.0], dtype=DOUBLE), torch.tensor([0.0, 1e-7], dtype=DOUBLE)
    jacobian = torch.autograd.functional.jacobian(end, start)
    difference = (end(start + change) - end(start - change)) / 2e-7
    torch.testing.assert_close(jacobian[:, 1], difference.detach(), rtol=1e-4, atol=1e-9)


class CountedQuadratic(DiagonalQuadratic):
    """Counts the gradients that are evaluated without a graph."""

    def __init__(self) -> None:
        super().__init__([1.0, 3.0], dtype=DOUBLE)
        self.counter = [0]

    def _gradient(self, x: Tensor) -> Tensor:
        self.counter[0] += not torch.is_grad_enabled()
        return super()._gradient(x)


@pytest.mark.parametrize("name", ["gradient descent", "heavy ball", "nesterov momentum", "rmsprop", "adam", "lion"])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_step_and_criterion_share_one_gradient_for_each_iterate(name: str, batch: tuple[int, ...]) -> None:
    objective = CountedQuadratic()
    x0 = torch.ones(*batch, 2, dtype=DOUBLE) * torch.linspace(0.5, 1, 2, dtype=DOUBLE)
    solution = discrete_stopping_time(
        KINDS[name](objective, 0.02), x0, SquaredGradientNorm(objective), 0.05, max_steps=2000
    )
    assert solution.reached.all()
    assert solution.steps.min() > 3
    # At x_0 both are evaluated with a graph, to learn their parameters.
    assert objective.counter == [int(solution.steps.max())]
