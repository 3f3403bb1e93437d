"""Stability polynomials of order four with long real intervals, for stabilised methods of many stages.

A method of order four with s stages multiplies a mode with hλ = z by a polynomial R(z) = e^z + O(z⁵) of degree s.  For
|R| ≤ η on as long a real interval [-ℓ, 0) as possible it is sought as R = w·P: w of degree 4 has two pairs of complex
zeros, and P of degree s - 4 belongs to the polynomials that are orthogonal with the weight w²/√(1 - x²), for which w·P
nearly equioscillates and which obey a three-term recurrence (Abdulle & Medovikov, 2001; Abdulle, 2002).  Here the
zeros are those that maximise ℓ; ``python -m odestop.solvers.stability_polynomials`` finds them and prints the module
`odestop.solvers.stability_zeros`.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Zeros = tuple[float, float, float, float, float]

DAMPING = 0.8
"""η: bound on |R| on the interval, away from 0."""

_FIRST_GUESS = (20, (1.7, 21.2, 14.9, 7.9, 0.0))
_MOST_STAGES = 240
_SEPARATE_PEAKS = 8
_SAMPLES_PER_STAGE = 16


class StabilityPolynomial:
    """R = w·P of degree ``stages``, in x = a + z (1 + a)/ℓ, which takes [-ℓ, 0] to [-1, a].

    Parameters
    ----------
    stages
        Degree s ≥ 5.
    zeros
        (p, q, p', q', c): the zeros of w are a - (p ± iq)/s² and a - (p' ± iq')/s², and a = 1 + c/s².

    Attributes
    ----------
    origin
        a.
    weight
        Coefficients of 1, x - a, … in w, which is 1 at a, shape (5,).
    recurrence
        (r, ν, κ) of P_{j+1} = (r (x - a) + ν) P_j + κ P_{j-1}, with P_j(a) = 1, for j < s - 4, shape (s - 4, 3).
    taylor
        Coefficients of 1, x - a, … up to the fourth power in R, shape (5,).

    Examples
    --------
    >>> from odestop.solvers.stability_polynomials import StabilityPolynomial
    >>> from odestop.solvers.stability_zeros import ZEROS
    >>> polynomial = StabilityPolynomial(20, ZEROS[20])
    >>> bool(polynomial.interval > 0.33 * 20**2)
    True
    """

    def __init__(self, stages: int, zeros: Zeros | Array) -> None:
        p, q, p2, q2, c = np.asarray(zeros, dtype=float) / stages**2
        self.stages, self.origin = stages, 1.0 + c
        self.weight = np.convolve(_quadratic(p, q), _quadratic(p2, q2))
        self._orthogonalise()

    def _orthogonalise(self) -> None:
        """Stieltjes procedure, on the Gauss nodes of 1/√(1 - x²)."""
        nodes = self.stages + 10
        x = np.cos((2 * np.arange(nodes) + 1) * np.pi / (2 * nodes)) - self.origin
        measure = np.polynomial.polynomial.polyval(x, self.weight) ** 2
        measure /= measure.sum()
        previous, current, norm, rate = np.zeros(nodes), np.ones(nodes), 1.0, 0.0
        taylor_before, taylor = np.zeros(5), np.eye(5)[0]
        rows = []
        for degree in range(self.stages - 4):
            before, norm = norm, float(measure @ current**2)
            centre = float(measure @ (x * current**2)) / norm
            coupling = norm / (before * rate) if degree else 0.0
            rate = -1.0 / (centre + coupling)
            row = rate, -rate * centre, -rate * coupling
            previous, current = current, (row[0] * x + row[1]) * current + row[2] * previous
            shifted = np.concatenate([[0.0], taylor[:-1]])
            taylor_before, taylor = taylor, row[0] * shifted + row[1] * taylor + row[2] * taylor_before
            rows.append(row)
        self.recurrence = np.array(rows)
        self.taylor = np.convolve(self.weight, taylor)[:5]

    @property
    def interval(self) -> float:
        """ℓ, from R'(0) = 1."""
        return float((1.0 + self.origin) * self.taylor[1])

    @property
    def defects(self) -> Array:
        """Coefficients of z², z³ and z⁴ in R times 2, 6 and 24, less 1: zero for order four."""
        return (self.taylor / self.taylor[1] ** np.arange(5))[2:] * (2.0, 6.0, 24.0) - 1.0

    def __call__(self, x: Array) -> Array:
        """R at x, of any shape."""
        x = x - self.origin
        previous, current = np.zeros_like(x), np.ones_like(x)
        for rate, keep, before in self.recurrence:
            previous, current = current, (rate * x + keep) * current + before * previous
        return np.polynomial.polynomial.polyval(x, self.weight) * current

    def peaks(self) -> Array:
        """|R| at its first local maxima from the right, then the largest of the others; a fixed number of values."""
        angles = np.linspace(0.0, np.pi, _SAMPLES_PER_STAGE * self.stages)
        size = np.abs(self(np.cos(angles)))
        left, middle, right = size[:-2], size[1:-1], size[2:]
        inner = (middle >= left) & (middle >= right)
        left, middle, right = left[inner], middle[inner], right[inner]
        # The vertex of the parabola through three samples.
        found = np.append(middle - (right - left) ** 2 / (8.0 * (right - 2.0 * middle + left) - 1e-300), size[-1])
        count = min(_SEPARATE_PEAKS, max(1, self.stages - 8))
        first = np.zeros(count)
        first[: len(found[:count])] = found[:count]
        return np.append(first, found[count:].max(initial=0.0))


