"""Where functions of s in (0, 1] fall through zero, for a whole batch at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_SCAN = (0.25, 0.5, 0.75)
# Every third point is a bisection, so that this is enough to halve any bracket down to rounding.
_MOST_EVALUATIONS = 170


def falling_root(
    function: Callable[[Tensor], Tensor],
    value_at_0: Float[Tensor, "*batch"],
    value_at_1: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """Find s with function(s) = 0 to rounding, given function(0) > 0 ≥ function(1), entry by entry.

    A scan in quarters picks the first of several roots that are far enough apart; the regula falsi with
    Illinois' remedy against stalling, and bisections in between, closes in on it.

    Parameters
    ----------
    function
        Maps points to values, both of shape (*batch,).
    value_at_0, value_at_1
        Its values at the ends.

    Returns
    -------
    Tensor
        The upper end of the last bracket, in (0, 1], where the function is not positive.
    """
    low, high = torch.zeros_like(value_at_0), torch.ones_like(value_at_1)
    low_value, high_value = value_at_0, value_at_1
    found = torch.zeros_like(low, dtype=torch.bool)
    for position in _SCAN:
        point = torch.full_like(low, position)
        value = function(point)
        above = value > 0
        low, low_value = _replace(~found & above, (point, value), (low, low_value))
        high, high_value = _replace(~found & ~above, (point, value), (high, high_value))
        found |= ~above
    resolution = 2 * torch.finfo(low.dtype).eps
    was_above = torch.zeros_like(found)
    for evaluation in range(_MOST_EVALUATIONS):
        width = high - low
        if bool(((width <= resolution) | (high_value == 0)).all()):
            break
        bisect = evaluation % 3 == 2
        share = torch.full_like(low, 0.5) if bisect else low_value / (low_value - high_value)
        point = low + width * torch.nan_to_num(share, nan=0.5)
        value = function(point)
        above = value > 0
        # An end that stays twice pretends to be closer to zero, which draws the next point over the root.
        low_value = torch.where(above, value, torch.where(was_above, low_value, 0.5 * low_value))
        high_value = torch.where(above, torch.where(was_above, 0.5 * high_value, high_value), value)
        low, high = torch.where(above, point, low), torch.where(above, high, point)
        was_above = above
    return high


def _replace(where: Tensor, new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.where(where, new[0], old[0]), torch.where(where, new[1], old[1])
