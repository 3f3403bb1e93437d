"""Every schedule gives the bits of the whole trajectory, in the memory and the steps that its formula says."""

from __future__ import annotations

import functools
import math
import random
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from odestop.discrete import Euler, MemoryBudget, discrete_adjoint, discrete_stopping_time
from odestop.discrete.checkpoints import (
    CheckpointedRecord,
    Checkpoints,
    EverySteps,
    RecentRecord,
    SquareRoot,
    binomial_cost,
    binomial_stride,
    resolve_checkpoints,
)
from odestop.status import StoppingStatus

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Question

SCHEDULES = ("sqrt", 1, 2, 7, 1000, MemoryBudget(2 * 96), MemoryBudget(5 * 96), MemoryBudget(10**9))


def squared_norm(x: Tensor) -> Tensor:
    return (x**2).sum(-1)


@functools.cache
def fewest_steps(length: int, slots: int) -> float:
    """The cost of reading x_n, …, x_1 by trying every place for the next state."""
    if length == 0:
        return 0
    if slots == 0:
        return math.inf
    return min(j + fewest_steps(length - j, slots - 1) + fewest_steps(j - 1, slots) for j in range(1, length + 1))


def test_the_binomial_schedule_takes_the_fewest_steps_possible() -> None:
    for slots in range(0, 8):
        for length in range(0, 41):
            assert binomial_cost(length, slots) == fewest_steps(length, slots)
            if length and slots:
                j = binomial_stride(length, slots)
                rest = fewest_steps(length - j, slots - 1) + fewest_steps(j - 1, slots)
                assert j + rest == fewest_steps(length, slots)


def count_up(k: int, state: Tensor) -> Tensor:
    assert state.item() == k
    return state + 1


def recorded(schedule: Checkpoints, length: int, appended: int | None = None) -> CheckpointedRecord:
    """A run of x_k = k; each state has 8 bytes."""
    record = CheckpointedRecord(schedule)
    for k in range(length if appended is None else appended):
        record.append(torch.tensor([k], dtype=torch.float64), None)
    record.finish(length, count_up)
    return record


def square_root_spacing(length: int) -> int:
    spacing = 1
    while length > 2 * spacing**2:
        spacing *= 2
    return spacing


@pytest.mark.parametrize("length", [0, 1, 2, 3, 8, 9, 31, 32, 33, 100, 257])
def test_memory_and_recomputation_follow_the_formulas(length: int) -> None:
    for schedule, spacing in [
        *((EverySteps(m), m) for m in (1, 2, 5, 16, 300)),
        (SquareRoot(), square_root_spacing(length)),
    ]:
        record = recorded(schedule, length)
        assert [x.item() for x in reversed(record)] == list(reversed(range(length)))
        kept = math.ceil(length / spacing)
        assert record.peak_bytes == 8 * max(kept + min(spacing, length) - 1, 0)
        assert record.recomputed_steps == length - kept
        if isinstance(schedule, SquareRoot) and length:
            assert record.peak_bytes <= 8 * max(2.13 * math.sqrt(length), 1)


@pytest.mark.parametrize("capacity", [2, 3, 4, 7, 16, 60])
def test_a_budget_is_used_up_and_never_exceeded(capacity: int) -> None:
    for length in (0, 1, 2, capacity, capacity + 1, 3 * capacity, 257):
        record = recorded(MemoryBudget(8 * capacity + 7), length)
        assert [x.item() for x in reversed(record)] == list(reversed(range(length)))
        assert record.peak_bytes == 8 * min(length, capacity)
        spacings = [2**i for i in range(10)]
        reachable = [s for s in spacings if math.ceil(length / s) <= capacity]
        assert record.recomputed_steps == min(budget_cost(length, s, capacity) for s in reachable)


def budget_cost(length: int, spacing: int, capacity: int) -> float:
    kept = math.ceil(length / spacing)
    last = length - 1 - (kept - 1) * spacing
    return sum(binomial_cost(n, capacity - kept) for n in [spacing - 1] * (kept - 1) + [max(last, 0)])


@pytest.mark.parametrize("schedule", [EverySteps(4), SquareRoot(), MemoryBudget(16), MemoryBudget(40)])
def test_a_record_is_an_ordinary_sequence(schedule: Checkpoints) -> None:
    record = recorded(schedule, 40, appended=55)
    assert len(record) == 40
    numbers = [*range(40), *reversed(range(40)), *random.sample(range(40), 40)]
    assert [record[k].item() for k in numbers] == numbers
    assert record[-1].item() == 39
    with pytest.raises(IndexError):
        record[40]


def test_a_second_backward_pass_costs_what_the_first_did() -> None:
    record = recorded(MemoryBudget(80), 200)
    assert [x.item() for x in reversed(record)] == list(reversed(range(200)))
    first = record.recomputed_steps
    assert [x.item() for x in reversed(record)] == list(reversed(range(200)))
    assert record.recomputed_steps == 2 * first


