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
from odestop.discrete.adjoint import discrete_adjoint, with_stand_ins
from odestop.discrete.pullback import pull_back
from odestop.discrete.sensitivity import Sensitivity
from odestop.discrete.solution import DiscreteStats
from odestop.discrete.trajectory import StoppedRun
from odestop.status import StoppingStatus, statuses_reached


@dataclass(frozen=True)
class StoppingSteps:
    """A finished run and the functions that produced it: all that its gradient needs."""

    run: StoppedRun
    step: TrackedFunction
    criterion: TrackedFunction
    sensitivity: Sensitivity
    stats: DiscreteStats

    def attach(
        self, initial_state: Float[Tensor, "*batch m"], threshold: Float[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch m"]]:
        """Return the step count and x_N as differentiable tensors."""
        return _AttachGradient.apply(self, initial_state, threshold, *self.step.parameters, *self.criterion.parameters)

    def steps(self, threshold: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Step count of each trajectory: 0 where the start will do, +inf where nothing does."""
        run = self.run
        steps = self.sensitivity.steps(run.count, run.previous_value, run.final_value, threshold)
        steps = torch.where(run.codes == StoppingStatus.ALREADY_SATISFIED.code, 0.0, steps)
        return torch.where(statuses_reached(run.codes), steps, torch.inf)

    def pull_back(
        self,
        steps_cotangent: Tensor | None,
        state_cotangent: Tensor | None,
        threshold: Float[Tensor, "*batch"],
        needed: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        """Gradients of x_0, the threshold, the step map's parameters and the criterion's parameters."""
        run, number = self.run, len(self.step.parameters)
        final, previous = torch.zeros_like(run.final_state), None
        threshold_gradient: Tensor | None = None
        criterion_gradients: Sequence[Tensor | None] = [None] * len(self.criterion.parameters)
        if steps_cotangent is not None and bool((run.codes == StoppingStatus.REACHED.code).any()):
            crossing = self._through_crossing(steps_cotangent, threshold)
            final, previous, threshold_gradient, criterion_gradients = crossing
        if state_cotangent is not None:
            succeeded = statuses_reached(run.codes).unsqueeze(-1)
            final = final + torch.where(succeeded, state_cotangent, 0.0)
        initial_gradient: Tensor | None = None
        step_gradients: Sequence[Tensor | None] = [None] * number
        if needed[0] or any(needed[2 : 2 + number]):
            initial_gradient, step_gradients = discrete_adjoint(
                self.step.function,
                run.trajectory,
                final,
                self.step.parameters,
                steps=run.count,
                previous_cotangent=previous,
            )
            self.stats.vjps += int(run.count.max())
        return initial_gradient, threshold_gradient, *step_gradients, *criterion_gradients

    def _through_crossing(
        self, cotangent: Tensor, threshold: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor, list[Tensor]]:
        """Cotangents of x_N, x_{N-1}, the threshold and the criterion's parameters from one of N."""
        run = self.run
        crossed = run.codes == StoppingStatus.REACHED.code
        weights = self.sensitivity.weights(run.previous_value, run.final_value, threshold)
        at_final = torch.where(crossed, weights.final * cotangent, 0.0)
        at_threshold = torch.where(crossed, weights.threshold * cotangent, 0.0)
        final, gradients = self._through_criterion(run.final_state, crossed, at_final)
        if weights.previous is None:
            return final, None, at_threshold, gradients
        at_previous = torch.where(crossed, weights.previous * cotangent, 0.0)
        previous, more = self._through_criterion(run.previous_state, crossed, at_previous)
        return final, previous, at_threshold, [a + b for a, b in zip(gradients, more, strict=True)]

    def _through_criterion(self, states: Tensor, crossed: Tensor, cotangent: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pull cotangents of J to its states and its parameters."""
        if not self.criterion.tracks_state:
            raise RuntimeError(
                "criterion depends on x in a way that autograd does not see: it detaches x, or calls "
                "autograd inside without create_graph=True"
            )
        states = with_stand_ins(states, crossed, donor=int(crossed.flatten().int().argmax()))
        pulled, gradients = pull_back(self.criterion.function, states, self.criterion.parameters, cotangent)
        return torch.zeros_like(states) if pulled is None else pulled, gradients


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
        return answer.steps(threshold), answer.run.final_state.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        _, threshold, *_ = ctx.saved_tensors
        return None, *ctx.answer.pull_back(*cotangents, threshold=threshold, needed=ctx.needs_input_grad[1:])
