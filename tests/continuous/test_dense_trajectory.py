"""The solution between its steps: closed forms, batches, levels, failures, and what looking costs."""

import math

import pytest
import torch

import odestop
from odestop import StoppingStatus
from odestop.continuous.gradients import DiscreteAdjoint
from odestop.solvers import METHODS

DOUBLE = {"dtype": torch.float64}


def decay(t, x):
    return -x


def first(x):
    return x[..., 0]


@pytest.mark.parametrize("method", list(METHODS))
def test_it_follows_the_closed_form_and_ends_at_the_event(method):
    solution = odestop.continuous_stopping_time(
        decay, torch.tensor([1.0, -3.0], **DOUBLE), first, 0.01, method=method, rtol=1e-6, atol=1e-9
    )
    t = torch.linspace(0.0, solution.time.item(), 40, **DOUBLE)
    exact = torch.exp(-t)[:, None] * torch.tensor([1.0, -3.0], **DOUBLE)
    rtol = 1e-3 if method == "rkc2" else 2e-5
    torch.testing.assert_close(solution.trajectory(t), exact, rtol=rtol, atol=0.0)
    torch.testing.assert_close(solution.trajectory(solution.time.reshape(1))[0], solution.state, rtol=1e-13, atol=0.0)


def test_order_of_the_times_does_not_matter_and_looking_is_not_counted():
    calls = 0

    def counted(t, x):
        nonlocal calls
        calls += 1
        return -x

    solution = odestop.continuous_stopping_time(counted, torch.ones(1, **DOUBLE), first, 0.01)
    nfe, before = solution.stats.nfe, calls
    t = torch.linspace(0.0, solution.time.item(), 50, **DOUBLE)
    order = torch.randperm(50)
    torch.testing.assert_close(solution.trajectory(t[order]), solution.trajectory(t)[order], rtol=0.0, atol=0.0)
    assert solution.stats.nfe == nfe
    assert calls - before <= 2 * 7 * len(solution.trajectory.times)
    before = calls
    solution.trajectory(t[:1])
    assert calls - before == 7


def test_times_are_the_ends_of_the_steps():
    solution = odestop.continuous_stopping_time(decay, torch.ones(1, **DOUBLE), first, 0.01, t0=0.5)
    times = solution.trajectory.times
    assert times[0].item() == 0.5
    assert times[-1].item() == solution.time.item()
    assert len(times) == int(solution.stats.accepted_steps) + 2
    assert bool((times.diff() > 0).all())


def test_a_batch_rests_outside_each_trajectory():
    t0 = torch.tensor([0.0, 1.0, 0.0], **DOUBLE)
    x0 = torch.tensor([[1.0], [2.0], [0.05]], **DOUBLE)
    solution = odestop.continuous_stopping_time(decay, x0, first, 0.1, t0=t0)
    t = torch.linspace(0.0, float(solution.time.max()), 60, **DOUBLE)
    clipped = torch.minimum(torch.maximum(t[:, None], t0), solution.time)
    exact = x0[:, 0] * torch.exp(-(clipped - t0))
    torch.testing.assert_close(solution.trajectory(t)[..., 0], exact, rtol=1e-5, atol=0.0)
    assert [len(times) for times in solution.trajectory.times] == [
        *(int(steps) + 2 for steps in solution.stats.accepted_steps[:2]),
        1,
    ]


def test_it_ends_at_the_last_level_or_where_the_solve_gave_up():
    levels = torch.tensor([0.5, 0.1], **DOUBLE)
    complete = odestop.continuous_stopping_time(decay, torch.ones(1, **DOUBLE), first, levels, levels=True)
    assert complete.trajectory.times[-1].item() == pytest.approx(math.log(10.0), rel=1e-6)
    missed = odestop.continuous_stopping_time(
        decay, torch.ones(1, **DOUBLE), first, torch.tensor([0.5, -1.0], **DOUBLE), levels=True, t_max=3.0
    )
    assert missed.status[1] is StoppingStatus.HORIZON
    t = torch.tensor([0.0, 1.0, 3.0], **DOUBLE)
    torch.testing.assert_close(missed.trajectory(t)[:, 0], torch.exp(-t), rtol=1e-5, atol=0.0)


