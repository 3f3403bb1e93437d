"""Online adaptation of any step map: the sensitivity against finite differences, and against AdamOLA."""

import math

import pytest
import torch

from odestop.discrete import Adam, Euler, GradientDescent, HeavyBall
from odestop.objectives import DiagonalQuadratic, Quadratic
from odestop.optim import AdamOLA, AdaptedHyperparameter, OnlineAdaptation

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

RATE = "learning_rate"


def quadratic() -> Quadratic:
    return Quadratic.with_condition_number(5, 10.0, seed=0, dtype=torch.float64)


def start() -> torch.Tensor:
    return torch.linspace(0.5, 1.5, 5, dtype=torch.float64)


@pytest.mark.parametrize("reparametrize", [False, True])
def test_one_backward_step_of_adam_is_adam_ola(reparametrize):
    f, eta = quadratic(), 0.1 if reparametrize else 1e-5
    rule = {RATE: AdaptedHyperparameter(eta)}
    online = OnlineAdaptation(
        Adam(f, 0.01), f, rule, backward_steps=1, reparametrize=reparametrize, descent_tolerance=1e-4
    )
    run = online.run(start(), max_steps=40)

    x = start().requires_grad_()
    optimizer = AdamOLA([x], lr=0.01, adaptation_rate=eta, log_rate=reparametrize, descent_tolerance=1e-4)
    values, rates = [], []
    for _ in range(41):
        optimizer.zero_grad()
        loss = f(x)
        loss.backward()
        values.append(loss.item())
        optimizer.step(loss=loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert 20 < len(run.update_steps) == run.vjps == optimizer.param_groups[0]["updates"]
    torch.testing.assert_close(run.values, torch.tensor(values, dtype=torch.float64), rtol=1e-9, atol=0)
    torch.testing.assert_close(run.hyperparameters[RATE], torch.tensor(rates, dtype=torch.float64), rtol=1e-9, atol=0)
    assert run.hyperparameters[RATE][-1] > 0.012


@pytest.mark.parametrize("backward_steps", [None, 2])
def test_sensitivity_goes_back_to_the_reference_point(backward_steps):
    """Against finite differences over the steps to the first update."""
    count, values = 4, {"learning_rate": 0.05, "momentum": 0.5}
    f, x0 = DiagonalQuadratic(torch.tensor([1.0, 6.0], dtype=torch.float64)), torch.tensor([1.0, 0.3])
    x0 = x0.double()

    def trajectory(steps: int, first: int = 0, state: torch.Tensor | None = None, **changed: float):
        heavy_ball = HeavyBall(f, **{**values, **changed})
        states = [heavy_ball.initial_state(x0) if state is None else state]
        for k in range(first, steps):
            states.append(heavy_ball(k, states[-1]).detach())
        return states

    levels = [f(state[:2]).item() for state in trajectory(count)]
    first = 0 if backward_steps is None else count - backward_steps
    fixed = trajectory(first)[-1]

    heavy_ball = HeavyBall(f, **values)
    rules = {"learning_rate": AdaptedHyperparameter(1e-3), "momentum": AdaptedHyperparameter(1e-3, upper=1.0)}
    run = OnlineAdaptation(heavy_ball, f, rules, every=count, backward_steps=backward_steps).run(x0, max_steps=count)
    assert (run.update_steps, run.vjps) == ([count], count - first)
    for name, value in values.items():
        ends = [f(trajectory(count, first, fixed, **{name: value + d})[-1][:2]).item() for d in (1e-6, -1e-6)]
        sensitivity = -(ends[0] - ends[1]) / 2e-6 / (levels[count] - levels[count - 1])
        assert run.hyperparameters[name].tolist() == pytest.approx([value] * count + [value - 1e-3 * sensitivity])


def test_later_updates_count_steps_from_the_last_one():
    """Adam's bias correction depends on k: a restart at 0 would give another rate."""
    f = quadratic()
    adam = Adam(f, 0.01)
    run = OnlineAdaptation(adam, f, {RATE: AdaptedHyperparameter(1e-6)}, descent_tolerance=0.05).run(start(), 12)
    assert len(run.update_steps) >= 3
    assert max(b - a for a, b in zip(run.update_steps, run.update_steps[1:], strict=False)) > 1
    previous, last = run.update_steps[-2:]
    state = adam.initial_state(start())
    for k in range(previous):
        state = Adam(f, run.hyperparameters[RATE][k].item())(k, state).detach()

    def end(rate: float) -> float:
        inner, reached = Adam(f, rate), state
        for k in range(previous, last):
            reached = inner(k, reached).detach()
        return f(reached[:5]).item()

    rate = run.hyperparameters[RATE][previous].item()
    slope = (end(rate + 1e-7) - end(rate - 1e-7)) / 2e-7
    expected = rate + 1e-6 * slope / (run.values[last] - run.values[last - 1]).item()
    assert run.hyperparameters[RATE][last].item() == pytest.approx(expected, rel=1e-9)
    assert expected != pytest.approx(rate, rel=1e-6)


def test_a_step_map_of_a_flow_adapts_its_step_size():
    h = torch.nn.Parameter(torch.tensor(0.05, dtype=torch.float64))
    f = quadratic()
    euler = Euler(lambda t, x: -f.gradient(x), h)
    run = OnlineAdaptation(euler, f, {"step_size": AdaptedHyperparameter(0.1)}, reparametrize=True).run(start(), 30)
    assert run.hyperparameters["step_size"][-1] > 0.1
    assert torch.equal(run.position, run.position.detach())
    assert f(run.position) == run.values[-1]
    assert h.item() == run.hyperparameters["step_size"][-1]


def test_runs_end_at_the_threshold_and_at_values_that_are_not_finite():
    f = quadratic()
    run = OnlineAdaptation(GradientDescent(f, 0.5), f, {RATE: AdaptedHyperparameter(0.0)}).run(start(), 100, 0.1)
    assert run.values[-1] <= 0.1 < run.values[-2]
    assert len(run.values) == len(run.hyperparameters[RATE])
    diverging = OnlineAdaptation(GradientDescent(f, 1e200), f, {RATE: AdaptedHyperparameter(1.0)}).run(start(), 100)
    assert len(diverging.values) < 5
    assert not math.isfinite(diverging.values[-1])


def test_a_hyperparameter_stays_in_its_range():
    f = DiagonalQuadratic(torch.tensor([1.0], dtype=torch.float64))
    # One step from 1 to -1/2: S = -x_1 · x_0 · … = 4/3, as in the test of AdamOLA.
    x0 = torch.ones(1, dtype=torch.float64)

    def rate_after(eta: float, **options) -> float:
        online = OnlineAdaptation(GradientDescent(f, 1.5), f, {RATE: AdaptedHyperparameter(eta)}, **options)
        return online.run(x0, 1).hyperparameters[RATE][-1].item()

    assert rate_after(0.3) == pytest.approx(1.5 - 0.3 * 4 / 3)
    with pytest.warns(RuntimeWarning, match="out of its range"):
        assert rate_after(2.0) == 1.5
    assert rate_after(2.0, reparametrize=True) == pytest.approx(1.5 * math.exp(-2.0 * 1.5 * 4 / 3))
    assert rate_after(2.0, max_relative_change=0.25) == pytest.approx(1.2)

    def momentum_after(eta: float, **options) -> float:
        rule = {"momentum": AdaptedHyperparameter(eta, upper=1.0)}
        heavy_ball = HeavyBall(f, 0.1, 0.5)
        return (
            OnlineAdaptation(heavy_ball, f, rule, descent_tolerance=0.0, **options)
            .run(x0, 2)
            .hyperparameters["momentum"][-1]
            .item()
        )

    # x: 1, 0.9, 0.9 - 0.09 - 0.05 = 0.76; the derivative of x_2 in the momentum is x_1 - x_0 = -0.1.
    sensitivity = 0.76 * 0.1 / (0.5 * 0.76**2 - 0.5 * 0.9**2)
    assert momentum_after(0.1) == pytest.approx(0.5 - 0.1 * sensitivity)
    logit = -3.0 * sensitivity * 0.25
    assert momentum_after(3.0, reparametrize=True) == pytest.approx(1 / (1 + math.exp(-logit)))
    assert momentum_after(1e6, reparametrize=True, max_relative_change=0.5) == pytest.approx(0.6)
    with pytest.warns(RuntimeWarning, match="out of its range"):
        assert momentum_after(1e6) == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hyperparameters": {"rate": AdaptedHyperparameter(1.0)}}, "got 'rate'"),
        ({"hyperparameters": {"objective": AdaptedHyperparameter(1.0)}}, "got 'objective'"),
        ({"descent_tolerance": -1.0}, "descent_tolerance must be"),
        ({"backward_steps": 0}, "backward_steps must be"),
        ({"every": 0}, "every must be"),
        ({"max_relative_change": 0}, "max_relative_change must be"),
        ({"criterion": 1.0}, "criterion must be a callable"),
    ],
)
def test_what_cannot_be_used_is_refused(change, message):
    f = quadratic()
    arguments = {
        "step_map": GradientDescent(f, 0.1),
        "criterion": f,
        "hyperparameters": {RATE: AdaptedHyperparameter(1)},
    }
    with pytest.raises(ValueError, match=message):
        OnlineAdaptation(**{**arguments, **change})
    with pytest.raises(ValueError, match=r"x0 must have shape \(d,\), got \(2, 5\)"):
        OnlineAdaptation(**arguments).run(torch.ones(2, 5), 3)


@pytest.mark.parametrize(("arguments", "message"), [((-1.0,), "rate must be"), ((1.0, 2.0, 2.0), "lower must be")])
def test_rules_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdaptedHyperparameter(*arguments)
