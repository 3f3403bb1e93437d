"""Gradient descent on a stopping time: of θ or of h, until it stops paying."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from odestop._validation import check_choice
from odestop.explorer.controls import problems
from odestop.explorer.modules import DTYPE, build
from odestop.explorer.scene import Scene, is_logarithmic, swept_parameter
from odestop.explorer.solving import Cancelled, in_words, most_steps, solve_flow, solve_steps, statuses
from odestop.status import StoppingStatus

MOST_FRAMES = 60
STEP_SIZE_RANGE = (1e-4, 1.0)

# Moves are fractions of the range, gains fractions of the value.
_LONGEST_MOVE, _SHORTEST_MOVE = 0.08, 1e-4
_LEAST_GAIN = 1e-4
_SUFFICIENT = 0.1


@dataclass(frozen=True)
class Frame:
    """One state of a descent.

    Attributes
    ----------
    scene
        With θ, or h, where the descent is.
    value
        T, or N̂: what falls.
    derivative
        Its derivative in θ or h there; nan where there is none.
    message
        What is happening, or why it ended.
    is_last
        Whether it ended.
    """

    scene: Scene
    value: float
    derivative: float
    message: str
    is_last: bool = False


@dataclass(frozen=True)
class _Point:
    """Where a descent is: the value there, its derivative in the coordinate, and how the run ended."""

    scene: Scene
    coordinate: float
    value: float
    derivative: float
    status: StoppingStatus


def descend(
    scene: Scene, quantity: str = "T", of: str = "theta", cancelled: Cancelled | None = None
) -> Iterator[Frame]:
    """Take gradient steps on θ or h that reduce T or N̂, each with a line search on the true value.

    A step goes along the derivative, at most 8 % of the range, and is halved until the value falls by a tenth of what
    the derivative promises: T never rises from frame to frame.  N falls with the derivative of N̂.

    Parameters
    ----------
    scene
        One without problems; the first threshold counts.
    quantity
        ``"T"`` or ``"N"``.
    of
        ``"theta"`` or ``"h"``, which goes from 1e-4 to 1.
    cancelled
        Asked between the evaluations of the dynamics.

    Yields
    ------
    Frame
        The start, every accepted step, and the end, whose message says why.

    Raises
    ------
    CancelledError
        Once ``cancelled`` says so.
    ValueError
        If ``quantity`` or ``of`` is none of these.

    Examples
    --------
    >>> frames = list(descend(Scene(dynamics="heavy-ball", parameter="friction", parameter_range=(0.1, 5.0))))
    >>> frames[-1].value < frames[0].value
    True
    """
    check_choice("quantity", quantity, ("T", "N"))
    check_choice("of", of, ("theta", "h"))
    if quantity == "T" and of == "h":
        raise ValueError("of must be 'theta' for T, which does not depend on h, got 'h'")
    yield from _Descent(scene, quantity, of, cancelled).frames()


class _Descent:
    """One descent, in the coordinate u that goes from 0 to 1 over the range."""

    def __init__(self, scene: Scene, quantity: str, of: str, cancelled: Cancelled | None) -> None:
        self._scene, self._quantity, self._of, self._cancelled = scene, quantity, of, cancelled
        self._low, self._high = map(float, STEP_SIZE_RANGE if of == "h" else scene.parameter_range)
        self._logarithmic = is_logarithmic(self._low, self._high)
        self._symbol = "h" if of == "h" else swept_parameter(scene).symbol

    def frames(self) -> Iterator[Frame]:
        start = self._scene.step_size if self._of == "h" else self._scene.theta
        here = self._evaluate(self._scene, self._coordinate(float(start)))
        rate = 0.5 * _LONGEST_MOVE / abs(here.derivative) if here.derivative else 0.0
        for _ in range(MOST_FRAMES):
            reason = self._reason_to_end(here)
            if reason:
                yield self._frame(here, reason, is_last=True)
                return
            yield self._frame(here, f"{self._quantity} = {here.value:.4g}")
            there, rate = self._step(here, rate)
            if there is None:
                yield self._frame(here, f"no smaller {self._quantity} close by: a minimum, or a jump", is_last=True)
                return
            gain, here = (here.value - there.value) / here.value, there
            if gain < 0.1 * _LEAST_GAIN:
                yield self._frame(here, "the last step gained less than 0.001 %", is_last=True)
                return
        yield self._frame(here, f"ended after {MOST_FRAMES} steps", is_last=True)

    def _reason_to_end(self, here: _Point) -> str:
        if here.value <= 0.0:
            return "the threshold is met at the start: nothing is left to gain"
        if not math.isfinite(here.derivative):
            return f"no derivative to follow: {in_words(here.status)}"
        if abs(here.derivative) * _LONGEST_MOVE < _LEAST_GAIN * here.value:
            return f"level: {self._symbol} hardly changes {self._quantity} here"
        outwards = here.coordinate <= 0.0 if here.derivative > 0 else here.coordinate >= 1.0
        return f"{self._symbol} is at the end of its range" if outwards else ""

    def _step(self, here: _Point, rate: float) -> tuple[_Point | None, float]:
        """Return the next point, None if there is none, and the rate to begin the next search with."""
        while True:
            move = -rate * here.derivative
            move = max(-_LONGEST_MOVE, min(_LONGEST_MOVE, move))
            if abs(move) < _SHORTEST_MOVE:
                return None, rate
            target = min(1.0, max(0.0, here.coordinate + move))
            value = self._value(target)
            promised = abs(here.derivative) * abs(target - here.coordinate)
            if value <= here.value - _SUFFICIENT * promised:
                return self._evaluate(self._at(target), target), 1.5 * rate
            rate = 0.5 * abs(move / here.derivative)

    def _coordinate(self, value: float) -> float:
        low, high, value = (math.log(x) if self._logarithmic else x for x in (self._low, self._high, value))
        return (value - low) / (high - low)

    def _at(self, coordinate: float) -> Scene:
        """Return the scene at a coordinate in [0, 1]."""
        low, high = self._low, self._high
        value = low * (high / low) ** coordinate if self._logarithmic else low + (high - low) * coordinate
        # Rounding may leave the range.
        value = min(high, max(low, value))
        return replace(self._scene, step_size=value) if self._of == "h" else self._scene.with_theta(value)

    def _value(self, coordinate: float) -> float:
        """Return T or N̂; inf where it cannot be asked."""
        scene = self._at(coordinate)
        if problems(scene):
            return math.inf
        with torch.no_grad():
            return float(self._solve(scene)[0])

    def _evaluate(self, scene: Scene, coordinate: float) -> _Point:
        quantity, variable, status = self._solve(scene)
        if status is not StoppingStatus.REACHED:
            slope = math.nan
        elif not quantity.requires_grad:
            slope = 0.0
        else:
            (gradient,) = torch.autograd.grad(quantity, variable, allow_unused=True, materialize_grads=True)
            slope = float(gradient) * self._stretch(float(variable.detach()))
        return _Point(scene, coordinate, float(quantity.detach()), slope, status)

    def _solve(self, scene: Scene) -> tuple[torch.Tensor, torch.Tensor, StoppingStatus]:
        """Return T or N̂, what it is differentiated in, and the status."""
        modules = build(scene)
        if self._quantity == "T":
            flow = solve_flow(scene, modules, modules.threshold, cancelled=self._cancelled)
            return flow.time, modules.theta, statuses(flow)[0]
        h = torch.tensor(scene.step_size, dtype=DTYPE, requires_grad=True)
        steps = solve_steps(
            modules.step_map(scene.step_map, h),
            modules.x0,
            modules.criterion,
            modules.threshold,
            sensitivity="interpolated",
            max_steps=most_steps(scene, scene.step_size),
            cancelled=self._cancelled,
        )
        return steps.steps, h if self._of == "h" else modules.theta, statuses(steps)[0]

    def _stretch(self, value: float) -> float:
        """Return dθ/du."""
        if self._logarithmic:
            return value * math.log(self._high / self._low)
        return self._high - self._low

    def _frame(self, here: _Point, message: str, *, is_last: bool = False) -> Frame:
        value = here.scene.step_size if self._of == "h" else here.scene.theta
        return Frame(here.scene, here.value, here.derivative / self._stretch(float(value)), message, is_last)