def test_states_are_those_at_the_times_and_cost_nothing():
    levels, calls = torch.tensor([0.5, -1.0], **DOUBLE), 0

    def counted(t, x):
        nonlocal calls
        calls += 1
        return -x

    one = odestop.continuous_stopping_time(counted, torch.ones(1, **DOUBLE), first, 0.1)
    missed = odestop.continuous_stopping_time(
        counted, torch.ones(1, **DOUBLE), first, levels, levels=True, t_max=3.0, gradient=DiscreteAdjoint(checkpoints=3)
    )
    x0 = torch.tensor([[1.0], [2.0], [0.05]], **DOUBLE)
    several = odestop.continuous_stopping_time(counted, x0, first, 0.1)
    before = calls
    states = [one.trajectory.states, *several.trajectory.states]
    assert calls == before
    states.append(missed.trajectory.states)
    times = [one.trajectory.times, *several.trajectory.times, missed.trajectory.times]
    for start, t, x in zip([1.0, *x0[:, 0].tolist(), 1.0], times, states, strict=True):
        assert x.shape == (len(t), 1)
        torch.testing.assert_close(x[:, 0], start * torch.exp(-t), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(one.trajectory.states, one.trajectory(one.trajectory.times), rtol=1e-12, atol=0.0)


def test_it_ends_inside_a_dip_that_was_noticed_one_step_later():
    def rotation(t, x):
        return torch.stack([-x[..., 1], x[..., 0]], dim=-1)

    solution = odestop.continuous_stopping_time(
        rotation, torch.tensor([1.0, 0.0], **DOUBLE), lambda x: 1.0 + first(x), 1e-3, method="dopri8", rtol=1e-9
    )
    assert solution.trajectory.times[-1].item() == solution.time.item()
    torch.testing.assert_close(solution.trajectory.states, solution.trajectory(solution.trajectory.times))
    t = torch.linspace(0.0, solution.time.item(), 30, **DOUBLE)
    torch.testing.assert_close(solution.trajectory(t)[:, 0], torch.cos(t), rtol=0.0, atol=1e-5)


def test_a_trajectory_without_a_step_is_its_start():
    solution = odestop.continuous_stopping_time(decay, torch.full((1,), 0.01, **DOUBLE), first, 0.1)
    assert solution.trajectory.times.tolist() == [0.0]
    assert solution.trajectory.states.tolist() == [[0.01]]
    assert solution.trajectory(torch.zeros(2, **DOUBLE)).tolist() == [[0.01], [0.01]]


@pytest.mark.parametrize("t", [[-0.1], [2.5], [math.nan], 1.0])
def test_times_that_were_not_solved_are_refused(t):
    solution = odestop.continuous_stopping_time(decay, torch.ones(1, **DOUBLE), first, 0.1)
    with pytest.raises(ValueError, match="t must"):
        solution.trajectory(torch.tensor(t, **DOUBLE))


def test_parameters_changed_in_place_are_noticed():
    rate = torch.ones((), requires_grad=True, **DOUBLE)
    solution = odestop.continuous_stopping_time(lambda t, x: -rate * x, torch.ones(1, **DOUBLE), first, 0.1)
    with torch.no_grad():
        rate += 1.0
    with pytest.raises(RuntimeError, match="changed in place"):
        solution.trajectory(torch.zeros(1, **DOUBLE))


def test_the_torchdiffeq_reference_has_none():
    solution = odestop.torchdiffeq_stopping_time(decay, torch.ones(1, **DOUBLE), first, 0.1)
    assert solution.trajectory is None
