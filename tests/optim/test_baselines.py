"""Every method of the comparison against a few lines of NumPy, on a smooth support vector machine."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from odestop.discrete import Adagrad, Adam, GradientDescent, HeavyBall, Nesterov, NesterovStronglyConvex
from odestop.objectives import SmoothSupportVectorMachine
from odestop.optim import HDM, AdamHD, AdamOLA

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

STEPS = 40
GENERATOR = np.random.default_rng(0)
# Sparse binary features and labels that a plane nearly separates, as in the LIBSVM files a1a to a9a.
FEATURES = (GENERATOR.random((60, 12)) < 0.3).astype(float)
LABELS = np.sign(FEATURES @ GENERATOR.normal(size=12) + 0.3 * GENERATOR.normal(size=60))
X0 = GENERATOR.normal(size=13)
PENALTY = 0.5


def f(x: np.ndarray) -> float:
    slack = np.maximum(0, 1 - LABELS * (FEATURES @ x[:-1] - x[-1]))
    return 0.5 * slack @ slack + 0.5 * PENALTY * x[:-1] @ x[:-1]


def df(x: np.ndarray) -> np.ndarray:
    slack = np.maximum(0, 1 - LABELS * (FEATURES @ x[:-1] - x[-1]))
    return np.append(-(slack * LABELS) @ FEATURES + PENALTY * x[:-1], (slack * LABELS).sum())


def objective() -> SmoothSupportVectorMachine:
    return SmoothSupportVectorMachine(torch.tensor(FEATURES), torch.tensor(LABELS), PENALTY)


def gradient_descent(s: float) -> Iterator[np.ndarray]:
    x = X0
    while True:
        x = x - s * df(x)
        yield x


def heavy_ball(s: float, mu: float) -> Iterator[np.ndarray]:
    old = x = X0
    while True:
        old, x = x, x - s * df(x) + mu * (x - old)
        yield x


def nesterov(s: float, mu: float | None) -> Iterator[np.ndarray]:
    old, x, k = X0, X0, 0
    while True:
        root = None if mu is None else np.sqrt(mu * s)
        weight = (k - 1) / (k + 2) if root is None else (1 - root) / (1 + root)
        y = x + weight * (x - old)
        old, x, k = x, y - s * df(y), k + 1
        yield x


def adagrad(s: float, eps: float = 1e-10) -> Iterator[np.ndarray]:
    x, total = X0, 0.0
    while True:
        g = df(x)
        total = total + g**2
        x = x - s * g / (np.sqrt(total) + eps)
        yield x


def adam(alpha: float, b1: float, b2: float, hyper=None, eps: float = 1e-8) -> Iterator[np.ndarray]:
    """Adam; ``hyper(α, slope, f before, f now)`` gives the next α from the slope of f along the last direction."""
    x, m, v, k, d, value = X0, 0.0, 0.0, 0, 0.0, f(X0)
    while True:
        g = df(x)
        if hyper and k:
            value, before = f(x), value
            alpha = hyper(alpha, np.sum(g * d), before, value)
        m, v, k = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2, k + 1
        d = (m / (1 - b1**k)) / (np.sqrt(v / (1 - b2**k)) + eps)
        x = x - alpha * d
        yield x


def algorithm_2(eta: float, tolerance: float):
    reference, updates = f(X0), 0

    def hyper(alpha: float, slope: float, before: float, now: float) -> float:
        nonlocal reference, updates
        if reference - now > tolerance * updates:
            reference, updates = now, updates + 1
            alpha -= eta * slope / (now - before)
        return alpha

    return hyper


def hdm(rate: float, beta: float, beta_rate: float, smoothness: float) -> Iterator[np.ndarray]:
    old, x, step, squares, beta_square = X0, X0, np.zeros(13), np.zeros(13), 0.0
    while True:
        trial = x - step * df(x) + beta * (x - old)
        w = df(x) @ df(x) + smoothness**2 / 4 * (x - old) @ (x - old) + 1e-12
        in_step, in_beta = -df(trial) * df(x) / w, df(trial) @ (x - old) / w
        squares, beta_square = squares + in_step**2, beta_square + in_beta**2
        step = np.maximum(step - rate * in_step / (np.sqrt(squares) + 1e-12), 0)
        beta = np.clip(beta - beta_rate * in_beta / (np.sqrt(beta_square) + 1e-12), 0, 0.9995)
        old, x = x, trial if f(trial) < f(x) else x
        yield x


def iterates_of(step_map) -> torch.Tensor:
    state, iterates = step_map.initial_state(torch.tensor(X0)), []
    for k in range(STEPS):
        state = step_map(k, state).detach()
        iterates.append(step_map.position(state))
    return torch.stack(iterates)


def run(make_optimizer, **step_options) -> tuple[torch.Tensor, torch.optim.Optimizer, list[float]]:
    x, svm, iterates, calls = torch.tensor(X0, requires_grad=True), objective(), [], []
    optimizer = make_optimizer([x])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = svm(x)
        loss.backward()
        calls.append(loss.item())
        return loss

    for _ in range(STEPS):
        optimizer.step(closure)
        iterates.append(x.detach().clone())
    return torch.stack(iterates), optimizer, calls


def compare(found: torch.Tensor, expected: Iterator[np.ndarray]) -> None:
    wanted = np.array([x for x, _ in zip(expected, range(STEPS), strict=False)])
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9, atol=1e-9)
    assert f(wanted[-1]) < 0.9 * f(X0)


@pytest.mark.parametrize(
    ("step_map", "iterates"),
    [
        (lambda svm: GradientDescent(svm, 0.01), lambda: gradient_descent(0.01)),
        (lambda svm: HeavyBall(svm, 0.005, 0.8), lambda: heavy_ball(0.005, 0.8)),
        (lambda svm: Nesterov(svm, 0.01), lambda: nesterov(0.01, None)),
        (lambda svm: NesterovStronglyConvex(svm, 0.01, 0.5), lambda: nesterov(0.01, 0.5)),
        (lambda svm: Adagrad(svm, 0.3), lambda: adagrad(0.3)),
        (lambda svm: Adam(svm, 0.1, 0.8, 0.95), lambda: adam(0.1, 0.8, 0.95)),
    ],
    ids=["gradient-descent", "heavy-ball", "nesterov", "nesterov-strongly-convex", "adagrad", "adam"],
)
def test_step_maps(step_map, iterates):
    compare(iterates_of(step_map(objective())), iterates())


def test_adam_ola():
    found, optimizer, calls = run(lambda x: AdamOLA(x, 0.02, (0.8, 0.95), adaptation_rate=1e-4, descent_tolerance=0.02))
    compare(found, adam(0.02, 0.8, 0.95, algorithm_2(1e-4, 0.02)))
    assert optimizer.param_groups[0]["updates"] > 20
    assert len(calls) == STEPS


def test_adam_hd():
    found, optimizer, _ = run(lambda x: AdamHD(x, 0.02, (0.8, 0.95), hypergradient_rate=1e-5))
    compare(found, adam(0.02, 0.8, 0.95, lambda alpha, slope, before, now: alpha + 1e-5 * slope))
    assert optimizer.param_groups[0]["lr"] > 0.021


@pytest.mark.parametrize("smoothness", [0.0, 50.0])
def test_hdm(smoothness):
    found, optimizer, calls = run(lambda x: HDM(x, 0.02, 0.9, momentum_rate=0.3, smoothness=smoothness))
    compare(found, hdm(0.02, 0.9, 0.3, smoothness))
    stays = (found[1:] == found[:-1]).all(-1)
    assert 0 < stays.sum() < STEPS / 2  # some trial points were refused
    assert len(calls) == STEPS + 1
    assert optimizer.param_groups[0]["momentum"] != 0.9


def test_adam_hd_without_its_rate_is_adam_and_takes_no_closure():
    runs = []
    for make in (lambda x: AdamHD(x, 0.1, hypergradient_rate=0.0), lambda x: torch.optim.Adam(x, 0.1)):
        x, svm = torch.tensor(X0, requires_grad=True), objective()
        optimizer = make([x])
        for _ in range(10):
            optimizer.zero_grad()
            svm(x).backward()
            assert optimizer.step() is None
        runs.append(x.detach())
    assert torch.equal(*runs)


def test_adam_hd_leaves_its_rate_alone_where_the_slope_is_not_finite():
    x = torch.ones(1, requires_grad=True)
    optimizer = AdamHD([x], 0.1, hypergradient_rate=0.1)
    for gradient in (1.0, torch.nan):
        x.grad = torch.full_like(x, gradient)
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.1
    with pytest.raises(ValueError, match="hypergradient_rate must be"):
        AdamHD([x], hypergradient_rate=-1.0)


def test_hdm_halves_its_steps_where_the_trial_is_not_finite():
    x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    optimizer = HDM([x], lr=4.0)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = x.log().sum() ** 2  # nan for x < 0
        loss.backward()
        return loss

    values = [optimizer.step(closure) for _ in range(30)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-3 * values[0]


def test_hdm_refuses_what_it_cannot_do():
    x, y = (torch.ones(1, requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match="one parameter group, got 2"):
        HDM([{"params": [x]}, {"params": [y]}], lr=0.1)
    with pytest.raises(ValueError, match="real floating-point"):
        HDM([torch.zeros(1, dtype=torch.complex64, requires_grad=True)], lr=0.1)
    with pytest.raises(ValueError, match="step must get a closure"):
        HDM([x], lr=0.1).step(None)
    with pytest.raises(ValueError, match=r"loss at the start must be finite, got .*inf"):
        HDM([x], lr=0.1).step(lambda: torch.tensor(torch.inf))
    for options in ({"lr": 0.0}, {"momentum": 1.0}, {"momentum_rate": -1.0}, {"smoothness": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
            HDM([x], **{"lr": 0.1, **options})
