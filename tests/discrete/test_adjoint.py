"""Algorithm 1 as a function of its own, and behind backward()."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from odestop.discrete import Euler, discrete_adjoint, discrete_stopping_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Question


def squared_norm(x: Tensor) -> Tensor:
    return (x**2).sum(-1)


def test_algorithm_1_equals_unrolled_autograd() -> None:
    matrix = (torch.eye(4, dtype=torch.float64) * 0.9 + 0.02).requires_grad_()
    unused = torch.ones(2, requires_grad=True)
    x0 = torch.linspace(-1, 1, 4, dtype=torch.float64, requires_grad=True)

    def step(k: int, x: Tensor) -> Tensor:
        return torch.tanh(x @ matrix) + 0.1 / (k + 1)

    trajectory, x = [], x0
    for k in range(7):
        trajectory.append(x.detach())
        x = step(k, x)
    cotangent = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    expected = torch.autograd.grad(x, (x0, matrix), cotangent)
    start, sums = discrete_adjoint(step, trajectory, cotangent, [matrix, unused])
    torch.testing.assert_close(start, expected[0], rtol=1e-13, atol=0)
    torch.testing.assert_close(sums[0], expected[1], rtol=1e-13, atol=0)
    assert not sums[1].any()


def test_a_batch_equals_its_trajectories_one_by_one(batch_question: Question, gradients: Callable) -> None:
    shared = [p for p in batch_question.inputs if p.ndim < 1 or p.shape[0] != 4]
    for sensitivity in ("definition3", "interpolated", "hermite"):
        solution = batch_question.solve(sensitivity)
        assert len(set(solution.status_codes.tolist())) == 1
        assert len(set(batch_question.solve().steps.tolist())) == 4
        per_trajectory = [batch_question.x0, batch_question.threshold, batch_question.t0]
        totals = gradients(solution.steps + solution.state.sum(-1), [*shared, *per_trajectory])
        sums = [torch.zeros_like(p) for p in shared]
        for i in range(4):
            alone = batch_question.trajectory(i).solve(sensitivity)
            torch.testing.assert_close(solution.steps[i], alone.steps, rtol=1e-13, atol=0)
            torch.testing.assert_close(solution.state[i], alone.state, rtol=1e-13, atol=1e-16)
            own = gradients(alone.steps + alone.state.sum(-1), [*shared, *per_trajectory])
            sums = [a + b for a, b in zip(sums, own, strict=False)]
            for total, part in zip(totals[len(shared) :], own[len(shared) :], strict=True):
                torch.testing.assert_close(total[i], part[i], rtol=1e-11, atol=1e-14)
        for total, expected in zip(totals, sums, strict=False):
            torch.testing.assert_close(total, expected, rtol=1e-11, atol=1e-14)


def test_a_batch_may_have_several_dimensions(batch_question: Question, gradients: Callable) -> None:
    flat = batch_question.solve("interpolated")
    folded = discrete_stopping_time(
        Euler(batch_question.field, batch_question.step_size),
        batch_question.x0.reshape(2, 2, 3),
        batch_question.criterion,
        batch_question.threshold.reshape(2, 2),
        t0=batch_question.t0.reshape(2, 2),
        sensitivity="interpolated",
    )
    torch.testing.assert_close(folded.steps, flat.steps.reshape(2, 2))
    for one, other in zip(
        gradients(folded.steps, batch_question.inputs),
        gradients(flat.steps, batch_question.inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_own_step_sizes_of_a_batch_get_own_gradients(gradients: Callable) -> None:
    step_size = torch.tensor([0.1, 0.03], dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(2, 1, dtype=torch.float64)

    def solve(h: Tensor, x: Tensor) -> Tensor:
        return discrete_stopping_time(Euler(lambda t, x: -x, h), x, squared_norm, 0.01).time

    (together,) = gradients(solve(step_size, x0), [step_size])
    for i in range(2):
        own = step_size[i].detach().requires_grad_()
        torch.testing.assert_close(together[i], gradients(solve(own, x0[i]), [own])[0])


def test_costs_are_one_evaluation_and_one_product_per_step(question: Question) -> None:
    solution = question.solve("interpolated")
    count = int(question.solve().steps)
    assert solution.stats.nfe == count
    assert solution.stats.criterion_evaluations == count + 1
    assert solution.stats.vjps == 0
    solution.steps.backward()
    assert solution.stats.vjps == count


def test_no_step_is_recomputed_for_a_gradient_that_does_not_pass_through_the_steps() -> None:
    threshold = torch.tensor(0.01, requires_grad=True)
    weight = torch.tensor(1.0, requires_grad=True)
    solution = discrete_stopping_time(
        Euler(lambda t, x: -x, 0.1), torch.ones(1), lambda x: weight * x[..., 0], threshold
    )
    solution.steps.backward()
    assert solution.stats.vjps == 0
    assert threshold.grad is not None
    assert threshold.grad < 0
    assert weight.grad is not None
    assert weight.grad > 0


def test_gradients_accumulate_through_retained_graphs(question: Question) -> None:
    solution = question.solve()
    first = torch.autograd.grad(solution.steps, question.step_size, retain_graph=True)
    second = torch.autograd.grad(solution.steps, question.step_size)
    assert torch.equal(first[0], second[0])


def test_a_parameter_changed_between_forward_and_backward_is_noticed(question: Question) -> None:
    solution = question.solve()
    with torch.no_grad():
        question.field.rate += 0.1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        solution.steps.backward()


def test_tensors_computed_outside_pass_the_gradient_on() -> None:
    log_rate = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(1, dtype=torch.float64)
    computed = log_rate.exp()
    by_log = discrete_stopping_time(Euler(lambda t, x: -computed * x, 0.1), x0, squared_norm, 0.01)
    (gradient,) = torch.autograd.grad(by_log.steps, log_rate)
    rate = computed.detach().requires_grad_()
    direct = discrete_stopping_time(Euler(lambda t, x: -rate * x, 0.1), x0, squared_norm, 0.01)
    (expected,) = torch.autograd.grad(direct.steps, rate)
    torch.testing.assert_close(gradient, expected * rate.detach())


def test_a_parameter_shared_by_map_and_criterion_gets_both_parts(gradients: Callable) -> None:
    shared = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    one, other = (shared.detach().clone().requires_grad_() for _ in range(2))
    x0 = torch.ones(2, dtype=torch.float64)

    def steps(a: Tensor, b: Tensor) -> Tensor:
        return discrete_stopping_time(Euler(lambda t, x: -a * x, 0.1), x0, lambda x: (x**2).sum(-1) * b, 0.01).steps

    (total,) = gradients(steps(shared, shared), [shared])
    torch.testing.assert_close(total, sum(gradients(steps(one, other), [one, other])))


def test_dynamics_and_time_may_share_the_start_time(gradients: Callable) -> None:
    t0 = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(1, dtype=torch.float64)
    # The field knows t - t0 only, so that N does not depend on t0 and the time moves with it.
    euler = Euler(lambda t, x: -torch.exp(-(t - t0)) * x, 0.1)
    solution = discrete_stopping_time(euler, x0, squared_norm, 0.5, t0=t0)
    torch.testing.assert_close(gradients(solution.time, [t0])[0], torch.ones((), dtype=torch.float64))


class HeavyBall(nn.Module):
    """An update rule with memory that is not Euler of anything."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
        self.momentum = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def initial_state(self, x0: Tensor) -> Tensor:
        return torch.cat([x0, torch.zeros_like(x0)], dim=-1)

    def position(self, state: Tensor) -> Tensor:
        return state[..., : state.shape[-1] // 2]

    def forward(self, k: int, state: Tensor) -> Tensor:
        x, velocity = state.chunk(2, dim=-1)
        velocity = self.momentum * velocity - self.rate * torch.sinh(x)
        return torch.cat([x + velocity, velocity], dim=-1)


@pytest.mark.parametrize("sensitivity", ["definition3", "interpolated"])
def test_a_rule_with_memory_equals_its_unrolled_loop(sensitivity: str, gradients: Callable) -> None:
    rule, threshold = HeavyBall(), 1e-2
    x0 = torch.tensor([1.0, -0.4], dtype=torch.float64, requires_grad=True)
    state = rule.initial_state(x0)
    values = [squared_norm(x0)]
    while values[-1] > threshold:
        state = rule(len(values) - 1, state)
        values.append(squared_norm(rule.position(state)))
    before, after = values[-2:]
    if sensitivity == "definition3":
        expected = -after / (after - before).detach()
    else:
        expected = (before - threshold) / (before - after)
    solution = discrete_stopping_time(rule, x0, squared_norm, threshold, sensitivity=sensitivity)
    assert solution.time is None
    inputs = [*rule.parameters(), x0]
    for one, other in zip(gradients(solution.steps, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_a_plain_function_is_a_step_map(gradients: Callable) -> None:
    rates = torch.linspace(0.1, 0.5, 20, dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(3, dtype=torch.float64)
    solution = discrete_stopping_time(lambda k, x: x - rates[k] * x, x0, squared_norm, 0.5)
    (gradient,) = gradients(solution.steps, [rates])
    count = int(solution.steps)
    assert 1 < count < 20
    assert (gradient[:count] < 0).all()
    assert not gradient[count:].any()


def half_squared_norm(x: Tensor) -> Tensor:
    return 0.5 * (x**2).sum(-1)


def gradient_of(function: Callable, x: Tensor, create_graph: bool) -> Tensor:
    with torch.enable_grad():
        point = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(function(point).sum(), point, create_graph=create_graph)[0]


def test_a_criterion_may_call_autograd_inside(gradients: Callable) -> None:
    x0 = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    euler = Euler(lambda t, x: -x, 0.1)

    def by_autograd(x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(half_squared_norm(x).sum(), x, create_graph=True)
        return squared_norm(gradient)

    inside = discrete_stopping_time(euler, x0, by_autograd, 0.1)
    plain = discrete_stopping_time(euler, x0, squared_norm, 0.1)
    assert inside.steps == plain.steps
    torch.testing.assert_close(gradients(inside.steps, [x0])[0], gradients(plain.steps, [x0])[0])


DETACHED_MAPS = {
    "a rule that calls autograd without a graph": lambda k, x: (
        x - 0.1 * gradient_of(half_squared_norm, x, create_graph=False)
    ),
    "a rule that detaches everything": lambda k, x: 0.9 * x.detach(),
    "Euler of a dynamics that detaches": Euler(lambda t, x: -x.detach(), 0.1),
}


@pytest.mark.parametrize("step_map", DETACHED_MAPS.values(), ids=DETACHED_MAPS.keys())
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_map_that_hides_its_state_from_autograd_is_refused(step_map: Callable, batch: tuple) -> None:
    x0 = torch.ones(*batch, 2, dtype=torch.float64, requires_grad=True)
    solution = discrete_stopping_time(step_map, x0, squared_norm, 0.1)
    with pytest.raises(RuntimeError, match=r"step_map depends on its state .* autograd does not see"):
        solution.steps.sum().backward()


def test_the_same_map_still_answers_without_a_gradient() -> None:
    x0 = torch.ones(2, dtype=torch.float64)
    for step_map in DETACHED_MAPS.values():
        assert discrete_stopping_time(step_map, x0, squared_norm, 0.1).steps == 15


def test_a_criterion_that_hides_its_state_from_autograd_is_refused() -> None:
    x0 = torch.ones(2, requires_grad=True)
    solution = discrete_stopping_time(Euler(lambda t, x: -x, 0.1), x0, lambda x: squared_norm(x.detach()), 0.1)
    with pytest.raises(RuntimeError, match=r"criterion depends on x .* autograd does not see"):
        solution.steps.backward()


HONEST_MAPS = {
    "a constant velocity": Euler(lambda t, x: -torch.ones_like(x), 0.1),
    "a constant map": lambda k, x: torch.zeros(2, dtype=torch.float64),
    "sign descent": lambda k, x: x - 0.1 * torch.sign(x),
    "a criterion that sees a clock alone": Euler(
        lambda t, x: torch.cat([-torch.ones_like(x[..., :1]), -x[..., 1:]], dim=-1), 0.1
    ),
}


@pytest.mark.parametrize("step_map", HONEST_MAPS.values(), ids=HONEST_MAPS.keys())
def test_maps_with_a_trivial_jacobian_are_not_refused(step_map: Callable, gradients: Callable) -> None:
    x0 = torch.tensor([1.03, 2.0], dtype=torch.float64, requires_grad=True)
    solution = discrete_stopping_time(step_map, x0, lambda x: x[..., 0], 0.5)
    (gradient,) = gradients(solution.steps, [x0])
    if solution.steps == 1:  # the constant map forgets the start
        assert not gradient.any()
    else:
        torch.testing.assert_close(gradient, torch.tensor([10.0, 0.0], dtype=torch.float64))
