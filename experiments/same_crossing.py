"""Whether a flow and its Euler steps stop at the same crossing of J, where J may rise and fall."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import odestop
from experiments.sensitivities import Question
from odestop.discrete import Euler

_SAMPLES = 201


def stop_at_same_crossing(question: Question, threshold: float, time: float, step_size: float) -> bool:
    """Return whether J only falls between T and h N, along the one of the two that stops later.

    If the one that stops first does so in a dip of J that the other one misses, J rises again on the way of the other.
    T and h N are then times of different events, and |T - h N| is not O(h).

    Parameters
    ----------
    question
        The flow and its target; Euler must reach it.
    threshold
        ε.
    time
        T.
    step_size
        h.
    """
    by_steps = _criterion_along_steps(question, threshold, step_size)
    stop = step_size * (len(by_steps) - 1)
    later = by_steps[int(time / step_size) :] if stop > time else _criterion_along_flow(question, threshold, stop)
    return bool((later.diff() <= 0).all())


@torch.no_grad()
def _criterion_along_flow(question: Question, threshold: float, start: float) -> Tensor:
    """Return J at equally spaced times from ``start`` to T."""
    solution = odestop.continuous_stopping_time(question.dynamics, question.x0, question.criterion, threshold)
    assert solution.trajectory is not None
    times = torch.linspace(start, solution.time.item(), _SAMPLES, dtype=question.x0.dtype)
    return question.criterion(_position(question)(solution.trajectory(times)))


@torch.no_grad()
def _criterion_along_steps(question: Question, threshold: float, step_size: float) -> Tensor:
    """Return J at the iterates of Euler up to the one that stops."""
    step_map, position = Euler(question.dynamics, step_size), _position(question)
    state = getattr(question.dynamics, "initial_state", _identity)(question.x0)
    values = [question.criterion(position(state))]
    while values[-1] > threshold:
        state = step_map(len(values) - 1, state)
        values.append(question.criterion(position(state)))
    return torch.stack(values)


def _position(question: Question) -> Callable[[Tensor], Tensor]:
    return getattr(question.dynamics, "position", _identity)


def _identity(state: Tensor) -> Tensor:
    return state
