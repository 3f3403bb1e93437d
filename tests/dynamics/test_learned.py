"""Learned optimizers as flows: what they start from, the library checks, and the discrete optimizers in them."""

import copy
import io

import pytest
import torch
from torch import nn

from odestop import Euler
from odestop.criteria import ObjectiveGap
from odestop.dynamics import CoordinatewiseLSTMFlow, CoordinatewiseMLPFlow, GradientFlow
from odestop.objectives import DiagonalQuadratic, Objective, Rosenbrock
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
ZERO = torch.tensor(0.0, dtype=DOUBLE)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def features(gradient):
    logarithm = torch.asinh(1e4 * gradient) / torch.asinh(torch.tensor(1e4, dtype=DOUBLE))
    return torch.stack([gradient, logarithm], -1)


def perceptron(objective, **arguments):
    return CoordinatewiseMLPFlow(objective, 2, 0.8, scale=0.5, dtype=DOUBLE, **arguments)


def recurrent(objective, layers=1, **arguments):
    return CoordinatewiseLSTMFlow(objective, 2, layers, 0.8, 0.5, 0.9, scale=0.5, dtype=DOUBLE, **arguments)


class LearnedOptimizer:
    """x - h s (g + u(g)), coordinate by coordinate."""

    def __init__(self, flow, h):
        self.flow, self.h = flow, h

    def __call__(self, k, x):
        steps = []
        for g in self.flow.objective.gradient(x):
            inner = self.flow.weight @ features(g)
            hidden = torch.tanh(inner + self.flow.bias) + torch.tanh(inner - self.flow.bias)
            steps.append(g + self.flow.readout @ hidden)
        return x - self.h * self.flow.speed * torch.stack(steps)


class LeakyRecurrentOptimizer:
    """The L2O optimizer of one LSTM layer, its states replaced by a fraction h/τ; all of them for h = τ."""

    def __init__(self, flow, h):
        self.flow, self.h, self.leak = flow, h, h / float(flow.time_constant.detach())

    def initial_state(self, x0):
        return torch.cat([x0, x0.new_zeros(len(x0) * 2 * self.flow.hidden)])

    def position(self, state):
        return state[: len(state) // (1 + 2 * self.flow.hidden)]

    def __call__(self, k, state):
        x = self.position(state)
        gradient = self.flow.objective.gradient(x)
        hidden, memory = state[len(x) :].reshape(len(x), 2, -1).unbind(1)
        new_hidden, new_memory = self.flow.cells[0](features(gradient), (hidden, memory))
        direction = self.flow.gradient_weight * gradient + new_hidden @ self.flow.readout
        states = torch.stack(
            [hidden + self.leak * (new_hidden - hidden), memory + self.leak * (new_memory - memory)], 1
        )
        return torch.cat([x - self.h * self.flow.speed * direction, states.flatten()])


OBJECTIVES = {
    "quadratic": (DiagonalQuadratic([1.0, 3.0], dtype=DOUBLE), [1.0, -2.0]),
    "rosenbrock": (Rosenbrock(2, b=2.0), [0.3, 0.9]),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("build", "algorithm"), [(perceptron, LearnedOptimizer), (recurrent, LeakyRecurrentOptimizer)])
def test_library_checks(build, algorithm, name):
    objective, start = OBJECTIVES[name]
    flow, x0 = build(objective), torch.tensor(start, dtype=DOUBLE)
    gap = ObjectiveGap(objective)
    question = (flow, x0, gap, 0.5 * float(gap(x0)))
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)
    checks.is_the_limit_of(flow, lambda h: algorithm(flow, h), x0, time=0.4, steps=(16, 32, 64))


@pytest.mark.parametrize("layers", [1, 2])
def test_an_euler_step_of_the_time_constant_is_the_discrete_lstm_optimizer(layers):
    flow = recurrent(Rosenbrock(2, b=2.0), layers, seed=3)
    euler, x = Euler(flow, 0.5), random(2)
    state, memory = euler.initial_state(x), [(torch.zeros(2, 2, dtype=DOUBLE),) * 2] * layers
    for k in range(5):
        state = euler(k, state)
        gradient = flow.objective.gradient(x)
        signal, new = features(gradient), []
        for cell, old in zip(flow.cells, memory, strict=True):
            new.append(cell(signal, old))
            signal = new[-1][0]
        x, memory = x - 0.5 * 0.8 * (0.9 * gradient + signal @ flow.readout), new
        torch.testing.assert_close(euler.position(state), x)
    torch.testing.assert_close(state[2:], torch.stack([part for pair in memory for part in pair], 1).flatten())