@pytest.mark.parametrize("sensitivity", ["definition3", "interpolated"])
@pytest.mark.parametrize("checkpoints", SCHEDULES)
def test_gradients_have_the_same_bits_whatever_is_stored(
    checkpoints: object, sensitivity: str, batch_question: Question, gradients: Callable
) -> None:
    def solve(**options: object) -> list[Tensor]:
        solution = batch_question.solve(sensitivity, **options)
        return gradients(solution.steps + solution.state.sum(-1), batch_question.inputs)

    assert all(map(torch.equal, solve(checkpoints=checkpoints), solve()))


@pytest.mark.parametrize("checkpoints", SCHEDULES)
def test_every_schedule_agrees_with_the_unrolled_loop(
    checkpoints: object, question: Question, gradients: Callable
) -> None:
    count, _, before, after = question.unrolled()
    expected = gradients((question.threshold - after) / (after - before).detach(), question.inputs)
    solution = question.solve(checkpoints=checkpoints)
    assert solution.steps == count
    for one, other in zip(gradients(solution.steps, question.inputs), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    solution, (_, x, _, _) = question.solve(checkpoints=checkpoints), question.unrolled()
    for one, other in zip(gradients(solution.state, question.inputs), gradients(x, question.inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("checkpoints", SCHEDULES)
def test_rows_that_fail_are_retraced_standing_still(checkpoints: object, gradients: Callable) -> None:
    rate = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    seen: list[Tensor] = []

    def step(k: int, x: Tensor) -> Tensor:
        # nan at once, nan after a step, never there, there at once, after a few steps and after many.
        assert torch.isfinite(x).all()
        seen.append(x.detach())
        return x - 0.1 * rate * x * torch.sqrt(1.1 - x)

    rows = [[2.0, 0.5], [-80.0, 0.5], [0.0, 1.1], [0.001, 0.0], [0.4, 0.4], [0.9, 0.5]]
    x0 = torch.tensor(rows, dtype=torch.float64, requires_grad=True)

    def solve(schedule: object) -> list[Tensor]:
        solution = discrete_stopping_time(step, x0, squared_norm, 1e-3, max_steps=200, checkpoints=schedule)
        assert [status.name for status in solution.status[:4]] == [
            "NON_FINITE",
            "NON_FINITE",
            "MAX_STEPS",
            "ALREADY_SATISFIED",
        ]
        forward = {tuple(x.flatten().tolist()) for x in seen}
        seen.clear()
        found = gradients(solution.steps + solution.state.sum(-1), [x0, rate])
        if solution.stats.recomputed_steps:
            assert any(tuple(x.flatten().tolist()) in forward for x in seen)
        seen.clear()
        return found

    assert all(map(torch.equal, solve(checkpoints), solve("all")))


def test_the_first_step_is_repeated_the_way_it_was_taken() -> None:
    def step(k: int, x: Tensor) -> Tensor:
        # Two roundings of the same number, as kernels with and without a graph may have.
        return x - (0.3 * x if torch.is_grad_enabled() else 0.1 * x * 3) ** 3

    x0 = torch.linspace(0.5, 1.5, 40, dtype=torch.float64, requires_grad=True)

    def gradient(checkpoints: object) -> Tensor:
        steps = discrete_stopping_time(step, x0, squared_norm, 10.0, checkpoints=checkpoints).steps
        return torch.autograd.grad(steps, x0)[0]

    assert torch.equal(gradient(MemoryBudget(640)), gradient("all"))


@pytest.mark.parametrize("checkpoints", SCHEDULES)
@pytest.mark.parametrize(
    ("threshold", "max_steps", "status"),
    [
        (100.0, 10, StoppingStatus.ALREADY_SATISFIED),
        (1.88, 10, StoppingStatus.REACHED),
        (0.02, 5, StoppingStatus.MAX_STEPS),
    ],
)
def test_short_and_failed_runs_have_a_gradient(
    checkpoints: object,
    threshold: float,
    max_steps: int,
    status: StoppingStatus,
    question: Question,
    gradients: Callable,
) -> None:
    question.threshold = torch.tensor(threshold, dtype=torch.float64, requires_grad=True)

    def solve(**options: object) -> list[Tensor]:
        solution = question.solve(max_steps=max_steps, **options)
        assert solution.status is status
        assert status is not StoppingStatus.REACHED or solution.steps == 1
        return gradients(solution.steps + solution.state.sum(), question.inputs)

    assert all(map(torch.equal, solve(checkpoints=checkpoints), solve()))


def test_the_cost_is_in_the_stats(question: Question) -> None:
    solution = question.solve(checkpoints=4)
    count = int(question.solve().steps)
    state_bytes = 3 * 8
    assert solution.stats.peak_bytes == math.ceil(count / 4) * state_bytes
    assert solution.stats.recomputed_steps == 0
    solution.steps.backward()
    assert solution.stats.peak_bytes == (math.ceil(count / 4) + 3) * state_bytes
    assert solution.stats.recomputed_steps == count - math.ceil(count / 4)
    assert solution.stats.nfe == solution.stats.vjps == count


@pytest.mark.parametrize("options", [{}, {"checkpoints": "sqrt"}, {"checkpoints": 3}, {"backward_steps": 2}])
def test_nothing_is_stored_where_no_step_needs_a_gradient(options: dict, question: Question) -> None:
    with torch.no_grad():
        assert question.solve(**options).stats.peak_bytes == 0
    x0 = torch.ones(1, requires_grad=False)
    threshold = torch.tensor(0.1, requires_grad=True)
    solution = discrete_stopping_time(Euler(lambda t, x: -x, 0.1), x0, squared_norm, threshold, **options)
    solution.steps.backward()
    assert solution.stats.peak_bytes == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoints": MemoryBudget(47)}, r"two states of 24 bytes, MemoryBudget\(48\), got MemoryBudget\(bytes=47"),
        ({"checkpoints": "some"}, "checkpoints must be 'all', 'sqrt', an integer m .*got 'some'"),
        ({"checkpoints": 0}, "checkpoints must be an integer of at least 1, got 0"),
        ({"checkpoints": True}, "checkpoints must be an integer of at least 1, got True"),
        ({"backward_steps": 0}, "backward_steps must be an integer of at least 1, got 0"),
        ({"backward_steps": 5, "checkpoints": "sqrt"}, "checkpoints must be left at 'all' with backward_steps"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(options: dict, message: str, question: Question) -> None:
    with pytest.raises(ValueError, match=message):
        question.solve(**options)


def test_a_budget_is_a_positive_number_of_bytes() -> None:
    with pytest.raises(ValueError, match="bytes must be an integer of at least 1"):
        MemoryBudget(0)
    assert resolve_checkpoints("all") == resolve_checkpoints(1) == EverySteps(1)


def cut_off(batch_question: Question, row: int, backward_steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_N, J(x_{N-1}) and J(x_N) of one row with the graph of its last m steps."""
    question = batch_question.trajectory(row)
    count = question.unrolled()[0]
    x = question.x0
    previous = value = question.criterion(x)
    for k in range(count):
        if k > 0 and k == count - backward_steps:
            x = x.detach()
            value = question.criterion(x)
        previous = value
        x = x + question.step_size * question.field(question.t0 + k * question.step_size, x)
        value = question.criterion(x)
    return x, previous, value


@pytest.mark.parametrize("sensitivity", ["definition3", "interpolated"])
@pytest.mark.parametrize("backward_steps", [1, 2, 5, 13, 14, 1000])
def test_a_truncated_backward_pass_sees_the_last_steps_of_each_row(
    sensitivity: str, backward_steps: int, batch_question: Question, gradients: Callable
) -> None:
    total = torch.zeros((), dtype=torch.float64)
    for row in range(4):
        x, before, after = cut_off(batch_question, row, backward_steps)
        threshold = batch_question.threshold[row]
        if sensitivity == "definition3":
            steps = (threshold - after) / (after - before).detach()
        else:
            steps = (before - threshold) / (before - after)
        total = total + steps + x.sum()
    expected = gradients(total, batch_question.inputs)
    solution = batch_question.solve(sensitivity, backward_steps=backward_steps)
    found = gradients(solution.steps + solution.state.sum(-1), batch_question.inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_a_truncated_backward_pass_stores_and_visits_its_steps_only(batch_question: Question) -> None:
    counts = batch_question.solve().steps.to(torch.int64)
    solution = batch_question.solve(backward_steps=2)
    solution.steps.sum().backward()
    assert solution.stats.peak_bytes == 2 * batch_question.x0.numel() * 8
    assert solution.stats.vjps == len({int(n) - i for n in counts for i in (1, 2)})
    assert solution.stats.recomputed_steps == 0
    assert batch_question.x0.grad is not None
    assert not batch_question.x0.grad.any()


def test_nothing_reaches_the_start_of_a_run_longer_than_the_truncation(question: Question, gradients: Callable) -> None:
    count = int(question.solve().steps)
    exact = gradients(question.solve().steps, [question.x0])[0]
    assert torch.equal(gradients(question.solve(backward_steps=count).steps, [question.x0])[0], exact)
    assert not gradients(question.solve(backward_steps=count - 1).steps, [question.x0])[0].any()


def test_the_adjoint_of_a_given_trajectory_may_be_truncated() -> None:
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    trajectory = [torch.tensor([8.0 * 0.5**k], dtype=torch.float64) for k in range(3)]

    def step(k: int, x: Tensor) -> Tensor:
        return x - rate * x

    start, (gradient,) = discrete_adjoint(
        step, trajectory, torch.ones(1, dtype=torch.float64), [rate], backward_steps=1
    )
    assert start.item() == 0.0
    assert gradient.item() == -2.0


def test_a_ring_holds_the_last_states_of_rows_that_stop_at_different_times() -> None:
    record = RecentRecord(2)
    stops = torch.tensor([3, 6])
    for k in range(7):
        running = stops > k
        state = torch.minimum(torch.tensor(k), stops).to(torch.float64).unsqueeze(-1)
        record.append(state, None if bool(running.all()) else running)
    record.finish(6, count_up)
    assert [record[k][0].item() for k in (2, 1)] == [2, 1]
    assert [record[k][1].item() for k in (5, 4)] == [5, 4]
