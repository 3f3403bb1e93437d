"""The two solvers as the explorer calls them: with budgets, so that every scene ends, and with a way to give up."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor, nn

import odestop
from odestop.continuous import ContinuousSolution
from odestop.discrete import DiscreteSolution, StepMap
from odestop.explorer.modules import Modules
from odestop.explorer.scene import Scene
from odestop.status import StoppingStatus, TangencyWarning

RTOL, ATOL = 1e-6, 1e-8
"""Tolerances of the trajectory, and of the T and dT/dθ that are printed beside it."""

CURVE_RTOL, CURVE_ATOL = 1e-4, 1e-6
"""Tolerances of curves that are only drawn."""

FLOW_BUDGET, STEP_BUDGET = 1_000, 5_000
"""Steps of the ODE solver and of a step map, for the trajectories of one θ."""

CURVE_FLOW_BUDGET, CURVE_STEP_BUDGET = 600, 3_000
"""The same for all θ of a curve together."""

Cancelled = Callable[[], bool]


Kept = TypeVar("Kept")


class Store(Generic[Kept]):
    """The last few results by what they depend on; several threads may use it.

    Parameters
    ----------
    size
        How many are kept.
    """

    def __init__(self, size: int = 16) -> None:
        self._size = size
        self._results: OrderedDict[Hashable, Kept] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, compute: Callable[[], Kept]) -> Kept:
        """Return the result of a key, computed if it is not kept; errors are not kept."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        result = compute()
        with self._lock:
            self._results[key] = result
            while len(self._results) > self._size:
                self._results.popitem(last=False)
        return result


class CancelledError(Exception):
    """Whoever asked does not want the answer any more."""


class _Watch:
    """A hook of a module that asks before every call whether to go on."""

    # Without a __dict__, so that nobody looks for tensors behind it.
    __slots__ = ("_cancelled",)

    def __init__(self, cancelled: Cancelled) -> None:
        self._cancelled = cancelled

    def __call__(self, module: nn.Module, arguments: object) -> None:
        if self._cancelled():
            raise CancelledError("the result is not wanted any more")


@contextmanager
def watched(module: object, cancelled: Cancelled | None) -> Iterator[None]:
    """Raise `CancelledError` from the calls of a module once ``cancelled`` says so; statuses tell of tangencies."""
    handle = None
    if cancelled is not None and isinstance(module, nn.Module):
        handle = module.register_forward_pre_hook(_Watch(cancelled))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TangencyWarning)
            yield
    finally:
        if handle is not None:
            handle.remove()


def solve_flow(
    scene: Scene,
    modules: Modules,
    thresholds: Tensor,
    *,
    levels: bool = False,
    rtol: float | int = RTOL,
    atol: float | int = ATOL,
    max_steps: int = FLOW_BUDGET,
    cancelled: Cancelled | None = None,
) -> ContinuousSolution:
    """Return T of a scene's flow for one trajectory or a batch."""
    with watched(modules.flow, cancelled):
        return odestop.continuous_stopping_time(
            modules.flow,
            modules.x0,
            modules.criterion,
            thresholds,
            levels=levels,
            t_max=scene.horizon,
            method=scene.method,
            rtol=rtol,
            atol=atol,
            max_steps=max_steps,
        )


def solve_steps(
    step_map: StepMap,
    x0: Tensor,
    criterion: Callable[[Tensor], Tensor],
    thresholds: Tensor,
    *,
    sensitivity: str,
    max_steps: int,
    cancelled: Cancelled | None = None,
) -> DiscreteSolution:
    """Return N of a step map, for one trajectory or a batch."""
    with watched(step_map, cancelled):
        return odestop.discrete_stopping_time(
            step_map, x0, criterion, thresholds, sensitivity=sensitivity, max_steps=max_steps
        )


def most_steps(scene: Scene, step_size: float | int, budget: int = STEP_BUDGET) -> int:
    """Return how many steps of a size the horizon and the budget allow, at least one."""
    return max(1, min(budget, int(scene.horizon / step_size)))


def statuses(solution: ContinuousSolution | DiscreteSolution) -> list[StoppingStatus]:
    """Return the statuses of all trajectories and levels, in one list."""
    return list(np.asarray(solution.status, dtype=object).reshape(-1))


def in_words(status: StoppingStatus, *, steps: bool = False) -> str:
    """Return what a status means; of the steps of a step map that ran out, that they did."""
    if steps and status is StoppingStatus.MAX_STEPS:
        return "their horizon or budget came before the threshold"
    return status.value
