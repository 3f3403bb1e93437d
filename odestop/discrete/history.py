"""Criteria that look back: the recurrence of the augmented state z_k = (x_k, x_{k-1})."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._validation import check_shape
from odestop.criteria import HistoryCriterion
from odestop.discrete.recurrence import Recurrence


def with_history(
    recurrence: Recurrence, criterion: HistoryCriterion, position: Callable[[Tensor], Tensor]
) -> Recurrence:
    """Return the recurrence of z_k = (x_k, x_{k-1}); there is no x_{-1}, so that J begins at k = 1.

    Parameters
    ----------
    recurrence
        That of x_k; its own criterion is not used.
    criterion
        J of the positions of x_k and x_{k-1}.
    position
        From a state x_k to its position.
    """
    # Only these, not the start, may be in the closures below: what they hold counts as parameters.
    step, increment = recurrence.step, recurrence.increment

    def step_pair(k: int, pair: Tensor) -> Tensor:
        state = _latest(pair)
        following = check_shape("step_map", step(k, state), state.shape, "the shape of the state")
        return torch.cat([following, state], dim=-1)

    def value(pair: Tensor) -> Tensor:
        state, previous = pair.chunk(2, dim=-1)
        return criterion(position(state), position(previous))

    def increment_pair(index: Tensor, pair: Tensor) -> Tensor:
        assert increment is not None
        state, previous = pair.chunk(2, dim=-1)
        return torch.cat([increment(index, state), increment(index - 1, previous)], dim=-1)

    return Recurrence(
        start=torch.cat([recurrence.start, recurrence.start], dim=-1),
        step=step_pair,
        criterion=value,
        increment=None if increment is None else increment_pair,
        step_map_state=_latest,
        first_test=1,
    )


def _latest(pair: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
    return pair.chunk(2, dim=-1)[0]
