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

STEPS_SHOWN, PLACES_SHOWN = 48, 64


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
    """Return times, positions and J along the trajectory, from t = 0 to its end."""
    trajectory = flow.solution.trajectory
    assert trajectory is not None
    known = trajectory.times
    assert isinstance(known, Tensor)
    # Where the steps are many, some of them show the curve; where they are few, several places in each.
    ends = known[torch.linspace(0, len(known) - 1, min(len(known), STEPS_SHOWN + 1)).round().long()][1:]
    count = max(2, round(PLACES_SHOWN / max(1, len(ends))))
    fractions = torch.arange(1, count + 1, dtype=DTYPE) / count
    modules = flow.modules
    times = [known[:1]]
    with torch.no_grad():
        states = [getattr(modules.flow, "initial_state", lambda x: x)(modules.x0).unsqueeze(0)]
        for end in ends.tolist():
            segment = trajectory.segment(trajectory.locate(np.array([end])))
            # The dense output takes any number of places.
            states.append(segment.dense(fractions))
            times.append(float(segment.start_time[0]) + float(segment.step_size[0]) * fractions)
        positions = getattr(modules.flow, "position", lambda state: state)(torch.cat(states))
        values = modules.criterion(positions)
    return torch.cat(times).numpy(), positions.numpy(), values.numpy()
