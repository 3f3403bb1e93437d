"""One step of gradient descent on N in one hyperparameter, with the safeguards that may be asked for."""

from __future__ import annotations

import math
import warnings


def updated(
    value: float,
    rate: float,
    sensitivity: float,
    *,
    lower: float = 0.0,
    upper: float = math.inf,
    reparametrize: bool = False,
    max_relative_change: float | None = None,
) -> float | None:
    """Return θ - η S, or what the safeguards make of it; None, and perhaps a warning, if that is no update.

    Parameters
    ----------
    value, rate, sensitivity
        θ, η and S.
    lower, upper
        θ must stay between them, and reach neither.
    reparametrize
        Whether the descent is in the coordinate u = ln(θ - lower), or u = ln((θ - lower) / (upper - θ)) where ``upper``
        is finite: u ← u - η S dθ/du.
    max_relative_change
        c, so that |change of u| ≤ ln(1 + c); None for no bound.
    """
    if rate == 0 or not lower < value < upper:
        return None
    finite = math.isfinite(upper)
    span = upper - lower
    coordinate = math.log(value - lower) - (math.log(upper - value) if finite else 0.0)

    def place(u: float) -> float:
        if finite:
            return lower + span * 0.5 * (1 + math.tanh(u / 2))
        # Beyond 709 the exponential overflows.
        return lower + math.exp(u) if u < 709 else math.inf

    if reparametrize:
        slope = (value - lower) * (upper - value) / span if finite else value - lower
        new = place(coordinate - rate * sensitivity * slope)
    else:
        new = value - rate * sensitivity
    if max_relative_change is not None:
        reach = math.log1p(max_relative_change)
        new = min(max(new, place(coordinate - reach)), place(coordinate + reach))
    if lower < new < upper:
        return new
    if math.isfinite(new):
        # The same words every time, so that Python shows them once.
        warnings.warn(
            "an update would have taken a hyperparameter out of its range, such as a rate to zero or below, and was "
            "left out; lower the adaptation rate, or adapt the logarithm",
            RuntimeWarning,
            stacklevel=2,
        )
    return None
