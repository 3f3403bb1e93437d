"""Values for the axes of a grid."""

from __future__ import annotations

import numpy as np


def geometric(first: float, last: float, count: int) -> tuple[float, ...]:
    """Return ``count`` numbers in geometric progression, to four digits.

    Examples
    --------
    >>> geometric(0.1, 1.6, 5)
    (0.1, 0.2, 0.4, 0.8, 1.6)
    """
    return tuple(float(f"{value:.4g}") for value in np.geomspace(first, last, count))
