"""Bracketed searches for many scalar functions at once: a root, and a point of a dip below zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Function = Callable[[Array], Array]

_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)


def bracketed_root(
    function: Function, low: Array, high: Array, low_value: Array, high_value: Array, tolerance: float
) -> Array:
    """Root of each ``function`` between ``low`` and ``high``, where its values have opposite signs.

    Chandrupatla's method (1997): inverse quadratic interpolation where it is safe, bisection elsewhere, so that at
    most about twice the bisection count is ever needed.

    Parameters
    ----------
    function
        Maps an array of points to the array of values, entry by entry.
    low, high, low_value, high_value
        Brackets and the values there, shape (n,).
    tolerance
        Absolute width of the final brackets.

    Returns
    -------
    Array
        The end of each final bracket with the smaller value.
    """
    # a: newest point, b: other end of the bracket, c: the point before.
    a, b, c = high.copy(), low.copy(), low.copy()
    fa, fb, fc = high_value.copy(), low_value.copy(), low_value.copy()
    fraction = np.full_like(a, 0.5)
    for _ in range(200):
        if np.all((np.abs(b - a) <= tolerance) | (fa == 0.0)):
            break
        x = a + fraction * (b - a)
        fx = function(x)
        same_side = np.sign(fx) == np.sign(fa)
        c, fc = np.where(same_side, a, b), np.where(same_side, fa, fb)
        b, fb = np.where(same_side, b, a), np.where(same_side, fb, fa)
        a, fa = x, fx
        fraction = _chandrupatla_fraction(a, b, c, fa, fb, fc, tolerance)
    return np.where(np.abs(fa) <= np.abs(fb), a, b)


def _chandrupatla_fraction(a: Array, b: Array, c: Array, fa: Array, fb: Array, fc: Array, tolerance: float) -> Array:
    """Where to look next, as a fraction of the way from a to b."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        xi = (a - b) / (c - b)
        phi = (fa - fb) / (fc - fb)
        safe = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
        interpolated = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        margin = np.minimum(0.5 * tolerance / np.abs(b - a), 0.5)
    fraction = np.where(safe & np.isfinite(interpolated), interpolated, 0.5)
    return np.clip(fraction, margin, 1.0 - margin)


def dip_below_zero(
    function: Function, start: float, stop: float, low_value: Array, high_value: Array, wanted: Array
) -> Array:
    """Search each ``function`` on [start, stop], given its end values, for a point where it is not positive.

    Golden-section search for the minimum, given up where the values at hand bound the minimum away from zero (for a
    function that is convex near its minimum).

    Returns
    -------
    Array
        A point with a value of at most zero; nan where none was found or ``wanted`` is False.
    """
    low, high = np.full_like(low_value, start), np.full_like(high_value, stop)
    outer_low, outer_high = low_value.copy(), high_value.copy()
    found = np.full_like(low_value, np.nan)
    searching = wanted.copy()
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    left_value, right_value = function(left), function(right)
    for _ in range(40):
        for point, value in ((right, right_value), (left, left_value)):
            found = np.where(searching & (value <= 0.0), point, found)
        lowest = np.fmin(left_value, right_value)
        hopeless = lowest > np.fmax(outer_low, outer_high) - lowest
        searching &= np.isnan(found) & ~hopeless
        if not searching.any():
            break
        go_left = left_value < right_value
        high, outer_high = np.where(go_left, right, high), np.where(go_left, right_value, outer_high)
        low, outer_low = np.where(go_left, low, left), np.where(go_left, outer_low, left_value)
        new = np.where(go_left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        new_value = function(new)
        left, right = np.where(go_left, new, right), np.where(go_left, left, new)
        left_value, right_value = (
            np.where(go_left, new_value, right_value),
            np.where(go_left, left_value, new_value),
        )
    return found