def _quadratic(real: float, imaginary: float) -> Array:
    """Coefficients of 1, x - a, (x - a)² in the quadratic with the zeros a - (p ± iq), scaled to 1 at a."""
    size = real**2 + imaginary**2
    return np.array([size, 2.0 * real, 1.0]) / size


def longest(stages: int, guess: Zeros, damping: float = DAMPING) -> Zeros:
    """Zeros for which the interval is longest, under the conditions of order four and |R| ≤ ``damping``.

    Raises
    ------
    RuntimeError
        If the optimisation does not converge from this guess.
    """
    from scipy.optimize import NonlinearConstraint, minimize

    def shortness(zeros: Array) -> float:
        return -StabilityPolynomial(stages, zeros).interval / stages**2

    found = minimize(
        shortness,
        np.array(guess),
        method="SLSQP",
        constraints=[
            NonlinearConstraint(lambda zeros: StabilityPolynomial(stages, zeros).defects, 0.0, 0.0),
            NonlinearConstraint(lambda zeros: StabilityPolynomial(stages, zeros).peaks(), -np.inf, damping),
        ],
        options={"maxiter": 200, "ftol": 1e-12},
    )
    polynomial = StabilityPolynomial(stages, found.x)
    if np.abs(polynomial.defects).max() > 1e-9 or polynomial.peaks().max() > damping + 1e-6:
        raise RuntimeError(f"no stability polynomial of {stages} stages found: {found.message}")
    p, q, p2, q2, c = found.x.tolist()
    return p, q, p2, q2, c


def stage_counts() -> list[int]:
    """Every number of stages up to 24, then some 4.5 % apart."""
    counts = list(range(5, 25))
    while counts[-1] < _MOST_STAGES:
        counts.append(round(1.045 * counts[-1] + 0.3))
    return counts


def all_zeros() -> dict[int, Zeros]:
    """Optimal zeros for every number of stages, each started from its neighbour's."""
    start, first = _FIRST_GUESS
    counts, zeros = stage_counts(), {}
    for part in ([s for s in counts if s >= start], [s for s in reversed(counts) if s < start]):
        guess = first
        for stages in part:
            zeros[stages] = guess = longest(stages, guess)
    return dict(sorted(zeros.items()))


def main() -> None:
    """Print the module `odestop.solvers.stability_zeros`."""
    print('"""Zeros of the optimal stability polynomials of order four; made by ``stability_polynomials``."""\n')
    print("ZEROS = {")
    for stages, zeros in all_zeros().items():
        print(f"    {stages}: ({', '.join(f'{value:.10f}' for value in zeros)}),")
    print("}")
    print('"""(p, q, p\', q\', c) of `StabilityPolynomial`, by the number of stages."""')


if __name__ == "__main__":
    main()
