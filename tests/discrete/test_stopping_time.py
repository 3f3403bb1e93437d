"""Every way a run can end, what it may not do to its neighbours, and arguments that cannot be used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from odestop.discrete import Euler, discrete_stopping_time
from odestop.status import StoppingStatus, StoppingTimeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Question

SENSITIVITIES = ("definition3", "interpolated")


def squared_norm(x: Tensor) -> Tensor:
    return (x**2).sum(-1)


def decay(t: Tensor, x: Tensor) -> Tensor:
    return -x


def test_the_step_count_is_the_first_iterate_at_or_below_the_threshold() -> None:
    x0 = torch.ones(1, dtype=torch.float64)
    halving = Euler(decay, 0.5)
    for threshold, count in [(0.5, 1), (0.4999, 2), (0.25, 2), (2**-20, 20)]:
        solution = discrete_stopping_time(halving, x0, lambda x: x[..., 0], threshold)
        assert solution.steps == count
        assert solution.status is StoppingStatus.REACHED
        assert solution.time == 0.5 * count
        assert solution.state == 0.5**count


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_a_start_below_the_threshold_takes_no_step_and_has_no_gradient(
    question: Question, gradients: Callable, sensitivity: str
) -> None:
    question.threshold = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    solution = question.solve(sensitivity)
    assert solution.status is StoppingStatus.ALREADY_SATISFIED
    assert solution.steps == 0
    assert solution.time == question.t0
    assert solution.stats.nfe == 0
    assert all(not gradient.any() for gradient in gradients(solution.steps, question.inputs))
    assert question.solve(sensitivity).steps.requires_grad
    (identity,) = gradients(question.solve().state, [question.x0])
    assert torch.equal(identity, torch.ones_like(question.x0))


def test_no_step_at_all_still_gives_the_step_map_a_zero_gradient() -> None:
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(1, dtype=torch.float64)
    discrete_stopping_time(Euler(lambda t, x: -rate * x, 0.1), x0, lambda x: x[..., 0], 2.0).steps.backward()
    assert rate.grad == 0.0


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_a_single_step_has_its_gradient_by_hand(sensitivity: str) -> None:
    x0 = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    solution = discrete_stopping_time(Euler(decay, 0.5), x0, lambda x: x[..., 0], 1.5, sensitivity=sensitivity)
    (gradient,) = torch.autograd.grad(solution.steps, x0)
    # N̂ = (x0 - 1.5) / (x0 - x0/2) has the derivative 3 / x0²; Definition 3 has ½ / (x0/2).
    assert solution.steps.item() == (1.0 if sensitivity == "definition3" else 0.5)
    assert gradient.item() == pytest.approx(0.5 if sensitivity == "definition3" else 0.75)


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_a_threshold_that_is_never_met_ends_with_the_step_budget(
    question: Question, gradients: Callable, sensitivity: str
) -> None:
    count = int(question.solve().steps)
    solution = question.solve(sensitivity, max_steps=count - 1)
    assert solution.status is StoppingStatus.MAX_STEPS
    assert solution.steps == math.inf
    assert solution.time == math.inf
    assert solution.stats.nfe == count - 1
    outputs = solution.steps + solution.time + solution.state.sum()
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients(outputs, question.inputs))
    assert question.solve(sensitivity, max_steps=count).reached


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_diverging_run_ends_when_it_overflows(dtype: torch.dtype, gradients: Callable) -> None:
    x0 = torch.ones(3, dtype=dtype, requires_grad=True)
    solution = discrete_stopping_time(Euler(decay, 100.0), x0, squared_norm, 0.1)
    assert solution.status is StoppingStatus.NON_FINITE
    assert solution.steps == math.inf
    assert solution.stats.nfe < 400
    assert torch.isfinite(solution.state).all()
    assert not gradients(solution.steps + solution.state.sum(), [x0])[0].any()


def test_a_state_that_overflows_unseen_by_the_criterion_is_noticed() -> None:
    def dynamics(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([-x[0], math.nan * x[1]])

    solution = discrete_stopping_time(Euler(dynamics, 0.5), torch.ones(2), lambda x: x[..., 0], 0.1)
    assert solution.status is StoppingStatus.NON_FINITE


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_criterion_that_is_not_finite_is_no_success(value: float) -> None:
    def criterion(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] > 0.3, x[..., 0], value)

    solution = discrete_stopping_time(Euler(decay, 0.5), torch.ones(1), criterion, 0.1)
    assert solution.status is StoppingStatus.NON_FINITE
    assert solution.steps == math.inf


class RootField(nn.Module):
    """Decay that is nan, with a nan derivative, outside the unit interval."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1.2, dtype=torch.float64))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return -self.rate * x * torch.sqrt(1.1 - x)


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
@pytest.mark.parametrize("bad_first", [True, False])
def test_failing_trajectories_leave_their_neighbours_right(
    sensitivity: str, bad_first: bool, gradients: Callable
) -> None:
    field = RootField()
    good = [[0.9, 0.5], [0.4, 0.4], [0.001, 0.0]]
    bad = [[2.0, 0.5], [-80.0, 0.5], [0.0, 1.1]]  # nan at once, nan after a step, at rest above the threshold
    rows = [*bad, *good] if bad_first else [*good, *bad]
    healthy = slice(3, 6) if bad_first else slice(0, 3)

    def solve(start: Tensor) -> tuple[Tensor, list[Tensor]]:
        solution = discrete_stopping_time(
            Euler(field, 0.1), start, squared_norm, 1e-3, sensitivity=sensitivity, max_steps=200
        )
        statuses.append(solution.status)
        outputs = solution.steps + solution.state.sum(-1)
        return solution.steps, gradients(outputs, [start, field.rate])

    statuses: list = []
    x0 = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    alone = x0[healthy].detach().requires_grad_()
    steps, (by_start, by_rate) = solve(x0)
    steps_alone, (by_start_alone, by_rate_alone) = solve(alone)
    assert [s.name for s in statuses[1]] == ["REACHED", "REACHED", "ALREADY_SATISFIED"]
    failures = list(statuses[0][3:] if not bad_first else statuses[0][:3])
    assert [s.name for s in failures] == ["NON_FINITE", "NON_FINITE", "MAX_STEPS"]
    assert torch.equal(steps[healthy], steps_alone)
    torch.testing.assert_close(by_start[healthy], by_start_alone, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(by_rate, by_rate_alone, rtol=1e-12, atol=0)
    rest = torch.ones(6, dtype=torch.bool)
    rest[healthy] = False
    assert torch.equal(by_start[rest], torch.zeros(3, 2, dtype=torch.float64))


def test_the_time_of_a_failure_does_not_poison_the_step_size(gradients: Callable) -> None:
    step_size = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([[1.0], [100.0]], dtype=torch.float64)
    solution = discrete_stopping_time(Euler(decay, step_size), x0, squared_norm, 0.5, max_steps=5)
    assert solution.time[1] == math.inf
    alone = discrete_stopping_time(Euler(decay, step_size), x0[0], squared_norm, 0.5)
    torch.testing.assert_close(gradients(solution.time, [step_size]), gradients(alone.time, [step_size]))


def test_failures_can_be_raised(question: Question) -> None:
    with pytest.raises(StoppingTimeError, match=r"1 of 1 trajectories did not stop.*max_steps") as caught:
        question.solve(max_steps=3, on_failure="raise")
    assert caught.value.solution.steps == math.inf
    assert question.solve(on_failure="raise").reached


def test_single_precision_stays_single_precision(question: Question) -> None:
    double = question.solve().steps
    x0 = question.x0.detach().float().requires_grad_()
    for part in (question.field, question.criterion):
        part.float()
    solution = discrete_stopping_time(Euler(question.field, 0.1), x0, question.criterion, 0.02, t0=0.1)
    assert solution.steps == double
    for tensor in (solution.steps, solution.time, solution.state):
        assert tensor.dtype == torch.float32
    solution.time.backward()
    assert x0.grad is not None
    assert x0.grad.dtype == torch.float32


def test_criterion_and_map_are_given_the_very_same_tensor() -> None:
    seen_by_criterion, seen_by_map = [], []

    def criterion(x: Tensor) -> Tensor:
        seen_by_criterion.append(x)
        return x[..., 0]

    def step(k: int, x: Tensor) -> Tensor:
        seen_by_map.append(x)
        return 0.5 * x

    discrete_stopping_time(step, torch.ones(1), criterion, 0.1)
    assert len(seen_by_map) == 4
    # The very first evaluations are made with a graph, to find the parameters.
    assert all(a is b for a, b in zip(seen_by_criterion[1:], seen_by_map[1:], strict=False))


def test_nothing_is_differentiable_under_no_grad(question: Question) -> None:
    with torch.no_grad():
        solution = question.solve()
    assert solution.steps == question.solve().steps
    assert not solution.steps.requires_grad
    assert not solution.state.requires_grad


def test_a_rule_that_calls_autograd_inside_works_under_no_grad() -> None:
    def step(k: int, x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(squared_norm(x).sum(), x)
        return x - 0.25 * gradient

    with torch.no_grad():
        assert discrete_stopping_time(step, torch.ones(1), squared_norm, 0.1).steps == 2


def solve_with(**changes: object) -> object:
    arguments: dict = {
        "step_map": Euler(decay, 0.1),
        "x0": torch.ones(2),
        "criterion": squared_norm,
        "threshold": 0.1,
    }
    return discrete_stopping_time(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x0": torch.ones(2, dtype=torch.int64)}, "x0 must have a real floating-point dtype.*int64"),
        ({"x0": torch.tensor(1.0)}, r"x0 must have shape \(\*batch, d\)"),
        ({"x0": torch.ones(0, 2)}, r"x0 must have shape \(\*batch, d\).*\(0, 2\)"),
        ({"x0": torch.tensor([1.0, math.nan])}, "x0 must be finite"),
        ({"threshold": math.nan}, "threshold must be finite"),
        ({"threshold": torch.ones(3)}, r"threshold .* broadcasts to the batch shape \(\), got shape \(3,\)"),
        ({"t0": math.inf}, "t0 must be finite"),
        ({"t0": 1.0, "step_map": lambda k, x: 0.9 * x}, "t0 must be left at 0 .* without a step size"),
        ({"criterion": lambda x: x}, r"criterion must return shape \(\), got \(2,\)"),
        ({"criterion": lambda x: squared_norm(x).double()}, "criterion must return the dtype of x0"),
        ({"criterion": lambda x: 1.0}, "criterion must return a torch.Tensor, got float"),
        ({"step_map": lambda k, x: x[:1]}, r"step_map must return shape \(2,\), got \(1,\)"),
        ({"step_map": lambda k, x: 0.9 * x.double()}, "step_map must return the dtype of x0"),
        ({"sensitivity": "definition 3"}, "sensitivity must be one of 'definition3', 'interpolated'"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1"),
        ({"on_failure": "ignore"}, "on_failure must be one of 'status', 'raise'"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_with(**changes)


def test_a_hidden_state_of_another_batch_shape_is_refused() -> None:
    class Flattened(nn.Module):
        def initial_state(self, x0: Tensor) -> Tensor:
            return x0.flatten()

        def forward(self, k: int, state: Tensor) -> Tensor:
            return 0.9 * state

    with pytest.raises(ValueError, match=r"initial_state must return shape \(\*batch, m\)"):
        solve_with(step_map=Flattened(), x0=torch.ones(2, 3))


def test_large_but_finite_states_whose_sum_overflows_go_on() -> None:
    x0 = torch.full((2, 4), 2e38)
    solution = discrete_stopping_time(Euler(decay, 0.5), x0, lambda x: x[..., 0], 1e38)
    assert solution.steps.tolist() == [1.0, 1.0]
    assert solution.reached.all()
