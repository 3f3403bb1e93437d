"""The accepted steps of a forward solve, with all of their states kept or only every m-th."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor

from odestop.continuous.problem import StoppingProblem
from odestop.solvers import OneStepMethod


@dataclass(frozen=True)
class AcceptedStep:
    """One accepted step of the batch; the rows that did not accept it have size zero.

    ``state`` (*batch, d) and ``start_time`` (n,) are those at its start, ``step_size`` and ``stages`` have shape (n,).
    """

    state: Tensor
    start_time: np.ndarray
    step_size: np.ndarray
    stages: np.ndarray


class StepRecord(Sequence[AcceptedStep]):
    """Accepted steps, oldest first.

    Keeping every m-th state costs N/m states, and m more while a segment between two kept states is retraced; a walk
    over the record in either direction retraces each segment once.

    Parameters
    ----------
    problem, solver
        How a dropped state is computed again.
    keep_every
        m: 1 keeps every state.
    """

    def __init__(self, problem: StoppingProblem, solver: OneStepMethod, keep_every: int = 1) -> None:
        self._problem, self._solver, self._keep_every = problem, solver, keep_every
        self._kept: list[Tensor] = []
        self._times: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._segment: list[Tensor] = []
        self._segment_index = -1

    def append(self, state: Tensor, start_time: np.ndarray, step_size: np.ndarray, stages: np.ndarray) -> None:
        """Record one more step."""
        if len(self._times) % self._keep_every == 0:
            self._kept.append(state)
        self._times.append((start_time, step_size, stages))
        self._segment_index = -1

    def __len__(self) -> int:
        return len(self._times)

    @overload
    def __getitem__(self, index: int) -> AcceptedStep: ...
    @overload
    def __getitem__(self, index: slice) -> list[AcceptedStep]: ...
    def __getitem__(self, index: int | slice) -> AcceptedStep | list[AcceptedStep]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        return AcceptedStep(self._state(position), *self._times[position])

    @property
    def times(self) -> Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Start times, sizes and numbers of stages of the steps, each of shape (n,), without their states."""
        return self._times

    @property
    def peak_bytes(self) -> int:
        """Memory of the states that are kept, and of one retraced segment."""
        retraced = 0 if self._keep_every == 1 else min(self._keep_every, len(self))
        state = self._problem.initial_state
        return (len(self._kept) + retraced) * state.numel() * state.element_size()

    def _state(self, position: int) -> Tensor:
        segment, offset = divmod(position, self._keep_every)
        if offset == 0:
            return self._kept[segment]
        if segment != self._segment_index:
            self._segment, self._segment_index = self._retraced(segment), segment
        return self._segment[offset]

    def _retraced(self, segment: int) -> list[Tensor]:
        """States at the starts of a segment's steps, from the one that was kept."""
        first = segment * self._keep_every
        states = [self._kept[segment]]
        with torch.no_grad():
            for start_time, step_size, stages in self._times[first : first + self._keep_every - 1]:
                t, h = self._problem.to_device(start_time), self._problem.to_device(step_size)
                end, _ = self._solver.advance(self._problem.field_again, t, states[-1], h, stages=stages)
                # A row of size zero is at rest, whatever its slopes are.
                moved = self._problem.row_mask(step_size > 0).unsqueeze(-1)
                states.append(torch.where(moved, end, states[-1]))
        return states
