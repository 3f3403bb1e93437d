"""The trajectory of the flow and the iterates of the step map, each up to its stopping time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop.continuous import ContinuousSolution
from odestop.explorer.answers import Solved, solved_flow, solved_steps
from odestop.explorer.modules import DTYPE
from odestop.explorer.scene import Scene
from odestop.explorer.solving import Cancelled, in_words

PLACES_SHOWN, MOST_PLACES_SHOWN = 48, 400


@dataclass(frozen=True)
class Event:
    """Where the flow meets a threshold.

    Attributes
    ----------
    threshold
        ε.
    time
        T; inf if it is never met.
    position
        x(T), shape (d,); None if it is never met.
    status, words
        Name of the `odestop.StoppingStatus`, and what it means.
    """

    threshold: float | int
    time: float
    position: np.ndarray | None
    status: str
    words: str


@dataclass(frozen=True)
class Stop:
    """Where the iterates meet a threshold: after ``steps`` = N of them, at the time h N; the rest as in `Event`."""

    threshold: float | int
    steps: float
    time: float
    position: np.ndarray | None
    status: str
    words: str


@dataclass(frozen=True)
class Paths:
    """The flow x(t) and the iterates x_k, each up to the last threshold it meets, or to what ended it.

    Attributes
    ----------
    flow_times, flow_positions, flow_values
        Times, shape (m,), positions, shape (m, d), and J there, shape (m,).
    events
        One per threshold, in the order of the scene's.
    step_times, step_positions, step_values
        The same for x_0, …, x_k: t_k = h k.
    stops
        One per threshold.
    """

    flow_times: np.ndarray
    flow_positions: np.ndarray
    flow_values: np.ndarray
    events: tuple[Event, ...]
    step_times: np.ndarray
    step_positions: np.ndarray
    step_values: np.ndarray
    stops: tuple[Stop, ...]


def paths(scene: Scene, cancelled: Cancelled | None = None) -> Paths:
    """Return the trajectory and the iterates of a scene.

    Parameters
    ----------
    scene
        One without problems.
    cancelled
        Asked between the evaluations of the dynamics.

    Raises
    ------
    CancelledError
        Once ``cancelled`` says so.

    Examples
    --------
    >>> result = paths(Scene())
    >>> [event.status for event in result.events], [stop.steps for stop in result.stops]
    (['REACHED', 'REACHED', 'REACHED'], [11.0, 1.0, 22.0])
    """
    flow, steps = solved_flow(scene, cancelled), solved_steps(scene, cancelled)
    times, positions, values = _samples(flow)
    assert steps.iterates is not None
    iterates, step_values = steps.iterates
    return Paths(
        flow_times=times,
        flow_positions=positions,
        flow_values=values,
        events=tuple(
            Event(threshold, time, _place(time, position), status.name, in_words(status))
            for threshold, time, position, status in zip(
                scene.thresholds,
                flow.solution.time.tolist(),
                flow.solution.position,
                flow.statuses,
                strict=True,
            )
        ),
        step_times=scene.step_size * np.arange(len(iterates)),
        step_positions=iterates.numpy(),
        step_values=step_values.numpy(),
        stops=tuple(
            Stop(threshold, n, scene.step_size * n, _place(n, position), status.name, in_words(status, steps=True))
            for threshold, n, position, status in zip(
                scene.thresholds,
                steps.solution.steps.tolist(),
                steps.solution.position,
                steps.statuses,
                strict=True,
            )
        ),
    )


def _place(time: float, position: Tensor) -> np.ndarray | None:
    return position.detach().numpy() if math.isfinite(time) else None


def _samples(flow: Solved[ContinuousSolution]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times, positions and J along the trajectory, from t = 0 to its end.

    Where the steps are few, the cubic with their states and slopes runs between their ends, which costs one evaluation
    of the dynamics for all of them together.
    """
    trajectory, modules = flow.solution.trajectory, flow.modules
    assert trajectory is not None
    times, states = trajectory.times, trajectory.states
    assert isinstance(times, Tensor)
    assert isinstance(states, Tensor)
    with torch.no_grad():
        if len(times) > PLACES_SHOWN:
            chosen = torch.linspace(0, len(times) - 1, min(len(times), MOST_PLACES_SHOWN)).round().long()
            times, states = times[chosen], states[chosen]
        else:
            count = math.ceil(2 * PLACES_SHOWN / max(1, len(times) - 1))
            times, states = _between(times, states, modules.flow(times.unsqueeze(-1), states), count)
        positions = getattr(modules.flow, "position", lambda state: state)(states)
        values = modules.criterion(positions)
    return times.numpy(), positions.numpy(), values.numpy()


def _between(times: Tensor, states: Tensor, slopes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return ``count`` places on every piece of the cubic Hermite interpolant, and its beginning."""
    s = torch.arange(1, count + 1, dtype=DTYPE)[:, None] / count
    h = times.diff()[:, None, None]
    begin, end, leaving, arriving = (part[:, None] for part in (states[:-1], states[1:], slopes[:-1], slopes[1:]))
    chord = begin + (3 - 2 * s) * s**2 * (end - begin)
    pieces = chord + h * s * (1 - s) * ((1 - s) * leaving - s * arriving)
    places = times[:-1, None] + s.T * h[..., 0]
    return torch.cat([times[:1], places.flatten()]), torch.cat([states[:1], pieces.flatten(0, 1)])
