"""The forward run: step until J meets the threshold (Def. 2), and keep what the gradient needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from odestop._functions import TrackedFunction
from odestop._validation import check_dtype, check_shape
from odestop.discrete.checkpoints import Record, Retrace
from odestop.status import StoppingStatus


@dataclass
class StoppedRun:
    """A finished forward run of a batch of independent trajectories; nothing in it has a graph.

    Attributes
    ----------
    codes
        Status codes, shape (*batch,).
    count
        N, shape (*batch,); 0 for a trajectory that was not stopped by the threshold.
    final_state, final_value
        x_N and J(x_N), shapes (*batch, m) and (*batch,); the last finite iterate of a trajectory that failed.
    previous_state, previous_value
        x_{N-1} and J(x_{N-1}); the start where N = 0.
    moves
        Steps after which a trajectory stands still, shape (*batch,).
    trajectory
        Record of x_0, …, x_{max N - 1}, stopped trajectories standing still; empty if no step needs a gradient.
    first_test
        The first k with a J.
    """

    codes: Int[Tensor, "*batch"]
    count: Int[Tensor, "*batch"]
    final_state: Float[Tensor, "*batch m"]
    final_value: Float[Tensor, "*batch"]
    previous_state: Float[Tensor, "*batch m"]
    previous_value: Float[Tensor, "*batch"]
    moves: Int[Tensor, "*batch"]
    trajectory: Record
    first_test: int

    @staticmethod
    def start(
        state: Float[Tensor, "*batch m"], value: Float[Tensor, "*batch"], record: Record, first_test: int
    ) -> StoppedRun:
        """Return the run in which nothing has stopped yet, so that the step budget is all that can end it."""
        count = torch.zeros(value.shape, dtype=torch.int64, device=value.device)
        never = torch.full_like(count, torch.iinfo(torch.int64).max)
        codes = count + StoppingStatus.MAX_STEPS.code
        return StoppedRun(codes, count, state, value, state, value, never, record, first_test)

    def stop(
        self,
        k: int,
        stopped: Bool[Tensor, "*batch"],
        reached: Bool[Tensor, "*batch"],
        previous_state: Float[Tensor, "*batch m"],
        previous_value: Float[Tensor, "*batch"],
    ) -> None:
        """Write down how the trajectories that stopped at iterate ``k`` ended."""
        success = StoppingStatus.REACHED if k > self.first_test else StoppingStatus.ALREADY_SATISFIED
        ending = torch.where(reached, success.code, StoppingStatus.NON_FINITE.code)
        self.codes = torch.where(stopped, ending, self.codes)
        self.count = torch.where(reached, k, self.count)
        # A trajectory that failed is put back to the iterate before.
        self.moves = torch.where(stopped, torch.where(reached, k, max(k - 1, 0)), self.moves)
        self.previous_state = torch.where(reached.unsqueeze(-1), previous_state, self.previous_state)
        self.previous_value = torch.where(reached, previous_value, self.previous_value)


def run_until_stopped(
    step: TrackedFunction,
    criterion: TrackedFunction,
    initial_state: Float[Tensor, "*batch m"],
    threshold: Float[Tensor, "*batch"],
    max_steps: int,
    record: Record,
    first_test: int = 0,
) -> StoppedRun:
    """Iterate ``state = step(k, state)`` until J(state) ≤ ε at a k ≥ ``first_test``, each trajectory with its own N.

    The iterates go into ``record`` if a step needs a gradient.  J is evaluated once per iterate, on the very tensor
    that the step map gets next: both can share ∇f.
    """
    state, threshold = initial_state.detach(), threshold.detach()
    value = criterion.probe(state)
    check_shape("criterion", value, state.shape[:-1], "one value per trajectory")
    check_dtype("criterion", value, state.dtype)
    if first_test > 0:
        # No J yet: above any threshold.
        value = torch.full_like(value, torch.finfo(value.dtype).max)
    run = StoppedRun.start(state, value, record, first_test)
    running = torch.ones_like(value, dtype=torch.bool)
    previous_state, previous_value = state, value
    infinity = torch.full_like(value, torch.inf)
    everyone_runs = True
    recording = False
    for k in range(max_steps + 1):
        # A sum is the cheapest look at a whole state; finite entries may overflow it, hence the second look.
        continuing = (value > threshold) & ((state.sum(-1) + value).abs() < infinity)
        if not everyone_runs:
            continuing &= running
        # The one host synchronisation of a step; what it guards happens once per event.
        if not torch.equal(continuing, running):
            finite = torch.isfinite(state).all(-1) & torch.isfinite(value)
            stopped = running & ~((value > threshold) & finite)
            reached = stopped & finite
            run.stop(k, stopped, reached, previous_state, previous_value)
            state = torch.where((stopped & ~reached).unsqueeze(-1), previous_state, state)
            running &= ~stopped
            everyone_runs = bool(running.all())
            if not bool(running.any()):
                if k == 0:
                    # Nothing steps, but the zero gradient must still reach the step map's parameters.
                    step.learn(0, state)
                break
        if k == max_steps:
            break
        previous_state, previous_value = state, value
        proposed = step(k, state) if k > 0 else _first_step(step, state)
        if k == 0:
            recording = torch.is_grad_enabled() and (initial_state.requires_grad or bool(step.parameters))
        if recording:
            record.append(state, None if everyone_runs else running)
        state = proposed if everyone_runs else torch.where(running.unsqueeze(-1), proposed, state)
        value = criterion(state)
    run.final_state, run.final_value = state, value
    # Beyond the last success there is nothing to differentiate.
    record.finish(int(run.count.max()), _retrace(step, run.moves))
    return run


def _retrace(step: TrackedFunction, moves: Int[Tensor, "*batch"]) -> Retrace:
    """Return how to repeat a step of the run, bit by bit."""
    shortest = int(moves.min())

    def retrace(k: int, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        # The first step was taken with a graph, which may choose other kernels.
        proposed = step.again(k, state) if k > 0 else step.with_graph(0, state.detach().requires_grad_()).detach()
        return proposed if k < shortest else torch.where((moves > k).unsqueeze(-1), proposed, state)

    return retrace


def _first_step(step: TrackedFunction, state: Tensor) -> Tensor:
    proposed = step.probe(0, state)
    check_shape("step_map", proposed, state.shape, "the shape of the state")
    return check_dtype("step_map", proposed, state.dtype)
