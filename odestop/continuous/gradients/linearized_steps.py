"""Steps of a Runge-Kutta method, linearised many at a time.

What a backward sweep needs of a step is known before the sweep: its start is stored.  So the stages of consecutive
steps are computed again side by side, all first stages in one evaluation, all second ones in the next, and with them
the derivatives there.  Only λ has to go from stage to stage; the gradients of parameters are taken for all stages at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odestop._functions import Linearized
from odestop.continuous.forward import ForwardSolve
from odestop.continuous.gradients.at_event import EventCotangents
from odestop.continuous.gradients.first_order import StoppingGradients, add_to
from odestop.continuous.gradients.rows import donate
from odestop.continuous.problem import StoppingProblem, broadcast_time, scatter, select
from odestop.solvers import OneStepMethod
from odestop.solvers.stage_adjoints import StageAdjoint

_NUMBERS_IN_BLOCK = 2**19
# Autograd can take a step of many stages in parts, which is what counts where memory does.
_MOST_NUMBERS_IN_STEP = 2**22


class NoShortcutError(Exception):
    """The dynamics has no shortcut to its vector-Jacobian products."""


class LinearizedSteps:
    """Steps from known states, and everything that was pulled back through them.

    Parameters
    ----------
    problem, solver
        F and the method.
    t, step_size
        Shape (steps, *batch).
    states
        Where the steps start, shape (steps, *batch, d).
    stages
        Shape (steps, n).
    with_time
        Whether cotangents of times are wanted.

    Raises
    ------
    NoShortcutError
        If the dynamics has no shortcut at one of the stages, or the method none to its adjoint.
    """

    def __init__(
        self,
        problem: StoppingProblem,
        solver: OneStepMethod,
        t: Tensor,
        states: Tensor,
        step_size: Tensor,
        stages: np.ndarray,
        *,
        with_time: bool,
    ) -> None:
        self._stages: list[Linearized] = []
        self._times: list[Tensor] = []

        def field(t: Tensor, x: Tensor) -> Tensor:
            self._times.append(t.detach().requires_grad_(with_time))
            stage = linearized(problem, self._times[-1], x)
            if stage is None:
                raise NoShortcutError
            self._stages.append(stage)
            return stage.slopes.detach()

        with torch.no_grad():
            solver.advance(field, t, states, step_size, stages=stages.reshape(-1))
        self._with_time, self._step_size = with_time, step_size.unsqueeze(-1)
        # Cotangents of the slopes over h, for every stage of every step.
        self._received = [list(torch.zeros_like(stage.slopes).unbind()) for stage in self._stages]
        kinds = {own.tobytes(): own for own in stages}
        adjoints = {kind: _adjoint(solver, own, states[0]) for kind, own in kinds.items()}
        self._adjoints = [adjoints[own.tobytes()] for own in stages]

    def pull_back(self, index: int, cotangent: Tensor) -> Tensor:
        """Pull a cotangent (*batch, d) from the end of a step to its start, and remember what its slopes receive."""
        adjoint, step_size = self._adjoints[index], self._step_size[index]
        # A step of fewer stages than others was idle before its first one.
        idle = len(self._stages) - len(adjoint.nodes)

        def pull(stage: int, received: Tensor) -> Tensor:
            self._received[idle + stage][index] = received
            return self._stages[idle + stage].pull_back(index, step_size * received)

        return adjoint(cotangent, pull)

    def gathered(self, parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Cotangents of the times of every stage, (steps, *batch), and of the parameters, from all that was pulled."""
        times = self._times if self._with_time else []
        connected = [
            (stage.slopes, self._step_size * torch.stack(received))
            for stage, received in zip(self._stages, self._received, strict=True)
            if stage.slopes.requires_grad
        ]
        if not connected or not (times or parameters):
            return [torch.zeros_like(t) for t in times], [torch.zeros_like(parameter) for parameter in parameters]
        found = torch.autograd.grad(
            [slopes for slopes, _ in connected],
            (*times, *parameters),
            [cotangent for _, cotangent in connected],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return list(found[: len(times)]), list(found[len(times) :])

    def along_step_sizes(self, cotangents: Sequence[Tensor]) -> Sequence[Tensor]:
        """Products of a cotangent (*batch, d) of the end of every step with its derivative in h, (*batch,) each."""
        for index, cotangent in enumerate(cotangents):
            self.pull_back(index, cotangent)
        by_slope = zip(self._received, self._stages, strict=True)
        total = torch.stack([(torch.stack(received) * stage.slopes.detach()).sum(-1) for received, stage in by_slope])
        products = list(total.sum(0).unbind())
        by_time = self.gathered(())[0]
        for index, adjoint in enumerate(self._adjoints):
            idle = len(by_time) - len(adjoint.nodes)
            for node, stage in zip(adjoint.nodes, by_time[idle:], strict=True):
                products[index] = products[index] + node * stage[index]
        return products


class LinearizedSweep:
    """λ pulled backward through the accepted steps, linearised block by block.

    Parameters
    ----------
    problem, solver, solve
        What was solved.
    reached
        Trajectories with an event, shape (*batch,); the others are given the states of one of them.
    gradients
        What to add to.
    """

    def __init__(
        self,
        problem: StoppingProblem,
        solver: OneStepMethod,
        solve: ForwardSolve,
        reached: Tensor,
        gradients: StoppingGradients,
    ) -> None:
        self._problem, self._solver, self._solve = problem, solver, solve
        self._reached, self._gradients = None if bool(reached.all()) else reached, gradients
        self._block: LinearizedSteps | None = None
        self._rows: Tensor | None = None
        self._first = len(solve.steps)

    def pull_back(self, k: int, adjoint: Tensor) -> Tensor | None:
        """Pull λ, shape (*batch, d), from the end of accepted step k to its start; None without a shortcut."""
        if k < self._first:
            self.gather()
            self._open(k)
        if self._block is None:
            return None
        if self._rows is None:
            return self._block.pull_back(k - self._first, adjoint)
        pulled = self._block.pull_back(k - self._first, select(adjoint, self._rows))
        return scatter(pulled, self._rows, adjoint)

    def _open(self, last: int) -> None:
        """Linearise the steps that end with step ``last``."""
        problem, self._first = self._problem, self._first_of_block(last)
        steps = self._solve.steps[self._first : last + 1]
        starts = [step.state if self._reached is None else donate(step.state, self._reached) for step in steps]
        sizes = np.stack([step.step_size for step in steps])
        numbers = torch.from_numpy(np.stack([np.stack([step.start_time for step in steps]), sizes])).to(starts[0])
        t, step_size = numbers.reshape(2, len(steps), *problem.batch)
        moved = np.any(sizes > 0, axis=0)
        stages = np.stack([step.stages for step in steps])
        states, self._rows = torch.stack(starts), None
        if problem.worth_selecting(moved):
            self._rows = torch.from_numpy(np.flatnonzero(moved)).to(states.device)
            states = states.flatten(1, -2)[:, self._rows]
            t, step_size, stages = t.flatten(1)[:, self._rows], step_size.flatten(1)[:, self._rows], stages[:, moved]
        self._block = self.linearized(t, states, step_size, stages, with_time=problem.t0.requires_grad)

    def _first_of_block(self, last: int) -> int:
        """The earliest step that still fits in a block with all up to ``last``."""
        numbers = 0
        for first in range(last, -1, -1):
            numbers = max(numbers, self._numbers(self._solve.steps.times[first][2]))
            if first < last and (last + 1 - first) * numbers > _NUMBERS_IN_BLOCK:
                return first + 1
        return 0

    def _numbers(self, stages: np.ndarray) -> int:
        """Numbers in the stages of a step."""
        return self._solver.evaluations(stages) * self._problem.initial_state.numel()

    def linearized(
        self, t: Tensor, states: Tensor, step_size: Tensor, stages: np.ndarray, *, with_time: bool
    ) -> LinearizedSteps | None:
        """Steps of this problem and method; None where a shortcut does not lead."""
        if not self._solver.fixed_stages and self._numbers(stages) > _MOST_NUMBERS_IN_STEP:
            return None
        try:
            return LinearizedSteps(self._problem, self._solver, t, states, step_size, stages, with_time=with_time)
        except NoShortcutError:
            return None

    def blocks(self, received: Sequence[EventCotangents]) -> list[Sequence[EventCotangents]]:
        """Events whose last steps fit in a block, level after level."""
        size = max(1, _NUMBERS_IN_BLOCK // max(self._numbers(each.event.stages) for each in received))
        return [received[first : first + size] for first in range(0, len(received), size)]

    def gather(self) -> None:
        """Add what the steps of the present block give to parameters and to t0."""
        if self._block is None:
            return
        by_time, by_parameter = self._block.gathered(self._problem.dynamics.parameters)
        rows = slice(None) if self._rows is None else self._rows
        for stage in by_time:
            self._gradients.t0.reshape(-1)[rows] += stage.sum(0).reshape(-1)
        add_to(self._gradients.dynamics, by_parameter)
        self._block = None


def has_shortcut(problem: StoppingProblem, solve: ForwardSolve) -> bool:
    """Whether F knows its own products, and takes several states at once like each of them alone."""
    dynamics = problem.dynamics.function
    if len(solve.steps) == 0 or not hasattr(dynamics, "linearized"):
        return False
    last = solve.steps[-1]
    t = torch.stack([problem.t0.detach(), problem.to_device(last.start_time)])
    states = torch.stack([problem.initial_state.detach(), last.state])
    alone = torch.stack([problem.field_again(*point) for point in zip(t, states, strict=True)])
    try:
        together = linearized(problem, t, states)
    except Exception:  # whatever a user's function raises for a shape that it does not expect
        return False
    if together is None or together.slopes.shape != alone.shape:
        return False
    tolerance = problem.resolution**0.5
    return torch.allclose(together.slopes, alone, rtol=tolerance, atol=tolerance * float(alone.abs().max()))


def linearized(problem: StoppingProblem, t: Tensor, states: Tensor) -> Linearized | None:
    """F and its derivatives at m states, (m, *batch, d), and times, (m, *batch), by the dynamics itself; or None."""
    with torch.enable_grad():
        time = broadcast_time(t)
    dynamics: Any = problem.dynamics.function
    return dynamics.linearized(time, states)


def _adjoint(solver: OneStepMethod, stages: np.ndarray, like: Tensor) -> StageAdjoint:
    adjoint = solver.adjoint(stages, like)
    if adjoint is None:
        raise NoShortcutError
    return adjoint
