"""What a step map and a criterion come to: one recurrence of plain functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from odestop._functions import PositionMap
from odestop._validation import check_dtype, check_state
from odestop.discrete.step_maps import StepMap, TimeStepMap


class Recurrence(NamedTuple):
    """x_{k+1} = step(k, x_k) from x_0 until J(x_k) ≤ ε, with the first J at k = ``first_test``.

    Attributes
    ----------
    start
        x_0, shape (*batch, m).
    step
        ``(k, x) -> x``.
    criterion
        J of a state.
    increment
        ``(index, x) -> h dx/dt`` at the time t0 + h · index, with index of shape (*batch,); None for step maps
        without a velocity.
    step_map_state
        The state of the user's step map in x.
    first_test
        0, or 1 for criteria that need an iterate before.
    """

    start: Float[Tensor, "*batch m"]
    step: Callable[[int, Tensor], Tensor]
    criterion: Callable[[Tensor], Tensor]
    increment: Callable[[Tensor, Tensor], Tensor] | None
    step_map_state: Callable[[Tensor], Tensor]
    first_test: int


def recurrence_of(step_map: StepMap, criterion: Callable[[Tensor], Tensor], x0: Tensor, t0: Tensor) -> Recurrence:
    """Return the recurrence of a step map from x0; ``t0`` is told to a `TimeStepMap`.

    Raises
    ------
    ValueError
        If the step map turns x0 into no state.
    """
    position = position_of(step_map)
    # The functions may hold no tensor but parameters: what their closures hold counts as such.
    return Recurrence(
        start=_initial_state(step_map, x0),
        step=partial(step_map, t0=t0) if isinstance(step_map, TimeStepMap) else step_map,
        criterion=lambda state: criterion(position(state)),
        increment=_increment(step_map, t0) if isinstance(step_map, TimeStepMap) else None,
        step_map_state=_identity,
        first_test=0,
    )


def position_of(step_map: StepMap) -> Callable[[Tensor], Tensor]:
    """Return the map from a state to the point that the criterion sees."""
    return PositionMap(getattr(step_map, "position", _identity))


def _increment(step_map: TimeStepMap, t0: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def increment(index: Tensor, state: Tensor) -> Tensor:
        time = t0 + step_map.step_size.to(index.dtype) * index
        return step_map.increment(step_map.velocity(0, state, t0=time)).to(state.dtype)

    return increment


def _identity(state: Tensor) -> Tensor:
    return state


def _initial_state(step_map: StepMap, x0: Tensor) -> Tensor:
    state = check_state("initial_state(x0)", getattr(step_map, "initial_state", _identity)(x0))
    check_dtype("initial_state", state, x0.dtype)
    if state.shape[:-1] != x0.shape[:-1]:
        raise ValueError(
            f"initial_state must return shape (*batch, m) with the batch shape {tuple(x0.shape[:-1])} of x0, "
            f"got {tuple(state.shape)}"
        )
    return state
