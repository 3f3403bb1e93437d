"""Coefficients of the stabilised methods, derived for one number of stages at a time when it is first used."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from odestop.solvers.stability_polynomials import StabilityPolynomial
from odestop.solvers.stability_zeros import ZEROS

Array = np.ndarray

_RKC_DAMPING = 2.0 / 13.0
_RKC_MOST_STAGES = 250
# The free nodes of the finishing stages: small coefficients, and error terms of order five near their minimum.
_FREE_NODES = 0.24, 0.34
_ERROR_SIZE = 0.01


@dataclass(frozen=True)
class StageCoefficients:
    """Coefficients of a step of s stages.

    Attributes
    ----------
    recurrence
        One row per stage y_j = μ y_{j-1} + κ y_{j-2} + h r F(t + τ h, y_{j-1}) + α y_0 + h γ F(t, y_0), with the
        columns τ, μ, κ, r, α, γ.
    finish
        For a method that ends with stages of another kind, their coefficients in one row.
    stability_limit
        ℓ: |R(z)| ≤ 1 on [-ℓ, 0].
    """

    recurrence: Array
    finish: Array
    stability_limit: float


@functools.cache
def rkc2_counts_and_limits() -> tuple[Array, Array]:
    """Numbers of stages of RKC2, and ℓ for each of them."""
    counts = np.arange(2, _RKC_MOST_STAGES + 1)
    return _frozen(counts, _rkc2_limits(counts))


def _rkc2_limits(stages: Array | int) -> Any:
    """ℓ of RKC2, nearly 2/3 (1 - 2ε/15) s²; it is a little below the end of the interval."""
    return 2.0 / 3.0 * (stages**2 - 1) * (1.0 - 2.0 / 15.0 * _RKC_DAMPING)


def _frozen(*arrays: Array) -> Any:
    """The arrays, which many will share."""
    for array in arrays:
        array.flags.writeable = False
    return arrays


@functools.cache
def rkc2_coefficients(stages: int) -> StageCoefficients:
    """RKC2 of Sommeijer, Shampine & Verwer (1998), equations 2.4 to 2.7, by their formulas for ε = 2/13."""
    w0 = 1.0 + _RKC_DAMPING / stages**2
    value, slope, curvature = _chebyshev_polynomials(stages, w0)
    w1 = slope[stages] / curvature[stages]
    b = np.zeros(stages + 1)
    b[2:] = curvature[2:] / slope[2:] ** 2
    b[:2] = b[2]
    a = 1.0 - b * value
    rows = [(0.0, 1.0, 0.0, b[1] * w1, 0.0, 0.0)]
    before, node = 0.0, b[1] * w1
    for j in range(2, stages + 1):
        mu, nu, rate = 2.0 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2], 2.0 * b[j] * w1 / b[j - 1]
        rows.append((node, mu, nu, rate, 1.0 - mu - nu, -a[j - 1] * rate))
        before, node = node, mu * node + nu * before + rate * (1.0 - a[j - 1])
    return StageCoefficients(np.array(rows), np.empty(0), float(_rkc2_limits(stages)))


def _chebyshev_polynomials(degree: int, x: float) -> tuple[Array, Array, Array]:
    """T_j, T_j' and T_j'' at x for j ≤ degree."""
    value, slope, curvature = np.zeros((3, degree + 1))
    value[:2], slope[1] = (1.0, x), 1.0
    for j in range(2, degree + 1):
        value[j] = 2.0 * x * value[j - 1] - value[j - 2]
        slope[j] = 2.0 * value[j - 1] + 2.0 * x * slope[j - 1] - slope[j - 2]
        curvature[j] = 4.0 * slope[j - 1] + 2.0 * x * curvature[j - 1] - curvature[j - 2]
    return value, slope, curvature


@functools.cache
def rock4_counts_and_limits() -> tuple[Array, Array]:
    """Numbers of stages of ROCK4, and ℓ for each of them."""
    limits = [StabilityPolynomial(stages, zeros).interval for stages, zeros in ZEROS.items()]
    return _frozen(np.array(list(ZEROS)), np.array(limits))


# One value for each of the rooted trees with up to four nodes: τ, [τ], [τ, τ], [[τ]], [τ, τ, τ], [τ, [τ]], [[τ, τ]] and
# [[[τ]]]; those of the exact solution, and those of h F(y) from those of y.
_EXACT = np.array([1, 1 / 2, 1 / 3, 1 / 6, 1 / 4, 1 / 8, 1 / 12, 1 / 24])


