"""The objective of learning to optimize with the stopping time in it (eq. 10 of arXiv 2505.22509), by segments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_choice, check_count, check_positive
from odestop.discrete.sensitivity import LastStep, Sensitivity, resolve_sensitivity
from odestop.l2o.step_map import LearnedStepMap


@dataclass(frozen=True)
class TrainingLoss:
    """E[Σ_k w_k f(x_k) + λ N_J] over k = 1, …, K, with w_k = 1/K and J = f(x_{k-1}) - f(x_k) ≤ ε (eq. 10).

    N_J is the first such k, as `odestop.criteria.StepDecrease` has it: with a sign, so that a step on which f rises
    stops the run.  Its derivative is that of a `Sensitivity` on the augmented state (x_k, x_{k-1}), for Definition 3

        ∂N/∂θ = -∂J(x_N, x_{N-1})/∂θ / (J(x_N, x_{N-1}) - J(x_{N-1}, x_{N-2})).

    A network can make this N small by wasting a step instead of arriving sooner.  With the criterion ``"value"``,
    J = f(x_k) ≤ ε, it cannot.

    A problem that does not stop within K steps counts N = K and contributes no gradient of N; nor does one that stops
    at the first J, which has none before it: that at k = 1 for the decrease, at k = 0 for the value.  All problems run
    for K steps whatever their N, since f(x_k) is summed to K.

    Backpropagation is truncated: each segment starts from a state that counts as a constant, and the λ N of a problem
    belongs to the segment in which it stops.

    Parameters
    ----------
    horizon
        K.
    segment
        Steps between truncations; the last segment may be shorter.
    stopping_weight
        λ ≥ 0.
    threshold
        ε ≥ 0.
    sensitivity
        ``"definition3"`` or ``"interpolated"`` (then N is the fractional N̂), or a `Sensitivity`.
    criterion
        J: ``"decrease"``, that of the paper, or ``"value"``.

    Raises
    ------
    ValueError
        If an argument is out of range, or the sensitivity needs a velocity dx/dt, which learned rules do not have.

    Examples
    --------
    >>> from odestop.l2o import RNNprop
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = RNNprop(hidden=4).optimizer(DiagonalQuadratic([1.0, 4.0]))
    >>> unroll = TrainingLoss(horizon=6, segment=3).start(step, torch.ones(5, 2))
    >>> while not unroll.finished:
    ...     unroll.advance().backward()
    >>> unroll.steps.shape, unroll.loss.shape
    (torch.Size([5]), torch.Size([5]))
    """

    horizon: int = 100
    segment: int = 20
    stopping_weight: float | int = 1.0
    threshold: float | int = 1e-5
    sensitivity: str | Sensitivity = "definition3"
    criterion: str = "decrease"

    def __post_init__(self) -> None:
        check_count("horizon", self.horizon)
        check_count("segment", self.segment)
        check_positive("stopping_weight", self.stopping_weight, allow_zero=True)
        check_positive("threshold", self.threshold, allow_zero=True)
        check_choice("criterion", self.criterion, ("decrease", "value"))
        if resolve_sensitivity(self.sensitivity).needs_velocity:
            raise ValueError(
                "sensitivity must be 'definition3' or 'interpolated' for a learned optimizer, which has no velocity "
                f"dx/dt, got {self.sensitivity!r}"
            )

    def start(self, step_map: LearnedStepMap, x0: Float[Tensor, "*batch d"]) -> Unroll:
        """Return the run of a batch of problems before its first segment."""
        return Unroll(self, step_map, x0)


class Unroll:
    """A batch of problems on its way through the segments.

    Attributes
    ----------
    steps
        N (or N̂) of each problem so far, shape (*batch,), without a graph; K where it has not stopped.
    stopped
        Which problems have stopped, shape (*batch,).
    mean_value
        Σ w_k f(x_k) so far, shape (*batch,), without a graph.
    value
        f of the last iterate, shape (*batch,), without a graph.
    """

    def __init__(self, settings: TrainingLoss, step_map: LearnedStepMap, x0: Float[Tensor, "*batch d"]) -> None:
        self.settings = settings
        self.step_map = step_map
        self._sensitivity = resolve_sensitivity(settings.sensitivity)
        self._k, self._x, self._memory = 0, x0.detach(), step_map.initial_memory(x0)
        with torch.no_grad():
            self.value = step_map.objective(self._x)
        self.mean_value = torch.zeros_like(self.value)
        self.steps = torch.full_like(self.value, settings.horizon)
        self.stopped = torch.zeros_like(self.value, dtype=torch.bool)
        self._running = torch.ones_like(self.stopped)
        # Without a J at k = 0, whoever stops at k = 1 has no gradient.
        self._first = 1
        self._criterion = torch.full_like(self.value, torch.finfo(self.value.dtype).max)
        if settings.criterion == "value":
            self._first, self._criterion = 0, self.value
            self.stopped = self.value <= settings.threshold
            self.steps = torch.where(self.stopped, 0.0, self.steps)
            self._running = ~self.stopped

    @property
    def finished(self) -> bool:
        """Whether all K steps are done."""
        return self._k >= self.settings.horizon

    @property
    def loss(self) -> Float[Tensor, "*batch"]:
        """The objective of each problem, Σ w_k f(x_k) + λ N, without a graph."""
        return self.mean_value + self.settings.stopping_weight * self.steps

    def advance(self) -> Float[Tensor, ""]:
        """Run one segment; return its part of the objective, averaged over the problems, with its graph.

        The parts sum up to the mean of `loss`, less λ K for each problem that never stops.
        """
        settings = self.settings
        x, memory = self._x, self._memory
        values = []
        for k in range(self._k, min(self._k + settings.segment, settings.horizon)):
            x, memory = self.step_map.advance(k, x, memory)
            values.append(self.step_map.objective(x))
        levels = torch.stack([self.value, *values])
        mean_value = levels[1:].sum(0) / settings.horizon
        stopping = self._stop(levels[1:] if settings.criterion == "value" else levels[:-1] - levels[1:])
        self._k += len(values)
        self._x, self._memory = x.detach(), tuple(part.detach() for part in memory)
        self.value, self.mean_value = levels[-1].detach(), self.mean_value + mean_value.detach()
        return mean_value.mean() + settings.stopping_weight * stopping.sum() / self.value.numel()

    def _stop(self, criterion: Float[Tensor, "segment *batch"]) -> Float[Tensor, "stopped"]:
        """Note which problems stop in this segment; return their N, differentiable where there is a J before."""
        ends = self._running & ~(criterion.detach() > self.settings.threshold)
        place, ending = ends.int().argmax(0, keepdim=True), ends.any(0)
        final = criterion.gather(0, place)[0]
        previous = torch.cat([self._criterion.unsqueeze(0), criterion[:-1]]).gather(0, place)[0]
        reached = ending & torch.isfinite(final.detach())
        count = (self._k + 1 + place[0]).to(final.dtype)
        self._running, self._criterion = self._running & ~ending, criterion[-1].detach()
        self.stopped |= reached
        self.steps = torch.where(reached, count, self.steps)
        crossing = reached & (count > self._first)
        fractional = self._with_gradient(count[crossing], previous[crossing], final[crossing])
        self.steps[crossing] = fractional.detach()
        return torch.cat([fractional, count[reached & ~crossing]])

    def _with_gradient(
        self, count: Float[Tensor, "stopped"], previous: Float[Tensor, "stopped"], final: Float[Tensor, "stopped"]
    ) -> Float[Tensor, "stopped"]:
        """Return N - 1 + s with the derivative -dp(s)/p'(s) of the sensitivity; its states are J itself."""
        threshold = torch.full_like(count, self.settings.threshold)
        step = LastStep(
            previous.unsqueeze(-1), final.unsqueeze(-1), previous.detach(), final.detach(), threshold, _only_entry
        )
        fraction = self._sensitivity.fraction(step)
        level = self._sensitivity.level(step, fraction)
        return count - 1 + fraction - (level - level.detach()) / self._sensitivity.slope(step, fraction)


def _only_entry(state: Tensor) -> Tensor:
    return state.squeeze(-1)
