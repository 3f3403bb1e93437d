"""The step count as a tensor with a gradient: the sensitivity at the crossing, then Algorithm 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from odestop._functions import TrackedFunction
from odestop.discrete.adjoint import differentiated_steps, discrete_adjoint
from odestop.discrete.crossing import Crossings, Places
from odestop.discrete.solution import DiscreteStats
from odestop.discrete.trajectory import StoppedRun
from odestop.status import StoppingStatus, statuses_reached


@dataclass(frozen=True)
class StoppingSteps:
    """A finished run and the functions that produced it: all that its gradient needs."""

    run: StoppedRun
    step: TrackedFunction
    criterion: TrackedFunction
    crossings: Crossings
    places: Places
    stats: DiscreteStats
    backward_steps: int | None = None

    def attach(
        self, initial_state: Float[Tensor, "*batch m"], threshold: Float[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch m"]]:
        """Return the step count and x_N as differentiable tensors."""
        return _AttachGradient.apply(self, initial_state, threshold, *self.step.parameters, *self.criterion.parameters)

    def steps(self) -> Float[Tensor, "*batch"]:
        """Step count of each trajectory: N where the first J will do, +inf where nothing does."""
        run, count = self.run, self.run.count.to(self.run.final_value.dtype)
        crossed = run.codes != StoppingStatus.ALREADY_SATISFIED.code
        steps = torch.where(crossed, count - 1 + self.places.fraction, count)
        return torch.where(statuses_reached(run.codes), steps, torch.inf)

    def pull_back(
        self,
        steps_cotangent: Tensor | None,
        state_cotangent: Tensor | None,
        needed: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x_0, the threshold, the step map's parameters and the criterion's parameters."""
        run, number = self.run, len(self.step.parameters)
        final, previous = torch.zeros_like(run.final_state), None
        initial_gradient: Tensor | None = None
        threshold_gradient: Tensor | None = None
        step_gradients: Sequence[Tensor | None] = [None] * number
        criterion_gradients: Sequence[Tensor | None] = [None] * len(self.criterion.parameters)
        direct_gradients = step_gradients
        if steps_cotangent is not None and bool(self.places.usable.any()):
            previous, final, threshold_gradient, direct_gradients, criterion_gradients = self.crossings.pull_back(
                self.places, steps_cotangent
            )
        if state_cotangent is not None:
            succeeded = statuses_reached(run.codes).unsqueeze(-1)
            final = final + torch.where(succeeded, state_cotangent, 0.0)
        if needed[0] or any(needed[2 : 2 + number]):
            initial_gradient, step_gradients = discrete_adjoint(
                self.step.function,
                run.trajectory,
                final,
                self.step.parameters,
                steps=run.count,
                previous_cotangent=previous,
                backward_steps=self.backward_steps,
            )
            step_gradients = [
                indirect if direct is None else indirect + direct
                for indirect, direct in zip(step_gradients, direct_gradients, strict=True)
            ]
            self.stats.vjps += len(differentiated_steps(run.count, self.backward_steps))
            self.stats.peak_bytes = run.trajectory.peak_bytes
            self.stats.recomputed_steps = run.trajectory.recomputed_steps
        return initial_gradient, threshold_gradient, *step_gradients, *criterion_gradients


class _AttachGradient(torch.autograd.Function):
    """Hands a finished run to autograd, with `StoppingSteps.pull_back` as its backward."""

    @staticmethod
    def forward(
        ctx: Any, answer: StoppingSteps, initial_state: Tensor, threshold: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.answer = answer
        ctx.set_materialize_grads(False)
        # Saved for autograd's own check that nothing was changed in place before the backward pass.
        ctx.save_for_backward(initial_state, threshold, *parameters)
        # A fresh tensor: x_N may be x_0 itself, and an input must not be returned as an output.
        return answer.steps(), answer.run.final_state.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.saved_tensors  # noqa: B018 - reading them is the check
        return None, *ctx.answer.pull_back(*cotangents, needed=ctx.needs_input_grad[1:])