def _of_slope(y: Array) -> Array:
    return np.array([1.0, y[0], y[0] ** 2, y[1], y[0] ** 3, y[0] * y[1], y[2], y[3]])


@functools.cache
def rock4_coefficients(stages: int) -> StageCoefficients:
    r"""Stages of order four with the stability polynomial R = w·P of `StabilityPolynomial`.

    The first s - 4 stages follow the recurrence of P.  The last four, a method of its own started at their end g with
    nodes c and coefficients a and b, make the order four: the conditions of the composition, less the part of the first
    stages, are Σb = m_0, Σbc = m_1, Σbc² = m_2, Σbc³ = m_3, Σba c = w_3, Σbca c = q, Σba c² = p, Σba a c = w_4.  For
    free c_2 and c_3 they are solved in closed form.

    The error estimate compares with another combination of the last five slopes, of order three.  Unlike one that uses
    F(x_1), it is bounded on the whole stability interval.  It is scaled so that this bound is near 1: a stiff mode, of
    which nothing should be left after a step, counts as what it is.
    """
    polynomial = StabilityPolynomial(stages, ZEROS[stages])
    scale = (1.0 + polynomial.origin) / polynomial.interval
    rows, before, last = [], np.zeros(8), np.zeros(8)
    slope = _of_slope(last)
    for rate, keep, previous in polynomial.recurrence:
        slope = _of_slope(last)
        rows.append((last[0], keep, previous, rate * scale, 0.0, 0.0))
        before, last = last, keep * last + previous * before + rate * scale * slope
    nodes, matrix, weights = _finishing_stages(last)
    error = _error_weights(slope, last, matrix)
    finish = np.concatenate([last[0] + nodes, matrix[np.tril_indices(4, -1)], weights, error])
    return StageCoefficients(np.array(rows), finish, polynomial.interval)


def _finishing_stages(g: Array) -> tuple[Array, Array, Array]:
    """Nodes, matrix and weights of the last four stages, from the values of g on the trees."""
    m0 = 1.0 - g[0]
    m1 = 1 / 2 - g[1] - g[0] * m0
    m2 = 1 / 3 - g[2] - 2 * g[0] * m1 - g[0] ** 2 * m0
    m3 = 1 / 4 - g[4] - 3 * g[0] * m2 - 3 * g[0] ** 2 * m1 - g[0] ** 3 * m0
    w3 = 1 / 6 - g[3] - g[1] * m0 - g[0] * m1
    q = 1 / 8 - g[5] - g[0] * (g[1] * m0 + g[0] * m1 + w3) - g[1] * m1 - g[0] * m2
    p = 1 / 12 - g[6] - g[2] * m0 - g[0] ** 2 * m1 - 2 * g[0] * w3
    w4 = 1 / 24 - g[7] - g[3] * m0 - g[1] * m1 - g[0] * w3
    c2, c3 = _FREE_NODES
    # From (Σ b_i (c_i - c_4) Σ a_ij c_j)(Σ b_i Σ a_ij c_j (c_j - c_2)) = w_4 Σ b_i c_i (c_i - c_2)(c_i - c_4).
    first = p - c2 * w3
    c4 = (first * q - w4 * (m3 - c2 * m2)) / (first * w3 - w4 * (m2 - c2 * m1))
    nodes = np.array([0.0, c2, c3, c4])
    weights = np.linalg.solve(np.vander(nodes, increasing=True).T, [m0, m1, m2, m3])
    d3, d4 = np.linalg.solve([weights[2:], weights[2:] * nodes[2:]], [w3, q])
    a32, a43 = d3 / c2, w4 / (weights[3] * d3)
    a42 = (d4 - a43 * c3) / c2
    matrix = np.zeros((4, 4))
    matrix[1, 0] = c2
    matrix[2, :2] = c3 - a32, a32
    matrix[3, :3] = c4 - a42 - a43, a42, a43
    return nodes, matrix, weights


def _error_weights(slope: Array, g: Array, matrix: Array) -> Array:
    """Combination of the recurrence's last slope and those of the last four stages that vanishes to order three."""
    slopes = [slope]
    for row in matrix:
        slopes.append(_of_slope(g + sum(a * known for a, known in zip(row, slopes[1:], strict=False))))
    trees = np.array(slopes).T
    error = np.linalg.svd(trees[:4])[2][-1]
    # Symmetric trees count once for all orders of their branches.
    size = np.linalg.norm(trees[4:] @ error / (6.0, 1.0, 2.0, 1.0))
    return error * (_ERROR_SIZE / size)