@pytest.mark.parametrize("build", [CoordinatewiseMLPFlow, CoordinatewiseLSTMFlow])
def test_zero_scale_gives_the_gradient_flow_and_the_default_is_near(build):
    objective, x = DiagonalQuadratic([1.0, 3.0], dtype=DOUBLE), random(4, 2)
    expected = 2 * GradientFlow(objective)(ZERO, x)
    for scale, tolerance in [(0.0, 1e-12), (0.1, 0.3)]:
        flow = build(objective, speed=2.0, scale=scale, dtype=DOUBLE)
        state = getattr(flow, "initial_state", lambda x: x)(x)
        velocity = flow(ZERO, state)[:, :2].detach()
        assert float((velocity - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize("build", [perceptron, recurrent])
def test_a_stationary_point_is_at_rest_before_training(build):
    flow = build(DiagonalQuadratic([1.0, 3.0], dtype=DOUBLE))
    state = getattr(flow, "initial_state", lambda x: x)(torch.zeros(2, dtype=DOUBLE))
    assert bool((flow(ZERO, state) == 0).all())


def test_perceptron_is_odd():
    flow = perceptron(DiagonalQuadratic([1.0, 3.0], dtype=DOUBLE))
    torch.testing.assert_close(flow(ZERO, random(5, 2)), -flow(ZERO, -random(5, 2)))


@pytest.mark.parametrize("build", [perceptron, recurrent])
def test_coordinates_are_treated_alike(build):
    flow = build(Objective.from_function(lambda x: x.cosh().sum(-1)))
    x0 = random(4)
    state = getattr(flow, "initial_state", lambda x: x)(torch.stack([x0, x0.flip(-1)]))
    velocity = flow(ZERO, state)[:, :4]
    torch.testing.assert_close(velocity[0], velocity[1].flip(-1))


@pytest.mark.parametrize("build", [perceptron, recurrent, lambda f: recurrent(f, layers=2)])
def test_first_and_second_derivatives_are_exact(build):
    flow = build(Rosenbrock(2, b=2.0))
    names = [name for name, _ in flow.named_parameters()]

    def slope(state, *values):
        return torch.func.functional_call(flow, dict(zip(names, values, strict=True)), (ZERO, state))

    state = getattr(flow, "initial_state", lambda x: x)(random(2))
    inputs = ((state + 0.1 * random(len(state))).requires_grad_(), *flow.parameters())
    assert torch.autograd.gradcheck(slope, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(slope, inputs, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("build", [perceptron, recurrent, lambda f: recurrent(f, layers=2)])
def test_a_batch_equals_singles_and_float32_stays_float32(build):
    flow, x0 = build(DiagonalQuadratic([1.0, 3.0], dtype=DOUBLE)), random(2, 3, 2)
    state = getattr(flow, "initial_state", lambda x: x)(x0)
    state = state + 0.1 * random(*state.shape)
    batch = flow(torch.zeros(2, 3, 1, dtype=DOUBLE), state)
    torch.testing.assert_close(flow(ZERO, state[1, 2]), batch[1, 2])
    single = flow.float()(torch.tensor(0.0), state.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, batch.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [CoordinatewiseMLPFlow, CoordinatewiseLSTMFlow])
def test_seed_decides_the_parameters_in_every_dtype_and_leaves_the_global_generator_alone(build):
    before = torch.get_rng_state()
    objective = DiagonalQuadratic([1.0, 3.0])
    first, again, other = (
        nn.utils.parameters_to_vector(build(objective, seed=seed, dtype=dtype).to(torch.float32).parameters())
        for seed, dtype in [(1, DOUBLE), (1, torch.float32), (2, DOUBLE)]
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("build", [CoordinatewiseMLPFlow, CoordinatewiseLSTMFlow])
def test_every_trajectory_may_have_its_own_speed_and_a_flow_can_be_pickled(build):
    objective = DiagonalQuadratic([1.0, 3.0], dtype=DOUBLE)
    original = build(objective, speed=torch.tensor([1.0, 2.0]), dtype=DOUBLE)
    torch.save(original, io.BytesIO())
    flow = copy.deepcopy(original)
    state = getattr(flow, "initial_state", lambda x: x)(random(2, 2))
    expected = build(objective, speed=2.0, dtype=DOUBLE)(ZERO, state[1])
    torch.testing.assert_close(flow(ZERO, state)[1], expected)


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (CoordinatewiseMLPFlow, {"hidden": 0}, "hidden must be an integer of at least 1, got 0"),
        (CoordinatewiseMLPFlow, {"scale": -1.0}, "scale must be a non-negative finite number, got -1.0"),
        (CoordinatewiseMLPFlow, {"speed": 0.0}, "speed must be .*positive, got .*0"),
        (CoordinatewiseLSTMFlow, {"layers": 0}, "layers must be an integer of at least 1, got 0"),
        (CoordinatewiseLSTMFlow, {"time_constant": -1.0}, "time_constant must be .*positive, got .*-1"),
        (CoordinatewiseLSTMFlow, {"gradient_weight": -1.0}, "gradient_weight must be .*at least 0, got .*-1"),
    ],
)
def test_unusable_arguments_are_refused(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(DiagonalQuadratic([1.0]), **arguments)
    with pytest.raises(ValueError, match=r"objective must be an odestop.objectives.Objective, got int"):
        build(3)
