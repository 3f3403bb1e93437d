"""Butcher tableaus of the explicit Runge-Kutta methods, with their error weights and dense output.

A method with s stages k_1 … k_s is written with one more slope, k_{s+1} = F(t + h, x_1), the derivative at the end of
the step: methods of the first-same-as-last kind need it anyway, and every other method reuses it as the next step's k_1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

Row = tuple[float, ...]


def _row(*entries: str | int) -> Row:
    """Exact fractions, rounded once."""
    return tuple(float(Fraction(entry)) for entry in entries)


@dataclass(frozen=True)
class ButcherTableau:
    """Coefficients of an explicit embedded Runge-Kutta method.

    Attributes
    ----------
    order
        Order of the solution that is propagated.
    error_order
        Order of the embedded solution it is compared with.
    nodes
        c_i, one per stage.
    matrix
        a_ij, row i has i - 1 entries.
    weights
        b_i, one per stage.
    error_weights
        b_i minus the embedded weights, one per stage and one for the end slope.
    interpolant
        Row i holds the coefficients of s, s², … of the polynomial b_i(s), one row per stage and one for the end slope:
        x(t + s h) ≈ x + h Σ b_i(s) k_i.
    stability_limit
        β: |R(z)| ≤ 1 on the real interval [-β, 0].
    """

    order: int
    error_order: int
    nodes: Row
    matrix: tuple[Row, ...]
    weights: Row
    error_weights: Row
    interpolant: tuple[Row, ...]
    stability_limit: float


def _dormand_prince_interpolant(weights: Row, correction: Row) -> tuple[Row, ...]:
    """Expand Shampine's nested form of the 4th-order dense output into powers of s.

    x(s) = x + s(Δ + (1-s)(h k_1 - Δ + s(2Δ - h(k_1 + k_7) + (1-s) h Σ d_i k_i))),  Δ = h Σ b_i k_i.
    """
    rows = []
    for index, (b, d) in enumerate(zip((*weights, 0.0), correction, strict=True)):
        first = 1.0 if index == 0 else 0.0
        last = 1.0 if index == len(weights) else 0.0
        second = first - b
        third = 2.0 * b - first - last
        rows.append((b + second, third + d - second, -third - 2.0 * d, d))
    return tuple(rows)


_DORMAND_PRINCE_WEIGHTS = _row("35/384", 0, "500/1113", "125/192", "-2187/6784", "11/84")

DORMAND_PRINCE_5 = ButcherTableau(
    order=5,
    error_order=4,
    nodes=_row(0, "1/5", "3/10", "4/5", "8/9", 1),
    matrix=(
        (),
        _row("1/5"),
        _row("3/40", "9/40"),
        _row("44/45", "-56/15", "32/9"),
        _row("19372/6561", "-25360/2187", "64448/6561", "-212/729"),
        _row("9017/3168", "-355/33", "46732/5247", "49/176", "-5103/18656"),
    ),
    weights=_DORMAND_PRINCE_WEIGHTS,
    error_weights=_row("71/57600", 0, "-71/16695", "71/1920", "-17253/339200", "22/525", "-1/40"),
    interpolant=_dormand_prince_interpolant(
        _DORMAND_PRINCE_WEIGHTS,
        _row(
            "-12715105075/11282082432",
            0,
            "87487479700/32700410799",
            "-10690763975/1880347072",
            "701980252875/199316789632",
            "-1453857185/822651844",
            "69997945/29380423",
        ),
    ),
    stability_limit=3.3066,
)
"""Dormand & Prince (1980), order 5(4), six stages and the end slope; dense output of order 4 (Shampine, 1986)."""
