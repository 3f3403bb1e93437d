"""The place where J meets the threshold on the last step, and what a change of anything does to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from odestop._functions import TrackedFunction
from odestop.discrete.adjoint import with_stand_ins
from odestop.discrete.sensitivity import LastStep, Sensitivity
from odestop.discrete.trajectory import StoppedRun
from odestop.status import StoppingStatus


@dataclass(frozen=True)
class Crossings:
    """The last steps of a finished run, of the trajectories that crossed.

    Attributes
    ----------
    run
        The run.
    threshold
        ε, shape (*batch,), without a graph.
    criterion
        J of a state.
    increment
        ``(index, state) -> h dx/dt`` at the time t0 + h · index, index of shape (*batch,), for step maps that have
        a velocity.
    sensitivity
        The model of J on the last step.
    parameters
        The parameters of the step map, which are those of ``increment`` too.
    """

    run: StoppedRun
    threshold: Float[Tensor, "*batch"]
    criterion: TrackedFunction
    increment: TrackedFunction | None
    sensitivity: Sensitivity
    parameters: tuple[Tensor, ...]

    def locate(self) -> Places:
        """Find s and p'(s); a crossing too flat for a gradient gets the status TANGENTIAL."""
        run = self.run
        crossed = run.codes == StoppingStatus.REACHED.code
        secant = run.final_value - run.previous_value
        if not bool(crossed.any()):
            return Places(torch.ones_like(secant), secant, crossed)
        with torch.no_grad():
            fraction = self.sensitivity.fraction(self._last_step(crossed))
        slope = secant
        if self.criterion.tracks_state:
            slope = self.sensitivity.slope(self._last_step(crossed, with_graph=True), fraction)
        flat = ~(slope <= torch.finfo(slope.dtype).eps ** 0.5 * secant)
        run.codes = torch.where(crossed & flat, StoppingStatus.TANGENTIAL.code, run.codes)
        return Places(torch.where(crossed, fraction, 1.0), slope, crossed & ~flat)

    def pull_back(self, places: Places, cotangent: Float[Tensor, "*batch"]) -> CrossingGradients:
        """Pull a cotangent of the step count back: dN̂ = (dε - dp(s)) / p'(s)."""
        if not self.criterion.tracks_state:
            raise RuntimeError(
                "criterion depends on x in a way that autograd does not see: it detaches x, or calls "
                "autograd inside without create_graph=True"
            )
        at_threshold = torch.where(places.usable, cotangent / places.slope, 0.0)
        step = self._last_step(places.usable, with_graph=True)
        with torch.enable_grad():
            level = self.sensitivity.level(step, self._stand_in(places.fraction, places.usable))
        # A tensor that the step map and the criterion share must not be counted twice.
        shared = {id(parameter) for parameter in self.criterion.parameters}
        own = [parameter for parameter in self.parameters if id(parameter) not in shared]
        inputs = (step.previous, step.final, *own, *self.criterion.parameters)
        gradients = torch.autograd.grad(level, inputs, -at_threshold, allow_unused=True)
        by_parameter = dict(zip(map(id, inputs), gradients, strict=True))
        return CrossingGradients(
            previous=gradients[0],
            final=torch.zeros_like(step.final) if gradients[1] is None else gradients[1],
            threshold=at_threshold,
            step_parameters=[None if id(p) in shared else by_parameter[id(p)] for p in self.parameters],
            criterion_parameters=[by_parameter[id(p)] for p in self.criterion.parameters],
        )

    def _last_step(self, healthy: Bool[Tensor, "*batch"], *, with_graph: bool = False) -> LastStep:
        """Return the last steps; trajectories that are not ``healthy`` get those of one that is."""
        run = self.run
        previous, final = (
            with_stand_ins(state, healthy, donor=_first(healthy)).detach().requires_grad_(with_graph)
            for state in (run.previous_state, run.final_state)
        )
        previous_value, final_value, threshold, count = (
            self._stand_in(value, healthy) for value in (run.previous_value, run.final_value, self.threshold, run.count)
        )
        increment: Callable[[Tensor, Tensor], Tensor] | None = None
        if self.increment is not None:
            of_index = self.increment.function if with_graph else self.increment.again
            increment = lambda s, x: of_index(count - 1 + s, x)  # noqa: E731
        criterion = self.criterion.function if with_graph else self.criterion.again
        return LastStep(previous, final, previous_value, final_value, threshold, criterion, increment)

    @staticmethod
    def _stand_in(values: Tensor, healthy: Bool[Tensor, "*batch"]) -> Tensor:
        return torch.where(healthy, values, values.reshape(-1)[_first(healthy)])


class Places(NamedTuple):
    """Where the trajectories cross, each entry of shape (*batch,).

    ``fraction`` and ``slope`` are s and p'(s); ``usable`` says where there is a crossing with a gradient.
    """

    fraction: Tensor
    slope: Tensor
    usable: Tensor


class CrossingGradients(NamedTuple):
    """What a cotangent of the step count becomes; None for what has no part."""

    previous: Tensor | None
    final: Tensor
    threshold: Tensor
    step_parameters: list[Tensor | None]
    criterion_parameters: list[Tensor | None]


def _first(where: Bool[Tensor, "*batch"]) -> int:
    return int(where.flatten().int().argmax())
