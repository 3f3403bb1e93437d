"""Batches of independent trajectories, and the ways users write dynamics and criteria."""

import functools
import math

import pytest
import torch

import odestop
from odestop import StoppingStatus

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = {"dtype": torch.float64}


class TimeDependentNetwork(torch.nn.Module):
    """A plain module as written for torchdiffeq: forward(t, x), t a scalar tensor, nothing of odestop in it."""

    def __init__(self, width=8):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = torch.nn.Linear(2, width, **DOUBLE)
        self.second = torch.nn.Linear(width, 2, **DOUBLE)
        self.register_buffer("decay", torch.tensor(1.0, **DOUBLE))
        for parameter in self.parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, **DOUBLE)

    def forward(self, t, x):
        return -self.decay * x + 0.1 * torch.cos(t) * self.second(torch.tanh(self.first(x)))


def distance(x):
    return x.square().sum(-1)


def flat_gradient(time, inputs):
    gradients = torch.autograd.grad(time, inputs, allow_unused=True, materialize_grads=True)
    return torch.cat([g.reshape(-1) for g in gradients])


def test_a_module_written_for_torchdiffeq_works_unchanged():
    module = TimeDependentNetwork()
    x0 = torch.tensor([1.0, 2.0], **DOUBLE)
    answers = []
    for solver in (odestop.continuous_stopping_time, odestop.torchdiffeq_stopping_time):
        solution = solver(module, x0, distance, 0.05, rtol=1e-9, atol=1e-11)
        answers.append((solution.time.item(), flat_gradient(solution.time, list(module.parameters()))))
    assert answers[0][0] == pytest.approx(answers[1][0], rel=1e-8)
    torch.testing.assert_close(answers[0][1], answers[1][1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("batch", [(5,), (1,), (2, 3)])
def test_a_batch_equals_single_solves(batch):
    module = TimeDependentNetwork()
    generator = torch.Generator().manual_seed(1)
    x0 = (torch.randn(*batch, 2, generator=generator, **DOUBLE) * 3).requires_grad_()
    threshold = torch.rand(batch, generator=generator, **DOUBLE) * 0.1 + 0.01
    t0 = torch.rand(batch, generator=generator, **DOUBLE)
    inputs = [x0, *module.parameters()]
    together = odestop.continuous_stopping_time(module, x0, distance, threshold, t0=t0, rtol=1e-9, atol=1e-11)
    assert together.time.shape == batch
    assert together.state.shape == (*batch, 2)
    rows = [
        odestop.continuous_stopping_time(module, x, distance, e, t0=t, rtol=1e-9, atol=1e-11)
        for x, e, t in zip(x0.reshape(-1, 2), threshold.reshape(-1), t0.reshape(-1), strict=True)
    ]
    torch.testing.assert_close(together.time.reshape(-1), torch.stack([r.time for r in rows]), rtol=1e-9, atol=0.0)
    accepted = [int(r.stats.accepted_steps) for r in rows]
    assert together.stats.accepted_steps.reshape(-1).tolist() == pytest.approx(accepted, abs=2)
    weights = torch.rand(batch, generator=generator, **DOUBLE)
    measured = flat_gradient((weights * together.time).sum(), inputs)
    alone = sum(w * r.time for w, r in zip(weights.reshape(-1), rows, strict=True))
    torch.testing.assert_close(measured, flat_gradient(alone, inputs), rtol=1e-6, atol=1e-9)


def test_256_trajectories_equal_256_single_solves():
    generator = torch.Generator().manual_seed(2)
    curvature = torch.rand(256, 3, generator=generator, **DOUBLE) * 2 + 0.5
    x0 = (1 + torch.rand(256, 3, generator=generator, **DOUBLE)).requires_grad_()
    threshold = (0.3 + 0.6 * torch.rand(256, generator=generator, **DOUBLE)) * distance(x0).detach()

    def solve(x0, curvature, threshold):
        return odestop.continuous_stopping_time(
            lambda t, x: -curvature * x - 0.1 * x**3, x0, distance, threshold, rtol=1e-4, atol=1e-6
        ).time

    together = solve(x0, curvature, threshold)
    with torch.no_grad():
        alone = torch.stack([solve(*row) for row in zip(x0, curvature, threshold, strict=True)])
    assert bool(torch.isfinite(together).all())
    # A rounding error may change a step size, and the answer by the error that is allowed.
    torch.testing.assert_close(together.detach(), alone, rtol=1e-4, atol=0.0)
    (gradient,) = torch.autograd.grad(together.sum(), x0)
    for row in range(0, 256, 16):
        start = x0[row].detach().requires_grad_()
        (expected,) = torch.autograd.grad(solve(start, curvature[row], threshold[row]), start)
        torch.testing.assert_close(gradient[row], expected, rtol=1e-3, atol=0.0)


def test_a_slow_trajectory_does_not_force_small_steps_on_the_others():
    rate = torch.tensor([[1.0], [100.0]], **DOUBLE)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -rate * x,
        torch.ones(2, 1, **DOUBLE),
        lambda x: x[..., 0],
        torch.tensor([1e-3, 1e-30], **DOUBLE),
    )
    alone = odestop.continuous_stopping_time(lambda t, x: -x, torch.ones(1, **DOUBLE), lambda x: x[..., 0], 1e-3)
    assert int(solution.stats.accepted_steps[0]) == int(alone.stats.accepted_steps)
    assert int(solution.stats.accepted_steps[1]) > 2 * int(alone.stats.accepted_steps)


def test_parameters_that_differ_per_trajectory():
    rate = torch.tensor([[1.0], [2.0], [4.0]], **DOUBLE).requires_grad_()
    solution = odestop.continuous_stopping_time(
        lambda t, x: -rate * x, torch.ones(3, 1, **DOUBLE), lambda x: x[..., 0], 0.1, rtol=1e-10, atol=1e-12
    )
    expected = torch.log(torch.tensor(10.0, **DOUBLE)) / rate.detach()[:, 0]
    torch.testing.assert_close(solution.time, expected, rtol=1e-9, atol=0.0)
    (gradient,) = torch.autograd.grad(solution.time.sum(), rate)
    torch.testing.assert_close(gradient[:, 0], -expected / rate.detach()[:, 0], rtol=1e-9, atol=0.0)


def make_ways_to_hold_a_parameter():
    theta = torch.tensor(1.5, **DOUBLE, requires_grad=True)

    class Plain:
        def __init__(self, rate):
            self.rate = rate

        def __call__(self, t, x):
            return -self.rate * x

        def method(self, t, x):
            return -self.rate * x

    class Module(torch.nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.rate = rate

        def forward(self, t, x):
            return -self.rate * x

    doubled = {"rate": 2 * theta}
    ways = {
        "closure": lambda t, x: -theta * x,
        "callable object": Plain(theta),
        "bound method": Plain(theta).method,
        "module attribute that is no parameter": Module(theta),
        "partial": functools.partial(lambda rate, t, x: -rate * x, theta),
        "keyword default": lambda t, x, rate=theta: -rate * x,
        "list": functools.partial(lambda rates, t, x: -rates[0] * x, [theta]),
        "tensor computed outside": lambda t, x: -doubled["rate"] / 2 * x,
        "nested function": lambda t, x, inner=(lambda y: -theta * y): inner(x),
    }
    return theta, ways


@pytest.mark.parametrize("way", list(make_ways_to_hold_a_parameter()[1]))
def test_gradients_reach_a_parameter_however_it_is_held(way):
    theta, ways = make_ways_to_hold_a_parameter()
    solution = odestop.continuous_stopping_time(ways[way], torch.ones(1, **DOUBLE), lambda x: x[..., 0], 0.1)
    (gradient,) = torch.autograd.grad(solution.time, theta)
    assert gradient.item() == pytest.approx(-solution.time.item() / 1.5, rel=1e-6)


def test_functional_call_and_backward_fill_the_leaves():
    module = torch.nn.Linear(2, 2, bias=False, **DOUBLE)
    module.weight.data = torch.diag(torch.tensor([-1.0, -2.0], **DOUBLE))
    scale = torch.tensor(1.0, **DOUBLE, requires_grad=True)
    weights = {"weight": module.weight.detach() * scale}
    solution = odestop.continuous_stopping_time(
        lambda t, x: torch.func.functional_call(module, weights, (x,)),
        torch.ones(2, **DOUBLE),
        distance,
        1e-2,
    )
    solution.time.backward()
    assert scale.grad.item() == pytest.approx(-solution.time.item(), rel=1e-6)
    assert module.weight.grad is None or not module.weight.grad.any()


def test_an_ensemble_of_modules_as_a_batch():
    members = [torch.nn.Linear(2, 2, **DOUBLE) for _ in range(4)]
    parameters, buffers = torch.func.stack_module_state(members)

    def call(parameters, buffers, x):
        return torch.func.functional_call(members[0], (parameters, buffers), (x,))

    def field(t, x):
        return -2 * x + 0.2 * torch.vmap(call)(parameters, buffers, x)

    x0 = torch.ones(4, 2, **DOUBLE)
    ensemble = odestop.continuous_stopping_time(field, x0, distance, 0.1)
    ensemble.time.square().sum().backward()
    for index, member in enumerate(members):
        alone = odestop.continuous_stopping_time(lambda t, x, net=member: -2 * x + 0.2 * net(x), x0[0], distance, 0.1)
        assert ensemble.time[index].item() == pytest.approx(alone.time.item(), rel=1e-7)
        expected = flat_gradient(alone.time.square(), list(member.parameters()))
        found = torch.cat([parameters[name].grad[index].reshape(-1) for name, _ in member.named_parameters()])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_a_leaf_used_directly_and_through_a_tensor_computed_outside_is_refused():
    theta = torch.tensor(1.0, **DOUBLE, requires_grad=True)
    doubled = 2 * theta
    with pytest.raises(ValueError, match="both directly and through"):
        odestop.continuous_stopping_time(
            lambda t, x: -(theta + doubled) * x, torch.ones(1, **DOUBLE), lambda x: x[..., 0], 0.1
        )


def test_the_same_tensor_in_dynamics_and_criterion_adds_up():
    theta = torch.tensor(2.0, **DOUBLE, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x,
        torch.ones(1, **DOUBLE),
        lambda x: theta * x[..., 0],
        0.1,
        rtol=1e-10,
        atol=1e-12,
    )
    # T = ln(10 θ)/θ.
    (gradient,) = torch.autograd.grad(solution.time, theta)
    log = math.log(20.0)
    assert gradient.item() == pytest.approx((1 - log) / 4, rel=1e-8)


def test_inside_an_outer_no_grad_the_answer_has_no_graph():
    theta = torch.tensor(2.0, **DOUBLE, requires_grad=True)
    with torch.no_grad():
        solution = odestop.continuous_stopping_time(
            lambda t, x: -theta * x, torch.ones(1, **DOUBLE), lambda x: x[..., 0], 0.1
        )
    assert not solution.time.requires_grad


def test_without_anything_to_differentiate_the_answer_has_no_graph():
    solution = odestop.continuous_stopping_time(lambda t, x: -x, torch.ones(1, **DOUBLE), lambda x: x[..., 0], 0.1)
    assert not solution.time.requires_grad
    assert solution.status is StoppingStatus.REACHED


def test_a_second_derivative_is_refused_rather_than_wrong():
    theta = torch.tensor(2.0, **DOUBLE, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, torch.ones(1, **DOUBLE), lambda x: x[..., 0], 0.1
    )
    (gradient,) = torch.autograd.grad(solution.time, theta, create_graph=True)
    for second in (gradient, gradient * theta):
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(second, theta, retain_graph=True)


def test_backward_twice_through_a_retained_graph_gives_the_same():
    theta = torch.tensor(2.0, **DOUBLE, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, torch.ones(1, **DOUBLE), lambda x: x[..., 0], 0.1
    )
    first = torch.autograd.grad(solution.time, theta, retain_graph=True)
    after_first = solution.stats.vjps
    second = torch.autograd.grad(solution.time, theta)
    assert first == second
    assert solution.stats.vjps == 2 * after_first > 0


@pytest.mark.parametrize("hidden", ["dynamics", "criterion"])
def test_a_dependence_hidden_from_autograd_is_an_error_in_backward(hidden):
    theta = torch.tensor(2.0, **DOUBLE, requires_grad=True)

    def field(t, x):
        return -theta * (x.detach() if hidden == "dynamics" else x)

    def criterion(x):
        return theta * (x.detach() if hidden == "criterion" else x).sum(-1)

    solution = odestop.continuous_stopping_time(field, torch.ones(1, **DOUBLE), criterion, 0.1)
    with pytest.raises(RuntimeError, match=f"{hidden} depends on x"):
        solution.time.backward()


def test_a_constant_field_is_not_mistaken_for_a_hidden_dependence():
    speed = torch.tensor(2.0, **DOUBLE, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -speed * torch.ones_like(x), torch.ones(1, **DOUBLE), lambda x: x[..., 0], 0.5
    )
    (gradient,) = torch.autograd.grad(solution.time, speed)
    assert solution.time.item() == pytest.approx(0.25, rel=1e-12)
    assert gradient.item() == pytest.approx(-0.125, rel=1e-12)


def test_a_parameter_changed_before_the_backward_is_an_error():
    theta = torch.tensor(2.0, **DOUBLE, requires_grad=True)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -theta * x, torch.ones(1, **DOUBLE), lambda x: x[..., 0], 0.1
    )
    with torch.no_grad():
        theta += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        solution.time.backward()


def test_finished_trajectories_are_left_out_of_the_evaluations():
    sizes = []

    def field(t, x):
        sizes.append(x.shape[0])
        return -torch.linspace(1.0, 5.0, 3, **DOUBLE) * x

    x0 = torch.ones(64, 3, **DOUBLE)
    threshold = torch.logspace(-1, -12, 64, **DOUBLE)
    t0 = torch.zeros(64, **DOUBLE, requires_grad=True)
    x0.requires_grad_()
    solution = odestop.continuous_stopping_time(field, x0, distance, threshold, t0=t0)
    assert sum(sizes) < 0.75 * 64 * len(sizes)
    by_x0, by_t0 = torch.autograd.grad(solution.time.sum(), (x0, t0))
    torch.testing.assert_close(by_t0, torch.ones_like(t0))
    for row in (0, 30, 63):
        start = x0[row].detach().requires_grad_()
        alone = odestop.continuous_stopping_time(field, start, distance, threshold[row])
        assert solution.time[row].item() == pytest.approx(alone.time.item(), rel=1e-7)
        (gradient,) = torch.autograd.grad(alone.time, start)
        torch.testing.assert_close(by_x0[row], gradient, rtol=1e-6, atol=1e-8)


def test_rows_tied_to_their_place_are_never_evaluated_apart():
    rate = torch.linspace(1.0, 3.0, 8, **DOUBLE).unsqueeze(-1).requires_grad_()
    threshold = torch.logspace(-1, -8, 8, **DOUBLE)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -rate * x, torch.ones(8, 1, **DOUBLE), lambda x: x[..., 0], threshold, rtol=1e-10, atol=1e-20
    )
    expected = -threshold.log() / rate.detach()[:, 0]
    torch.testing.assert_close(solution.time, expected, rtol=1e-8, atol=0.0)
    (gradient,) = torch.autograd.grad(solution.time.sum(), rate)
    torch.testing.assert_close(gradient[:, 0], -expected / rate.detach()[:, 0], rtol=1e-7, atol=0.0)
